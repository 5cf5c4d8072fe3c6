"""run_exports.json: what each package exports to those built against it. Pure.

Source: CEP 12; every package is listed, with ``{}`` where it exports nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, Subdir
from lambdas.indexer.spliced.segments import Entries, Summary
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import FLAT_SECTIONS, Shard, iter_records

RunExports = dict[str, Any]


def make_run_exports(subdir: Subdir) -> RunExports:
    """Return the document of a subdir that holds nothing."""
    return {"info": {"subdir": subdir, "version": 1}, "packages": {}, "packages.conda": {}}


def apply_to_run_exports(document: RunExports, shards: Mapping[PackageName, Shard | None]) -> RunExports:
    """Return the document after the entries of some names were replaced; the input is untouched.

    Raises:
        InvalidDocumentError: the document is none of CEP 12.
    """
    try:
        sections = {
            section: {
                filename: entry for filename, entry in document[section].items() if _name_of(filename) not in shards
            }
            for section in FLAT_SECTIONS
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"not a run_exports document: {error!r}") from error
    for shard in shards.values():
        if shard is None:
            continue
        for filename, record in iter_records(shard):
            section = "packages.conda" if filename.endswith(".conda") else "packages"
            sections[section][filename] = {"run_exports": record["run_exports"]}
    return {**document, **sections}


def _name_of(filename: str) -> str:
    return filename.rsplit("-", 2)[0]  # they were parsed when they came in: 100,000 of them take a second


class RunExportsForm:
    """The layout of a large document: keys have the same order as in a small one."""

    sections = FLAT_SECTIONS
    segment_bytes = 256 * 1024  # entries are short and alike: small segments cost next to nothing
    is_compressed = True

    def name_of(self, key: str) -> str:
        """Return the name in a filename."""
        return _name_of(key)

    def time_of(self, value: Any) -> int:  # noqa: ANN401, ARG002 - an entry, which has no time
        """Return 0: entries have no time."""
        return 0

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:  # noqa: ARG002 - not needed here
        """Return the text around the sections."""
        return b'{"info":' + encode_json(header["info"]) + b',"packages":{', b'},"packages.conda":{', b"}}"

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the entries of a section."""
        return dict(document[section])

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields outside the sections."""
        return {"info": skeleton["info"]}


def run_exports_entries(shard: Shard) -> Entries:
    """Return the entries of a shard, by section of ``RunExportsForm``."""
    entries: dict[str, dict[str, Any]] = {section: {} for section in FLAT_SECTIONS}
    for filename, record in iter_records(shard):
        section = "packages.conda" if filename.endswith(".conda") else "packages"
        entries[section][filename] = {"run_exports": record["run_exports"]}
    return entries
