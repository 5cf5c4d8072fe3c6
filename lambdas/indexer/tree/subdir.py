"""One subdir in a storage: reads and writes its commits, shards, cards and patch instructions.

The thin shell around the pure modules of this folder: it decides nothing. A caller that gets
``ConflictError`` reads the commit again and applies its changes again.
"""

import functools
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from lambdas.channel import caching
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import SubdirLayout
from lambdas.channel.names import PackageName, SubdirId
from lambdas.indexer.tree.cards import Cards, decode_cards, encode_cards, estimate_encoded
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions, parse_patches
from lambdas.indexer.tree.shard_index import (
    Mark,
    ShardHash,
    ShardIndex,
    decode_index,
    empty_index,
    encode_index,
    is_marked_for,
)
from lambdas.indexer.tree.shards import Shard, decode_shard, iter_records
from lambdas.storage.parallel import in_parallel, iter_parallel
from lambdas.storage.protocol import (
    ContentHeaders,
    IfAbsent,
    IfMatch,
    ObjectStorage,
)

COMMIT_OF: Final = "fairway-commit-of"
"""Metadata of a shard index that Fairway wrote: ``CHANNEL/SUBDIR``. Its bytes decide, this spares reading them."""

_ZSTD: Final = "application/zstd"
_SHARD_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=caching.IMMUTABLE)
_INDEX_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=caching.METADATA)
_CARDS_HEADERS: Final = ContentHeaders(content_type=_ZSTD, cache_control=caching.NO_STORE)
_PATCHES_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=caching.NO_STORE)
_NO_CARDS: Final = encode_cards({})


class ForeignIndexError(InvalidDocumentError):
    """The shard index of a subdir is not a commit of Fairway for this subdir: it has to be healed."""

    def __init__(self, message: str, *, hint: str | None = None, etag: str | None) -> None:
        """``etag`` is that of the shard index; None if there is none, although there was one."""
        super().__init__(message, hint=hint)
        self.etag = etag


class BrokenIndexError(ForeignIndexError):
    """The shard index is unreadable, or names what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A shard index, and where it was found."""

    index: ShardIndex
    sha256: str = ""
    """Hex SHA-256 of the stored bytes: the identity that outputs carry."""
    etag: str | None = None
    """None if the storage has answered that there is no shard index yet."""
    version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard:
    """A shard, encoded, with the cards behind it."""

    shard: Shard
    cards: Cards
    sha256: ShardHash
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Subdir:
    """One subdir: a storage, and where things are in it."""

    storage: ObjectStorage
    layout: SubdirLayout
    deployment: str = ""
    """Marks the commits: the bucket's name, or empty for a directory."""

    @property
    def id(self) -> SubdirId:
        """The subdir's channel and name."""
        return self.layout.subdir

    def __str__(self) -> str:
        """Format as ``CHANNEL/SUBDIR``."""
        return str(self.layout.subdir)

    def fetch_etag(self) -> str | None:
        """Return the ETag of the current commit; None if there is none."""
        info = head_file(self.storage, self.layout.shard_index)
        return None if info is None else info.etag

    @property
    def mark(self) -> Mark:
        """The mark of this subdir's commits."""
        return Mark(deployment=self.deployment, channel=self.id.channel)

    def draft(self) -> "Subdir":
        """Return the same subdir with drafts for commits."""
        return replace(self, layout=replace(self.layout, is_draft=True))

    def fetch_commit(self, *, version: str | None = None) -> Commit:
        """Read the current commit or an older one; an empty one if it does not exist (invariant 7).

        Raises:
            ForeignIndexError: the shard index is not a commit of this subdir.
        """
        key = self.layout.shard_index
        hint = f"fairway verify {self.id}"
        try:
            stored = get_file(self.storage, key, version=version)
        except InvalidDocumentError as error:
            raise BrokenIndexError(str(error), hint=hint, etag=self.fetch_etag()) from error
        if stored is None:
            return Commit(index=empty_index(self.id.name, mark=self.mark))
        try:
            index = _decode_index(stored.body)
        except InvalidDocumentError as error:
            raise BrokenIndexError(f"{key!r} is unreadable: {error}", hint=hint, etag=stored.info.etag) from error
        if not is_marked_for(index, self.id):
            raise ForeignIndexError(f"{key!r} is not a commit of this subdir", hint=hint, etag=stored.info.etag)
        return Commit(
            index=index,
            sha256=hashlib.sha256(stored.body).hexdigest(),
            etag=stored.info.etag,
            version=stored.info.version,
        )

    def swap(self, base: Commit, index: ShardIndex) -> Commit:
        """Replace the commit: this one write makes everything before it visible.

        Raises:
            ConflictError: ``base`` is no longer the current commit.
        """
        index = replace(index, mark=self.mark)
        body = encode_index(index)
        # Shards and cards are stored already. If we stop here, readers keep the old index and the next
        # run stores the same shards again: harmless.
        info = self.storage.put(
            self.layout.shard_index,
            body,
            headers=_INDEX_HEADERS,
            metadata={COMMIT_OF: str(self.id)},
            condition=IfAbsent() if base.etag is None else IfMatch(etag=base.etag),
        )
        return Commit(index=index, sha256=hashlib.sha256(body).hexdigest(), etag=info.etag, version=info.version)

    def fetch_cards(self, index: ShardIndex, names: Iterable[PackageName]) -> dict[PackageName, Cards | None]:
        """Read the cards of some names: empty for a name without a shard, None if missing, unreadable or another's."""
        return self.fetch_cards_within(index, names, max_bytes=sys.maxsize)

    def fetch_cards_within(
        self, index: ShardIndex, names: Iterable[PackageName], *, max_bytes: int
    ) -> dict[PackageName, Cards | None]:
        """Read cards as ``fetch_cards``, until they take ``max_bytes`` of memory; at least those of the first name."""

        def fetch(name: PackageName) -> bytes | None:
            sha256 = index.shards.get(name)
            if sha256 is None:
                return _NO_CARDS
            try:
                stored = get_file(self.storage, self.layout.cards(sha256))
            except InvalidDocumentError:
                return None
            return None if stored is None else stored.body

        wanted = list(names)
        found: dict[PackageName, Cards | None] = {}
        free_bytes = max_bytes
        for name, body in zip(wanted, iter_parallel(fetch, wanted), strict=True):
            try:
                if body is not None and max_bytes != sys.maxsize:
                    free_bytes -= estimate_encoded(body)
                if found and free_bytes < 0:
                    return found
                cards = None if body is None else decode_cards(body)
                is_other = cards is not None and any(card.record["name"] != name for card in cards.values())
                found[name] = None if is_other else cards
            except InvalidDocumentError:
                found[name] = None
        return found

    def fetch_shards(self, index: ShardIndex, names: Iterable[PackageName]) -> dict[PackageName, Shard]:
        """Read the shards of names that the index has.

        Raises:
            BrokenIndexError: a shard is missing or unreadable, or is not what its name says.
        """
        hint = f"fairway verify {self.id}"

        def fetch(name: PackageName) -> Shard:
            key = self.layout.shard(index.shards[name])
            try:
                stored = get_file(self.storage, key)
                shard = None if stored is None else decode_shard(stored.body)
            except InvalidDocumentError as error:
                raise BrokenIndexError(f"{key!r} is unreadable: {error}", hint=hint, etag=None) from error
            if stored is None or shard is None:
                raise BrokenIndexError(f"missing shard {key!r}, which the index names", hint=hint, etag=None)
            if hashlib.sha256(stored.body).hexdigest() != index.shards[name]:
                raise BrokenIndexError(f"{key!r} has another hash than its name", hint=hint, etag=None)
            if any(record["name"] != name for _, record in iter_records(shard)):
                raise BrokenIndexError(f"{key!r} is not the shard of {name!r}", hint=hint, etag=None)
            return shard

        wanted = list(names)
        return dict(zip(wanted, in_parallel(fetch, wanted), strict=True))

    def put_shards(self, shards: Iterable[EncodedShard]) -> None:
        """Store shards and their cards, before any index names them.

        Existing shards are written again: garbage collection then takes them for new.
        """

        def put(encoded: EncodedShard) -> None:
            self.put_cards(encoded.sha256, encoded.cards)
            self.storage.put(self.layout.shard(encoded.sha256), encoded.body, headers=_SHARD_HEADERS)

        in_parallel(put, shards)

    def put_cards(self, sha256: ShardHash, cards: Cards) -> None:
        """Store cards that changed behind a shard that did not."""
        self.storage.put(self.layout.cards(sha256), encode_cards(cards), headers=_CARDS_HEADERS)

    def fetch_patches(self, sha256: str | None) -> PatchInstructions:
        """Read the patch instructions that a commit names.

        Raises:
            InvalidDocumentError: they are missing or unreadable.
        """
        if sha256 is None:
            return NO_PATCHES
        key = self.layout.patches_in_force(sha256)
        stored = get_file(self.storage, key)
        if stored is None:
            raise InvalidDocumentError(f"missing patch instructions in force: {key!r}", hint="upload them again")
        return parse_patches(stored.body)

    def put_patches(self, sha256: str, body: bytes) -> None:
        """Store patch instructions under their hash, before a commit names them."""
        self.storage.put(self.layout.patches_in_force(sha256), body, headers=_PATCHES_HEADERS)


@functools.lru_cache(maxsize=2)
def _decode_index(body: bytes) -> ShardIndex:
    """Decode a shard index: a run reads the one before and the one after its commit, several times."""
    return decode_index(body)


def open_subdir(storage: ObjectStorage, subdir: SubdirId, *, deployment: str = "") -> Subdir:
    """Return a subdir of a storage."""
    return Subdir(storage, SubdirLayout(subdir=subdir), deployment)
