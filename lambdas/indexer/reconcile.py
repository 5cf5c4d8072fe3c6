"""Repairs by listing: finds what events did not say, and sends it the way that events go.

Listing also shows what lies where nothing can be indexed, and a sidecar that is not the one of which
an immutable copy lies beside it. Also forgets shards that nobody names any more, once that has been
so for long enough: readers may hold an index for a day, and old commits stay readable for as long.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, InvalidNameError, RefusedError
from lambdas.channel.names import (
    NOARCH,
    PRIVATE_PREFIX,
    SIGNATURES_SUFFIX,
    Channel,
    Subdir,
    SubdirPath,
    is_artifact_like,
    parse_artifact_key,
    parse_channel,
    parse_subdir,
)
from lambdas.indexer.commit import Commit, fetch_cards, fetch_commit
from lambdas.indexer.encoding import decode_json, encode_json
from lambdas.indexer.events import make_misplaced
from lambdas.indexer.look import MAX_SIGNATURES_BYTES
from lambdas.indexer.parallel import in_parallel
from lambdas.indexer.publish import Indexer, Report, Touched
from lambdas.indexer.storage import CACHE_CONTROL_PRIVATE, ContentHeaders, IfAbsent, IfMatch, ObjectInfo, ObjectStorage
from lambdas.indexer.tree import CARDS, SHARDS_FOLDER, ShardHash, cards_key

GARBAGE: Final = "garbage"
DAY_MS: Final = 24 * 60 * 60 * 1000
BATCH: Final = 2000
"""Artifacts that are indexed in one go: bounds memory, and what is lost when time runs out."""

_GARBAGE_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)
_NAMES: Final = 500
_REFUSALS: Final = 500  # set aside in one go
_SHARD_SUFFIX: Final = ".msgpack.zst"


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """What one subdir's listing and its index do not agree on."""

    artifacts: frozenset[str]
    """Without a record, with other bytes than seen, or with a record only."""
    sidecars: frozenset[str]
    """Artifacts whose ``.sigs`` are not the ones that their record names."""
    misplaced: Mapping[str, InvalidNameError]
    """``{key: error}`` of what is named like an artifact and can't be one."""
    buried: Mapping[str, InvalidNameError]
    """The same, of what lies in folders of the subdir, where nothing is indexed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What became of shards that no index names."""

    deleted: int
    kept: int


def list_channels(storage: ObjectStorage) -> Iterator[Channel]:
    """Yield every channel of the storage."""
    for name in storage.list_folders(""):
        if _is_channel(name):
            yield Channel(name)  # any other is somebody else's folder, or our own


def list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirPath]:
    """Yield every subdir of a channel, ``noarch`` first, whether or not it is there yet."""
    yield SubdirPath(channel=channel, subdir=NOARCH)
    for name in storage.list_folders(f"{channel}/"):
        if _is_subdir(name) and name != NOARCH:
            yield SubdirPath(channel=channel, subdir=Subdir(name))


def list_artifacts(storage: ObjectStorage, path: SubdirPath) -> Iterator[ObjectInfo]:
    """Yield what lies directly in a subdir and is named like an artifact or its signatures."""
    return (info for filename, info in list_files(storage, path) if is_artifact_like(filename))


def list_files(storage: ObjectStorage, path: SubdirPath) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield what lies directly in a subdir, by filename.

    The listing jumps over nothing: shards lie in the same folder, and are passed over.
    """
    prefix = path.key("")
    for info in storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if "/" not in filename:
            yield filename, info


def find_differences(storage: ObjectStorage, path: SubdirPath, commit: Commit) -> Differences:
    """Compare a subdir's listing with what its cards have seen; nothing is downloaded but cards.

    A sidecar is, where the listing does not tell whether it changed.
    """
    known = _fetch_known(storage, path, commit)
    artifacts: set[str] = set()
    sidecars: dict[str, ObjectInfo] = {}
    copies: dict[str, ObjectInfo] = {}
    misplaced: dict[str, InvalidNameError] = {}
    buried: dict[str, InvalidNameError] = {}
    unseen = set(known.seen)
    prefix = path.key("")
    for info in storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if (copied := find_copied(filename, known.named)) is not None:
            copies[copied] = info
        if not is_artifact_like(filename):
            continue
        artifact = filename.removesuffix(SIGNATURES_SUFFIX)
        try:
            name = parse_artifact_key(path.key(artifact)).distribution.name
        except InvalidNameError as error:
            (buried if "/" in filename else misplaced)[info.key] = error
            continue
        if artifact != filename:
            sidecars[artifact] = info
            continue
        unseen.discard(filename)
        if name in known.lost or known.seen.get(filename) != (info.etag, info.size):
            artifacts.add(filename)
    changed = find_changed_sidecars(storage, sidecars, copies, known.named)
    changed |= sidecars.keys() ^ known.named.keys()
    return Differences(
        artifacts=frozenset(artifacts | unseen),
        sidecars=frozenset(changed - unseen),
        misplaced=misplaced,
        buried=buried,
    )


def find_copied(filename: str, named: Mapping[str, str]) -> str | None:
    """Return the artifact whose sidecar's immutable copy this is, if a record names it.

    ``named`` is ``{artifact: hex SHA-256 of its sidecar}``.
    """
    artifact, separator, sha256 = filename.rpartition(f"{SIGNATURES_SUFFIX}.")
    return artifact if separator and named.get(artifact) == sha256 else None


def find_changed_sidecars(
    storage: ObjectStorage,
    sidecars: Mapping[str, ObjectInfo],
    copies: Mapping[str, ObjectInfo],
    named: Mapping[str, str],
) -> set[str]:
    """Return the artifacts whose sidecar is there and not the one that the record names.

    Keys are artifacts. Size and ETag say whether a sidecar equals its copy, where an ETag is a hash of
    the bytes. Where it is not (uploads in parts, other encryptions, directories) the sidecar is read.
    """

    def has_changed(filename: str) -> bool:
        info, copy = sidecars[filename], copies.get(filename)
        if info.size > MAX_SIGNATURES_BYTES or (copy is not None and copy.size != info.size):
            return True
        if copy is not None and copy.etag == info.etag:
            return False
        stored = storage.get(info.key)
        return stored is None or hashlib.sha256(stored.body).hexdigest() != named[filename]

    both = sorted(sidecars.keys() & named.keys())
    return {filename for filename, one in zip(both, in_parallel(has_changed, both), strict=True) if one}


def find_strays(storage: ObjectStorage, channel: Channel | None) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield what is named like an artifact and lies in a channel, but in no subdir: ``(key, error)``.

    For None, what lies outside of all channels. Only folders in which nothing is indexed are listed whole.
    """
    prefix = "" if channel is None else f"{channel}/"
    for info in storage.list_files(prefix):
        yield from _find_misplaced(info.key)
    is_indexed = _is_channel if channel is None else _is_subdir
    for name in storage.list_folders(prefix):
        if not is_indexed(name) and f"{prefix}{name}/" != PRIVATE_PREFIX:
            for info in storage.list_objects(f"{prefix}{name}/"):
                yield from _find_misplaced(info.key)


def refuse_strays(storage: ObjectStorage, indexer: Indexer, channel: Channel | None) -> Iterator[Report]:
    """Set them aside, in batches; yields a report for each."""
    yield from _refuse(indexer, find_strays(storage, channel))


def reconcile(storage: ObjectStorage, indexer: Indexer, path: SubdirPath, *, deep: bool = True) -> Iterator[Report]:
    """Make one subdir's index agree with its listing, in batches; yields a report for each.

    At least one batch is run, though nothing differs: it brings projections up to date and notices
    patch instructions. With ``deep``, what lies in folders of the subdir is set aside as well.
    """
    differences = find_differences(storage, path, fetch_commit(storage, path))
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
    # Last: however much it is, it keeps nothing from being indexed.
    yield from _refuse(indexer, differences.misplaced.items())
    if deep:
        yield from _refuse(indexer, differences.buried.items())


def rebuild(storage: ObjectStorage, indexer: Indexer, path: SubdirPath) -> Report:
    """Make one subdir's index again from its artifacts alone.

    Only what no artifact carries is kept: when each was indexed first (CEP 47).
    """
    artifacts: set[str] = set()
    misplaced: dict[str, RefusedError] = {}
    for info in list_artifacts(storage, path):
        if errors := dict(_find_misplaced(info.key)):
            misplaced |= {key: make_misplaced(error) for key, error in errors.items()}
        elif not info.key.endswith(SIGNATURES_SUFFIX):
            artifacts.add(info.key.rpartition("/")[2])
    refused = indexer.refuse_all(misplaced)
    report = indexer.rebuild(path, Touched(artifacts=frozenset(artifacts), sidecars=frozenset(artifacts), patches=True))
    return replace(
        report, outcomes=(*refused.outcomes, *report.outcomes), failures={**refused.failures, **report.failures}
    )


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


@dataclass(kw_only=True, slots=True)
class _Known:
    """What the cards of a subdir say, as little of it as possible."""

    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    """``{filename: (ETag, size)}``"""
    named: dict[str, str] = field(default_factory=dict)
    """``{filename: hex SHA-256 of its sidecar}``"""
    lost: set[str] = field(default_factory=set)
    """Names whose cards are lost."""


def _fetch_known(storage: ObjectStorage, path: SubdirPath, commit: Commit) -> _Known:
    known = _Known()
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES):  # cards are large: never all at once
        for name, cards in fetch_cards(storage, path, commit.index, names[start : start + _NAMES]).items():
            if cards is None:
                known.lost.add(name)
                continue
            for filename, card in cards.items():
                known.seen[filename] = (card.etag, card.record["size"])
                if card.attestations_sha256 is not None:
                    known.named[filename] = card.attestations_sha256
    return known


def _refuse(indexer: Indexer, misplaced: Iterable[tuple[str, InvalidNameError]]) -> Iterator[Report]:
    waiting = iter(misplaced)
    while batch := {key: make_misplaced(error) for key, error in islice(waiting, _REFUSALS)}:
        yield indexer.refuse_all(batch)


def _find_misplaced(key: str) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield the key, where it is named like an artifact and can't be one."""
    if is_artifact_like(key):
        try:
            parse_artifact_key(key.removesuffix(SIGNATURES_SUFFIX))
        except InvalidNameError as error:
            yield key, error


def _is_channel(folder: str) -> bool:
    try:
        parse_channel(folder)
    except InvalidNameError:
        return False
    return True


def _is_subdir(folder: str) -> bool:
    try:
        parse_subdir(folder)
    except InvalidNameError:
        return False
    return True


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
