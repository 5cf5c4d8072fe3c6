"""Compares a subdir's listing with its index: what events did not say."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from lambdas.indexer.change.recorded import Recorded, fetch_rows, summarize
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_NEW_COPIES_MS: Final = 2 * 24 * 60 * 60 * 1000


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
    return compare(
        subdir, summarize(fetch_rows(subdir, commit, {})), list_current(subdir.storage, subdir.layout.prefix)
    )


def compare(subdir: Subdir, recorded: Recorded, listed: Iterable[tuple[ObjectInfo, str | None]]) -> Differences:
    """Compare a listing with what cards say; ``listed`` as of ``list_current``."""
    attested = recorded.attestations
    artifacts: set[ArtifactKey] = set()
    attestations: dict[str, ObjectInfo] = {}
    copies: dict[str, ObjectInfo] = {}
    other_copies: list[ObjectInfo] = []
    invalid_keys: dict[str, InvalidNameError] = {}
    nested_keys: dict[str, InvalidNameError] = {}
    unseen = set(recorded.objects)
    prefix = subdir.layout.prefix
    for info, oldest_version in listed:
        filename = info.key[len(prefix) :]
        if recorded.has(filename, info, oldest_version) and not info.is_archived:
            unseen.discard(filename)
            continue
        if (copied := parse_attestations_copy(filename)) is not None:
            if attested.get(copied[0]) == copied[1]:
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
            artifacts.add(key)
    changed = list_changed_attestations(subdir.storage, attestations, copies, attested)
    changed |= attestations.keys() ^ attested.keys()
    changed |= attested.keys() - copies.keys()
    # Other versions may be hidden by one that brings nothing new.
    changed |= {
        name for name, info in attestations.items() if name in attested and recorded.objects[name][4] != info.version
    }
    return Differences(
        artifacts=frozenset(artifacts | {_artifact_key(subdir, filename) for filename in unseen}),
        attestations=frozenset(_artifact_key(subdir, filename) for filename in changed - unseen),
        invalid_keys=invalid_keys,
        nested_keys=nested_keys,
        new_copies=_select_new(other_copies),
        lost_names=recorded.lost_names,
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


def list_current(storage: ObjectStorage, prefix: str) -> Iterator[tuple[ObjectInfo, str | None]]:
    """Yield the objects under a prefix, each with the oldest version that has the same ETag."""
    for _, versions in groupby(storage.list_versions(prefix), key=lambda one: one.info.key):
        found = list(versions)
        info = found[0].info
        if not found[0].is_deletion:
            yield info, [one.info.version for one in found if not one.is_deletion and one.info.etag == info.etag][-1]


def _select_new(copies: Sequence[ObjectInfo]) -> list[str]:
    """Return the keys of the copies of the last two days before the newest of them."""
    newest_ms = max((info.last_modified_ms for info in copies), default=0)
    return [info.key for info in copies if info.last_modified_ms > newest_ms - _NEW_COPIES_MS]


def _artifact_key(subdir: Subdir, filename: str) -> ArtifactKey:
    return parse_artifact_key(subdir.layout.file(filename))
