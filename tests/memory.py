"""A versioned object storage in memory, which can fail the way S3 fails.

``MemoryStorage`` keeps versions and delete markers, counts requests by kind, and calls ``fault``
before and after each request. A fault raises what S3 would answer: before, the write did not happen
(``…_and_not_persist``); after, it did although the answer was lost (``…_but_persist``).
"""

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lambdas.channel.errors import ConflictError, UnreadableError, VanishedError
from lambdas.indexer.model import Rejection
from lambdas.storage.protocol import (
    CHUNK_BYTES,
    MIN_PART_BYTES,
    Condition,
    ContentHeaders,
    CopyRange,
    FetchedObject,
    IfAbsent,
    ObjectInfo,
    ObjectVersion,
    Part,
    StoredObject,
    check_parts,
)

_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})

Fault = Callable[[str, str, str], None]
"""Called with the request ("put"), the key, and "before" or "after"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    info: ObjectInfo
    body: bytes | None
    """None for a delete marker."""
    headers: ContentHeaders | None = None
    is_encrypted: bool = False
    """With a key that readers lack, so that HEAD is denied as well."""


@dataclass(kw_only=True)
class MemoryStorage:
    """Keys to versions, oldest first."""

    clock_ms: int = 1_790_000_000_000
    fault: Fault | None = None
    min_part_bytes: int = MIN_PART_BYTES
    versions: dict[str, list[_Version]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._serial = itertools.count(1)
        self._lock = threading.RLock()

    # What publishers do: not counted, never failing.

    def upload(
        self,
        key: str,
        body: bytes,
        *,
        last_modified_ms: int | None = None,
        storage_class: str | None = None,
        is_encrypted: bool = False,
    ) -> ObjectInfo:
        with self._lock:
            self._add(key, body, None, {}, last_modified_ms=last_modified_ms)
            return self._change(key, storage_class=storage_class, is_encrypted=is_encrypted)

    def archive(self, key: str, storage_class: str | None) -> None:
        """Move an object to a storage class, as a lifecycle rule does."""
        with self._lock:
            self._change(key, storage_class=storage_class, is_encrypted=False)

    def remove(self, key: str) -> None:
        """Put a delete marker, as ``aws s3 rm`` does."""
        with self._lock:
            if self._current(key) is not None:
                info = ObjectInfo(key=key, size=0, etag="", last_modified_ms=self.clock_ms, version=self._next())
                self.versions[key].append(_Version(info=info, body=None))

    def list_keys(self) -> list[str]:
        with self._lock:
            return sorted(key for key in self.versions if self._current(key) is not None)

    def body(self, key: str) -> bytes:
        current = self._current(key)
        assert current is not None, key
        assert current.body is not None
        return current.body

    def headers(self, key: str) -> ContentHeaders:
        current = self._current(key)
        assert current is not None
        assert current.headers is not None
        return current.headers

    def fork(self) -> "MemoryStorage":
        """Another storage that holds the same, and goes its own way from here."""
        with self._lock:
            other = MemoryStorage(
                clock_ms=self.clock_ms,
                min_part_bytes=self.min_part_bytes,
                versions={key: list(versions) for key, versions in self.versions.items()},
            )
            other._serial = itertools.count(next(self._serial))
            return other

    def snapshot(self, *, private: bool = False) -> dict[str, bytes]:
        return {key: self.body(key) for key in self.list_keys() if private or not key.startswith(".fairway/")}

    # ObjectStorage

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        with self._request("head", key):
            found = self._find(key, version)
            if found is None:
                return None
            if found.is_encrypted:
                _require_readable(found)
            return found.info

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        with self._request("get", key):
            found = self._find(key, version)
            if found is None or found.body is None:
                return None
            _require_readable(found)
            return StoredObject(info=found.info, body=found.body)

    def fetch(self, key: str, *, max_bytes: int) -> FetchedObject | None:
        with self._request("get", key):
            found = self._find(key, None)
            if found is None or found.body is None:
                return None
            _require_readable(found)
            return FetchedObject(info=found.info, body=found.body if found.info.size <= max_bytes else None)

    def read_range(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        with self._request("get", info.key):
            return self._exactly(info)[start:stop]

    def stream(self, info: ObjectInfo) -> Iterator[bytes]:
        with self._request("get", info.key):
            body = self._exactly(info)
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]

    def check_readable(self, info: ObjectInfo) -> None:
        with self._request("get", info.key):
            self._exactly(info)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        with self._request("put", key):
            current = self._current(key)
            if isinstance(condition, IfAbsent):
                if current is not None:
                    raise ConflictError(f"{key!r} exists")
            elif condition is not None and (current is None or current.info.etag != condition.etag):
                raise ConflictError(f"{key!r} was replaced")
            return self._add(key, body, headers, dict(metadata or {}))

    def splice(
        self,
        key: str,
        parts: Iterable[Part],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        pieces = []
        for part in check_parts(parts, base=base, min_bytes=self.min_part_bytes):
            if isinstance(part, CopyRange):
                assert base is not None
                try:
                    pieces.append(self._exactly(base)[part.start : part.stop])
                except VanishedError as error:
                    raise ConflictError(f"{key!r} was replaced") from error
                assert len(pieces[-1]) == part.size
            else:
                pieces.append(part)
        with self._request("splice", key):
            current = self._current(key)
            if (None if current is None else current.info.etag) != (None if base is None else base.etag):
                raise ConflictError(f"{key!r} was replaced")
            return self._add(key, b"".join(pieces), headers, dict(metadata or {}))

    def copy(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str], condition: IfAbsent | None = None
    ) -> None:
        with self._request("copy", key):
            if condition is not None and self._current(key) is not None:
                raise ConflictError(f"{key!r} is there already")
            self._add(key, self._exactly(source), None, dict(metadata))

    def delete(self, info: ObjectInfo) -> None:
        with self._request("delete", info.key):
            if info.version is None:
                self.remove(info.key)
            elif info.key in self.versions:
                left = [one for one in self.versions[info.key] if one.info.version != info.version]
                self.versions[info.key] = left

    def hide(self, info: ObjectInfo) -> None:
        with self._request("delete", info.key):
            current = self._current(info.key)
            if current is None or current.info.etag != info.etag:
                raise VanishedError(f"{info.key!r} was replaced")
            self.remove(info.key)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._request("list", prefix):
            found = []
            for key in self.list_keys():
                current = self._current(key)
                if key.startswith(prefix) and current is not None:
                    found.append(replace(current.info, version=None, metadata={}, md5=None))
        yield from found

    def has_history(self, key: str) -> bool:
        with self._request("head", key):
            return bool(self.versions.get(key))

    def list_versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        with self._request("list", prefix):
            keys = sorted(key for key in self.versions if key.startswith(prefix) and key > after)
            found = [one for key in keys for one in self._list_history(key)]
        yield from found

    def list_history(self, key: str) -> Iterator[ObjectVersion]:
        with self._request("list", key):
            found = self._list_history(key)
        yield from found

    def list_folders(self, prefix: str) -> Iterator[str]:
        with self._request("list", prefix):
            rests = [key[len(prefix) :] for key in self.list_keys() if key.startswith(prefix)]
            found = sorted({rest.partition("/")[0] for rest in rests if "/" in rest})
        yield from found

    def list_files(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from (info for info in self.list_objects(prefix) if "/" not in info.key[len(prefix) :])

    # Inside

    def _next(self) -> str:
        return f"v{next(self._serial):06}"

    def _add(
        self,
        key: str,
        body: bytes,
        headers: ContentHeaders | None,
        metadata: dict[str, str],
        *,
        last_modified_ms: int | None = None,
    ) -> ObjectInfo:
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        info = ObjectInfo(
            key=key,
            size=len(body),
            etag=md5,
            last_modified_ms=self.clock_ms if last_modified_ms is None else last_modified_ms,
            version=self._next(),
            metadata=metadata,
            md5=md5,
        )
        self.versions.setdefault(key, []).append(_Version(info=info, body=body, headers=headers))
        return info

    def _change(self, key: str, *, storage_class: str | None, is_encrypted: bool) -> ObjectInfo:
        found = self.versions[key][-1]
        info = replace(found.info, storage_class=storage_class)
        if is_encrypted:
            info = replace(info, etag=hashlib.md5(info.etag.encode(), usedforsecurity=False).hexdigest(), md5=None)
        self.versions[key][-1] = replace(found, info=info, is_encrypted=is_encrypted)
        return info

    def _list_history(self, key: str) -> list[ObjectVersion]:
        return [
            ObjectVersion(info=replace(one.info, metadata={}, md5=None), is_deletion=one.body is None)
            for one in reversed(self.versions.get(key, []))
        ]

    def _current(self, key: str) -> _Version | None:
        versions = self.versions.get(key)
        if not versions or versions[-1].body is None:
            return None
        return versions[-1]

    def _find(self, key: str, version: str | None) -> _Version | None:
        if version is None:
            return self._current(key)
        return next((one for one in self.versions.get(key, ()) if one.info.version == version), None)

    def _exactly(self, info: ObjectInfo) -> bytes:
        found = self._find(info.key, info.version)
        if found is None or found.body is None or found.info.etag != info.etag:
            raise VanishedError(f"{info.key!r} is gone")
        _require_readable(found)
        return found.body

    def _request(self, kind: str, key: str) -> "_Request":
        return _Request(self, kind, key)


def _require_readable(version: _Version) -> None:
    if version.is_encrypted:
        raise UnreadableError(f"{version.info.key!r} is encrypted with a key that only its publisher has")
    if version.info.storage_class in _ARCHIVES:
        raise UnreadableError(f"{version.info.key!r} is archived")


@dataclass(frozen=True, slots=True)
class _Request:
    """One request: the fault before and after it is called without the lock, so that it may let others in."""

    storage: MemoryStorage
    kind: str
    key: str

    def __enter__(self) -> None:
        if self.storage.fault is not None:
            self.storage.fault(self.kind, self.key, "before")
        self.storage._lock.acquire()
        self.storage.requests[self.kind] += 1
        self.storage.log.append((self.kind, self.key))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.storage._lock.release()
        if error is None and self.storage.fault is not None:
            self.storage.fault(self.kind, self.key, "after")


@dataclass(kw_only=True)
class RecordingNotifier:
    """Remembers what it was told."""

    rejections: list[Rejection] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    invalidations: int = 0

    def publish_rejection(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)

    def invalidate(self, keys: Sequence[str]) -> None:
        self.invalidations += bool(keys)
        self.dropped.extend(keys)
