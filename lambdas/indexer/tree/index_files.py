"""Reads files that only Fairway writes. One that can't be read counts as another tool's, and is replaced.

An object of an index name may be archived, or encrypted with a key that Fairway lacks. S3 says so; a plain
denial says nothing about the object, and is an error of the cloud here as everywhere.
"""

from dataclasses import replace

from lambdas.channel.errors import InvalidDocumentError, UnreadableError
from lambdas.storage.protocol import Condition, IfAbsent, IfMatch, ObjectInfo, ObjectStorage, StoredObject


def head_file(storage: ObjectStorage, key: str, *, version: str | None = None) -> ObjectInfo | None:
    """Inspect a file; one that can't be read has no metadata."""
    try:
        info = storage.head(key, version=version)
    except UnreadableError:
        history = storage.list_history(key)
        found = next((one for one in history if version in {None, one.info.version}), None)
        return None if found is None or found.is_deletion else found.info
    return replace(info, metadata={}) if info is not None and info.is_archived else info


def get_file(storage: ObjectStorage, key: str, *, version: str | None = None) -> StoredObject | None:
    """Read a file whole.

    Raises:
        InvalidDocumentError: it can't be read.
    """
    try:
        return storage.get(key, version=version)
    except UnreadableError as error:
        raise InvalidDocumentError(str(error)) from error


def get_replaceable(storage: ObjectStorage, key: str) -> tuple[bytes | None, Condition]:
    """Read a file, and return the condition under which it may be replaced; None if it is missing or unreadable."""
    try:
        stored = get_file(storage, key)
    except InvalidDocumentError:
        info = head_file(storage, key)
        return None, IfAbsent() if info is None else IfMatch(etag=info.etag)
    if stored is None:
        return None, IfAbsent()
    return stored.body, IfMatch(etag=stored.info.etag)
