"""Deletes everything that the doctor left: every version in its channel and of what is private to it, and its token.

Artifacts go first. The indexer then empties the index, and what it wrote is deleted once no message of
its own can be on the way any more: an index that is deleted earlier would be made again.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from lambdas.access.changes import apply_token_revoked, find_tokens
from lambdas.access.document import AccessDocument
from lambdas.channel.errors import InvalidDocumentError, PermanentError
from lambdas.channel.layout import (
    CARDS_PREFIX,
    CHANNEL_STATE_PREFIX,
    DRAFTS_PREFIX,
    GARBAGE_PREFIX,
    PATCH_INSTRUCTIONS,
    PATCHES_PREFIX,
    REJECTED_PREFIX,
    REPLACED_PREFIX,
    TABLES_PREFIX,
    is_artifact_like,
)
from lambdas.channel.names import DOCTOR_CHANNEL, SubdirId, is_subdir_name, parse_subdir_id
from lambdas.indexer.settings import DEFERRAL_SECONDS, fetch_settings
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.key_refresher.store import change_access
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage
from scripts.fairway.doctor.examination import Examination

TOKEN_NAME: Final = "fairway-doctor"  # noqa: S105 - a name
PREFIXES: Final = (
    f"{DOCTOR_CHANNEL}/",
    *(
        f"{private}{DOCTOR_CHANNEL}/"
        for private in (
            CARDS_PREFIX,
            CHANNEL_STATE_PREFIX,
            DRAFTS_PREFIX,
            GARBAGE_PREFIX,
            PATCHES_PREFIX,
            REJECTED_PREFIX,
            REPLACED_PREFIX,
            TABLES_PREFIX,
        )
    ),
)
SETTLE_SECONDS: Final = 15
"""After this time and the deferral, no message that the indexer sent itself is on the way."""
RECHECK_SECONDS: Final = 5
CLEANING_SECONDS: Final = 180
"""The longest that cleaning may take."""
_ROUNDS: Final = 3


def clean(examination: Examination) -> str:
    """Delete everything; return a summary.

    Raises:
        PermanentError: something comes again.
        FairwayError: something could not be deleted.
    """
    deadline = examination.deadline
    examination.deadline = examination.clock.monotonic() + CLEANING_SECONDS
    try:
        return _clean(examination)
    finally:
        examination.deadline = deadline


def _clean(examination: Examination) -> str:
    has_token = forget_access(examination)
    found = list_leftovers(examination.bucket)
    total = len(found)
    if any(map(_leads_to_event, found)):
        delete_versions(examination.bucket, filter(_leads_to_event, found))
        subdirs = _list_subdirs(examination.bucket)
        examination.wait_until(
            lambda: not any(open_subdir(examination.bucket, subdir).fetch_commit().index.shards for subdir in subdirs),
            "the index of deleted artifacts is empty",
        )
        found = _settle(examination)
    for _ in range(_ROUNDS):
        if not found:
            return f"deleted {total} versions" + (" and the token" if has_token else "") if total else "nothing is left"
        delete_versions(examination.bucket, found)
        examination.clock.sleep(RECHECK_SECONDS)
        # A late event made the index again? The indexer then sent itself a message about the new index, and would
        # make it once more if it were deleted before that message arrives.
        found = _settle(examination) if list_leftovers(examination.bucket) else []
    raise PermanentError(
        f"{len(found)} versions came again while they were deleted, such as {found[0].key!r}",
        hint="run 'fairway doctor --clean' in some minutes",
    )


def _settle(examination: Examination) -> list[ObjectInfo]:
    """Wait until no message that the indexer sent itself is on the way; return what is left then."""
    seconds = SETTLE_SECONDS + _fetch_deferral(examination.bucket)
    examination.note(f"  waiting {seconds} s: for messages that the indexer sent itself")
    found = list_leftovers(examination.bucket)
    for _ in range(_ROUNDS):
        known = {info.key for info in found}
        examination.clock.sleep(seconds)
        found = list_leftovers(examination.bucket)
        if {info.key for info in found} <= known:  # a new index leads to another message
            break
    return found


def forget_access(examination: Examination) -> bool:
    """Revoke the doctor's tokens, and remove them and the channel's rule; tell whether there was a token.

    The history keeps the changes.
    """
    now, had_token = int(examination.clock.now()), False

    def change(document: AccessDocument) -> AccessDocument:
        nonlocal had_token
        had_token = bool(find_tokens(document, TOKEN_NAME))
        if had_token:
            document = apply_token_revoked(document, TOKEN_NAME, now=now, by=examination.caller)
        return replace(
            document,
            tokens=tuple(token for token in document.tokens if token.name != TOKEN_NAME),
            channels={name: rule for name, rule in document.channels.items() if name != DOCTOR_CHANNEL},
        )

    change_access(examination.bucket, change, now=now, sleep=examination.clock.sleep)
    return had_token


def list_leftovers(bucket: ObjectStorage) -> list[ObjectInfo]:
    """List every version and deletion that the doctor's channel left in the bucket."""
    return [version.info for prefix in PREFIXES for version in bucket.list_versions(prefix)]


def delete_versions(bucket: ObjectStorage, versions: Iterable[ObjectInfo]) -> None:
    """Delete exactly these versions, for ever."""
    for _ in in_parallel(bucket.delete, list(versions)):
        pass


def _fetch_deferral(bucket: ObjectStorage) -> int:
    """Return after how many seconds the indexer writes deferred outputs."""
    try:
        return fetch_settings(bucket, bucket="").deferral_seconds
    except InvalidDocumentError:
        return DEFERRAL_SECONDS


def _leads_to_event(info: ObjectInfo) -> bool:
    filename = info.key.rpartition("/")[2]
    is_uploaded = info.key.startswith(PREFIXES[0])
    return is_uploaded and (is_artifact_like(filename) or filename == PATCH_INSTRUCTIONS)


def _list_subdirs(bucket: ObjectStorage) -> list[SubdirId]:
    prefix = PREFIXES[0]
    return [parse_subdir_id(prefix + name) for name in bucket.list_folders(prefix) if is_subdir_name(name)]
