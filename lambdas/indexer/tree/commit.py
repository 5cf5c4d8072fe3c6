"""Reads and writes the tree: commits, shards, cards, patch instructions.

The thin shell around ``tree.py``: it decides nothing. Whoever calls it gets ``ConflictError`` where
another writer was quicker, reads again, and applies again.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirId
from lambdas.indexer.tree.cards import Cards, decode_cards, encode_cards
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions, parse_patches
from lambdas.indexer.tree.shard_index import SHARD_INDEX, ShardHash, ShardIndex, decode_index, empty_index, encode_index
from lambdas.indexer.tree.shards import Shard, cards_key, decode_shard, shard_key
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import (
    CACHE_CONTROL_IMMUTABLE,
    CACHE_CONTROL_METADATA,
    CACHE_CONTROL_PRIVATE,
    ContentHeaders,
    IfAbsent,
    IfMatch,
    ObjectStorage,
)

PATCHES: Final = "patches"

_ZSTD: Final = "application/zstd"
_SHARD_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=CACHE_CONTROL_IMMUTABLE)
_INDEX_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=CACHE_CONTROL_METADATA)
_CARDS_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=CACHE_CONTROL_PRIVATE)
_PATCHES_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A shard index, and where it was found."""

    index: ShardIndex
    sha256: str = ""
    """Of the stored bytes: the identity that projections carry."""
    etag: str | None = None
    """None where the storage has answered that there is none yet."""
    version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard:
    """What becomes of one name: the public shard and the cards behind it."""

    shard: Shard
    cards: Cards
    sha256: ShardHash
    body: bytes


def fetch_commit(storage: ObjectStorage, path: SubdirId, *, version: str | None = None) -> Commit:
    """Read the current commit of a subdir, or an older one; an empty one where none exists (invariant 7)."""
    stored = storage.get(path.key(SHARD_INDEX), version=version)
    if stored is None:
        return Commit(index=empty_index(path.subdir))
    return Commit(
        index=decode_index(stored.body),
        sha256=hashlib.sha256(stored.body).hexdigest(),
        etag=stored.info.etag,
        version=stored.info.version,
    )


def replace_commit(storage: ObjectStorage, path: SubdirId, base: Commit, index: ShardIndex) -> Commit:
    """Swap the commit: this one write makes everything before it visible.

    Raises:
        ConflictError: ``base`` is no longer the current commit.
    """
    body = encode_index(index)
    # Shards and cards are stored already. If we stop here, readers keep the old index and the next
    # run stores the same shards again: harmless.
    info = storage.put(
        path.key(SHARD_INDEX),
        body,
        headers=_INDEX_HEADERS,
        condition=IfAbsent() if base.etag is None else IfMatch(etag=base.etag),
    )
    return Commit(index=index, sha256=hashlib.sha256(body).hexdigest(), etag=info.etag, version=info.version)


def fetch_cards(
    storage: ObjectStorage, path: SubdirId, index: ShardIndex, names: Iterable[PackageName]
) -> dict[PackageName, Cards | None]:
    """Read the cards of some names: empty for a new name, None where they are lost or broken."""

    def fetch(name: PackageName) -> Cards | None:
        sha256 = index.shards.get(name)
        if sha256 is None:
            return {}
        stored = storage.get(cards_key(path, sha256))
        if stored is None:
            return None
        try:
            return decode_cards(stored.body)
        except InvalidDocumentError:
            return None

    wanted = list(names)
    return dict(zip(wanted, in_parallel(fetch, wanted), strict=True))


def fetch_shards(
    storage: ObjectStorage, path: SubdirId, index: ShardIndex, names: Iterable[PackageName]
) -> dict[PackageName, Shard]:
    """Read the shards of names that the index has.

    Raises:
        InvalidDocumentError: a shard is missing or broken; ``fairway rebuild`` mends that.
    """

    def fetch(name: PackageName) -> Shard:
        key = shard_key(path, index.shards[name])
        stored = storage.get(key)
        if stored is None:
            raise InvalidDocumentError(f"the index names a shard that is not there: {key!r}", hint="fairway rebuild")
        return decode_shard(stored.body)

    wanted = list(names)
    return dict(zip(wanted, in_parallel(fetch, wanted), strict=True))


def put_shards(storage: ObjectStorage, path: SubdirId, encoded: Iterable[EncodedShard]) -> None:
    """Store cards and shards, before any index names them.

    Shards are written even where they are there already: that keeps them young for whoever deletes
    shards that nobody names.
    """

    def put(shard: EncodedShard) -> None:
        storage.put(cards_key(path, shard.sha256), encode_cards(shard.cards), headers=_CARDS_HEADERS)
        storage.put(shard_key(path, shard.sha256), shard.body, headers=_SHARD_HEADERS)

    in_parallel(put, encoded)


def put_cards(storage: ObjectStorage, path: SubdirId, sha256: ShardHash, cards: Cards) -> None:
    """Store cards that changed behind a shard that did not."""
    storage.put(cards_key(path, sha256), encode_cards(cards), headers=_CARDS_HEADERS)


def fetch_patches(storage: ObjectStorage, path: SubdirId, sha256: str | None) -> PatchInstructions:
    """Read the patch instructions that a commit has in force.

    Raises:
        InvalidDocumentError: they are gone.
    """
    if sha256 is None:
        return NO_PATCHES
    key = path.private_key(PATCHES, f"{sha256}.json")
    stored = storage.get(key)
    if stored is None:
        raise InvalidDocumentError(f"the patch instructions in force are gone: {key!r}", hint="upload them again")
    return parse_patches(stored.body)


def put_patches(storage: ObjectStorage, path: SubdirId, sha256: str, body: bytes) -> None:
    """Keep patch instructions under their hash, before a commit names them."""
    storage.put(path.private_key(PATCHES, f"{sha256}.json"), body, headers=_PATCHES_HEADERS)
