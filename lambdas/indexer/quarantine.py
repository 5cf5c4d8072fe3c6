"""The quarantine: moves rejected uploads away from readers, each with its reason, and notifies operators.

A rejected object leaves its public key, so that the earlier version, if any, is served again; its bytes
and the reason are kept under ``.fairway/rejected/KEY/ID/``. The ID is derived from the ETag: the same
bytes rejected twice are in one place.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from lambdas.channel import caching
from lambdas.channel.errors import ConflictError, InvalidDocumentError, RejectedError, UnreadableError
from lambdas.channel.layout import (
    REJECTED_PREFIX,
    is_rejection_key,
    rejected_object_key,
    rejection_folder,
    rejection_key,
    replaced_key,
)
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.unreadable import not_readable, withdraw
from lambdas.storage.protocol import ContentHeaders, IfAbsent, ObjectInfo, ObjectStorage

_ID_CHARS: Final = 16
_HASH: Final = re.compile(r"\.?[0-9a-f]{64}\Z")  # without the dot: written by 0.1.0
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
        # Invalidated twice: the second call removes what caches fetched after the first one. The first
        # one counts if we stop after the deletion, because no later run would know of it.
        self._notifier.invalidate([info.key])
        if is_readable:
            self._storage.delete(info)
        elif is_published:
            self._storage.hide(info)
        else:
            withdraw(self._storage, info)
        self._notifier.invalidate([info.key])
        return rejection

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
