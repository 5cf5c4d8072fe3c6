"""The documents beside rejected uploads: made, parsed, and found by their keys."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError, RejectedError
from lambdas.channel.layout import REJECTED_PREFIX, is_rejection_key, rejection_folder
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.tree.encoding import decode_json
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_ID_CHARS: Final = 16
_HASH: Final = re.compile(r"\.?[0-9a-f]{64}\Z")  # without the dot: written by 0.1.0


def invalid_key_rejection(error: InvalidNameError) -> RejectedError:
    """Return why an upload under a key where nothing can be indexed is rejected."""
    return RejectedError(RejectionCode.INVALID_KEY, str(error), hint=error.hint)


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
