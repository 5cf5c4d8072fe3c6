"""Repairs by listing: finds what events did not say, and sends it the way that events go.

Also forgets shards that nobody names any more, once that has been so for long enough: readers may
hold an index for a day, and old commits stay readable for as long.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, InvalidNameError
from lambdas.channel.names import (
    NOARCH,
    PRIVATE_PREFIX,
    SIGNATURES_SUFFIX,
    Channel,
    SubdirPath,
    find_extension,
    parse_artifact_key,
    parse_channel,
    parse_subdir,
)
from lambdas.indexer.commit import Commit, fetch_cards, fetch_commit
from lambdas.indexer.encoding import decode_json, encode_json
from lambdas.indexer.events import make_misplaced
from lambdas.indexer.publish import Indexer, Report, Touched
from lambdas.indexer.storage import CACHE_CONTROL_PRIVATE, ContentHeaders, IfAbsent, IfMatch, ObjectInfo, ObjectStorage
from lambdas.indexer.tree import CARDS, SHARDS_FOLDER, ShardHash, cards_key

GARBAGE: Final = "garbage"
DAY_MS: Final = 24 * 60 * 60 * 1000
BATCH: Final = 2000
"""Artifacts that are indexed in one go: bounds memory, and what is lost when time runs out."""

_GARBAGE_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)
_NAMES: Final = 500
_SHARD_SUFFIX: Final = ".msgpack.zst"


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """What one subdir's listing and its index do not agree on."""

    artifacts: frozenset[str]
    """Without a record, with other bytes than seen, or with a record only."""
    sidecars: frozenset[str]
    misplaced: Mapping[str, InvalidNameError]
    """``{key: error}`` of what is named like an artifact and can't be one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What became of shards that no index names."""

    deleted: int
    kept: int


def list_channels(storage: ObjectStorage) -> Iterator[Channel]:
    """Yield every channel of the storage."""
    for name in storage.list_folders(""):
        if f"{name}/" != PRIVATE_PREFIX:
            try:
                yield parse_channel(name)
            except InvalidNameError:
                continue  # somebody else's folder


def list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirPath]:
    """Yield every subdir of a channel, ``noarch`` first, whether or not it is there yet."""
    yield SubdirPath(channel=channel, subdir=NOARCH)
    for name in storage.list_folders(f"{channel}/"):
        try:
            subdir = parse_subdir(name)
        except InvalidNameError:
            continue
        if subdir != NOARCH:
            yield SubdirPath(channel=channel, subdir=subdir)


def list_artifacts(storage: ObjectStorage, path: SubdirPath) -> Iterator[ObjectInfo]:
    """Yield what lies directly in a subdir and is named like an artifact or its signatures.

    The listing jumps over nothing: shards lie in the same folder, and are passed over.
    """
    prefix = path.key("")
    for info in storage.list_objects(prefix):
        if "/" not in info.key[len(prefix) :] and find_extension(info.key.removesuffix(SIGNATURES_SUFFIX)):
            yield info


def find_differences(storage: ObjectStorage, path: SubdirPath, commit: Commit) -> Differences:
    """Compare a subdir's listing with what its cards have seen; nothing is downloaded but cards."""
    seen: dict[str, tuple[str, int, bool]] = {}
    lost: set[str] = set()
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES):  # cards are large: never all at once
        for name, cards in fetch_cards(storage, path, commit.index, names[start : start + _NAMES]).items():
            if cards is None:
                lost.add(name)
                continue
            for filename, card in cards.items():
                seen[filename] = (card.etag, card.record["size"], card.attestations_sha256 is not None)
    artifacts: set[str] = set()
    signed: set[str] = set()
    misplaced: dict[str, InvalidNameError] = {}
    unseen = set(seen)
    for info in list_artifacts(storage, path):
        filename = info.key.rpartition("/")[2]
        artifact = filename.removesuffix(SIGNATURES_SUFFIX)
        try:
            name = parse_artifact_key(path.key(artifact)).distribution.name
        except InvalidNameError as error:
            misplaced[info.key] = error
            continue
        if artifact != filename:
            signed.add(artifact)
            continue
        unseen.discard(filename)
        if name in lost or seen.get(filename, ("", -1, False))[:2] != (info.etag, info.size):
            artifacts.add(filename)
    with_signatures = {filename for filename, (_, _, has) in seen.items() if has}
    return Differences(
        artifacts=frozenset(artifacts | unseen),
        sidecars=frozenset((signed ^ with_signatures) - unseen),
        misplaced=misplaced,
    )


def reconcile(storage: ObjectStorage, indexer: Indexer, path: SubdirPath) -> Iterator[Report]:
    """Make one subdir's index agree with its listing, in batches; yields a report for each.

    At least one batch is run, though nothing differs: it brings projections up to date and notices
    patch instructions.
    """
    differences = find_differences(storage, path, fetch_commit(storage, path))
    for key, error in differences.misplaced.items():
        indexer.refuse(key, make_misplaced(error))
    waiting = sorted(differences.artifacts | differences.sidecars)
    first = True
    while first or waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        yield indexer.index(
            path,
            Touched(
                artifacts=frozenset(batch) & differences.artifacts,
                sidecars=frozenset(batch) & differences.sidecars,
                patches=first,
                deferred=not waiting,
            ),
        )
        first = False


def rebuild(storage: ObjectStorage, indexer: Indexer, path: SubdirPath) -> Report:
    """Make one subdir's index again from its artifacts alone.

    Only what no artifact carries is kept: when each was indexed first (CEP 47).
    """
    filenames = {info.key.rpartition("/")[2] for info in list_artifacts(storage, path)}
    artifacts = {filename for filename in filenames if not filename.endswith(SIGNATURES_SUFFIX)}
    return indexer.rebuild(path, Touched(artifacts=frozenset(artifacts), sidecars=frozenset(artifacts), patches=True))


def sweep(storage: ObjectStorage, path: SubdirPath, *, now_ms: int, grace_ms: int) -> Swept:
    """Delete shards and cards that no commit has named for longer than the grace; never sooner.

    A shard's age says nothing about when it was named last, so each run notes which ones nobody
    names; only what was noted by a run long enough ago, and by every run since, is deleted.

    Raises:
        ConflictError: another run swept at the same time.
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
    return Swept(deleted=len(due), kept=len(kept))


def sweep_or_leave(storage: ObjectStorage, path: SubdirPath, *, now_ms: int, grace_ms: int) -> Swept | None:
    """Sweep, unless another run does it at the same time."""
    try:
        return sweep(storage, path, now_ms=now_ms, grace_ms=grace_ms)
    except ConflictError:
        return None


def _list_hashes(storage: ObjectStorage, path: SubdirPath) -> set[ShardHash]:
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
