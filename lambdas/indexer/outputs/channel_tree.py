"""Reads what the subdirs of a channel say: their commits, and of each what it says of some names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambdas.channel.errors import ConflictError, InvalidDocumentError, InvalidNameError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import Channel, PackageName, SubdirId, SubdirName, parse_subdir
from lambdas.indexer.outputs.channel_state import Place
from lambdas.indexer.outputs.channeldata import make_entry
from lambdas.indexer.tree.index_files import head_file
from lambdas.indexer.tree.shard_index import ShardIndex, diff_indexes, empty_index
from lambdas.indexer.tree.shards import Shard
from lambdas.indexer.tree.subdir import Commit, EncodedShard, Subdir, open_subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectStorage

Names = Mapping[SubdirName, frozenset[PackageName]]
"""The names that differ between two states, by subdir."""


class MovedError(ConflictError):
    """A subdir has another commit, and the storage doesn't keep the one before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What the caller has just committed to a subdir: it is not read again."""

    subdir: SubdirId
    commit: Commit
    shards: Mapping[PackageName, EncodedShard]
    base: Commit | None = None
    """The commit before, if it is known: not every storage keeps it."""


class ChannelReader:
    """Reads the subdirs of one channel, each shard index at most once."""

    def __init__(
        self, storage: ObjectStorage, channel: Channel, *, max_bytes: int, committed: Committed | None = None
    ) -> None:
        """``max_bytes`` is of memory for the cards that are read at once."""
        self._storage = storage
        self._channel = channel
        self._max_bytes = max_bytes
        self._indexes: dict[tuple[SubdirName, str], ShardIndex | None] = {}
        self._known: dict[SubdirName, Mapping[PackageName, EncodedShard]] = {}
        if committed is not None and committed.commit.etag is not None:
            self._known[committed.subdir.name] = committed.shards
            for commit in (committed.base, committed.commit):
                if commit is not None and commit.etag is not None:
                    self._indexes[committed.subdir.name, commit.etag] = commit.index

    def list_subdirs(self) -> list[SubdirName]:
        """List the subdirs, with a commit or without."""
        found = []
        for name in self._storage.list_folders(ChannelLayout(channel=self._channel).prefix):
            try:
                found.append(parse_subdir(name))
            except InvalidNameError:
                continue  # a folder that is no subdir
        return found

    def fetch_places(self, subdirs: Iterable[SubdirName]) -> dict[SubdirName, Place]:
        """Return which commits some subdirs have; subdirs without one are left out."""
        wanted = list(subdirs)
        infos = in_parallel(lambda name: head_file(self._storage, self._open(name).layout.shard_index), wanted)
        return {name: (info.etag, info.version) for name, info in zip(wanted, infos, strict=True) if info is not None}

    def fetch_indexes(self, places: Mapping[SubdirName, Place]) -> dict[SubdirName, ShardIndex]:
        """Read the shard indexes of some commits; an unreadable one counts as empty until it is made again.

        Raises:
            MovedError: a commit is no longer there.
        """

        def fetch(name: SubdirName) -> ShardIndex:
            index = self._fetch_index(name, places[name])
            if index is not None:
                return index
            if self.fetch_places([name]).get(name, ("",))[0] != places[name][0]:
                raise MovedError(f"{self._channel}/{name} has another commit by now")
            return empty_index(name)  # one subdir's damage is no reason to keep the others waiting

        return dict(zip(places, in_parallel(fetch, places), strict=True))

    def diff(self, old: Mapping[SubdirName, Place], new: Mapping[SubdirName, Place]) -> Names | None:
        """Return the names that differ in each subdir; None if a subdir is gone or an old commit is missing.

        Raises:
            MovedError: a new commit is no longer there.
        """
        if not old.keys() <= new.keys():
            return None
        moved = {name: place for name, place in new.items() if name not in old or old[name][0] != place[0]}
        indexes = self.fetch_indexes(moved)
        names: dict[SubdirName, frozenset[PackageName]] = {}
        for name, index in indexes.items():
            before = self._fetch_index(name, old[name]) if name in old else empty_index(name)
            if before is None:
                return None
            names[name] = diff_indexes(before, index).names
        return names

    def fetch_entries(
        self, subdir_name: SubdirName, index: ShardIndex, names: Sequence[PackageName]
    ) -> dict[PackageName, dict[str, Any]]:
        """Return what a subdir says of names that its commit has, without those that readers don't see there."""
        subdir = self._open(subdir_name)
        known = self._known.get(subdir_name, {})
        current = {name for name in names if name in known and known[name].sha256 == index.shards[name]}
        entries = {name: make_entry(subdir_name, known[name].shard, known[name].cards) for name in current}
        wanted = [name for name in names if name not in current]
        while wanted:  # cards are large: never all at once
            cards = subdir.fetch_cards_within(index, wanted, max_bytes=self._max_bytes)
            wanted = wanted[len(cards) :]
            shards = in_parallel(_shard_reader(subdir, index), cards)
            for name, shard in zip(cards, shards, strict=True):
                entries[name] = None if shard is None else make_entry(subdir_name, shard, cards[name] or {})
        return {name: entry for name, entry in entries.items() if entry is not None}

    def _fetch_index(self, name: SubdirName, place: Place) -> ShardIndex | None:
        """Read the shard index of a commit; None if it is missing or unreadable."""
        etag, version = place
        if (name, etag) not in self._indexes:
            try:
                commit = self._open(name).fetch_commit(version=version)
            except InvalidDocumentError:
                self._indexes[name, etag] = None
            else:
                self._indexes[name, etag] = commit.index if commit.etag == etag else None
        return self._indexes[name, etag]

    def _open(self, name: SubdirName) -> Subdir:
        return open_subdir(self._storage, SubdirId(channel=self._channel, name=name))


def _shard_reader(subdir: Subdir, index: ShardIndex) -> Callable[[PackageName], Shard | None]:
    def read(name: PackageName) -> Shard | None:
        try:
            return subdir.fetch_shards(index, [name])[name]
        except InvalidDocumentError:
            return None  # one subdir's damage is no reason to keep the others waiting

    return read
