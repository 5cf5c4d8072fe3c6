"""Updates the outputs of a channel as a whole: channeldata.json, the feed, the page.

Each shows one commit of every subdir. A private *state* says which ones, with the names that were
published last; channeldata.json names its state, and the state is stored first. To catch up, the
commits are compared, and the names that differ are merged again from the shards and cards of every
subdir that has them: neither the order nor the number of updates matters.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, InvalidNameError, VanishedError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import Channel, PackageName, SubdirId, parse_subdir
from lambdas.indexer.model import Limits, Outputs
from lambdas.indexer.outputs import registry
from lambdas.indexer.outputs.channeldata import ChanneldataForm, format_entry, make_entry, merge_parts
from lambdas.indexer.outputs.form import encode_whole, parse_whole, replace_entries
from lambdas.indexer.outputs.newest import NameRow, apply_to_newest_names, make_name_row, newest_name_rows
from lambdas.indexer.outputs.registry import (
    CHANNELDATA,
    ChannelContents,
    ChannelOutput,
    channel_headers,
)
from lambdas.indexer.quarantine.replaced import keep_replaced
from lambdas.indexer.spliced.files import TABLES, LargeFiles, Source, Tables
from lambdas.indexer.spliced.segments import (
    SegmentedDocument,
    apply_entries,
    format_table,
    parse_table,
    segment_document,
    segment_entries,
)
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.indexer.tree.shard_index import diff_indexes, empty_index
from lambdas.indexer.tree.shards import Shard
from lambdas.indexer.tree.subdir import Commit, EncodedShard, Subdir, open_subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import IfAbsent, IfMatch, ObjectInfo, ObjectStorage

SHOWN: Final = "fairway-shown"
"""Metadata of an output: a hash of the commits that it shows."""

_FORM: Final = ChanneldataForm()
_NAMES_AT_ONCE: Final = 256
_Entry = dict[str, Any]
Known = Mapping[SubdirId, Mapping[PackageName, EncodedShard]]
"""What the caller has just committed."""
NOTHING_KNOWN: Final[Known] = MappingProxyType({})


def update_channel(
    storage: ObjectStorage,
    channel: Channel,
    *,
    outputs: Outputs,
    limits: Limits,
    may_defer: bool = False,
    is_rebuild: bool = False,
    remove_unwanted: bool = False,
    known: Known = NOTHING_KNOWN,
) -> bool:
    """Bring the outputs of a channel to the commits of its subdirs; return whether they were deferred.

    With ``may_defer``, they are deferred if channeldata.json is large. With ``is_rebuild``, they are
    made again, whatever is there. With ``remove_unwanted``, files that this deployment does not write
    are deleted. ``known`` is what the caller has just committed: it is not read again.

    Raises:
        ConflictError: another writer was quicker: do it again.
    """
    layout = ChannelLayout(channel=channel)
    if remove_unwanted:
        _remove_unwanted(storage, layout, outputs)
    # The files are inspected before the commits: a run that reads commits later writes later or loses.
    wanted = [output.name for output in registry.CHANNEL_OUTPUTS if output.is_wanted(outputs)]
    infos = in_parallel(lambda name: head_file(storage, layout.file(name)), wanted)
    found = dict(zip(wanted, infos, strict=True))
    subdirs = [open_subdir(storage, subdir) for subdir in _list_subdirs(storage, channel)]
    etags = fetch_etags(subdirs)
    if not is_rebuild and not _list_behind(found, hash_shown(etags)):
        return False
    channeldata = found[CHANNELDATA.name]
    if may_defer and channeldata is not None and channeldata.size > limits.sizes.large_uncompressed:
        return True
    updater = ChannelUpdater(
        storage=storage,
        channel=channel,
        url=outputs.url,
        limits=limits,
        found=found,
        is_rebuild=is_rebuild,
        known=known,
    )
    try:
        updater.update([subdir for subdir in subdirs if subdir.id.name in etags])
    except VanishedError as error:
        raise ConflictError(f"a file of {channel} was replaced while it was read") from error
    # What we wrote may have replaced what a later run wrote: an ETag says which bytes are there, and the
    # same bytes come back when a change is undone. So a run that wrote inspects the commits once more.
    if fetch_etags(subdirs) != etags:
        raise ConflictError(f"a subdir of {channel} has a newer commit")
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Whole:
    """channeldata.json at the commits, small."""

    packages: Mapping[str, Any]
    newest: Sequence[NameRow]

    @property
    def total(self) -> int:
        return len(self.packages)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spliced:
    """channeldata.json at the commits, large."""

    segmented: SegmentedDocument
    newest: Sequence[NameRow]
    source: Source | None = None

    @property
    def total(self) -> int:
        return self.segmented.table.count


_Document = _Whole | _Spliced


@dataclass(kw_only=True)
class ChannelUpdater:
    """Brings the outputs of one channel to the commits of its subdirs."""

    storage: ObjectStorage
    channel: Channel
    url: str
    limits: Limits
    found: Mapping[str, ObjectInfo | None]
    is_rebuild: bool = False
    known: Known = field(default_factory=dict)
    commits: dict[SubdirId, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layout = ChannelLayout(channel=self.channel)
        self._files = LargeFiles(storage=self.storage, sizes=self.limits.sizes)

    def update(self, subdirs: Sequence[Subdir]) -> None:
        """Write the files that do not show the commits yet.

        Raises:
            ConflictError: another writer was quicker: do it again.
        """
        commits = in_parallel(_fetch_commit, subdirs)
        self.commits = {subdir.id: commit for subdir, commit in zip(subdirs, commits, strict=True)}
        shown: dict[str, str | None] = {subdir.name: commit.etag for subdir, commit in self.commits.items()}
        behind = list(self.found) if self.is_rebuild else _list_behind(self.found, hash_shown(shown))
        if not behind:
            return
        document = (None if self.is_rebuild else self._advance()) or self._make()
        metadata = {SHOWN: hash_shown(shown)}
        contents = ChannelContents(
            channel=self.channel,
            merged={"subdirs": self._subdir_names(), "packages": dict(document.newest)},
            total=document.total,
            url=self.url,
            limits=self.limits,
        )
        for output in registry.CHANNEL_OUTPUTS:
            if output.name not in behind:
                continue
            if output.render is None:
                self._put_channeldata(document, metadata)
            else:
                self._put(output, output.render(contents), metadata)

    def _subdir_names(self) -> list[str]:
        return sorted(subdir.name for subdir in self.commits)

    def _advance(self) -> _Document | None:
        """Replace the names that changed; None if everything has to be made again."""
        info = self.found[CHANNELDATA.name]
        if info is None or TABLES not in info.metadata:
            return None
        state = self._files.fetch_tables(self._layout.state, info)
        names = None if state is None else self._diff(state.shown)
        if state is None or names is None:
            return None
        try:
            return self._apply(info, state, names)
        except (InvalidDocumentError, KeyError, TypeError, AttributeError):
            return None  # another tool's file under this name

    def _apply(self, info: ObjectInfo, state: Tables, names: Sequence[PackageName]) -> _Document | None:
        merged = self._merge(names)
        entries = {str(name): merged.get(name) for name in names}
        kept = [make_name_row(name, entry) for name, entry in state.newest]
        if kept != [(name, entry) for name, entry in state.newest]:
            return None  # texts of a version that did not cut them: those of channeldata.json are as long
        if CHANNELDATA.name in state.tables:
            source = Source(info=info, table=parse_table(state.tables[CHANNELDATA.name], _FORM))
            newest = apply_to_newest_names(kept, entries, total=source.table.count, limits=self.limits)
            document: _Document | None = self._apply_to_table(source, entries, newest)
        else:
            stored = get_file(self.storage, info.key, version=info.version)
            if stored is None or stored.info.etag != info.etag:
                raise ConflictError(f"{info.key!r} was replaced meanwhile")
            before = parse_whole(_FORM, decode_json(stored.body, what=info.key))
            changes = {name: None if entry is None else _entries(name, entry) for name, entry in entries.items()}
            packages = replace_entries(_FORM, before, changes).sections["packages"]
            total = len(before.sections["packages"])
            newest = apply_to_newest_names(kept, entries, total=total, limits=self.limits)
            document = _Whole(packages=packages, newest=newest)
        if document is None or len(newest) < min(self.limits.max_rows, document.total):
            return None
        return document

    def _apply_to_table(
        self, source: Source, entries: Mapping[str, _Entry | None], newest: Sequence[NameRow]
    ) -> _Spliced | None:
        segmented = apply_entries(
            _FORM,
            source.table,
            {name: None if entry is None else _entries(name, entry) for name, entry in entries.items()},
            {"subdirs": self._subdir_names()},
            lambda chunk: self._files.read_plain_chunk(source, chunk),
            sizes=self.limits.sizes,
        )
        if segmented.table.text_bytes < self.limits.sizes.large_uncompressed // 2:
            return None
        return _Spliced(segmented=segmented, source=source, newest=newest)

    def _diff(self, shown: Mapping[str, Any]) -> list[PackageName] | None:
        """Return the names that differ in any subdir; None if a commit that was shown is no longer known."""
        names: set[PackageName] = set()
        if not shown.keys() <= {subdir.name for subdir in self.commits}:
            return None  # a subdir is gone
        for subdir, commit in self.commits.items():
            etag, version = shown.get(subdir.name, (None, None))
            if etag == commit.etag:
                continue
            if etag is None:
                names |= commit.index.shards.keys()
                continue
            try:
                old = open_subdir(self.storage, subdir).fetch_commit(version=version) if version else None
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

        def iter_entries() -> Iterator[tuple[str, _Entry]]:
            nonlocal newest
            for start in range(0, len(names), _NAMES_AT_ONCE):
                merged = self._merge(names[start : start + _NAMES_AT_ONCE])
                rows = newest_name_rows(merged.items(), self.limits)
                newest = newest_name_rows([*newest, *rows], self.limits)  # rows are entries, with less in them
                yield from ((name, format_entry(entry)) for name, entry in sorted(merged.items()))

        entries = iter_entries()
        held: dict[str, Any] = {}
        size = 0
        for name, entry in entries:
            held[name] = entry
            size += len(encode_json(entry))
            if size > self.limits.sizes.large_uncompressed:
                break
        if size <= self.limits.sizes.large_uncompressed:
            return _Whole(packages=held, newest=newest)
        segmented = segment_entries(
            _FORM,
            ((name, {"packages": {name: entry}}) for name, entry in chain(held.items(), entries)),
            lambda: {"subdirs": self._subdir_names()},
            text_bytes=size * len(names) // len(held),
            sizes=self.limits.sizes,
        )
        return _Spliced(segmented=segmented, newest=newest)

    def _merge(self, names: Sequence[PackageName]) -> dict[str, _Entry]:
        """Return what all subdirs together say of some names, with ``newest``."""
        parts = []
        for subdir_id, commit in self.commits.items():
            subdir = open_subdir(self.storage, subdir_id)
            known = self.known.get(subdir_id, {})
            entries: dict[str, _Entry] = {}
            wanted = []
            for name in names:
                sha256 = commit.index.shards.get(name)
                if sha256 is not None and name in known and known[name].sha256 == sha256:
                    entry = make_entry(subdir_id.name, known[name].shard, known[name].cards)
                    if entry is not None:
                        entries[name] = entry
                elif sha256 is not None:
                    wanted.append(name)
            while wanted:  # cards are large: never all at once
                cards = subdir.fetch_cards_within(commit.index, wanted, max_bytes=self.limits.max_kept_bytes)
                wanted = wanted[len(cards) :]
                shards = in_parallel(_shard_reader(subdir, commit), cards)
                for name, shard in zip(cards, shards, strict=True):
                    entry = None if shard is None else make_entry(subdir_id.name, shard, cards[name] or {})
                    if entry is not None:
                        entries[name] = entry
            parts.append({"subdir": subdir_id.name, "packages": entries})
        merged: dict[str, _Entry] = merge_parts(parts)["packages"]
        return merged

    def _put_channeldata(self, document: _Document, metadata: Mapping[str, str]) -> None:
        body = b""
        if isinstance(document, _Whole):
            whole = {"channeldata_version": 1, "packages": document.packages, "subdirs": self._subdir_names()}
            body = encode_whole(_FORM, parse_whole(_FORM, whole))
            if len(body) > self.limits.sizes.large_uncompressed:
                segmented = segment_document(_FORM, whole, text_bytes=len(body), sizes=self.limits.sizes)
                document = _Spliced(segmented=segmented, newest=document.newest)
        table = {CHANNELDATA.name: format_table(document.segmented.table)} if isinstance(document, _Spliced) else {}
        shown = {str(subdir.name): (commit.etag, commit.version) for subdir, commit in self.commits.items()}
        state = self._files.put_tables(self._layout.state, Tables(tables=table, newest=document.newest, shown=shown))
        metadata = {**metadata, TABLES: state}
        if isinstance(document, _Whole):
            self._put(CHANNELDATA, body, metadata)
            return
        self._files.write_plain(
            self._layout.file(CHANNELDATA.name),
            document.segmented,
            base=self._keep_foreign(CHANNELDATA),
            old=None if document.source is None else document.source.table,
            compressed=None,
            headers=channel_headers(CHANNELDATA),
            metadata=metadata,
        )

    def _keep_foreign(self, output: ChannelOutput) -> ObjectInfo | None:
        """Return the file that is about to be replaced, of which a copy is kept if another tool wrote it."""
        info = self.found[output.name]
        if info is not None and SHOWN not in info.metadata:
            keep_replaced(self.storage, info)
        return info

    def _put(self, output: ChannelOutput, body: bytes, metadata: Mapping[str, str]) -> None:
        info = self._keep_foreign(output)
        self.storage.put(
            self._layout.file(output.name),
            body,
            headers=channel_headers(output),
            metadata=metadata,
            condition=IfAbsent() if info is None else IfMatch(etag=info.etag),
        )


def _remove_unwanted(storage: ObjectStorage, layout: ChannelLayout, outputs: Outputs) -> None:
    for output in registry.CHANNEL_OUTPUTS:
        info = None if output.is_wanted(outputs) else head_file(storage, layout.file(output.name))
        if info is None or (SHOWN not in info.metadata and not outputs.remove_foreign):
            continue
        if SHOWN not in info.metadata:
            keep_replaced(storage, info)
        storage.delete(replace(info, version=None))  # without its version: the one before must not come back


def fetch_etags(subdirs: Sequence[Subdir]) -> dict[str, str | None]:
    """Return which commit each subdir has, by ETag; subdirs without one are left out."""
    etags = in_parallel(lambda subdir: subdir.fetch_etag(), subdirs)
    return {subdir.id.name: etag for subdir, etag in zip(subdirs, etags, strict=True) if etag is not None}


def hash_shown(etags: Mapping[str, str | None]) -> str:
    """Return the ``SHOWN`` metadata of a file that shows these commits."""
    return hashlib.sha256(encode_json(etags)).hexdigest()


def _fetch_commit(subdir: Subdir) -> Commit:
    """Read a commit; an unreadable one counts as empty until it is made again."""
    try:
        return subdir.fetch_commit()
    except InvalidDocumentError:  # one subdir's damage is no reason to keep the others waiting
        etag = subdir.fetch_etag()
        if etag is None:
            raise ConflictError(f"{subdir} changed meanwhile") from None
        return Commit(index=empty_index(subdir.id.name), etag=etag)


def _shard_reader(subdir: Subdir, commit: Commit) -> Callable[[PackageName], Shard | None]:
    def read(name: PackageName) -> Shard | None:
        try:
            return subdir.fetch_shards(commit.index, [name])[name]
        except InvalidDocumentError:
            return None  # one subdir's damage is no reason to keep the others waiting

    return read


def _list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirId]:
    for name in storage.list_folders(ChannelLayout(channel=channel).prefix):
        try:
            yield SubdirId(channel=channel, name=parse_subdir(name))
        except InvalidNameError:
            continue  # a folder that is no subdir


def _list_behind(found: Mapping[str, ObjectInfo | None], shown: str) -> list[str]:
    return [name for name, info in found.items() if info is None or info.metadata.get(SHOWN) != shown]


def _entries(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {"packages": {name: format_entry(entry)}}
