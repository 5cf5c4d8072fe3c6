"""Deletes everything that the doctor left: every version in its channel and of what is private to it, and its token.

Artifacts go first. Once the indexer has emptied the index, everything else is deleted. A run of the indexer
that was under way may write some of it again, so that the bucket is listed until nothing is left.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from lambdas.access.changes import apply_token_revoked, find_tokens
from lambdas.access.document import AccessDocument
from lambdas.channel.errors import PermanentError
from lambdas.channel.layout import CHANNEL_PREFIXES, PATCH_INSTRUCTIONS, SHARD_INDEX, is_artifact_like
from lambdas.channel.names import DOCTOR_CHANNEL, SubdirId, is_subdir_name, parse_subdir_id
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.key_refresher.store import change_access
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage
from scripts.fairway.doctor.examination import Examination

TOKEN_NAME: Final = "fairway-doctor"  # noqa: S105 - a name
PREFIXES: Final = (f"{DOCTOR_CHANNEL}/", *(f"{private}{DOCTOR_CHANNEL}/" for private in CHANNEL_PREFIXES))
RECHECK_SECONDS: Final = 15
"""After this time, a run of the indexer that was under way has ended."""
CLEANING_SECONDS: Final = 180
"""The longest that cleaning may take."""
_ROUNDS: Final = 5


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
        found = list_leftovers(examination.bucket)
    for _ in range(_ROUNDS):
        if not found:
            return f"deleted {total} versions" + (" and the token" if has_token else "") if total else "nothing is left"
        delete_versions(examination.bucket, found)
        examination.clock.sleep(RECHECK_SECONDS)
        found = list_leftovers(examination.bucket)
    raise PermanentError(
        f"{len(found)} versions came again while they were deleted, such as {found[0].key!r}",
        hint="run 'fairway doctor --clean' in some minutes",
    )


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
    """Delete exactly these versions, for ever: those of shard indexes first, the oldest ones before newer ones.

    The indexer makes the index of a deleted artifact or file again where there is a shard index or an older
    version of one.
    """
    listed = list(versions)
    pointers = [info for info in listed if info.key.endswith(f"/{SHARD_INDEX}")]
    for info in reversed(pointers):
        bucket.delete(info)
    for _ in in_parallel(bucket.delete, [info for info in listed if info not in pointers]):
        pass


def _leads_to_event(info: ObjectInfo) -> bool:
    filename = info.key.rpartition("/")[2]
    is_uploaded = info.key.startswith(PREFIXES[0])
    return is_uploaded and (is_artifact_like(filename) or filename == PATCH_INSTRUCTIONS)


def _list_subdirs(bucket: ObjectStorage) -> list[SubdirId]:
    prefix = PREFIXES[0]
    return [parse_subdir_id(prefix + name) for name in bucket.list_folders(prefix) if is_subdir_name(name)]
