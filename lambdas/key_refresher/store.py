"""The access document in the bucket: read it, change it by compare-and-swap, create it once.

The key refresher and the ``fairway`` command share this module. Neither ever writes a document over
a missing one: an empty document would undo every change, and open channels that were set private.
Knows nothing of boto3: callers pass the storage.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final

from lambdas.access.changes import apply_pruning, split_history
from lambdas.access.document import (
    AccessDocument,
    Change,
    encode_access,
    encode_history,
    format_time,
    parse_access,
    parse_history,
)
from lambdas.channel.caching import NO_STORE
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import ACCESS_KEY, AUDIT_PREFIX
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectStorage
from lambdas.storage.retry import retry_conflicts

_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=NO_STORE)
_ARCHIVE_HEADERS: Final = ContentHeaders(content_type="application/jsonl", cache_control=NO_STORE)

DocumentChange = Callable[[AccessDocument], AccessDocument]
"""Returns the changed document. May be called again, with a newer document."""


def fetch_access(storage: ObjectStorage) -> AccessDocument:
    """Return the access document.

    Raises:
        UsageError: it is missing. Every deployment writes one, so it was deleted.
        InvalidDocumentError: it is malformed.
    """
    return _fetch(storage)[0]


def create_access(storage: ObjectStorage) -> None:
    """Write an empty access document, if there is none yet.

    Raises:
        ConflictError: there is one.
    """
    storage.put(ACCESS_KEY, encode_access(AccessDocument()), headers=_HEADERS, condition=IfAbsent())


def swap_access(
    storage: ObjectStorage, change: DocumentChange, *, sleep: Callable[[float], None] = time.sleep
) -> AccessDocument:
    """Replace the access document by the changed one with compare-and-swap; return the new one.

    If another writer was faster, the change is applied again to that writer's document. If the change
    returns an equal document, nothing is written.

    Raises:
        UsageError: the document is missing.
        InvalidDocumentError: it is malformed, or the change makes it too large.
        ConflictError: other writers were faster at every attempt.
    """

    def attempt() -> AccessDocument:
        current, condition = _fetch(storage)
        changed = change(current)
        if changed != current:
            storage.put(ACCESS_KEY, encode_access(changed), headers=_HEADERS, condition=condition)
        return changed

    return retry_conflicts(attempt, sleep=sleep)


def change_access(
    storage: ObjectStorage, change: DocumentChange, *, now: int, sleep: Callable[[float], None] = time.sleep
) -> AccessDocument:
    """Apply an operator's change: as ``swap_access``, and keep the document small.

    Tokens that ended long ago are dropped, and the older half of a full history is archived. The key
    refresher does neither: it may write nothing but the document.

    Raises:
        FairwayError: as ``swap_access``.
    """

    def change_and_archive(current: AccessDocument) -> AccessDocument:
        changed = change(current)
        if changed == current:
            return current
        kept, archived = split_history(apply_pruning(changed, now=now))
        if archived:
            # Archive first. If we stop here, the entries are in both places, and fetch_history drops duplicates.
            _put_archive(storage, archived)
        return kept

    return swap_access(storage, change_and_archive, sleep=sleep)


def fetch_history(storage: ObjectStorage) -> tuple[Change, ...]:
    """Return all changes ever made, oldest first."""
    archived = [
        change
        for info in storage.list_objects(AUDIT_PREFIX)
        if (stored := storage.get(info.key)) is not None
        for change in parse_history(stored.body)
    ]
    distinct = {encode_history([change]): change for change in (*archived, *fetch_access(storage).history)}
    return tuple(sorted(distinct.values(), key=lambda change: change.at))


def _fetch(storage: ObjectStorage) -> tuple[AccessDocument, IfMatch]:
    stored = storage.get(ACCESS_KEY)
    if stored is None:
        raise UsageError(
            f"the access document {ACCESS_KEY!r} is missing",
            hint="restore its last version, as docs/operating.md describes",
        )
    return parse_access(stored.body), IfMatch(etag=stored.info.etag)


def _put_archive(storage: ObjectStorage, history: tuple[Change, ...]) -> None:
    body = encode_history(history)
    name = f"{format_time(history[0].at).replace(':', '')}-{hashlib.sha256(body).hexdigest()[:16]}.jsonl"
    storage.put(AUDIT_PREFIX + name, body, headers=_ARCHIVE_HEADERS)
