"""Brings what a channel says of all its subdirs up to date: channeldata.json, the feed, the page.

Each shows one commit of every subdir. Beside them lies a private *state* that says which, with the
names that were published last; channeldata.json names its state, and the state is stored first. To
catch up, the commits are compared, and the names that differ are made again from the shards and cards
of every subdir that has them: so it does not matter whose turn comes first, or how often.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, InvalidNameError, VanishedError
from lambdas.channel.names import PRIVATE_PREFIX, Channel, PackageName, SubdirId, parse_subdir
from lambdas.indexer.outputs.channeldata import (
    ChanneldataForm,
    format_entry,
    make_entry,
    merge_parts,
)
from lambdas.indexer.outputs.feed import format_feed
from lambdas.indexer.outputs.newest import NameRow, apply_to_newest_names, find_newest_names
from lambdas.indexer.outputs.pages import MAX_ROWS, format_channel_page
from lambdas.indexer.spliced.files import (
    LARGE_CHANNELDATA_BYTES,
    TABLES,
    Source,
    Tables,
    fetch_tables,
    put_tables,
    read_plain_chunk,
    write_plain,
)
from lambdas.indexer.spliced.segments import (
    SegmentedDocument,
    apply_entries,
    format_table,
    parse_table,
    segment_document,
    segment_entries,
)
from lambdas.indexer.tree.commit import Commit, fetch_cards, fetch_commit, fetch_shards
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.shard_index import SHARD_INDEX, diff_indexes, empty_index
from lambdas.indexer.tree.shards import Shard
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import (
    CACHE_CONTROL_METADATA,
    ContentHeaders,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
)

SHOWN: Final = "fairway-shown"
"""The attribute that says which commits a file shows, as one hash."""
STATE_COLLECTION: Final = "channeldata"

CHANNELDATA: Final = "channeldata.json"
FEED: Final = "rss.xml"
PAGE: Final = "index.html"

_CONTENT_TYPES: Final = {
    CHANNELDATA: "application/json",
    FEED: "application/rss+xml; charset=utf-8",
    PAGE: "text/html; charset=utf-8",
}
FILES: Final = tuple(_CONTENT_TYPES)
_FORM: Final = ChanneldataForm()
_NAMES: Final = 256  # that are read at a time where all are read
_Entry = dict[str, Any]


def project_channel(
    storage: ObjectStorage, channel: Channel, *, url: str, may_defer: bool = False, is_rebuild: bool = False
) -> bool:
    """Bring the three files of a channel up to date with the commits of its subdirs.

    With ``may_defer``, that is left for later where channeldata.json is large; return whether it was.
    With ``is_rebuild``, they are made again whatever is there.

    Raises:
        ConflictError: another writer was quicker: do it again.
    """
    # What is replaced is looked at before the commits: who reads commits later, writes later or loses.
    found = dict(zip(FILES, in_parallel(lambda name: storage.head(f"{channel}/{name}"), FILES), strict=True))
    paths = list(_list_subdirs(storage, channel))
    etags = fetch_etags(storage, paths)
    if not is_rebuild and not _find_behind(found, hash_shown(etags)):
        return False
    channeldata = found[CHANNELDATA]
    if may_defer and channeldata is not None and channeldata.size > LARGE_CHANNELDATA_BYTES:
        return True
    try:
        projector = ChannelProjector(storage=storage, channel=channel, url=url, found=found, is_rebuild=is_rebuild)
        projector.project([path for path in paths if path.subdir in etags])
    except VanishedError as error:
        raise ConflictError(f"a file of {channel} was replaced while it was read") from error
    # What we wrote may have gone over what a later one wrote: an ETag says which bytes are there,
    # and the same bytes come back when a change is taken back. So whoever wrote looks once more.
    if fetch_etags(storage, paths) != etags:
        raise ConflictError(f"a subdir of {channel} has a newer commit")
    return False


@dataclass(kw_only=True, slots=True)
class _Document:
    """channeldata.json at the commits: whole if it is small, segmented if it is large."""

    packages: Mapping[str, Any] | None = None
    segmented: SegmentedDocument | None = None
    source: Source | None = None
    newest: Sequence[NameRow] = ()

    @property
    def total(self) -> int:
        if self.segmented is not None:
            return self.segmented.table.count
        return len(self.packages or {})


@dataclass(kw_only=True)
class ChannelProjector:
    """Brings the files of one channel to the commits of its subdirs."""

    storage: ObjectStorage
    channel: Channel
    url: str
    found: Mapping[str, ObjectInfo | None]
    is_rebuild: bool = False
    """Write everything again, whatever is there."""
    commits: dict[SubdirId, Commit] = field(default_factory=dict)

    def project(self, paths: Sequence[SubdirId]) -> None:
        """Write what does not show the commits yet.

        Raises:
            ConflictError: another writer was quicker: do it again.
        """
        commits = in_parallel(self._fetch_commit, paths)
        self.commits = dict(zip(paths, commits, strict=True))
        shown: dict[str, str | None] = {path.subdir: commit.etag for path, commit in self.commits.items()}
        behind = list(self.found) if self.is_rebuild else _find_behind(self.found, hash_shown(shown))
        if not behind:
            return
        document = (None if self.is_rebuild else self._advance()) or self._make()
        subdirs = sorted(path.subdir for path in self.commits)
        metadata = {SHOWN: hash_shown(shown)}
        if CHANNELDATA in behind:
            self._put_channeldata(document, subdirs, metadata)
        merged = {"subdirs": subdirs, "packages": dict(document.newest)}
        if FEED in behind:
            self._put(FEED, format_feed(self.channel, merged, url=self.url), metadata)
        if PAGE in behind:
            page = format_channel_page(self.channel, merged, url=self.url, total=document.total)
            self._put(PAGE, page, metadata)

    def _fetch_commit(self, path: SubdirId) -> Commit:
        """Read a commit; one that is damaged counts as empty until it is made again."""
        try:
            return fetch_commit(self.storage, path)
        except InvalidDocumentError:  # one subdir's damage is no reason to keep the others waiting
            info = self.storage.head(path.key(SHARD_INDEX))
            if info is None:
                raise ConflictError(f"{path} changed meanwhile") from None
            return Commit(index=empty_index(path.subdir), etag=info.etag, version=info.version)

    def _advance(self) -> _Document | None:
        """Replace the names that changed; None where all is to be made again."""
        info = self.found[CHANNELDATA]
        if info is None or TABLES not in info.metadata:
            return None
        state = fetch_tables(self.storage, self._state_key(), info)
        names = None if state is None else self._diff(state.shown)
        if state is None or names is None:
            return None
        try:
            return self._apply(info, state, names)
        except (InvalidDocumentError, KeyError, TypeError, AttributeError):
            return None  # somebody else's file under our name

    def _apply(self, info: ObjectInfo, state: Tables, names: Sequence[PackageName]) -> _Document | None:
        merged = self._merge(names)
        entries = {str(name): merged.get(name) for name in names}
        if CHANNELDATA in state.tables:
            source = Source(info=info, table=parse_table(state.tables[CHANNELDATA], _FORM))
            document = self._apply_to_table(source, entries)
            total = source.table.count
        else:
            stored = self.storage.get(info.key, version=info.version)
            if stored is None or stored.info.etag != info.etag:
                raise ConflictError(f"{info.key!r} was replaced meanwhile")
            before: dict[str, Any] = decode_json(stored.body, what=info.key)["packages"]
            total = len(before)
            after = {name: value for name, value in before.items() if name not in entries}
            after |= {name: format_entry(entry) for name, entry in entries.items() if entry is not None}
            document = _Document(packages=after)
        if document is None:
            return None
        newest = [(name, entry) for name, entry in state.newest]
        document.newest = apply_to_newest_names(newest, entries, total=total)
        return None if len(document.newest) < min(MAX_ROWS, document.total) else document

    def _apply_to_table(self, source: Source, entries: Mapping[str, _Entry | None]) -> _Document | None:
        segmented = apply_entries(
            _FORM,
            source.table,
            {name: None if entry is None else _entries_of(name, entry) for name, entry in entries.items()},
            {"subdirs": sorted(path.subdir for path in self.commits)},
            lambda chunk: read_plain_chunk(self.storage, source, chunk),
        )
        if segmented.table.text_bytes < LARGE_CHANNELDATA_BYTES // 2:
            return None
        return _Document(segmented=segmented, source=source)

    def _diff(self, shown: Mapping[str, Any]) -> list[PackageName] | None:
        """Return the names that differ in any subdir; None where a commit that was shown is forgotten."""
        names: set[PackageName] = set()
        known = {path.subdir: commit for path, commit in self.commits.items()}
        if not shown.keys() <= known.keys():
            return None  # a subdir is gone
        for path, commit in self.commits.items():
            etag, version = shown.get(path.subdir, (None, None))
            if etag == commit.etag:
                continue
            if etag is None:
                names |= commit.index.shards.keys()
                continue
            try:
                old = fetch_commit(self.storage, path, version=version) if version else None
            except InvalidDocumentError:
                return None
            if old is None or old.etag is None:
                return None
            names |= diff_indexes(old.index, commit.index).names
        return sorted(names)

    def _make(self) -> _Document:
        """Make everything again from the tree."""
        names = sorted({name for commit in self.commits.values() for name in commit.index.shards})
        newest: list[NameRow] = []
        held: dict[str, Any] = {}
        size = 0

        def iter_entries() -> Iterator[tuple[str, _Entry]]:
            nonlocal newest
            for start in range(0, len(names), _NAMES):
                merged = self._merge(names[start : start + _NAMES])
                rows = find_newest_names(merged.items())
                newest = find_newest_names([*newest, *rows])  # rows are entries, with less in them
                yield from sorted(merged.items())

        entries = iter_entries()
        for name, entry in entries:
            held[name] = format_entry(entry)
            size += len(encode_json(held[name]))
            if size > LARGE_CHANNELDATA_BYTES:
                break
        if size <= LARGE_CHANNELDATA_BYTES:
            return _Document(packages=held, newest=newest)
        header = {"subdirs": sorted(path.subdir for path in self.commits)}

        def everything() -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
            for name, value in held.items():
                yield name, {"packages": {name: value}}
            for name, entry in entries:
                yield name, _entries_of(name, entry)

        segmented = segment_entries(_FORM, everything(), header)
        return _Document(segmented=segmented, newest=newest)

    def _merge(self, names: Sequence[PackageName]) -> dict[str, _Entry]:
        """Return what all subdirs together say of some names, with ``newest``."""
        parts = []
        for path, commit in self.commits.items():
            wanted = [name for name in names if name in commit.index.shards]
            shards = dict(zip(wanted, in_parallel(self._reader(path, commit), wanted), strict=True))
            cards = fetch_cards(self.storage, path, commit.index, wanted)
            entries = {
                name: entry
                for name, shard in shards.items()
                if shard is not None and (entry := make_entry(path.subdir, shard, cards[name] or {})) is not None
            }
            parts.append({"subdir": path.subdir, "packages": entries})
        merged: dict[str, _Entry] = merge_parts(parts)["packages"]
        return merged

    def _reader(self, path: SubdirId, commit: Commit) -> Callable[[PackageName], Shard | None]:
        def read(name: PackageName) -> Shard | None:
            try:
                return fetch_shards(self.storage, path, commit.index, [name])[name]
            except InvalidDocumentError:
                return None  # one subdir's damage is no reason to keep the others waiting

        return read

    def _put_channeldata(self, document: _Document, subdirs: Sequence[str], metadata: Mapping[str, str]) -> None:
        body = b""
        if document.segmented is None:
            whole = {"channeldata_version": 1, "packages": document.packages, "subdirs": subdirs}
            body = encode_json(whole) + b"\n"  # as conda-index ends it
            if len(body) > LARGE_CHANNELDATA_BYTES:
                document.segmented = segment_document(_FORM, whole)
        shown = {str(path.subdir): (commit.etag, commit.version) for path, commit in self.commits.items()}
        table = {} if document.segmented is None else {CHANNELDATA: format_table(document.segmented.table)}
        state = put_tables(self.storage, self._state_key(), Tables(tables=table, newest=document.newest, shown=shown))
        if document.segmented is None:
            self._put(CHANNELDATA, body, {**metadata, TABLES: state})
            return
        write_plain(
            self.storage,
            f"{self.channel}/{CHANNELDATA}",
            document.segmented,
            base=self.found[CHANNELDATA],
            old=None if document.source is None else document.source.table,
            compressed=None,
            headers=_headers(CHANNELDATA),
            metadata={**metadata, TABLES: state},
        )

    def _put(self, name: str, body: bytes, metadata: Mapping[str, str]) -> None:
        info = self.found[name]
        self.storage.put(
            f"{self.channel}/{name}",
            body,
            headers=_headers(name),
            metadata=metadata,
            condition=IfAbsent() if info is None else IfMatch(etag=info.etag),
        )

    def _state_key(self) -> str:
        return f"{PRIVATE_PREFIX}{STATE_COLLECTION}/{self.channel}/state.json.zst"


def fetch_etags(storage: ObjectStorage, paths: Sequence[SubdirId]) -> dict[str, str | None]:
    """Return which commit each subdir has, by ETag; subdirs without one are left out."""
    heads = in_parallel(lambda path: storage.head(path.key(SHARD_INDEX)), paths)
    return {path.subdir: info.etag for path, info in zip(paths, heads, strict=True) if info is not None}


def _list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirId]:
    for name in storage.list_folders(f"{channel}/"):
        try:
            yield SubdirId(channel=channel, subdir=parse_subdir(name))
        except InvalidNameError:
            continue  # somebody else's folder


def _find_behind(found: Mapping[str, ObjectInfo | None], shown: str) -> list[str]:
    return [name for name, info in found.items() if info is None or info.metadata.get(SHOWN) != shown]


def hash_shown(etags: Mapping[str, str | None]) -> str:
    """Return what a file carries that shows these commits."""
    return hashlib.sha256(encode_json(etags)).hexdigest()


def _entries_of(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {"packages": {name: format_entry(entry)}}


def _headers(name: str) -> ContentHeaders:
    return ContentHeaders(content_type=_CONTENT_TYPES[name], cache_control=CACHE_CONTROL_METADATA)
