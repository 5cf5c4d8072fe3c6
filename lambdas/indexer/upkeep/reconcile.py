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

from lambdas.channel.errors import InvalidNameError, RejectedError
from lambdas.channel.layout import ATTESTATIONS_SUFFIX, PRIVATE_PREFIX, is_artifact_like, parse_artifact_key
from lambdas.channel.names import Channel, SubdirId
from lambdas.indexer.events import make_invalid_key_rejection
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.inspect import MAX_SIGNATURES_BYTES
from lambdas.indexer.model import Report, SubdirKeys
from lambdas.indexer.tree.commit import Commit, fetch_cards, fetch_commit
from lambdas.indexer.upkeep.listing import _is_channel, _is_subdir, list_artifacts
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

DAY_MS: Final = 24 * 60 * 60 * 1000
BATCH: Final = 2000
"""Artifacts that are indexed in one go: bounds memory, and what is lost when time runs out."""

_NAMES: Final = 500
_REFUSALS: Final = 500  # set aside in one go


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """What one subdir's listing and its index do not agree on."""

    artifacts: frozenset[str]
    """Without a record, with other bytes than seen, or with a record only."""
    sidecars: frozenset[str]
    """Artifacts whose ``.sigs`` are not the ones that their record names."""
    invalid_keys: Mapping[str, InvalidNameError]
    """``{key: error}`` of what is named like an artifact and can't be one."""
    nested_invalid_keys: Mapping[str, InvalidNameError]
    """The same, of what lies in folders of the subdir, where nothing is indexed."""


def find_differences(storage: ObjectStorage, subdir: SubdirId, commit: Commit) -> Differences:
    """Compare a subdir's listing with what its cards have seen; nothing is downloaded but cards.

    A sidecar is, where the listing does not tell whether it changed.
    """
    known = _fetch_known(storage, subdir, commit)
    artifacts: set[str] = set()
    sidecars: dict[str, ObjectInfo] = {}
    copies: dict[str, ObjectInfo] = {}
    invalid_keys: dict[str, InvalidNameError] = {}
    nested_invalid_keys: dict[str, InvalidNameError] = {}
    unseen = set(known.seen)
    prefix = subdir.key("")
    for info in storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if (copied := find_copied(filename, known.named)) is not None:
            copies[copied] = info
        if not is_artifact_like(filename):
            continue
        artifact = filename.removesuffix(ATTESTATIONS_SUFFIX)
        try:
            name = parse_artifact_key(subdir.key(artifact)).distribution.name
        except InvalidNameError as error:
            (nested_invalid_keys if "/" in filename else invalid_keys)[info.key] = error
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
        invalid_keys=invalid_keys,
        nested_invalid_keys=nested_invalid_keys,
    )


def find_copied(filename: str, named: Mapping[str, str]) -> str | None:
    """Return the artifact whose sidecar's immutable copy this is, if a record names it.

    ``named`` is ``{artifact: hex SHA-256 of its sidecar}``.
    """
    artifact, separator, sha256 = filename.rpartition(f"{ATTESTATIONS_SUFFIX}.")
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


def find_invalid_keys(storage: ObjectStorage, channel: Channel | None) -> Iterator[tuple[str, InvalidNameError]]:
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


def reject_invalid_keys(storage: ObjectStorage, indexer: Indexer, channel: Channel | None) -> Iterator[Report]:
    """Set them aside, in batches; yields a report for each."""
    yield from _refuse(indexer, find_invalid_keys(storage, channel))


def reconcile(storage: ObjectStorage, indexer: Indexer, subdir: SubdirId, *, deep: bool = True) -> Iterator[Report]:
    """Make one subdir's index agree with its listing, in batches; yields a report for each.

    At least one batch is run, though nothing differs: it brings projections up to date and notices
    patch instructions. With ``deep``, what lies in folders of the subdir is set aside as well.
    """
    differences = find_differences(storage, subdir, fetch_commit(storage, subdir))
    waiting = sorted(differences.artifacts | differences.sidecars)
    first = True
    while first or waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        yield indexer.index(
            subdir,
            SubdirKeys(
                artifacts=frozenset(batch) & differences.artifacts,
                sidecars=frozenset(batch) & differences.sidecars,
                patches=first,
                deferred=not waiting,
            ),
        )
        first = False
    # Last: however much it is, it keeps nothing from being indexed.
    yield from _refuse(indexer, differences.invalid_keys.items())
    if deep:
        yield from _refuse(indexer, differences.nested_invalid_keys.items())


def rebuild(storage: ObjectStorage, indexer: Indexer, subdir: SubdirId) -> Report:
    """Make one subdir's index again from its artifacts alone.

    Only what no artifact carries is kept: when each was indexed first (CEP 47).
    """
    artifacts: set[str] = set()
    invalid_keys: dict[str, RejectedError] = {}
    for info in list_artifacts(storage, subdir):
        if errors := dict(_find_misplaced(info.key)):
            invalid_keys |= {key: make_invalid_key_rejection(error) for key, error in errors.items()}
        elif not info.key.endswith(ATTESTATIONS_SUFFIX):
            artifacts.add(info.key.rpartition("/")[2])
    refused = indexer.reject_all(invalid_keys)
    report = indexer.rebuild(
        subdir, SubdirKeys(artifacts=frozenset(artifacts), sidecars=frozenset(artifacts), patches=True)
    )
    return replace(
        report, outcomes=(*refused.outcomes, *report.outcomes), failures={**refused.failures, **report.failures}
    )


@dataclass(kw_only=True, slots=True)
class _Known:
    """What the cards of a subdir say, as little of it as possible."""

    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    """``{filename: (ETag, size)}``"""
    named: dict[str, str] = field(default_factory=dict)
    """``{filename: hex SHA-256 of its sidecar}``"""
    lost: set[str] = field(default_factory=set)
    """Names whose cards are lost."""


def _fetch_known(storage: ObjectStorage, subdir: SubdirId, commit: Commit) -> _Known:
    known = _Known()
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES):  # cards are large: never all at once
        for name, cards in fetch_cards(storage, subdir, commit.index, names[start : start + _NAMES]).items():
            if cards is None:
                known.lost.add(name)
                continue
            for filename, card in cards.items():
                known.seen[filename] = (card.etag, card.record["size"])
                if card.attestations_sha256 is not None:
                    known.named[filename] = card.attestations_sha256
    return known


def _refuse(indexer: Indexer, invalid_keys: Iterable[tuple[str, InvalidNameError]]) -> Iterator[Report]:
    waiting = iter(invalid_keys)
    while batch := {key: make_invalid_key_rejection(error) for key, error in islice(waiting, _REFUSALS)}:
        yield indexer.reject_all(batch)


def _find_misplaced(key: str) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield the key, where it is named like an artifact and can't be one."""
    if is_artifact_like(key):
        try:
            parse_artifact_key(key.removesuffix(ATTESTATIONS_SUFFIX))
        except InvalidNameError as error:
            yield key, error
