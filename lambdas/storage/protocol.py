"""Object storage: the protocol that the indexer speaks, and its values.

Deliberately knows nothing of channels. ``None`` means that the storage has answered "there is no
such object"; any other failure is an error (invariant 7). The storages are in ``s3.py`` and
``directory.py``; tests hold a third in memory. One contract suite runs over all three.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

CHUNK_BYTES: Final = 1024 * 1024
PAGE_OBJECTS: Final = 1000
"""The most that one request lists."""
MIN_PART_BYTES: Final = 5 * 1024 * 1024  # of every part of a multipart upload but the last
_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})  # storage classes
MAX_COPY_BYTES: Final = 5 * 1024**3  # what one part may copy


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """What the storage says of one version of one object."""

    key: str
    size: int
    etag: str
    last_modified_ms: int
    version: str | None = None
    """None where the storage keeps no versions."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Our own attributes, names in lower case; empty in listings."""
    md5: str | None = None
    """Hex, where the storage vouches for the whole object."""
    sha256: str | None = None
    """Hex, where the storage vouches for the whole object."""
    storage_class: str | None = None
    """As S3 names it; None for the standard class. Objects of some classes can't be read at once."""

    @property
    def is_archived(self) -> bool:
        """Whether the storage class says that the object can't be read unless it was restored.

        An archived object of another class, ``INTELLIGENT_TIERING``, can't be told by its listing.
        """
        return self.storage_class in _ARCHIVES


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectVersion:
    """One version of an object, or one deletion of it."""

    info: ObjectInfo
    """Of a deletion: its own version, and no bytes. ``metadata``, ``md5`` and ``sha256`` are empty."""
    is_deletion: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """An object with its bytes."""

    info: ObjectInfo
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedObject:
    """An object, with its bytes if it was small enough."""

    info: ObjectInfo
    body: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class IfMatch:
    """Write only where the current object has this ETag."""

    etag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IfAbsent:
    """Write only where there is no object."""


Condition = IfMatch | IfAbsent


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyRange:
    """The bytes ``start <= i < stop`` of an object that is there already."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.stop - self.start


Part = CopyRange | bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentHeaders:
    """How an object is to be served."""

    content_type: str
    cache_control: str


def can_copy_ranges(base: ObjectInfo, *, min_bytes: int = MIN_PART_BYTES) -> bool:
    """Tell whether a part may copy a range of an object: S3 allows that only above 5 MiB.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
    """
    return base.size > min_bytes


def check_parts(
    parts: Iterable[Part], *, base: ObjectInfo | None = None, min_bytes: int = MIN_PART_BYTES
) -> Iterator[Part]:
    """Yield the parts, and check that S3 would accept them: not every storage does.

    Raises:
        ValueError: a part that is not the last is too small, or one copies too much, or some bytes of a
            ``base`` of which only all can be copied.
    """
    previous: int | None = None
    for part in parts:
        if previous is not None and previous < min_bytes:
            raise ValueError(f"a part of {previous} bytes is not the last")
        previous = part.size if isinstance(part, CopyRange) else len(part)
        if previous <= 0 or (isinstance(part, CopyRange) and previous > MAX_COPY_BYTES):
            raise ValueError(f"a part of {previous} bytes")
        if isinstance(part, CopyRange) and base is not None:
            is_whole = previous == base.size
            if not is_whole and not can_copy_ranges(base, min_bytes=min_bytes):
                raise ValueError(f"a part of {previous} bytes of an object of {base.size}")
        yield part


class ObjectStorage(Protocol):
    """Keys to bytes, with conditional writes: what the indexer needs of S3.

    Every method may raise ``UnavailableError`` (try again) and ``AccessDeniedError`` (do not). Methods that
    read an object may raise ``UnreadableError``: the storage says what keeps everybody from reading it.
    A write that raised ``UnavailableError`` may or may not have happened.
    """

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Inspect an object without reading its bytes."""

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Read a small object whole."""

    def fetch(self, key: str, *, max_bytes: int) -> FetchedObject | None:
        """Inspect an object and read it, in one request; ``body`` is None if it has more bytes."""

    def read_range(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """Read the bytes ``start <= i < stop`` of exactly this version.

        Raises:
            VanishedError: the object is gone or another one by now.
        """

    def stream(self, info: ObjectInfo) -> Iterator[bytes]:
        """Read exactly this version in chunks of about a MiB.

        Raises:
            VanishedError: the object is gone or another one by now.
        """

    def check_readable(self, info: ObjectInfo) -> None:
        """Check that the bytes of exactly this version can be read at once, by reading one of them.

        Raises:
            UnreadableError: they can't.
            VanishedError: the version is gone.
        """

    def put(
        self,
        key: str,
        body: bytes,
        *,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Write an object whole, atomically.

        Raises:
            ConflictError: the condition did not hold, or another write was under way.
        """

    def splice(
        self,
        key: str,
        parts: Iterable[Part],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Replace a large object by parts of itself and new bytes, atomically.

        Parts are taken one by one, so that not all of them are in memory. Each but the last has at
        least ``MIN_PART_BYTES``.

        Args:
            key: the object.
            parts: what it is to consist of; ranges are ranges of ``base``.
            base: the version that is replaced, if it is still the current one; None where there must
                be none.
            headers: how it is to be served.
            metadata: our own attributes.

        Raises:
            ConflictError: ``base`` is no longer current, or another write was under way.
        """

    def copy(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str], condition: IfAbsent | None = None
    ) -> None:
        """Copy exactly this version to another key, never through this process.

        Raises:
            VanishedError: the source is gone.
            ConflictError: the condition did not hold, or another write was under way.
        """

    def delete(self, info: ObjectInfo) -> None:
        """Delete exactly this version, for ever; the current one where ``info`` comes from a listing.

        It is no error if it is gone already.
        """

    def hide(self, info: ObjectInfo) -> None:
        """Delete an object as readers see it; the storage keeps its versions.

        Raises:
            VanishedError: this version is no longer the current one.
            AccessDeniedError: the storage keeps no versions.
        """

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects under a prefix in the order of their keys, page by page."""

    def has_history(self, key: str) -> bool:
        """Tell whether ``list_history`` has anything to list, without listing it."""

    def list_versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """List the versions of all keys under a prefix and their deletions, page by page; keys up to ``after`` aside.

        In the order of the keys, and the newest of each key first, which is what readers get now. Where the
        storage keeps no versions, it is the only one.
        """

    def list_history(self, key: str) -> Iterator[ObjectVersion]:
        """List the versions of exactly this key and its deletions, the newest first, page by page.

        The first is what readers get now. Where the storage keeps no versions, it is the only one.
        """

    def list_folders(self, prefix: str) -> Iterator[str]:
        """List the names of the folders directly under a prefix, which ends in ``/`` or is empty."""

    def list_files(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects directly under a prefix, which ends in ``/`` or is empty, and in no folder of it."""
