"""The access document in the bucket: fetched, changed by compare-and-swap, its history archived."""

from __future__ import annotations

import hashlib
import random
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
from lambdas.channel.errors import ConflictError, UsageError
from lambdas.channel.layout import ACCESS_KEY, AUDIT_PREFIX
from lambdas.storage.protocol import CACHE_CONTROL_PRIVATE, ContentHeaders, IfMatch, ObjectStorage

MAX_ATTEMPTS: Final = 8
_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)
_ARCHIVE_HEADERS: Final = ContentHeaders(content_type="application/jsonl", cache_control=CACHE_CONTROL_PRIVATE)


def fetch_access(storage: ObjectStorage) -> AccessDocument:
    """Return the document.

    Raises:
        UsageError: there is none: every deployment writes one, so it was deleted.
        InvalidDocumentError: it can't be understood.
    """
    return _fetch(storage)[0]


def change_access(
    storage: ObjectStorage,
    change: Callable[[AccessDocument], AccessDocument],
    *,
    now: int,
    sleep: Callable[[float], None] = time.sleep,
) -> AccessDocument:
    """Apply a change to the document that is there now and replace it; return the new one.

    The change is applied again where another writer was quicker. A change that changes nothing
    writes nothing.

    Raises:
        UsageError: there is no document to change.
        ConflictError: others were quicker every time.
    """
    for attempt in range(MAX_ATTEMPTS):
        before, condition = _fetch(storage)
        changed = change(before)
        if changed == before:
            return before
        after, archived = split_history(apply_pruning(changed, now=now))
        if archived:
            # Archive first: stopping here leaves entries in both places, and the reader drops doubles.
            _put_archive(storage, archived)
        try:
            storage.put(ACCESS_KEY, encode_access(after), headers=_HEADERS, condition=condition)
        except ConflictError:
            sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - jitter, no secret
        else:
            return after
    raise ConflictError("the access document is being changed by others all the time", hint="try again")


def fetch_history(storage: ObjectStorage) -> tuple[Change, ...]:
    """Return all changes there ever were, oldest first."""
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
        # A new one, with nothing but this change in it, would undo every other: nobody is to write it by accident.
        raise UsageError(
            f"there is no access document {ACCESS_KEY!r}",
            hint="restore the version before it was deleted; docs/operating.md says how",
        )
    return parse_access(stored.body), IfMatch(etag=stored.info.etag)


def _put_archive(storage: ObjectStorage, history: tuple[Change, ...]) -> None:
    body = encode_history(history)
    name = f"{format_time(history[0].at).replace(':', '')}-{hashlib.sha256(body).hexdigest()[:16]}.jsonl"
    storage.put(AUDIT_PREFIX + name, body, headers=_ARCHIVE_HEADERS)
