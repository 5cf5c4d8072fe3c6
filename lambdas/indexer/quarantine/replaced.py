"""Keeps copies of other tools' files that Fairway replaces or removes."""

from lambdas.channel.errors import ConflictError, UnreadableError
from lambdas.channel.layout import replaced_key
from lambdas.storage.protocol import IfAbsent, ObjectInfo, ObjectStorage


def keep_replaced(storage: ObjectStorage, info: ObjectInfo) -> None:
    """Keep a copy of another tool's file before it is replaced or removed: hotfixes may exist only there.

    An unreadable file is not copied.
    """
    try:
        storage.copy(info, replaced_key(info.key, info.etag), metadata={}, condition=IfAbsent())
    except (ConflictError, UnreadableError):
        return  # an earlier run kept it, or it can't be copied
