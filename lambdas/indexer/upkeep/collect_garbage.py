"""Deletes shards and cards that no commit has named for longer than the grace period."""

from dataclasses import dataclass
from typing import Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError
from lambdas.channel.names import (
    SubdirId,
)
from lambdas.indexer.tree.commit import fetch_commit
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.shard_index import SHARDS_FOLDER, ShardHash
from lambdas.indexer.tree.shards import CARDS, cards_key
from lambdas.storage.protocol import CACHE_CONTROL_PRIVATE, ContentHeaders, IfAbsent, IfMatch, ObjectStorage

GARBAGE: Final = "garbage"

_GARBAGE_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)

_SHARD_SUFFIX: Final = ".msgpack.zst"


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectedGarbage:
    """What became of shards that no index names."""

    deleted: int
    kept: int


def collect_garbage(storage: ObjectStorage, path: SubdirId, *, now_ms: int, grace_ms: int) -> CollectedGarbage:
    """Delete shards and cards that no commit has named for longer than the grace; never sooner.

    A shard's age says nothing about when it was named last, so each run notes which ones nobody
    names; only what was noted by a run long enough ago, and by every run since, is deleted.

    Raises:
        ConflictError: another run collected at the same time.
    """
    key = path.private_key(GARBAGE, "garbage.json")
    stored = storage.get(key)
    noted: dict[str, int] = {}
    if stored is not None:
        try:
            noted = dict(decode_json(stored.body, what=key))
        except (InvalidDocumentError, TypeError, ValueError):
            noted = {}  # the grace begins anew
    unnamed = _list_hashes(storage, path) - set(fetch_commit(storage, path).index.shards.values())
    noted = {sha256: noted.get(sha256, now_ms) for sha256 in sorted(unnamed)}
    due = [sha256 for sha256, since_ms in noted.items() if now_ms - since_ms > grace_ms]
    kept = {sha256: since_ms for sha256, since_ms in noted.items() if sha256 not in due}
    # The note is written first: if we stop here, what was due is noted anew and lives another grace.
    if kept or stored is not None:
        condition = IfAbsent() if stored is None else IfMatch(etag=stored.info.etag)
        body = encode_json(kept)
        if stored is None or stored.body != body:
            storage.put(key, body, headers=_GARBAGE_HEADERS, condition=condition)
    for sha256 in due:
        _delete_old(storage, path.key(f"{SHARDS_FOLDER}{sha256}{_SHARD_SUFFIX}"), now_ms=now_ms, grace_ms=grace_ms)
        _delete_old(storage, cards_key(path, ShardHash(sha256)), now_ms=now_ms, grace_ms=grace_ms)
    return CollectedGarbage(deleted=len(due), kept=len(kept))


def try_collect_garbage(
    storage: ObjectStorage, path: SubdirId, *, now_ms: int, grace_ms: int
) -> CollectedGarbage | None:
    """Sweep, unless another run does it at the same time."""
    try:
        return collect_garbage(storage, path, now_ms=now_ms, grace_ms=grace_ms)
    except ConflictError:
        return None


def _list_hashes(storage: ObjectStorage, path: SubdirId) -> set[ShardHash]:
    """Return the hashes of all shards and cards that lie there."""
    shards = path.key(SHARDS_FOLDER)
    found = {
        ShardHash(info.key[len(shards) :].removesuffix(_SHARD_SUFFIX))
        for info in storage.list_objects(shards)
        if info.key.endswith(_SHARD_SUFFIX)
    }
    cards = path.private_key(CARDS)
    return found | {ShardHash(info.key[len(cards) :].partition(".")[0]) for info in storage.list_objects(cards)}


def _delete_old(storage: ObjectStorage, key: str, *, now_ms: int, grace_ms: int) -> None:
    # A publisher who names the same shard again has written it again, as a new version: that one is
    # young, or not the one looked at here, and stays.
    info = storage.head(key)
    if info is not None and now_ms - info.last_modified_ms > grace_ms:
        storage.delete(info)
