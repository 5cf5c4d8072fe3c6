"""Uploads that can't be read, for a reason that the storage names: archived, or encrypted with a foreign key.

A plain denial is no such reason: it is an error of the cloud, which removes nothing (invariant 17).
"""

from typing import Final

from lambdas.channel.errors import RejectedError, UnreadableError, VanishedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_MAX_TRIED: Final = 10
"""Earlier versions that are tried."""


def find_unreadable(storage: ObjectStorage, key: str) -> tuple[ObjectInfo, RejectedError]:
    """Return the current version under a key that could not be read, and why it is rejected.

    Raises:
        VanishedError: the key has another version by now, or one that can be read.
    """
    latest = next(iter(storage.list_history(key)), None)
    if latest is not None and not latest.is_deletion:
        try:
            storage.check_readable(latest.info)
        except UnreadableError as error:
            return latest.info, not_readable(error)
    raise VanishedError(f"{key!r} changed")


def not_readable(error: UnreadableError) -> RejectedError:
    """Return why an upload that can't be read is rejected."""
    return RejectedError(
        RejectionCode.NOT_READABLE,
        str(error),
        hint="upload it again without --storage-class and --sse options",
    )


def withdraw(storage: ObjectStorage, info: ObjectInfo) -> None:
    """Take an unreadable version away from readers.

    It is deleted if an earlier version can be read, which is served again. Otherwise it is kept behind a
    delete marker: there is no copy of its bytes.

    Raises:
        VanishedError: another version is current by now, and none of the earlier ones can be read.
    """
    if _has_readable_version(storage, info):
        storage.delete(info)
    else:
        storage.hide(info)


def _has_readable_version(storage: ObjectStorage, info: ObjectInfo) -> bool:
    """Tell whether a version before this one can be read; the oldest is tried first, since its key was last deleted."""
    earlier: list[ObjectInfo] = []
    is_earlier = False
    for version in storage.list_history(info.key):
        if is_earlier and version.is_deletion:
            break
        if is_earlier:
            earlier.append(version.info)
        is_earlier = is_earlier or version.info.version == info.version
    for one in earlier[: -_MAX_TRIED - 1 : -1]:
        try:
            storage.check_readable(one)
        except (UnreadableError, VanishedError):
            continue
        return True
    return False
