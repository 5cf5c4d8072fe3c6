"""Leaves: what each subdir says of the names that many subdirs have.

channeldata.json merges what all subdirs say of a name. If one of them changes, the others are needed
again; a leaf holds them for a range of names, so that not each subdir has to be read. The channel's
state names its leaves by hash and version. A leaf that is lost or was replaced by a run that failed
counts as empty: its names are read from the subdirs.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel import caching
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.tree.encoding import PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.indexer.tree.index_files import get_file
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ContentHeaders, ObjectStorage

LEAF_BYTES: Final = 256 * 1024
"""Of JSON: a larger leaf of several names is split."""
_HEADERS: Final = ContentHeaders(content_type="application/zstd", cache_control=caching.NO_STORE)

NameParts = Mapping[SubdirName, dict[str, Any]]
"""What each subdir says of one name: the entries of ``channeldata.make_entry``."""
LeafParts = Mapping[PackageName, NameParts]
"""The content of a leaf."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A leaf as the state names it: for the names from ``first`` on, up to the next leaf's."""

    first: str
    sha256: str
    version: str | None


def group_by_leaf(leaves: Sequence[Leaf], names: Iterable[PackageName]) -> list[tuple[Leaf | None, list[PackageName]]]:
    """Return the names by the leaf that they belong to; None if there are no leaves.

    The first leaf has the names before its ``first``, too.
    """
    firsts = [leaf.first for leaf in leaves]
    groups: dict[int, list[PackageName]] = {}
    for name in sorted(names):
        groups.setdefault(max(0, bisect_right(firsts, name) - 1), []).append(name)
    return [(leaves[at] if leaves else None, some) for at, some in groups.items()]


def split_parts(parts: LeafParts, *, leaf_bytes: int = LEAF_BYTES) -> Iterator[LeafParts]:
    """Cut the content of a leaf that has become too large; empty content is no leaf."""
    sizes = {name: len(encode_json(parts[name])) for name in sorted(parts)}
    most = leaf_bytes if sum(sizes.values()) <= leaf_bytes else leaf_bytes // 2
    piece: dict[PackageName, NameParts] = {}
    free = most
    for name, size in sizes.items():
        if piece and size > free:
            yield piece
            piece, free = {}, most
        piece[name] = parts[name]
        free -= size
    if piece:
        yield piece


class Leaves:
    """The leaves of one channel, and those that replace them."""

    def __init__(self, storage: ObjectStorage, layout: ChannelLayout, leaves: Sequence[Leaf]) -> None:
        """``leaves`` are those of the state that is to be replaced."""
        self._storage = storage
        self._layout = layout
        self._leaves = {leaf.first: leaf for leaf in leaves}

    def all(self) -> list[Leaf]:
        """Return the leaves as they are by now, in the order of their names."""
        return sorted(self._leaves.values(), key=lambda leaf: leaf.first)

    def fetch(self, leaves: Iterable[Leaf | None]) -> list[LeafParts]:
        """Read some leaves."""
        return in_parallel(lambda leaf: {} if leaf is None else self._fetch(leaf), leaves)

    def replace(self, changes: Iterable[tuple[Leaf | None, LeafParts]]) -> None:
        """Store the new content of some leaves; None makes new ones."""
        pieces: list[tuple[str, LeafParts]] = []
        for leaf, parts in changes:
            if leaf is not None:
                del self._leaves[leaf.first]
            for number, piece in enumerate(split_parts(parts)):
                pieces.append((min(piece) if leaf is None or number else leaf.first, piece))
        for new in in_parallel(lambda one: self._put(*one), pieces):
            self._leaves[new.first] = new

    def _put(self, first: str, parts: LeafParts) -> Leaf:
        body = compress(encode_json(parts), level=PRIVATE_LEVEL)
        info = self._storage.put(self._layout.leaf(first), body, headers=_HEADERS)
        return Leaf(first=first, sha256=hashlib.sha256(body).hexdigest(), version=info.version)

    def _fetch(self, leaf: Leaf) -> LeafParts:
        key = self._layout.leaf(leaf.first)
        # Almost always, the current object is the one that the state names.
        for version in (None, leaf.version) if leaf.version else (None,):
            try:
                stored = get_file(self._storage, key, version=version)
                if stored is not None and hashlib.sha256(stored.body).hexdigest() == leaf.sha256:
                    parts: LeafParts = decode_json(decompress(stored.body, what=key), what=key)
                    return parts
            except InvalidDocumentError:
                continue
        return {}
