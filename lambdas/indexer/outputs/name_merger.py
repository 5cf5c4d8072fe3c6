"""Merges what the subdirs of a channel say of names, without reading every subdir again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.outputs.channel_state import Place
from lambdas.indexer.outputs.channel_tree import ChannelReader, Names
from lambdas.indexer.outputs.channeldata import merge_parts
from lambdas.indexer.outputs.leaves import Leaf, LeafParts, Leaves, group_by_leaf

MAX_READ_SUBDIRS: Final = 2
"""What so many subdirs say of a name is read from them; of more, it is kept in a leaf."""
_LEAVES_AT_ONCE: Final = 16

Entry = dict[str, Any]
Holders = Callable[[PackageName], Iterable[SubdirName]]
"""Returns the subdirs that had a name, as channeldata.json says."""


class NameMerger:
    """Merges names at some commits, and keeps the leaves up to date."""

    def __init__(
        self, reader: ChannelReader, leaves: Leaves, *, places: Mapping[SubdirName, Place], changed: Names
    ) -> None:
        """``changed`` are the names by which the commits differ from those of the leaves and of channeldata.json."""
        self.leaves = leaves
        self._reader = reader
        self._places = places
        self._changed = changed

    def merge(self, names: Sequence[PackageName], holders: Holders) -> dict[str, Entry]:
        """Return what all subdirs together say of some names, with ``newest``.

        Raises:
            MovedError: a commit is no longer there.
        """
        merged: dict[str, Entry] = {}
        groups = group_by_leaf(self.leaves.all(), names)
        for start in range(0, len(groups), _LEAVES_AT_ONCE):
            some = groups[start : start + _LEAVES_AT_ONCE]
            merged |= self._merge_groups(some, holders)
        return merged

    def _merge_groups(
        self, groups: Sequence[tuple[Leaf | None, Sequence[PackageName]]], holders: Holders
    ) -> dict[str, Entry]:
        before = self.leaves.fetch(leaf for leaf, _ in groups)
        kept: dict[PackageName, Mapping[SubdirName, Entry]] = {}
        for (_, names), content in zip(groups, before, strict=True):
            kept |= {name: content[name] for name in names if name in content}
        parts = self._fetch_parts([name for _, names in groups for name in names], kept, holders)
        changes: list[tuple[Leaf | None, LeafParts]] = []
        for (leaf, names), content in zip(groups, before, strict=True):
            new = {name: parts[name] for name in names if len(parts[name]) > MAX_READ_SUBDIRS}
            after = {name: one for name, one in content.items() if name not in parts} | new
            if after != content:
                changes.append((leaf, after))
        self.leaves.replace(changes)
        by_subdir: dict[SubdirName, dict[PackageName, Entry]] = {}
        for name, entries in parts.items():
            for subdir, entry in entries.items():
                by_subdir.setdefault(subdir, {})[name] = entry
        documents = [{"subdir": subdir, "packages": packages} for subdir, packages in by_subdir.items()]
        merged: dict[str, Entry] = merge_parts(documents)["packages"]
        return merged

    def _fetch_parts(
        self, names: Sequence[PackageName], kept: Mapping[PackageName, Mapping[SubdirName, Entry]], holders: Holders
    ) -> dict[PackageName, dict[SubdirName, Entry]]:
        """Return what each subdir says of some names."""
        parts: dict[PackageName, dict[SubdirName, Entry]] = {}
        wanted: dict[SubdirName, list[PackageName]] = {}
        for name in names:
            changed = {subdir for subdir, some in self._changed.items() if name in some}
            entries = kept.get(name)
            parts[name] = {subdir: entry for subdir, entry in (entries or {}).items() if subdir not in changed}
            unknown = () if entries is not None else set(holders(name)) & self._places.keys()
            for subdir in changed.union(unknown):
                wanted.setdefault(subdir, []).append(name)
        indexes = self._reader.fetch_indexes({subdir: self._places[subdir] for subdir in wanted})
        for subdir, some in wanted.items():
            present = [name for name in some if name in indexes[subdir].shards]
            for name, entry in self._reader.fetch_entries(subdir, indexes[subdir], present).items():
                parts[name][subdir] = entry
        return parts
