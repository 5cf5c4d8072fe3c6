"""run_exports.json: what each package exports to those built against it. Pure.

Source: CEP 12; every package is listed, with ``{}`` where it exports nothing.
"""

from collections.abc import Mapping
from typing import Any

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError
from lambdas.channel.names import PackageName, Subdir, parse_filename
from lambdas.indexer.tree import FLAT_SECTIONS, Shard, iter_records

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
                filename: entry
                for filename, entry in document[section].items()
                if parse_filename(filename).name not in shards
            }
            for section in FLAT_SECTIONS
        }
    except (KeyError, AttributeError, InvalidNameError) as error:
        raise InvalidDocumentError(f"not a run_exports document: {error!r}") from error
    for shard in shards.values():
        if shard is None:
            continue
        for filename, record in iter_records(shard):
            section = "packages.conda" if filename.endswith(".conda") else "packages"
            sections[section][filename] = {"run_exports": record["run_exports"]}
    return {**document, **sections}
