"""Compares a subdir's listing with its index: what events did not say."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from lambdas.channel.errors import InvalidNameError, UnreadableError
from lambdas.channel.layout import (
    ArtifactKey,
    AttestationsKey,
    is_artifact_like,
    parse_artifact_key,
    parse_attestations_copy,
    parse_key,
)
from lambdas.channel.names import PackageName
from lambdas.indexer.artifacts.attestations import MAX_READ_BYTES
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_NEW_COPIES_MS: Final = 2 * 24 * 60 * 60 * 1000
_NAMES_AT_ONCE: Final = 500


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
    new_copies: Sequence[str]
    """Keys of immutable copies of attestations that no record names, and that may not have been checked yet."""
    lost_names: frozenset[PackageName]
    """Names whose cards are lost, with or without artifacts in the listing."""


def list_differences(subdir: Subdir, commit: Commit) -> Differences:
    """Compare a subdir's listing with its cards.

    Nothing else is read but attestations, if the listing doesn't tell whether they changed.
    """
    recorded = _fetch_recorded(subdir, commit)
    artifacts: set[ArtifactKey] = set()
    attestations: dict[str, ObjectInfo] = {}
    copies: dict[str, ObjectInfo] = {}
    other_copies: list[ObjectInfo] = []
    invalid_keys: dict[str, InvalidNameError] = {}
    nested_keys: dict[str, InvalidNameError] = {}
    unseen = set(recorded.objects)
    prefix = subdir.layout.prefix
    for info, oldest_version in list_current(subdir.storage, prefix):
        filename = info.key[len(prefix) :]
        if (copied := parse_attestations_copy(filename)) is not None:
            if recorded.attestations.get(copied[0]) == copied[1]:
                copies[copied[0]] = info
            elif is_artifact_like(copied[0]) and _SHA256.match(copied[1]):
                other_copies.append(info)
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
            if is_lost or info.is_archived or not recorded.has(filename, info, oldest_version):
                artifacts.add(key)
    changed = list_changed_attestations(subdir.storage, attestations, copies, recorded.attestations)
    changed |= attestations.keys() ^ recorded.attestations.keys()
    changed |= recorded.attestations.keys() - copies.keys()
    # Other versions may be hidden by one that brings nothing new.
    changed |= {name for name, info in attestations.items() if recorded.attestations_versions.get(name) != info.version}
    return Differences(
        artifacts=frozenset(artifacts | {_artifact_key(subdir, filename) for filename in unseen}),
        attestations=frozenset(_artifact_key(subdir, filename) for filename in changed - unseen),
        invalid_keys=invalid_keys,
        nested_keys=nested_keys,
        new_copies=_select_new(other_copies),
        lost_names=frozenset(recorded.lost_names),
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
        if info.size > MAX_READ_BYTES or (copy is not None and copy.size != info.size):
            return True
        if copy is not None and copy.etag == info.etag:
            return False
        try:
            stored = storage.get(info.key)
        except UnreadableError:
            return True
        return stored is None or hashlib.sha256(stored.body).hexdigest() != recorded[filename]

    both = sorted(attestations.keys() & recorded.keys())
    return {filename for filename, one in zip(both, in_parallel(has_changed, both), strict=True) if one}


@dataclass(kw_only=True, slots=True)
class _Recorded:
    """What the cards of a subdir say, as little of it as possible."""

    objects: dict[str, tuple[str, int, str | None]] = field(default_factory=dict)
    """``{filename: (ETag, size, version)}``; cards of 0.1.0 have no version."""
    attestations: dict[str, str] = field(default_factory=dict)
    """``{filename: hex SHA-256 of its attestations}``"""
    attestations_versions: dict[str, str | None] = field(default_factory=dict)
    """``{filename: version of its attestations up to which they were accepted}``"""
    lost_names: set[PackageName] = field(default_factory=set)
    """Names whose cards are lost."""

    def has(self, filename: str, info: ObjectInfo, oldest_version: str | None) -> bool:
        """Tell whether a card describes the object; one of 0.1.0 was made of the oldest version with its ETag."""
        known = self.objects.get(filename)
        return known is not None and known[1] == info.size and is_same(known[0], known[2], info, oldest_version)


def is_same(etag: str, version: str | None, info: ObjectInfo, oldest_version: str | None) -> bool:
    """Tell whether an object is the version with this ETag that a card names.

    A card of 0.1.0 names no version: it was made of the oldest one with its ETag.
    """
    return (etag, version or oldest_version) == (info.etag, info.version)


def list_current(storage: ObjectStorage, prefix: str) -> Iterator[tuple[ObjectInfo, str | None]]:
    """Yield the objects under a prefix, each with the oldest version that has the same ETag."""
    for _, versions in groupby(storage.list_versions(prefix), key=lambda one: one.info.key):
        found = list(versions)
        info = found[0].info
        if not found[0].is_deletion:
            yield info, [one.info.version for one in found if not one.is_deletion and one.info.etag == info.etag][-1]


def _fetch_recorded(subdir: Subdir, commit: Commit) -> _Recorded:
    recorded = _Recorded()
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES_AT_ONCE):  # cards are large: never all at once
        for name, cards in subdir.fetch_cards(commit.index, names[start : start + _NAMES_AT_ONCE]).items():
            if cards is None:
                recorded.lost_names.add(name)
                continue
            for filename, card in cards.items():
                recorded.objects[filename] = (card.etag, card.record["size"], card.version)
                if card.attestations_sha256 is not None:
                    recorded.attestations[filename] = card.attestations_sha256
                    recorded.attestations_versions[filename] = card.attestations_version
    return recorded


def _select_new(copies: Sequence[ObjectInfo]) -> list[str]:
    """Return the keys of the copies of the last two days before the newest of them."""
    newest_ms = max((info.last_modified_ms for info in copies), default=0)
    return [info.key for info in copies if info.last_modified_ms > newest_ms - _NEW_COPIES_MS]


def _artifact_key(subdir: Subdir, filename: str) -> ArtifactKey:
    return parse_artifact_key(subdir.layout.file(filename))
