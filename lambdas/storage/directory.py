"""Object storage over a directory: for file shares, air-gapped disks, and to keep the protocol honest."""

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    FairwayError,
    InvalidNameError,
    UnavailableError,
    VanishedError,
)
from lambdas.storage.protocol import (
    CHUNK_BYTES,
    Condition,
    ContentHeaders,
    FetchedObject,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectVersion,
    Part,
    StoredObject,
    check_parts,
)

_PRIVATE_PREFIX: Final = ".fairway/"
_TEMPORARY: Final = ".fairway-"
_OWN: Final = frozenset({".fairway/metadata", ".fairway/lock"})  # no objects
_NO_PARTS: Final = frozenset({"", ".", ".."})


class DirectoryStorage:
    """A directory: for file shares, air-gapped disks, and to keep the protocol honest.

    Writes are atomic (rename) and conditional (a lock file). An ETag is made of modification time,
    size and inode. Metadata is in another file, under ``.fairway/metadata/``, and counts only while it
    names the ETag of the object it belongs to. No versions are kept.
    """

    def __init__(self, root: Path, *, channel: str | None = None) -> None:
        self.root = root
        self._lock = os.path.join(root, ".fairway", "lock")
        self._channel = channel
        """Where set: ``root`` is this channel's own folder, and keys are ``CHANNEL/SUBDIR/…`` all the same."""

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Inspect a file."""
        if version is not None:
            return None
        try:
            status = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return self._describe(key, status) if stat.S_ISREG(status.st_mode) else None

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Read a file whole."""
        if version is not None:
            return None
        try:
            with open(self._path(key), "rb") as file:
                body = file.read()
                status = os.fstat(file.fileno())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return StoredObject(info=self._describe(key, status), body=body)

    def fetch(self, key: str, *, max_bytes: int) -> FetchedObject | None:
        """Inspect a file, and read it if it is small enough."""
        try:
            with open(self._path(key), "rb") as file:
                status = os.fstat(file.fileno())
                body = file.read() if status.st_size <= max_bytes else None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return FetchedObject(info=self._describe(key, status), body=body)

    def read_range(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """Read a range of the file, if it is still the same."""
        with self._open_same(info) as file:
            file.seek(start)
            return bytes(file.read(max(0, stop - start)))

    def stream(self, info: ObjectInfo) -> Iterator[bytes]:
        """Read the file in chunks, if it is still the same."""
        with self._open_same(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def check_readable(self, info: ObjectInfo) -> None:
        """Open the file, if it is still the same."""
        with self._open_same(info):
            pass

    def put(
        self,
        key: str,
        body: bytes,
        *,
        headers: ContentHeaders,  # noqa: ARG002 - a directory serves nothing
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Write a file beside, then rename it over the old one."""
        return self._replace(key, [body], metadata=metadata, condition=condition)

    def splice(
        self,
        key: str,
        parts: Iterable[Part],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,  # noqa: ARG002 - a directory serves nothing
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write a file beside, part by part, then rename it over the old one."""
        chunks = (chunk for part in check_parts(parts, base=base) for chunk in self._read_part(key, part, base))
        condition = IfAbsent() if base is None else IfMatch(etag=base.etag)
        return self._replace(key, chunks, metadata=metadata, condition=condition)

    def _read_part(self, key: str, part: Part, base: ObjectInfo | None) -> Iterator[bytes]:
        if isinstance(part, bytes):
            yield part
            return
        if base is None:
            raise ValueError("a part copies, and there is nothing to copy from")
        try:
            for start in range(part.start, part.stop, CHUNK_BYTES):
                yield self.read_range(base, start, min(start + CHUNK_BYTES, part.stop))
        except VanishedError as error:
            raise ConflictError(f"{key!r} was replaced by another writer") from error

    def copy(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str], condition: IfAbsent | None = None
    ) -> None:
        """Copy a file chunk by chunk, then rename it into place."""
        self._replace(key, self.stream(source), metadata=metadata, condition=condition)

    def _replace(
        self, key: str, chunks: Iterable[bytes], *, metadata: Mapping[str, str] | None, condition: Condition | None
    ) -> ObjectInfo:
        """Write a file beside, then rename it over the old one.

        The lock is not held while bytes are written: what takes long is waiting for the disk, and many
        threads wait for it at once.
        """
        path = self._path(key)
        folder = os.path.dirname(path)
        try:
            try:
                handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
            except FileNotFoundError:
                os.makedirs(folder, exist_ok=True)
                handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
            try:
                with open(handle, "wb") as file:
                    file.writelines(chunks)
                    file.flush()
                    os.fchmod(handle, 0o644)
                    os.fsync(handle)
                    status = os.fstat(handle)
                with self._locked():
                    self._check(key, condition)
                    # Metadata first: it names an ETag that no object has yet. If we stop here, the
                    # old object simply has no metadata, and is made again.
                    self._write_metadata(key, _file_etag(status), metadata)
                    os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return _make_info(key, status, metadata or {})

    def delete(self, info: ObjectInfo) -> None:
        """Remove a file and its metadata, if it is still the same."""
        path = self._path(info.key)
        try:
            with self._locked(), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode) and _file_etag(status) == info.etag:
                    os.unlink(path)
                    self._write_metadata(info.key, "", None)
        except OSError as error:
            raise _translate_os_error(error, info.key) from error

    def hide(self, info: ObjectInfo) -> None:
        """Fail: a directory has nothing that could keep what is hidden."""
        raise AccessDeniedError(f"{info.key!r} can't be hidden: a directory keeps no versions")

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Walk the directory in the order of keys."""
        return self._list(prefix, after="")

    def _list(self, prefix: str, *, after: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if not folder and self._channel is not None:
            for one in sorted([_PRIVATE_PREFIX, f"{self._channel}/"]):
                yield from (info for info in self._list(one, after=after) if info.key.startswith(prefix))
            return
        start = self._path(folder) if folder else str(self.root)
        for key, entry in self._walk(start, folder + "/" if folder else ""):
            if key > after and key.startswith(prefix):
                yield from _list_file(key, entry)

    def has_history(self, key: str) -> bool:
        """Tell whether there is a file."""
        return self.head(key) is not None

    def list_versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """List the files: a directory keeps no versions."""
        for info in self._list(prefix, after=after):
            yield ObjectVersion(info=info, is_deletion=False)

    def list_history(self, key: str) -> Iterator[ObjectVersion]:
        """List the file, if there is one: a directory keeps no versions."""
        info = self.head(key)
        if info is not None:
            yield ObjectVersion(info=replace(info, metadata={}), is_deletion=False)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """List the folders directly inside one."""
        if not prefix and self._channel is not None:
            yield self._channel
            return
        for entry in self._scan(self._path(prefix) if prefix else str(self.root)):
            if entry.is_dir() and entry.name != _PRIVATE_PREFIX[:-1]:
                yield entry.name

    def list_files(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the files directly inside a folder."""
        if not prefix and self._channel is not None:
            return
        for entry in self._scan(self._path(prefix) if prefix else str(self.root)):
            if not entry.is_dir() and not entry.name.startswith(_TEMPORARY) and prefix + entry.name not in _OWN:
                yield from _list_file(prefix + entry.name, entry)

    def _scan(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder, in the order of keys: "a-b" before "a/c", so folders sort with their slash."""
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name + "/" if entry.is_dir() else entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._scan(folder):
            key = prefix + entry.name
            if entry.is_dir():
                # The channel's own folder is the root: the private one beside its subdirs is listed by itself.
                is_private = key == f"{self._channel}/{_PRIVATE_PREFIX[:-1]}"
                if not entry.is_symlink() and not is_private and key not in _OWN:
                    yield from self._walk(entry.path, key + "/")
            elif not entry.name.startswith(_TEMPORARY) and key not in _OWN:
                yield key, entry

    def _path(self, key: str) -> str:
        parts = key.rstrip("/").split("/")
        if key.startswith("/") or "\0" in key or not _NO_PARTS.isdisjoint(parts):
            raise InvalidNameError(f"not a key of a directory: {key!r}")
        if self._channel is not None and parts[0] != _PRIVATE_PREFIX[:-1]:
            if parts[0] != self._channel:
                raise InvalidNameError(f"not a key of the channel {self._channel!r}: {key!r}")
            parts = parts[1:]
        return os.path.join(self.root, *parts)

    def _metadata_path(self, key: str) -> str:
        return os.path.join(self.root, ".fairway", "metadata", f"{key}.json")

    def _write_metadata(self, key: str, etag: str, metadata: Mapping[str, str] | None) -> None:
        path = self._metadata_path(key)
        if not metadata:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"etag": etag, "metadata": dict(metadata)}, file)

    def _describe(self, key: str, status: os.stat_result) -> ObjectInfo:
        metadata: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._metadata_path(key), "rb") as file:
                document = json.loads(file.read())
            if document["etag"] == _file_etag(status):
                metadata = document["metadata"]
        return _make_info(key, status, metadata)

    def _check(self, key: str, condition: Condition | None) -> None:
        if condition is None:
            return
        info = self.head(key)
        if isinstance(condition, IfAbsent):
            if info is not None:
                raise ConflictError(f"{key!r} exists")
        elif info is None or info.etag != condition.etag:
            raise ConflictError(f"{key!r} was replaced by another writer")

    @contextlib.contextmanager
    def _open_same(self, info: ObjectInfo) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(self._path(info.key), "rb"))
            except FileNotFoundError as error:
                raise VanishedError(f"{info.key!r} is gone") from error
            except OSError as error:
                raise _translate_os_error(error, info.key) from error
            if _file_etag(os.fstat(file.fileno())) != info.etag:
                raise VanishedError(f"{info.key!r} was replaced while being read")
            yield file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            handle = os.open(self._lock, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._lock), exist_ok=True)
            handle = os.open(self._lock, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _list_file(key: str, entry: os.DirEntry[str]) -> Iterator[ObjectInfo]:
    with contextlib.suppress(FileNotFoundError):  # gone since its folder was read
        yield _make_info(key, entry.stat(), {})


def _make_info(key: str, status: os.stat_result, metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        etag=_file_etag(status),
        last_modified_ms=int(status.st_mtime) * 1000,  # whole seconds, as S3 has them
        metadata=metadata,
    )


def _file_etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _translate_os_error(error: OSError, key: str) -> FairwayError:
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return AccessDeniedError(f"{key!r}: {os.strerror(error.errno)}")
    return UnavailableError(f"{key!r}: {error.strerror or error}")
