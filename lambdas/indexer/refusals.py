"""Sets refused uploads aside, each beside its reason, and tells the world.

A refused object leaves its public key, so that the earlier version, if any, is served again; its
bytes and the reason are kept under ``.fairway/rejected/KEY/ID/``. ID is made of the refused bytes'
ETag: the same bytes refused twice lie in one place. A very long key is named by its hash.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from lambdas.channel.errors import InvalidDocumentError, RefusedError
from lambdas.channel.names import REJECTED_PREFIX
from lambdas.indexer.encoding import decode_json, encode_json
from lambdas.indexer.storage import CACHE_CONTROL_PRIVATE, ContentHeaders, ObjectInfo, ObjectStorage

_REASON: Final = "reason.json"
_BYTES: Final = "object"
_ID_CHARS: Final = 16
_MAX_KEY_BYTES: Final = 900
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_REASON_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """What was refused, and why: the document beside the bytes."""

    key: str
    id: str
    code: str
    message: str
    hint: str | None
    size: int
    etag: str
    uploaded_at: str
    """ISO 8601, UTC."""

    @property
    def reason_key(self) -> str:
        """Where this document lies."""
        return f"{self._folder}/{_REASON}"

    @property
    def object_key(self) -> str:
        """Where the refused bytes lie."""
        return f"{self._folder}/{_BYTES}"

    @property
    def _folder(self) -> str:
        return f"{REJECTED_PREFIX}{_find_place(self.key)}/{self.id}"


class Announcer(Protocol):
    """Tells others what happened; each call may come twice."""

    def announce_refusal(self, refusal: Refusal) -> None:
        """Tell that an upload was refused."""

    def drop_cached(self, keys: list[str]) -> None:
        """Make caches forget what lay under these keys."""


def make_refusal(info: ObjectInfo, error: RefusedError) -> Refusal:
    """Describe a refusal."""
    return Refusal(
        key=info.key,
        id=hashlib.sha256(info.etag.encode()).hexdigest()[:_ID_CHARS],
        code=error.code,
        message=str(error),
        hint=error.hint,
        size=info.size,
        etag=info.etag,
        uploaded_at=datetime.fromtimestamp(info.last_modified_ms / 1000, UTC).isoformat(),
    )


def set_aside(storage: ObjectStorage, announcer: Announcer, info: ObjectInfo, error: RefusedError) -> Refusal:
    """Move a refused object away from its public key, with its reason.

    Raises:
        VanishedError: the object is gone by now: look again.
    """
    refusal = make_refusal(info, error)
    # Bytes, reason, word, and only then the public key: stopping anywhere repeats the rest.
    storage.copy(info, refusal.object_key, metadata={})
    storage.put(refusal.reason_key, encode_json(asdict(refusal)), headers=_REASON_HEADERS)
    announcer.announce_refusal(refusal)
    # Caches are told twice: what they fetch between the two is forgotten too, and should we stop after
    # the deletion, when nothing shows any more that they are to be told, they were told just before.
    announcer.drop_cached([info.key])
    storage.delete(info)
    announcer.drop_cached([info.key])
    return refusal


def parse_refusal(body: bytes) -> Refusal:
    """Parse the document beside refused bytes.

    Raises:
        InvalidDocumentError: it is none.
    """
    document: Any = decode_json(body, what="refusal")
    try:
        return Refusal(**document)
    except TypeError as error:
        raise InvalidDocumentError(f"not a refusal: {error}") from error


def list_refusals(storage: ObjectStorage, prefix: str = "") -> Iterator[Refusal]:
    """Read the refusals of all keys that start with the prefix."""
    places = [REJECTED_PREFIX + prefix]
    if prefix:  # keys that lie under their hash are in none of the places that a prefix tells
        hashes = [name for name in storage.list_folders(REJECTED_PREFIX) if _HASH.match(name)]
        places += [f"{REJECTED_PREFIX}{name}/" for name in hashes if not name.startswith(prefix)]
    for place in places:
        yield from (refusal for refusal in _read_refusals(storage, place) if refusal.key.startswith(prefix))


def fetch_refusals(storage: ObjectStorage, key: str) -> list[Refusal]:
    """Read the refusals of exactly this key, the latest last."""
    found = _read_refusals(storage, f"{REJECTED_PREFIX}{_find_place(key)}/")
    return sorted((refusal for refusal in found if refusal.key == key), key=lambda refusal: refusal.uploaded_at)


def _read_refusals(storage: ObjectStorage, place: str) -> Iterator[Refusal]:
    for info in storage.list_objects(place):
        if info.key.endswith(f"/{_REASON}"):
            stored = storage.get(info.key)
            if stored is not None:
                yield parse_refusal(stored.body)


def _find_place(key: str) -> str:
    """Return where the refusals of a key lie: under the key, or where it leaves no room for ours, its hash.

    A key may have 1,024 bytes. Those of a directory need not be UTF-8: half a surrogate pair stands
    for a byte that is none.
    """
    encoded = key.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest() if len(encoded) > _MAX_KEY_BYTES else key
