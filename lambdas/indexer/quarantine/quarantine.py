"""The quarantine: moves rejected uploads away from readers, each with its reason, and notifies operators.

A rejected object leaves its public key, so that the earlier version, if any, is served again; its bytes
and the reason are kept under ``.fairway/rejected/KEY/ID/``. The ID is derived from the ETag: the same
bytes rejected twice are in one place.

Until caches were told to drop a rejected artifact, a note of its key is under ``.fairway/stale/``.
"""

import threading
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Final, Protocol

from lambdas.channel import caching
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import (
    FairwayError,
    RejectedError,
    UnreadableError,
)
from lambdas.channel.layout import (
    STALE_PREFIX,
    rejected_object_key,
    rejection_key,
    stale_key,
)
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.quarantine.rejections import make_rejection
from lambdas.indexer.quarantine.unreadable import not_readable, withdraw
from lambdas.indexer.tree.encoding import encode_json
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ContentHeaders, ObjectInfo, ObjectStorage

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
