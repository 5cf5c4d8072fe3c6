"""Deletes shards and cards that no commit has named for longer than the grace period."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lambdas.channel import caching
from lambdas.channel.errors import ConflictError, InvalidDocumentError
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.index_files import get_replaceable, head_file
from lambdas.indexer.tree.subdir import Subdir
from lambdas.storage.protocol import ContentHeaders, ObjectStorage

_GARBAGE_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=caching.NO_STORE)


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectedGarbage:
    """How many unreferenced shards were deleted, and how many are within the grace period."""

    deleted: int
    kept: int


def collect_garbage(subdir: Subdir, *, now_ms: int, grace_ms: int, pointers: Iterable[Subdir] = ()) -> CollectedGarbage:
    """Delete shards and cards that no commit has named for longer than the grace period; never sooner.

    The age of a shard doesn't tell when a commit last named it, so each run lists the unreferenced
    ones. A shard is deleted if a run long enough ago listed it, and so did every run since.

    Args:
        subdir: whose shards are collected.
        now_ms: the current time.
        grace_ms: the grace period.
        pointers: other subdirs whose commits may name shards of this one.

    Raises:
        ConflictError: another run collected at the same time.
        InvalidDocumentError: a pointer can't be decoded: nothing is deleted.
    """
    storage, key = subdir.storage, subdir.layout.garbage
    stored, condition = get_replaceable(storage, key)
    listed: dict[str, int] = {}
    if stored is not None:
        try:
            listed = dict(decode_json(stored, what=key))
        except (InvalidDocumentError, TypeError, ValueError):
            listed = {}  # the grace period starts again
    unreferenced = _list_hashes(subdir) - _list_referenced([subdir, *pointers])
    listed = {sha256: listed.get(sha256, now_ms) for sha256 in sorted(unreferenced)}
    due = [sha256 for sha256, since_ms in listed.items() if now_ms - since_ms > grace_ms]
    kept = {sha256: since_ms for sha256, since_ms in listed.items() if sha256 not in due}
    # The list is written first: if we stop here, what was due is listed again and lives another grace period.
    if kept or stored is not None:
        body = encode_json(kept)
        if stored is None or stored != body:
            storage.put(key, body, headers=_GARBAGE_HEADERS, condition=condition)
    for sha256 in due:
        for blob in (subdir.layout.shard(sha256), subdir.layout.cards(sha256)):
            _delete_old(storage, blob, now_ms=now_ms, grace_ms=grace_ms)
    return CollectedGarbage(deleted=len(due), kept=len(kept))


def try_collect_garbage(subdir: Subdir, *, now_ms: int, grace_ms: int) -> CollectedGarbage | None:
    """Collect garbage, unless another run does it at the same time."""
    try:
        return collect_garbage(subdir, now_ms=now_ms, grace_ms=grace_ms)
    except ConflictError:
        return None


def _list_hashes(subdir: Subdir) -> set[str]:
    """Return the hashes of all shards and cards in the storage."""
    return {
        sha256
        for prefix in (subdir.layout.shards_prefix, subdir.layout.cards_prefix)
        for info in subdir.storage.list_objects(prefix)
        if (sha256 := subdir.layout.shard_of(info.key)) is not None
    }


def _list_referenced(pointers: Iterable[Subdir]) -> set[str]:
    return {sha256 for pointer in pointers for sha256 in pointer.fetch_commit().index.shards.values()}


def _delete_old(storage: ObjectStorage, key: str, *, now_ms: int, grace_ms: int) -> None:
    # A commit that names the same shard again has stored it again, as a new version: that one is young,
    # or not the one inspected here, and stays.
    info = head_file(storage, key)
    if info is not None and now_ms - info.last_modified_ms > grace_ms:
        storage.delete(info)
