"""channeldata.json: what a channel says of each package name, over all subdirs. Pure.

It is made in two steps: a *part* says what one subdir says of some names, made of their shards and
cards alone, and the channel's document is the merge of the parts. Both steps give the same bytes in
whatever order artifacts arrived.

Source: CEP 38 (channel-wide metadata); conda-index's ``_update_channeldata`` is the reference.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lambdas.channel.artifact_kinds import CONDA, kind_of
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.artifacts.texts import cut_text
from lambdas.indexer.artifacts.versions import version_key
from lambdas.indexer.spliced.segments import Summary
from lambdas.indexer.tree.cards import Card, Cards
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import Shard, iter_records

ChannelPart = dict[str, Any]
"""``{"subdir": …, "packages": {name: entry}}``; an entry has CEP 38's fields, and ``newest``."""

_NEWEST_WINS: Final = (
    "description", "dev_url", "doc_url", "doc_source_url", "home", "license", "source_url", "source_git_url",
    "summary", "icon_url", "icon_hash", "tags", "identifiers", "keywords", "recipe_origin", "version",
)  # fmt: skip
_ANY_WINS: Final = ("binary_prefix", "text_prefix", "activate.d", "deactivate.d", "pre_link", "post_link", "pre_unlink")
_MAX_TIMESTAMP_S: Final = 253402300799  # 9999-12-31: what is larger is in milliseconds


def make_part(subdir: SubdirName) -> ChannelPart:
    """Return the part of a subdir that holds nothing."""
    return {"subdir": subdir, "packages": {}}


def apply_to_part(part: ChannelPart, entries: Mapping[PackageName, dict[str, Any] | None]) -> ChannelPart:
    """Return the part after the entries of some names were replaced; the input is untouched.

    Raises:
        InvalidDocumentError: it is not a part.
    """
    try:
        kept = {name: entry for name, entry in part["packages"].items() if name not in entries}
    except (KeyError, AttributeError) as error:
        raise InvalidDocumentError(f"not a channel part: {error!r}") from error
    return {**part, "packages": kept | {name: entry for name, entry in entries.items() if entry is not None}}


def make_entry(subdir: SubdirName, shard: Shard, cards: Cards) -> dict[str, Any] | None:
    """Return what one subdir says of one name, or None where readers see no artifact of it.

    The shard says what readers see (patches applied, yanked artifacts gone), the cards the rest.
    """
    visible = dict(iter_records(shard))
    if not visible:
        return None
    by_version: dict[str, tuple[tuple[int, bool, str], Record, Card | None]] = {}
    for filename, record in visible.items():
        rank = (_seconds(record.get("timestamp")), kind_of(filename) is CONDA, filename)
        version = record["version"]
        if version not in by_version or rank > by_version[version][0]:
            by_version[version] = (rank, record, cards.get(filename))
    entry: dict[str, Any] = {"subdirs": [subdir], "run_exports": {}}
    for version in sorted(by_version, key=version_key):
        _, record, card = by_version[version]
        _fold(entry, {**(card.facts if card is not None else {}), **record})
        if record["run_exports"]:
            entry["run_exports"][version] = record["run_exports"]
    entry["timestamp"] = max(_seconds(record.get("timestamp")) for record in visible.values())
    newest = max(visible, key=lambda filename: (visible[filename]["indexed_timestamp"], filename))
    entry["newest"] = {
        "filename": newest,
        "version": visible[newest]["version"],
        "indexed_timestamp": visible[newest]["indexed_timestamp"],
    }
    return entry


def merge_parts(parts: Iterable[ChannelPart]) -> dict[str, Any]:
    """Return channeldata.json of a channel out of the parts of its subdirs.

    Each entry still has ``newest`` (with its subdir), for the feed and the pages; ``format_channeldata``
    leaves it out.

    Raises:
        InvalidDocumentError: one of them is no part.
    """
    packages: dict[str, dict[str, Any]] = {}
    subdirs = []
    try:
        for part in sorted(parts, key=lambda part: str(part["subdir"])):
            subdirs.append(part["subdir"])
            for name, entry in part["packages"].items():
                packages[name] = _merge_entries(packages.get(name), entry, part["subdir"])
    except (KeyError, AttributeError, TypeError) as error:
        raise InvalidDocumentError(f"not a channel part: {error!r}") from error
    return {"channeldata_version": 1, "subdirs": subdirs, "packages": packages}


def format_channeldata(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as published: CEP 38's fields alone."""
    return {
        **merged,
        "packages": {name: format_entry(entry) for name, entry in merged["packages"].items()},
    }


def format_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is published of one name."""
    return {key: value for key, value in entry.items() if key != "newest"}


class ChanneldataForm:
    """The layout of a large document: keys have the same order as in a small one."""

    sections = ("packages",)
    segment_bytes = 256 * 1024
    is_compressed = False

    def name_of(self, section: str, key: str) -> str:  # noqa: ARG002 - one section
        """Return the name, which is the key."""
        return key

    def time_of(self, value: Any) -> int:  # noqa: ANN401, ARG002 - an entry, whose time is not needed
        """Return 0: the time of an entry is not needed."""
        return 0

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:  # noqa: ARG002 - not needed here
        """Return the text around the names."""
        return b'{"channeldata_version":1,"packages":{', b'},"subdirs":' + encode_json(header["subdirs"]) + b"}\n"

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the entries by name."""
        entries: Mapping[str, Any] = document[section]
        return entries

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields outside the section."""
        return {"subdirs": skeleton["subdirs"]}


def _merge_entries(ours: dict[str, Any] | None, theirs: Mapping[str, Any], subdir: SubdirName) -> dict[str, Any]:
    newest = {**theirs["newest"], "subdir": subdir}
    if ours is None:
        return {**theirs, "newest": newest, "run_exports": dict(theirs["run_exports"])}
    merged = dict(ours)
    _fold(merged, theirs)
    merged["subdirs"] = sorted({*ours["subdirs"], *theirs["subdirs"]})
    merged["run_exports"] = ours["run_exports"] | theirs["run_exports"]
    merged["timestamp"] = max(ours["timestamp"], theirs["timestamp"])
    merged["newest"] = max(ours["newest"], newest, key=lambda one: (one["indexed_timestamp"], one["filename"]))
    return merged


def _fold(entry: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Take what is newer, or what was missing."""
    existing = entry.get("version", "0")
    newer = version_key(existing) < version_key(data["version"]) or (
        existing == data["version"] and entry.get("timestamp", 0) < _seconds(data.get("timestamp"))
    )
    for key in _NEWEST_WINS:
        if data.get(key) and (newer or not entry.get(key)):
            entry[key] = cut_text(key, data[key])
    for key in _ANY_WINS:
        entry[key] = bool(entry.get(key)) or bool(data.get(key))


def _seconds(timestamp: object) -> int:
    if not isinstance(timestamp, int):
        return 0
    return timestamp // 1000 if timestamp > _MAX_TIMESTAMP_S else timestamp
