"""Keeps an artifact's attestations: what was once accepted stays (invariant 14).

Publishers read the file, append to it and write it again, and may overwrite each other's bundles. What counts
is therefore the union of all versions of the file since the one that was accepted last. The index keeps that
version in the artifact's card.

Order of writes: the immutable copy, then the file, then the record. If we stop in between, nothing tells that
the versions were accepted, and the next run makes the same union of them again.

Source: CEP 50.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from lambdas.channel.caching import IMMUTABLE, NO_CACHE
from lambdas.channel.errors import ConflictError, RejectedError, UnreadableError, VanishedError
from lambdas.channel.layout import ArtifactKey, SubdirLayout
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.attestations import (
    MAX_READ_BYTES,
    Bundle,
    Union,
    encode_attestations,
    hash_attestations,
    hash_mismatch,
    parse_attestations,
    too_large,
)
from lambdas.indexer.change.inspect import AttestationsHistory, Inspector
from lambdas.indexer.change.results import Results
from lambdas.indexer.quarantine.quarantine import Quarantine
from lambdas.indexer.quarantine.unreadable import not_readable
from lambdas.indexer.tree.cards import Card
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectInfo, ObjectStorage

_COPY_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=IMMUTABLE)
_FILE_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=NO_CACHE)
_MARK: Final = {"fairway": "attestations"}
"""Of files that Fairway wrote, so that they have its headers. Says nothing about what is in them."""
_MAX_ROUNDS: Final = 10
_LARGE_BYTES: Final = 1024 * 1024
_LARGE: Final = threading.BoundedSemaphore(2)
"""Parsing large files takes memory: never many at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A version of the file."""

    info: ObjectInfo
    body: bytes
    bundles: Sequence[Bundle]
    is_ours: bool
    is_readable: bool = True


@dataclass(kw_only=True, slots=True)
class _Merge:
    """The union of one artifact's attestations, while it is being made."""

    key: ArtifactKey
    is_known: bool
    """The index has a record of the artifact."""
    version: str | None
    """The version up to which everything is in the union."""
    base: bytes | None = None
    """What the record names."""
    base_count: int = 0
    """The number of its bundles."""
    union: Union = field(default_factory=Union)
    has_base: bool = True
    """The index knows what was accepted before, be it nothing."""
    file: _File | None = None
    """The newest version that was read."""

    def choose_document(self, current: _File | None) -> bytes | None:
        """Return what the file is to be; None if there are no attestations."""
        if self.base is not None and len(self.union.bundles) == self.base_count:
            return self.base
        if not self.union.bundles:
            return None
        if current is not None and self.union.matches(current.bundles, current.body):
            return current.body
        return encode_attestations(self.union.bundles)


class AttestationsKeeper:
    """Brings the attestations of artifacts up to date, in one run."""

    def __init__(self, storage: ObjectStorage, inspector: Inspector, quarantine: Quarantine, results: Results) -> None:
        self._storage = storage
        self._inspector = inspector
        self._quarantine = quarantine
        self._results = results
        self._reported: set[tuple[str, str | None]] = set()
        """Versions that were accepted in part: ``(key, version)``."""

    def update(self, key: ArtifactKey, known: Card | None, card: Card) -> Card:
        """Return an artifact's card with its attestations, once the bucket has them.

        Args:
            key: the artifact's key.
            known: the card in the index; None if the index doesn't know the artifact.
            card: what it is going to be, apart from attestations.

        Raises:
            VanishedError: other writers kept interfering.
            DeadlineError: no time is left to read the attestations.
        """
        sha256, version = (None, None) if known is None else (known.attestations_sha256, known.attestations_version)
        merge = _Merge(key=key, is_known=known is not None, version=version)
        history = self._inspector.inspect_attestations(key, since=version, is_known=merge.is_known)
        if not self._has_accepted_all(merge, sha256, history):
            is_large = any(info.size > _LARGE_BYTES for info in history.unseen)
            with _LARGE if is_large else nullcontext():
                self._prepare(merge, sha256)
                sha256 = self._merge(merge)
        return replace(card, attestations_sha256=sha256, attestations_version=merge.version)

    def _has_accepted_all(self, merge: _Merge, sha256: str | None, history: AttestationsHistory) -> bool:
        """Tell whether nothing happened since the attestations were accepted."""
        latest = history.latest
        if history.unseen or (None if latest is None else latest.info.version) != merge.version:
            return False
        if sha256 is None:
            return True
        is_there = latest is not None and not latest.is_deletion
        return is_there and self._storage.head(_copy_key(merge.key, sha256)) is not None

    def _prepare(self, merge: _Merge, sha256: str | None) -> None:
        """Begin with what was accepted before; if it is lost, with every version there is."""
        if sha256 is None:
            merge.has_base = merge.is_known
            return
        merge.base = self._fetch_copy(merge.key, sha256)
        if merge.base is None:
            merge.version, merge.has_base = None, False
            return
        try:
            merge.union.accept(parse_attestations(merge.base))
        except RejectedError:
            merge.base = None  # an empty array, which Fairway 0.1.0 accepted: there is nothing to keep
        merge.base_count = len(merge.union.bundles)

    def _merge(self, merge: _Merge) -> str | None:
        """Make the file the union of all its versions; return the hash that the record is to name.

        The file is replaced where it is still what was read. Then it is listed again, because a write of the
        same bytes would have gone unnoticed.
        """
        for _ in range(_MAX_ROUNDS):
            history = self._inspector.inspect_attestations(
                merge.key, since=merge.version, is_known=merge.is_known or merge.file is not None
            )
            if not self._add_versions(merge, history.unseen):
                continue
            latest = history.latest
            merge.version = None if latest is None else latest.info.version
            current = None if latest is None or latest.is_deletion else self._read_current(merge, latest.info)
            document = merge.choose_document(current)
            if document is None and current is not None and not current.is_readable:
                self._storage.hide(current.info)
                continue
            if document is None:
                return None
            if document != merge.base:
                self._put_copy(merge.key, document)
            if current is not None and current.body == document and current.is_ours:
                return hash_attestations(document)
            with suppress(ConflictError):
                self._replace(merge, current, document)
        raise VanishedError(f"{merge.key.attestations!r} kept changing")

    def _add_versions(self, merge: _Merge, unseen: Sequence[ObjectInfo]) -> bool:
        """Add versions to the union, the oldest first; return whether all of them are still there."""
        are_there = True
        for info in unseen:
            if merge.file is not None and info.version is not None and info.version == merge.file.info.version:
                continue
            try:
                file = self._read(merge, info)
            except RejectedError as error:
                if error.code is RejectionCode.NOT_READABLE:
                    self._report(info, error)  # the version stays: there is no copy of its bytes
                    merge.version = info.version
                    continue
                self._reject(info, error)
                are_there = False
                continue
            size = len(merge.union.bundles)
            # Where the index is lost, a version with an immutable copy beside it counts as accepted before.
            has_limit = merge.has_base or self._storage.head(_copy_key(merge.key, hash_attestations(file.body))) is None
            excess = merge.union.add(file.bundles, has_limit=has_limit)
            if excess is not None and len(merge.union.bundles) == size:
                self._reject(info, excess)
                are_there = False
                continue
            if excess is not None:
                self._report(info, excess)
            merge.file, merge.version = file, info.version
        return are_there

    def _read(self, merge: _Merge, info: ObjectInfo) -> _File:
        if info.size > MAX_READ_BYTES:
            raise too_large()
        try:
            stored = self._inspector.read_attestations(merge.key, info)
        except UnreadableError as error:
            raise not_readable(error) from error
        # Where no versions are kept, nothing is served, and headers don't count.
        is_ours = stored.info.metadata == _MARK or info.version is None
        return _File(info=info, body=stored.body, bundles=parse_attestations(stored.body), is_ours=is_ours)

    def _read_current(self, merge: _Merge, info: ObjectInfo) -> _File:
        if merge.file is None or (merge.file.info.version, merge.file.info.etag) != (info.version, info.etag):
            try:
                merge.file = self._read(merge, info)
            except RejectedError as error:
                if error.code is not RejectionCode.NOT_READABLE:
                    raise
                return _File(info=info, body=b"", bundles=(), is_ours=False, is_readable=False)
        return merge.file

    def _replace(self, merge: _Merge, current: _File | None, document: bytes) -> None:
        condition = IfAbsent() if current is None else IfMatch(etag=current.info.etag)
        info = self._storage.put(
            merge.key.attestations, document, headers=_FILE_HEADERS, metadata=_MARK, condition=condition
        )
        merge.file = _File(info=info, body=document, bundles=merge.union.bundles, is_ours=True)

    def _put_copy(self, key: ArtifactKey, document: bytes) -> None:
        sha256 = hash_attestations(document)
        self._fetch_copy(key, sha256)  # so that a wrong one is rejected
        self._storage.put(_copy_key(key, sha256), document, headers=_COPY_HEADERS)

    def _fetch_copy(self, key: ArtifactKey, sha256: str) -> bytes | None:
        """Read an immutable copy; None if there is none. Wrong ones are rejected: publishers may create them.

        Raises:
            VanishedError: it kept changing.
        """
        for _ in range(_MAX_ROUNDS):
            found = self._storage.fetch(_copy_key(key, sha256), max_bytes=MAX_READ_BYTES)
            if found is None:
                return None
            if found.body is not None and hash_attestations(found.body) == sha256:
                return found.body
            self._reject(found.info, hash_mismatch())
        raise VanishedError(f"{_copy_key(key, sha256)!r} kept changing")

    def _reject(self, info: ObjectInfo, error: RejectedError) -> None:
        self._results.add_rejection(self._quarantine.reject(info, error))

    def _report(self, info: ObjectInfo, error: RejectedError) -> None:
        """Reject what exceeds the limits in a version; the version stays, because the rest of it counts."""
        if (info.key, info.version) not in self._reported:
            self._results.add_rejection(self._quarantine.keep(info, error))
            self._reported.add((info.key, info.version))


def _copy_key(key: ArtifactKey, sha256: str) -> str:
    return SubdirLayout(subdir=key.subdir).attestations_copy(key.filename, sha256)
