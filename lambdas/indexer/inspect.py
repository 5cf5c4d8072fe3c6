"""Looks at one artifact: what is under its key now, and may it be indexed?

An event only says where to look (design: events are hints, the storage is the truth). The answer is
a *finding*, which holds whatever happened before or happens elsewhere.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final

from lambdas.channel.errors import DeadlineError, RejectedError, VanishedError
from lambdas.channel.names import SIGNATURES_SUFFIX, ArtifactKey
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.artifacts.record import make_record
from lambdas.indexer.artifacts.strict_json import parse_document
from lambdas.indexer.tree.cards import Card
from lambdas.storage.protocol import CACHE_CONTROL_IMMUTABLE, ContentHeaders, ObjectInfo, ObjectStorage

MAX_SIGNATURES_BYTES: Final = 16 * 1024 * 1024

_MAX_LOOKS: Final = 5
_WALKS: Final = threading.BoundedSemaphore(2)
"""Decompressing a .tar.bz2 is all work and no waiting: done 16 at a time, all would end late."""
_SIGNATURES_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_IMMUTABLE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """There is no artifact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Present:
    """There is an artifact that may be indexed."""

    info: ObjectInfo
    card: Card


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """There is an object that may not be indexed; it is to be set aside."""

    info: ObjectInfo
    error: RejectedError


Finding = Absent | Present | Rejected


class Inspector:
    """Looks at artifacts, reading each version of each at most once."""

    def __init__(
        self,
        storage: ObjectStorage,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 10**6,
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        """Where ``is_late``, no artifact is read any more; what needs no reading is still found."""
        self._storage = storage
        self._now_ms = now_ms
        self._is_late = is_late
        self._read: dict[tuple[str, str, str | None], ArtifactInfo | RejectedError] = {}

    def look(self, key: ArtifactKey, card: Card | None, *, mutable: bool, sidecar: bool) -> list[Finding]:
        """Return what is under the key, given what the index knows of it.

        Usually one finding. A refused sidecar comes before the finding of its artifact.

        Args:
            key: the artifact to look at.
            card: what the index knows, if anything.
            mutable: other bytes may replace the artifact's.
            sidecar: an event named the artifact's ``.sigs``; otherwise they are looked at for new
                artifacts alone.

        Raises:
            VanishedError: the object kept changing while it was looked at.
            DeadlineError: it would have to be read, and it is late.
        """
        for attempt in range(_MAX_LOOKS):
            try:
                return self._look(key, card, mutable=mutable, sidecar=sidecar)
            except VanishedError:
                if attempt == _MAX_LOOKS - 1:
                    raise
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _look(self, key: ArtifactKey, card: Card | None, *, mutable: bool, sidecar: bool) -> list[Finding]:
        info = self._storage.head(str(key))
        if info is None:
            return [Absent()]
        if card is not None and _is_unchanged(card, info):
            found = card
        else:
            try:
                found = self._make_card(key, info, card, mutable=mutable)
            except RejectedError as error:
                return [Rejected(info=info, error=error)]
            sidecar = True
        if not sidecar:
            return [Present(info=info, card=found)]
        refused, sha256 = self._look_at_signatures(key, known=found.attestations_sha256)
        return [*refused, Present(info=info, card=replace(found, attestations_sha256=sha256))]

    def _make_card(self, key: ArtifactKey, info: ObjectInfo, card: Card | None, *, mutable: bool) -> Card:
        """Read the artifact; the same bytes under another ETag keep their record.

        Raises:
            RejectedError: it may not be indexed.
        """
        known = card is not None and bool(card.etag)  # not made again from what readers see
        if card is not None and known and info.sha256 == card.sha256:
            return replace(card, etag=info.etag)
        artifact = self._read_once(key, info)
        if card is not None and known and artifact.sha256 == card.sha256:
            return replace(card, etag=info.etag)
        record = make_record(artifact, key, last_modified_ms=info.last_modified_ms, now_ms=self._now_ms())
        if card is not None and artifact.sha256 == card.sha256:
            # The card was lost and made again from readers' records: they know when it was indexed (CEP 47).
            record["indexed_timestamp"] = card.record["indexed_timestamp"]
        elif card is not None and not mutable:
            raise RejectedError(
                "filename-taken",
                f"{key.filename!r} is published already with other bytes (sha256 {card.sha256})",
                hint="raise the build number: an artifact's bytes never change under its name",
            )
        return Card(
            record=record,
            run_exports=artifact.run_exports,
            facts={**artifact.about, **artifact.channeldata},
            etag=info.etag,
        )

    def _read_once(self, key: ArtifactKey, info: ObjectInfo) -> ArtifactInfo:
        identity = (info.key, info.etag, info.version)
        if identity not in self._read:
            with _WALKS if key.distribution.extension == ".tar.bz2" else nullcontext():
                if self._is_late():
                    raise DeadlineError(f"no time was left to read {str(key)!r}")
                try:
                    self._read[identity] = read_artifact(StoredArtifact(self._storage, info), key.distribution)
                except RejectedError as error:
                    self._read[identity] = error
        result = self._read[identity]
        if isinstance(result, RejectedError):
            raise result
        return result

    def _look_at_signatures(self, key: ArtifactKey, *, known: str | None) -> tuple[list[Finding], str | None]:
        """Check the sidecar and keep an immutable copy of it, before any record names it (CEP 50)."""
        name = f"{key}{SIGNATURES_SUFFIX}"
        info = self._storage.head(name)
        if info is None:
            return [], None
        try:
            body = self._storage.read_range(info, 0, min(info.size, MAX_SIGNATURES_BYTES + 1))
            check_signatures(body)
        except RejectedError as error:
            return [Rejected(info=info, error=error)], None
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 != known:
            self._storage.put(f"{name}.{sha256}", body, headers=_SIGNATURES_HEADERS)
        return [], sha256


class StoredArtifact:
    """The bytes of one version of one artifact in a storage: an ``ArtifactSource``."""

    def __init__(self, storage: ObjectStorage, info: ObjectInfo) -> None:
        self._storage = storage
        self._info = info
        self.size = info.size
        self.md5 = info.md5
        self.sha256 = info.sha256

    def read_range(self, start: int, stop: int) -> bytes:
        """Read a range of this version."""
        return self._storage.read_range(self._info, start, stop)

    def stream(self) -> Iterator[bytes]:
        """Read this version in chunks."""
        return self._storage.stream(self._info)


def _is_unchanged(card: Card, info: ObjectInfo) -> bool:
    same = card.etag == info.etag and card.record["size"] == info.size
    return same and info.sha256 in {None, card.sha256}


def check_signatures(body: bytes) -> None:
    """Check that a sidecar is a JSON array of Sigstore bundles.

    Raises:
        RejectedError: it is not.

    Source: CEP 50. Whether the signatures hold is for clients to verify (CEP 27).
    """
    if len(body) > MAX_SIGNATURES_BYTES:
        raise RejectedError("signatures-too-large", f"signatures are larger than {MAX_SIGNATURES_BYTES} bytes")
    try:
        bundles = parse_document(body, "the file")
    except RejectedError as error:
        raise RejectedError("signatures-not-json", f"signatures can't be read: {error}") from error
    if not isinstance(bundles, list) or not all(isinstance(bundle, dict) for bundle in bundles):
        raise RejectedError(
            "signatures-malformed",
            "signatures are no JSON array of Sigstore bundles",
            hint="CEP 50: the sidecar of an artifact is a JSON array, to which bundles are appended",
        )
