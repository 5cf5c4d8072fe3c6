"""Object storage over a directory: for file shares, air-gapped disks, and to keep the protocol honest."""

import contextlib
import errno
import fcntl
import json
import os
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


class DirectoryStorage:
    """A directory: for file shares, air-gapped disks, and to keep the protocol honest.

    Writes are atomic (rename) and conditional (a lock file). An ETag is made of modification time,
    size and inode. Metadata is in another file, under ``.fairway/metadata/``, and counts only while it
    names the ETag of the object it belongs to. No versions are kept.
    """

    def __init__(self, root: Path, *, channel: str | None = None) -> None:
        self.root = root
        self._channel = channel
        """Where set: ``root`` is this channel's own folder, and keys are ``CHANNEL/SUBDIR/…`` all the same."""

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Inspect a file."""
        if version is not None:
            return None
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _translate_os_error(error, key) from error
        if not self._path(key).is_file():
            return None
        return self._describe(key, status)

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Read a file whole."""
        if version is not None:
            return None
        try:
            with self._path(key).open("rb") as file:
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
            with self._path(key).open("rb") as file:
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
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._check(key, condition)
                handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
                temporary = Path(name)
                try:
                    with os.fdopen(handle, "wb") as file:
                        file.write(body)
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.chmod(0o644)
                    # Metadata first: it names an ETag that no object has yet. If we stop here, the
                    # old object simply has no metadata, and is made again.
                    self._write_metadata(key, _file_etag(temporary.stat()), metadata)
                    temporary.replace(path)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
                status = path.stat()
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return self._describe(key, status)

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
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            temporary = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    for part in check_parts(parts, base=base):
                        for chunk in self._read_part(key, part, base):
                            file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.chmod(0o644)
                with self._locked():
                    self._check(key, IfAbsent() if base is None else IfMatch(etag=base.etag))
                    self._write_metadata(key, _file_etag(temporary.stat()), metadata)  # first: see put
                    temporary.replace(path)
                    status = path.stat()
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _translate_os_error(error, key) from error
        return self._describe(key, status)

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
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._check(key, condition)
                handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
                temporary = Path(name)
                try:
                    with os.fdopen(handle, "wb") as file:
                        for chunk in self.stream(source):
                            file.write(chunk)
                    self._write_metadata(key, _file_etag(temporary.stat()), metadata)
                    temporary.replace(path)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise _translate_os_error(error, key) from error

    def delete(self, info: ObjectInfo) -> None:
        """Remove a file and its metadata, if it is still the same."""
        path = self._path(info.key)
        try:
            with self._locked():
                if path.is_file() and _file_etag(path.stat()) == info.etag:
                    path.unlink()
                    self._metadata_path(info.key).unlink(missing_ok=True)
        except OSError as error:
            raise _translate_os_error(error, info.key) from error

    def hide(self, info: ObjectInfo) -> None:
        """Fail: a directory has nothing that could keep what is hidden."""
        raise AccessDeniedError(f"{info.key!r} can't be hidden: a directory keeps no versions")

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Walk the directory in the order of keys."""
        folder = prefix.rpartition("/")[0]
        if not folder and self._channel is not None:
            for one in sorted([_PRIVATE_PREFIX, f"{self._channel}/"]):
                yield from (info for info in self.list_objects(one) if info.key.startswith(prefix))
            return
        start = self._path(folder) if folder else self.root
        for key, entry in self._walk(start, folder + "/" if folder else ""):
            if key.startswith(prefix):
                yield from _list_file(key, entry)

    def has_history(self, key: str) -> bool:
        """Tell whether there is a file."""
        return self.head(key) is not None

    def list_versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """List the files: a directory keeps no versions."""
        for info in self.list_objects(prefix):
            if info.key > after:
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
        try:
            entries = sorted((self._path(prefix) if prefix else self.root).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from (entry.name for entry in entries if entry.is_dir() and entry.name != _PRIVATE_PREFIX[:-1])

    def list_files(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the files directly inside a folder."""
        if not prefix and self._channel is not None:
            return
        try:
            entries = sorted((self._path(prefix) if prefix else self.root).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if not entry.is_dir() and not entry.name.startswith(_TEMPORARY) and prefix + entry.name not in _OWN:
                yield from _list_file(prefix + entry.name, entry)

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        try:
            # S3 orders whole keys: "a-b" before "a/c", so folders sort with their slash.
            entries = sorted(folder.iterdir(), key=lambda entry: entry.name + ("/" if entry.is_dir() else ""))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_symlink() and entry.is_dir():
                continue
            if entry.is_dir():
                ours = folder == self.root and self._channel is not None and entry.name == _PRIVATE_PREFIX[:-1]
                if not ours and prefix + entry.name not in _OWN:
                    yield from self._walk(entry, prefix + entry.name + "/")
            elif not entry.name.startswith(_TEMPORARY) and prefix + entry.name not in _OWN:
                yield prefix + entry.name, entry

    def _path(self, key: str) -> Path:
        parts = key.rstrip("/").split("/")
        if key.startswith("/") or "\0" in key or any(part in {"", ".", ".."} for part in parts):
            raise InvalidNameError(f"not a key of a directory: {key!r}")
        if self._channel is not None and parts[0] != _PRIVATE_PREFIX[:-1]:
            if parts[0] != self._channel:
                raise InvalidNameError(f"not a key of the channel {self._channel!r}: {key!r}")
            parts = parts[1:]
        return self.root.joinpath(*parts)

    def _metadata_path(self, key: str) -> Path:
        return self.root / ".fairway" / "metadata" / f"{key}.json"

    def _write_metadata(self, key: str, etag: str, metadata: Mapping[str, str] | None) -> None:
        path = self._metadata_path(key)
        if not metadata:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"etag": etag, "metadata": dict(metadata)}), encoding="utf-8")

    def _describe(self, key: str, status: os.stat_result) -> ObjectInfo:
        etag = _file_etag(status)
        metadata: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(self._metadata_path(key).read_text(encoding="utf-8"))
            if document["etag"] == etag:
                metadata = document["metadata"]
        return ObjectInfo(
            key=key, size=status.st_size, etag=etag, last_modified_ms=_modified_ms(status), metadata=metadata
        )

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
        try:
            file = self._path(info.key).open("rb")
        except FileNotFoundError as error:
            raise VanishedError(f"{info.key!r} is gone") from error
        except OSError as error:
            raise _translate_os_error(error, info.key) from error
        with file:
            if _file_etag(os.fstat(file.fileno())) != info.etag:
                raise VanishedError(f"{info.key!r} was replaced while being read")
            yield file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.root / ".fairway" / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _list_file(key: str, entry: Path) -> Iterator[ObjectInfo]:
    with contextlib.suppress(FileNotFoundError):  # gone since its folder was read
        status = entry.stat()
        yield ObjectInfo(key=key, size=status.st_size, etag=_file_etag(status), last_modified_ms=_modified_ms(status))


def _file_etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _modified_ms(status: os.stat_result) -> int:
    return int(status.st_mtime) * 1000  # whole seconds, as S3 has them


def _translate_os_error(error: OSError, key: str) -> FairwayError:
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return AccessDeniedError(f"{key!r}: {os.strerror(error.errno)}")
    return UnavailableError(f"{key!r}: {error.strerror or error}")
