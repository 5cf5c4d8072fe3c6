"""repodata.json and repodata_from_packages.json: every record of a subdir in one document. Pure.

A document is brought up to date by replacing the records of the names that changed; all others are
kept as they are.

Source: CEP 36 (repodata), CEP 48 (``v3``); the form is conda-index's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError
from lambdas.channel.names import PackageName, Subdir, parse_filename
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.spliced.segments import Entries, Summary
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import FLAT_SECTIONS, Shard

Repodata = dict[str, Any]

V3_KINDS: Final = ("conda", "tar.bz2")
SEGMENT_BYTES: Final = 1024 * 1024  # docs/performance.md has the measurements


def make_repodata(subdir: Subdir) -> Repodata:
    """Return the document of a subdir that holds nothing: all sections are there (CEP 36)."""
    return {
        "info": {"subdir": subdir},
        "packages": {},
        "packages.conda": {},
        "removed": [],
        "repodata_version": 1,
    }


def apply_to_repodata(document: Repodata, shards: Mapping[PackageName, Shard | None]) -> Repodata:
    """Return the document after the records of some names were replaced; the input is untouched.

    ``run_exports`` are left out: flat documents have a file for them.

    Raises:
        InvalidDocumentError: the document is no repodata.
    """
    try:
        result = {**document, "info": dict(document["info"])}
        for section in FLAT_SECTIONS:
            kept = {filename: record for filename, record in document[section].items() if record["name"] not in shards}
            for shard in shards.values():
                if shard is not None:
                    kept |= {name: _flat(record) for name, record in shard.section(section).items()}
            result[section] = kept
        result["removed"] = apply_to_removed(document["removed"], shards)
        v3 = _apply_to_v3(document.get("v3", {}), shards)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"not a repodata document: {error!r}") from error
    result.pop("v3", None)
    result["info"].pop("repodata_revisions", None)
    if v3:
        result["v3"] = v3
        result["info"]["repodata_revisions"] = {"v3": _describe_revision(v3)}
    return result


def iter_repodata(document: Repodata) -> Iterator[tuple[str, Record]]:
    """Yield every record with its filename, version 3 records too."""
    for section in FLAT_SECTIONS:
        yield from document[section].items()
    for kind, records in document.get("v3", {}).items():
        for stem, record in records.items():
            yield f"{stem}.{kind}", record


class RepodataForm:
    """The layout of a large document: keys have the same order as in a small one."""

    sections = (*FLAT_SECTIONS, *(f"v3.{kind}" for kind in V3_KINDS))
    segment_bytes = SEGMENT_BYTES
    is_compressed = True

    def name_of(self, key: str) -> str:
        """Return the name in a filename, with or without its extension."""
        return key.rsplit("-", 2)[0]

    def time_of(self, value: Any) -> int:  # noqa: ANN401 - a record
        """Return when the artifact was indexed."""
        return int(value["indexed_timestamp"])

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:
        """Return the text around the sections; ``v3`` is present if it has records."""
        conda, tar_bz2 = (sections[f"v3.{kind}"] for kind in V3_KINDS)
        info = dict(header["info"])
        if conda.count or tar_bz2.count:
            filled = [summary for summary in (conda, tar_bz2) if summary.count]
            info["repodata_revisions"] = {
                "v3": {
                    "n_packages": conda.count + tar_bz2.count,
                    "oldest": min(summary.oldest for summary in filled),
                    "newest": max(summary.newest for summary in filled),
                }
            }
        removed = encode_json(header["removed"])
        return (
            b'{"info":' + encode_json(info) + b',"packages":{',
            b'},"packages.conda":{',
            b'},"removed":' + removed + b',"repodata_version":1' + (b',"v3":{"conda":{' if conda.count else b""),
            (b"}" if conda.count else b"")
            + (b',"tar.bz2":{' if conda.count else b',"v3":{"tar.bz2":{') * bool(tar_bz2.count),
            b"}}}" if tar_bz2.count else b"}}" if conda.count else b"}",
        )

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the records of a section."""
        if section in FLAT_SECTIONS:
            return dict(document[section])
        return dict(document.get("v3", {}).get(section.removeprefix("v3."), {}))

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that are not computed from records."""
        info = {key: value for key, value in skeleton["info"].items() if key != "repodata_revisions"}
        return {"info": info, "removed": skeleton["removed"]}


def repodata_entries(shard: Shard) -> Entries:
    """Return the entries of a shard, by section of ``RepodataForm``."""
    entries = {
        section: {key: _flat(record) for key, record in shard.section(section).items()} for section in FLAT_SECTIONS
    }
    return entries | {
        f"v3.{kind}": {stem: _flat(record) for stem, record in records.items()} for kind, records in shard.v3.items()
    }


def apply_to_removed(removed: Iterable[str], shards: Mapping[PackageName, Shard | None]) -> list[str]:
    """Return ``removed`` after some names were replaced."""
    return sorted(
        [filename for filename in removed if _name_of(filename) not in shards]
        + [filename for shard in shards.values() if shard is not None for filename in shard.removed]
    )


def _apply_to_v3(
    v3: Mapping[str, Mapping[str, Record]], shards: Mapping[PackageName, Shard | None]
) -> dict[str, dict[str, Record]]:
    result: dict[str, dict[str, Record]] = {}
    for kind, records in v3.items():
        result[kind] = {stem: record for stem, record in records.items() if record["name"] not in shards}
    for shard in shards.values():
        for kind, records in (shard.v3 if shard is not None else {}).items():
            result.setdefault(kind, {}).update({stem: _flat(record) for stem, record in records.items()})
    return {kind: records for kind, records in result.items() if records}


def _describe_revision(v3: Mapping[str, Mapping[str, Record]]) -> dict[str, int]:
    times = [record["indexed_timestamp"] for records in v3.values() for record in records.values()]
    return {"n_packages": len(times), "oldest": min(times), "newest": max(times)}


def _flat(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "run_exports"}


def _name_of(filename: str) -> str:
    try:
        return parse_filename(filename).name
    except InvalidNameError:
        return ""
