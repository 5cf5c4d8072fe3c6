"""Sets refused uploads aside, each beside its reason, and tells the world.

A refused object leaves its public key, so that the earlier version, if any, is served again; its
bytes and the reason are kept under ``.fairway/rejected/KEY/ID/``. ID is made of the refused bytes'
ETag: the same bytes refused twice lie in one place. A very long key is named by its hash.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from lambdas.channel.errors import InvalidDocumentError, RejectedError
from lambdas.channel.layout import REJECTED_PREFIX
from lambdas.indexer.model import Rejection
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.storage.protocol import CACHE_CONTROL_PRIVATE, ContentHeaders, ObjectInfo, ObjectStorage

_REASON: Final = "reason.json"
_BYTES: Final = "object"
_ID_CHARS: Final = 16
_MAX_KEY_BYTES: Final = 900
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_REASON_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)


class Notifier(Protocol):
    """Tells others what happened; each call may come twice."""

    def publish_rejection(self, rejection: Rejection) -> None:
        """Tell that an upload was refused."""

    def invalidate(self, keys: list[str]) -> None:
        """Make caches forget what lay under these keys."""


def reason_key(rejection: Rejection) -> str:
    """Return the key of the rejection's document."""
    return f"{_folder(rejection)}/{_REASON}"


def object_key(rejection: Rejection) -> str:
    """Return the key of the rejected bytes."""
    return f"{_folder(rejection)}/{_BYTES}"


def _folder(rejection: Rejection) -> str:
    return f"{REJECTED_PREFIX}{_find_place(rejection.key)}/{rejection.id}"


def make_rejection(info: ObjectInfo, error: RejectedError) -> Rejection:
    """Describe a rejection."""
    return Rejection(
        key=info.key,
        id=hashlib.sha256(info.etag.encode()).hexdigest()[:_ID_CHARS],
        code=error.code,
        message=str(error),
        hint=error.hint,
        size=info.size,
        etag=info.etag,
        uploaded_at=datetime.fromtimestamp(info.last_modified_ms / 1000, UTC).isoformat(),
    )


def quarantine_upload(storage: ObjectStorage, notifier: Notifier, info: ObjectInfo, error: RejectedError) -> Rejection:
    """Move a refused object away from its public key, with its reason.

    Raises:
        VanishedError: the object is gone by now: look again.
    """
    rejection = make_rejection(info, error)
    # Bytes, reason, word, and only then the public key: stopping anywhere repeats the rest.
    storage.copy(info, object_key(rejection), metadata={})
    storage.put(reason_key(rejection), encode_json(asdict(rejection)), headers=_REASON_HEADERS)
    notifier.publish_rejection(rejection)
    # Caches are told twice: what they fetch between the two is forgotten too, and should we stop after
    # the deletion, when nothing shows any more that they are to be told, they were told just before.
    notifier.invalidate([info.key])
    storage.delete(info)
    notifier.invalidate([info.key])
    return rejection


def parse_rejection(body: bytes) -> Rejection:
    """Parse the document beside refused bytes.

    Raises:
        InvalidDocumentError: it is none.
    """
    document: Any = decode_json(body, what="rejection")
    try:
        return Rejection(**document)
    except TypeError as error:
        raise InvalidDocumentError(f"not a rejection: {error}") from error


def list_rejections(storage: ObjectStorage, prefix: str = "") -> Iterator[Rejection]:
    """Read the rejections of all keys that start with the prefix."""
    places = [REJECTED_PREFIX + prefix]
    if prefix:  # keys that lie under their hash are in none of the places that a prefix tells
        hashes = [name for name in storage.list_folders(REJECTED_PREFIX) if _HASH.match(name)]
        places += [f"{REJECTED_PREFIX}{name}/" for name in hashes if not name.startswith(prefix)]
    for place in places:
        yield from (rejection for rejection in _read_rejections(storage, place) if rejection.key.startswith(prefix))


def fetch_rejections(storage: ObjectStorage, key: str) -> list[Rejection]:
    """Read the rejections of exactly this key, the latest last."""
    found = _read_rejections(storage, f"{REJECTED_PREFIX}{_find_place(key)}/")
    return sorted(
        (rejection for rejection in found if rejection.key == key), key=lambda rejection: rejection.uploaded_at
    )


def _read_rejections(storage: ObjectStorage, place: str) -> Iterator[Rejection]:
    for info in storage.list_objects(place):
        if info.key.endswith(f"/{_REASON}"):
            stored = storage.get(info.key)
            if stored is not None:
                yield parse_rejection(stored.body)


def _find_place(key: str) -> str:
    """Return where the rejections of a key lie: under the key, or where it leaves no room for ours, its hash.

    A key may have 1,024 bytes. Those of a directory need not be UTF-8: half a surrogate pair stands
    for a byte that is none.
    """
    encoded = key.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest() if len(encoded) > _MAX_KEY_BYTES else key
