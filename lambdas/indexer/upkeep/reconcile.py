"""Reconciles an index with its listing: finds what events did not say, and indexes it as they do.

The listing also shows uploads under keys where nothing can be indexed, and attestations that differ
from the immutable copy beside them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.layout import (
    PRIVATE_PREFIX,
    ArtifactKey,
    AttestationsKey,
    ChannelLayout,
    is_artifact_like,
    parse_artifact_key,
    parse_attestations_copy,
    parse_key,
)
from lambdas.channel.names import Channel
from lambdas.indexer.batch import invalid_key_rejection
from lambdas.indexer.change.decide import MAX_ATTESTATIONS_BYTES
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report, SubdirKeys
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.indexer.upkeep.listing import is_channel, is_subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

DAY_MS: Final = 24 * 60 * 60 * 1000
BATCH: Final = 2000
"""Artifacts that are indexed at a time: bounds memory, and what is lost when time runs out."""

_NAMES_AT_ONCE: Final = 500
_REJECTIONS_AT_ONCE: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """How one subdir's listing and its index differ."""

    artifacts: frozenset[ArtifactKey]
    """Artifacts without a record or with other bytes than recorded, and records without an artifact."""
    attestations: frozenset[ArtifactKey]
    """Artifacts whose attestations are not the ones that their record names."""
    invalid_keys: Mapping[str, InvalidNameError]
    """``{key: error}`` of files that are named like an artifact and can't be indexed."""
    nested_keys: Mapping[str, InvalidNameError]
    """The same, of files in folders of the subdir, where nothing is indexed."""


def list_differences(subdir: Subdir, commit: Commit) -> Differences:
    """Compare a subdir's listing with its cards.

    Nothing else is read but attestations, if the listing doesn't tell whether they changed.
    """
    recorded = _fetch_recorded(subdir, commit)
    artifacts: set[ArtifactKey] = set()
    attestations: dict[str, ObjectInfo] = {}
    copies: dict[str, ObjectInfo] = {}
    invalid_keys: dict[str, InvalidNameError] = {}
    nested_keys: dict[str, InvalidNameError] = {}
    unseen = set(recorded.objects)
    prefix = subdir.layout.prefix
    for info in subdir.storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if (copied := parse_attestations_copy(filename)) is not None and recorded.attestations.get(copied[0]) == copied[
            1
        ]:
            copies[copied[0]] = info
        if not is_artifact_like(filename):
            continue
        try:
            key = parse_key(info.key)
        except InvalidNameError as error:
            (nested_keys if "/" in filename else invalid_keys)[info.key] = error
            continue
        if isinstance(key, AttestationsKey):
            attestations[key.artifact.filename] = info
        elif isinstance(key, ArtifactKey):
            unseen.discard(filename)
            is_lost = key.distribution.name in recorded.lost_names
            if is_lost or recorded.objects.get(filename) != (info.etag, info.size):
                artifacts.add(key)
    changed = list_changed_attestations(subdir.storage, attestations, copies, recorded.attestations)
    changed |= attestations.keys() ^ recorded.attestations.keys()
    return Differences(
        artifacts=frozenset(artifacts | {_artifact_key(subdir, filename) for filename in unseen}),
        attestations=frozenset(_artifact_key(subdir, filename) for filename in changed - unseen),
        invalid_keys=invalid_keys,
        nested_keys=nested_keys,
    )


def list_changed_attestations(
    storage: ObjectStorage,
    attestations: Mapping[str, ObjectInfo],
    copies: Mapping[str, ObjectInfo],
    recorded: Mapping[str, str],
) -> set[str]:
    """Return the artifacts whose attestations exist and are not the ones that the record names.

    Keys are filenames of artifacts. Size and ETag tell whether attestations equal their copy, if an ETag
    is a hash of the bytes. If it isn't (multipart uploads, directories), they are read.
    """

    def has_changed(filename: str) -> bool:
        info, copy = attestations[filename], copies.get(filename)
        if info.size > MAX_ATTESTATIONS_BYTES or (copy is not None and copy.size != info.size):
            return True
        if copy is not None and copy.etag == info.etag:
            return False
        stored = storage.get(info.key)
        return stored is None or hashlib.sha256(stored.body).hexdigest() != recorded[filename]

    both = sorted(attestations.keys() & recorded.keys())
    return {filename for filename, one in zip(both, in_parallel(has_changed, both), strict=True) if one}


def list_invalid_keys(storage: ObjectStorage, channel: Channel | None) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield uploads named like an artifact in a channel, but in no subdir: ``(key, error)``.

    For None, those outside all channels. Only folders in which nothing is indexed are listed whole.
    """
    prefix = "" if channel is None else ChannelLayout(channel=channel).prefix
    for info in storage.list_files(prefix):
        yield from check_key(info.key)
    is_indexed = is_channel if channel is None else is_subdir
    for name in storage.list_folders(prefix):
        if not is_indexed(name) and f"{prefix}{name}/" != PRIVATE_PREFIX:
            for info in storage.list_objects(f"{prefix}{name}/"):
                yield from check_key(info.key)


def reject_invalid_keys(storage: ObjectStorage, indexer: Indexer, channel: Channel | None) -> Iterator[Report]:
    """Reject uploads under invalid keys, in batches; yields a report for each."""
    yield from _reject(indexer, list_invalid_keys(storage, channel))


def reconcile(subdir: Subdir, indexer: Indexer, *, deep: bool = True) -> Iterator[Report]:
    """Make one subdir's index agree with its listing, in batches; yields a report for each.

    At least one batch is run, even if nothing differs: it brings outputs up to date and inspects the
    patch instructions. With ``deep``, uploads in folders of the subdir are rejected as well.
    """
    differences = list_differences(subdir, subdir.fetch_commit())
    waiting = sorted(differences.artifacts | differences.attestations, key=str)
    first = True
    while first or waiting:
        batch, waiting = frozenset(waiting[:BATCH]), waiting[BATCH:]
        yield indexer.index(
            subdir.id,
            SubdirKeys(
                artifacts=batch & differences.artifacts,
                attestations=batch & differences.attestations,
                patches=first,
                deferred=not waiting,
            ),
        )
        first = False
    # Last: however many they are, they keep nothing from being indexed.
    yield from _reject(indexer, differences.invalid_keys.items())
    if deep:
        yield from _reject(indexer, differences.nested_keys.items())


def check_key(key: str) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield the key and an error, if it is named like an artifact and can't be indexed there."""
    if is_artifact_like(key):
        try:
            parse_key(key)
        except InvalidNameError as error:
            yield key, error


@dataclass(kw_only=True, slots=True)
class _Recorded:
    """What the cards of a subdir say, as little of it as possible."""

    objects: dict[str, tuple[str, int]] = field(default_factory=dict)
    """``{filename: (ETag, size)}``"""
    attestations: dict[str, str] = field(default_factory=dict)
    """``{filename: hex SHA-256 of its attestations}``"""
    lost_names: set[str] = field(default_factory=set)
    """Names whose cards are lost."""


def _fetch_recorded(subdir: Subdir, commit: Commit) -> _Recorded:
    recorded = _Recorded()
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES_AT_ONCE):  # cards are large: never all at once
        for name, cards in subdir.fetch_cards(commit.index, names[start : start + _NAMES_AT_ONCE]).items():
            if cards is None:
                recorded.lost_names.add(name)
                continue
            for filename, card in cards.items():
                recorded.objects[filename] = (card.etag, card.record["size"])
                if card.attestations_sha256 is not None:
                    recorded.attestations[filename] = card.attestations_sha256
    return recorded


def _artifact_key(subdir: Subdir, filename: str) -> ArtifactKey:
    return parse_artifact_key(subdir.layout.file(filename))


def _reject(indexer: Indexer, invalid_keys: Iterable[tuple[str, InvalidNameError]]) -> Iterator[Report]:
    waiting = iter(invalid_keys)
    while batch := {key: invalid_key_rejection(error) for key, error in islice(waiting, _REJECTIONS_AT_ONCE)}:
        yield indexer.reject(batch)
