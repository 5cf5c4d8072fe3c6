"""The quarantine: moves rejected uploads away from readers, each with its reason, and notifies operators.

A rejected object leaves its public key, so that the earlier version, if any, is served again; its bytes
and the reason are kept under ``.fairway/rejected/KEY/ID/``. The ID is derived from the ETag: the same
bytes rejected twice are in one place.

Until caches were told to drop a rejected artifact, a note of its key is under ``.fairway/stale/``.
"""

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Protocol

from lambdas.channel import caching
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import (
    ConflictError,
    FairwayError,
    InvalidDocumentError,
    RejectedError,
    UnreadableError,
)
from lambdas.channel.layout import (
    REJECTED_PREFIX,
    STALE_PREFIX,
    is_rejection_key,
    rejected_object_key,
    rejection_folder,
    rejection_key,
    replaced_key,
    stale_key,
)
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.unreadable import not_readable, withdraw
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ContentHeaders, IfAbsent, ObjectInfo, ObjectStorage

_ID_CHARS: Final = 16
_HASH: Final = re.compile(r"\.?[0-9a-f]{64}\Z")  # without the dot: written by 0.1.0
_STALE_AT_ONCE: Final = 1000
_NOTE_HEADERS: Final = ContentHeaders(content_type="text/plain", cache_control=caching.NO_STORE)
_REASON_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=caching.NO_STORE)


class Notifier(Protocol):
    """Notifies other systems; each call may be repeated."""

    def publish_rejection(self, rejection: Rejection) -> None:
        """Publish an event about a rejected upload."""

    def invalidate(self, keys: Sequence[str]) -> None:
        """Remove the objects under these keys from caches."""


class Quarantine:
    """Where the rejected uploads of one storage go."""

    def __init__(self, storage: ObjectStorage, notifier: Notifier) -> None:
        self._storage = storage
        self._notifier = notifier
        self._has_stale = threading.Event()  # rejections whose invalidation is due

    def reject(self, info: ObjectInfo, error: RejectedError, *, is_published: bool = False) -> Rejection:
        """Move a rejected object to the quarantine; one that can't be read is withdrawn.

        Bytes that are published and can't be read any longer are hidden, but never deleted.

        Raises:
            VanishedError: the object is gone: inspect its key again.
        """
        # Bytes, reason, event, and only then the public key: after a stop anywhere, the next run repeats the rest.
        is_readable = error.code is not RejectionCode.NOT_READABLE
        try:
            rejection = self.keep(info, error)
        except UnreadableError as unreadable:
            return self.reject(info, not_readable(unreadable), is_published=is_published)
        if kind_of(info.key) is not None:  # what is not named like an artifact is cached for half a minute at most
            # Before the deletion: should we stop after it, the note tells a later run what to invalidate.
            self._storage.put(stale_key(info.key), info.key.encode(errors="surrogatepass"), headers=_NOTE_HEADERS)
            self._has_stale.set()
        if is_readable:
            self._storage.delete(info)
        elif is_published:
            self._storage.hide(info)
        else:
            withdraw(self._storage, info)
        return rejection

    def invalidate(self, *, all_runs: bool = False) -> None:
        """Have caches drop every rejected object in one call, unless nothing was rejected since the last one.

        With ``all_runs``, the rejections of runs that did not get that far count as well. If the call fails,
        the next one invalidates the same.

        Raises:
            FairwayError: the storage or the CDN is not available.
        """
        if not all_runs and not self._has_stale.is_set():
            return
        self._has_stale.clear()
        try:
            listed = list(islice(self._storage.list_objects(STALE_PREFIX), _STALE_AT_ONCE))
            found = in_parallel(lambda info: self._storage.get(info.key), listed)
            notes = [stored for stored in found if stored is not None]
            self._notifier.invalidate(sorted(note.body.decode(errors="surrogatepass") for note in notes))
            # A note that another run has written again in the meantime is another version, and stays.
            in_parallel(self._storage.delete, [note.info for note in notes])
        except FairwayError:
            self._has_stale.set()
            raise
        if len(listed) == _STALE_AT_ONCE:
            self._has_stale.set()

    def keep(self, info: ObjectInfo, error: RejectedError) -> Rejection:
        """Keep a rejected object's bytes, if they can be read, with the reason; publish an event.

        The object stays where it is.

        Raises:
            VanishedError: the object is gone: inspect its key again.
            UnreadableError: its bytes can't be read, and the error doesn't say so.
        """
        rejection = make_rejection(info, error)
        if error.code is not RejectionCode.NOT_READABLE:
            self._storage.copy(info, rejected_object_key(info.key, rejection.id), metadata={})
        self._storage.put(
            rejection_key(info.key, rejection.id), encode_json(asdict(rejection)), headers=_REASON_HEADERS
        )
        self._notifier.publish_rejection(rejection)
        return rejection


def keep_replaced(storage: ObjectStorage, info: ObjectInfo) -> None:
    """Keep a copy of another tool's file before it is replaced or removed: hotfixes may exist only there."""
    try:
        storage.copy(info, replaced_key(info.key, info.etag), metadata={}, condition=IfAbsent())
    except ConflictError:
        return  # an earlier run kept it


def make_rejection(info: ObjectInfo, error: RejectedError) -> Rejection:
    """Describe the rejection of an object."""
    return Rejection(
        key=info.key,
        id=hashlib.sha256(info.etag.encode()).hexdigest()[:_ID_CHARS],
        code=error.code.value,
        message=str(error),
        hint=error.hint,
        size=info.size,
        etag=info.etag,
        uploaded_at=datetime.fromtimestamp(info.last_modified_ms / 1000, UTC).isoformat(),
    )


def parse_rejection(body: bytes) -> Rejection:
    """Parse the document beside rejected bytes.

    Raises:
        InvalidDocumentError: it is not one.
    """
    document: Any = decode_json(body, what="rejection")
    try:
        return Rejection(**document)
    except TypeError as error:
        raise InvalidDocumentError(f"not a rejection: {error}") from error


def list_rejections(storage: ObjectStorage, prefix: str = "") -> Iterator[Rejection]:
    """Read the rejections of all keys that start with the prefix."""
    folders = [REJECTED_PREFIX + prefix]
    if prefix:  # keys too long for the layout are under their hash, wherever they start
        hashes = [name for name in storage.list_folders(REJECTED_PREFIX) if _HASH.match(name)]
        folders += [f"{REJECTED_PREFIX}{name}/" for name in hashes if not name.startswith(prefix)]
    for folder in folders:
        yield from (found for found in _read_rejections(storage, folder) if found.key.startswith(prefix))


def fetch_rejections(storage: ObjectStorage, key: str) -> list[Rejection]:
    """Read the rejections of exactly this key, the latest last."""
    found = _read_rejections(storage, rejection_folder(key))
    return sorted((rejection for rejection in found if rejection.key == key), key=lambda one: one.uploaded_at)


def _read_rejections(storage: ObjectStorage, folder: str) -> Iterator[Rejection]:
    for info in storage.list_objects(folder):
        if is_rejection_key(info.key):
            stored = storage.get(info.key)
            if stored is not None:
                yield parse_rejection(stored.body)
