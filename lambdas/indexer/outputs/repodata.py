"""repodata.json and repodata_from_packages.json: every record of a subdir in one document. Pure.

Source: CEP 36 (repodata), CEP 48 (``v3``); the form is conda-index's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lambdas.channel.artifact_kinds import flat_sections, name_of, stem_name, v3_kinds, v3_section
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.outputs.form import WholeDocument
from lambdas.indexer.spliced.segments import Entries, Summary
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import Shard

SEGMENT_BYTES: Final = 1024 * 1024  # docs/performance.md has the measurements


class RepodataForm:
    """The records of a subdir, without ``run_exports``: flat documents have a file for those."""

    segment_bytes = SEGMENT_BYTES
    is_compressed = True

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of both levels, in the order in which they are written."""
        return (*flat_sections(), *(v3_section(kind) for kind in v3_kinds()))

    def name_of(self, section: str, key: str) -> str:
        """Return the name in a filename or, under ``v3``, in a stem."""
        if section in flat_sections():
            return name_of(key)
        return next((stem_name(key, kind) for kind in v3_kinds() if v3_section(kind) == section), "")

    def time_of(self, value: Any) -> int:  # noqa: ANN401 - a record
        """Return when the artifact was indexed."""
        return int(value["indexed_timestamp"])

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:
        """Return the text around the sections; a section under ``v3`` is present if it has records."""
        info = dict(header["info"])
        filled = [sections[v3_section(kind)] for kind in v3_kinds() if sections[v3_section(kind)].count]
        if filled:
            info["repodata_revisions"] = {
                "v3": {
                    "n_packages": sum(summary.count for summary in filled),
                    "oldest": min(summary.oldest for summary in filled),
                    "newest": max(summary.newest for summary in filled),
                }
            }
        separators = [b'{"info":' + encode_json(info) + b","]
        for section in flat_sections():
            separators[-1] += encode_json(section) + b":{"
            separators.append(b"},")
        separators[-1] += b'"removed":' + encode_json(header["removed"]) + b',"repodata_version":1'
        is_open = False
        for kind in v3_kinds():
            if sections[v3_section(kind)].count:
                separators[-1] += (b"," if is_open else b',"v3":{') + encode_json(kind.v3_section) + b":{"
                separators.append(b"}")
                is_open = True
            else:
                separators.append(b"")
        separators[-1] += b"}}" if is_open else b"}"
        return separators

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the records of a section."""
        entries: Mapping[str, Any]
        if section in flat_sections():
            entries = document[section]
        else:
            entries = document.get("v3", {}).get(section.removeprefix("v3."), {})
        return entries

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that are not computed from records."""
        info = {key: value for key, value in skeleton["info"].items() if key != "repodata_revisions"}
        return {"info": info, "removed": skeleton["removed"]}

    def empty_header(self, subdir: SubdirName) -> dict[str, Any]:
        """Return the header of a subdir without records."""
        return {"info": {"subdir": subdir}, "removed": []}

    def entries_of(self, shard: Shard) -> Entries:
        """Return the records of a shard."""
        entries = {section: _without_run_exports(records) for section, records in shard.flat.items()}
        return entries | {f"v3.{section}": _without_run_exports(records) for section, records in shard.v3.items()}

    def apply_to_header(
        self, header: Mapping[str, Any], shards: Mapping[PackageName, Shard | None]
    ) -> Mapping[str, Any]:
        """Return the header after some names were replaced: patches remove records of a name."""
        return {**header, "removed": apply_to_removed(header["removed"], shards)}


def iter_repodata(document: WholeDocument) -> Iterator[tuple[str, Record]]:
    """Yield every record with its filename, version 3 records too."""
    for section in flat_sections():
        yield from document.sections[section].items()
    for kind in v3_kinds():
        for stem, record in document.sections[v3_section(kind)].items():
            yield f"{stem}{kind.extension}", record


def filename_of(section: str, key: str) -> str:
    """Return the filename of a record in a section of ``RepodataForm``."""
    return next((f"{key}{kind.extension}" for kind in v3_kinds() if v3_section(kind) == section), key)


def apply_to_removed(removed: Iterable[str], shards: Mapping[PackageName, Shard | None]) -> list[str]:
    """Return ``removed`` after some names were replaced."""
    return sorted(
        [filename for filename in removed if name_of(filename) not in shards]
        + [filename for shard in shards.values() if shard is not None for filename in shard.removed]
    )


def _without_run_exports(records: Mapping[str, Record]) -> dict[str, Record]:
    return {
        key: {name: value for name, value in record.items() if name != "run_exports"} for key, record in records.items()
    }
