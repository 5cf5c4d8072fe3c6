"""Builds real artifacts, good and hostile, in memory and fast."""

from __future__ import annotations

import bz2
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lambdas.channel.errors import VanishedError

BUILD_TIMESTAMP_MS = 1_700_000_000_000
METADATA = b'{"conda_pkg_format_version": 2}'

Members = list[tuple[str | tarfile.TarInfo, bytes]]


def index_json(
    *,
    name: str = "foo",
    version: str = "1.0",
    build: str = "0",
    subdir: str = "noarch",
    depends: Sequence[str] = (),
    index_extra: Mapping[str, Any] | None = None,
    timestamp: int | None = BUILD_TIMESTAMP_MS,
) -> dict[str, Any]:
    """The content of a package's info/index.json; a value of ``...`` in ``index_extra`` omits the key."""
    number = build.rpartition("_")[2]
    index: dict[str, Any] = {
        "arch": None if subdir == "noarch" else "x86_64",
        "build": build,
        "build_number": int(number) if number.isascii() and number.isdigit() else 0,
        "depends": list(depends),
        "name": name,
        "platform": None if subdir == "noarch" else subdir.partition("-")[0],
        "subdir": subdir,
        "version": version,
    }
    if subdir == "noarch":
        index["noarch"] = "generic"
    if timestamp is not None:
        index["timestamp"] = timestamp
    index |= index_extra or {}
    return {key: value for key, value in index.items() if value is not ...}


def info_members(
    index: Mapping[str, Any],
    *,
    run_exports: object = None,
    about: Mapping[str, Any] | None = None,
    paths: Sequence[Mapping[str, Any]] | None = None,
    recipe: str | None = None,
) -> Members:
    """The members of info/."""
    members: Members = [
        ("info/index.json", json.dumps(index).encode()),
        ("info/paths.json", json.dumps({"paths": paths or [], "paths_version": 1}).encode()),
    ]
    if about is not None:
        members.append(("info/about.json", json.dumps(about).encode()))
    if run_exports is not None:
        members.append(("info/run_exports.json", json.dumps(run_exports).encode()))
    if recipe is not None:
        members.append(("info/recipe/meta.yaml", recipe.encode()))
    return members


def tar(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], *, pax: bool = False) -> bytes:
    """A plain tar."""
    parts = []
    for name, content in members:
        member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
        if not isinstance(name, tarfile.TarInfo):
            member.size = len(content)
        parts += [
            member.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT),
            content,
            bytes(-len(content) % 512),
        ]
    return b"".join([*parts, bytes(1024)])


def tar_member(name: str, kind: bytes, *, target: str = "", size: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    """A member that is not a regular file."""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    member.size = size
    return member, b""


def compress_zstd(content: bytes, level: int = 1) -> bytes:
    """One frame of zstd."""
    return zstd.compress(content, level)


def conda(stem: str, info: bytes, payload: bytes, *, level: int = 1) -> bytes:
    """A .conda around two tars."""
    return zipped(
        [
            ("metadata.json", METADATA),
            (f"pkg-{stem}.tar.zst", compress_zstd(payload, level)),
            (f"info-{stem}.tar.zst", compress_zstd(info, level)),
        ]
    )


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """A zip whose members are stored."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), content)
    return file.getvalue()


PAYLOAD: Members = [("share/foo.txt", b"hello\n")]


def conda_package(
    *,
    name: str = "foo",
    version: str = "1.0",
    build: str = "0",
    subdir: str = "noarch",
    depends: Sequence[str] = (),
    run_exports: object = None,
    about: Mapping[str, Any] | None = None,
    index_extra: Mapping[str, Any] | None = None,
    timestamp: int | None = BUILD_TIMESTAMP_MS,
    paths: Sequence[Mapping[str, Any]] | None = None,
    recipe: str | None = None,
    payload: Members = PAYLOAD,
) -> tuple[str, bytes]:
    """A good ``.conda``: (filename, bytes)."""
    index = index_json(
        name=name,
        version=version,
        build=build,
        subdir=subdir,
        depends=depends,
        index_extra=index_extra,
        timestamp=timestamp,
    )
    info = info_members(index, run_exports=run_exports, about=about, paths=paths, recipe=recipe)
    stem = f"{name}-{version}-{build}"
    return f"{stem}.conda", conda(stem, tar(info), tar(payload))


def tar_bz2_package(
    *,
    name: str = "foo",
    version: str = "1.0",
    build: str = "0",
    subdir: str = "noarch",
    depends: Sequence[str] = (),
    run_exports: object = None,
    about: Mapping[str, Any] | None = None,
    index_extra: Mapping[str, Any] | None = None,
    timestamp: int | None = BUILD_TIMESTAMP_MS,
    paths: Sequence[Mapping[str, Any]] | None = None,
    recipe: str | None = None,
    payload: Members = PAYLOAD,
) -> tuple[str, bytes]:
    """A good ``.tar.bz2``: (filename, bytes)."""
    index = index_json(
        name=name,
        version=version,
        build=build,
        subdir=subdir,
        depends=depends,
        index_extra=index_extra,
        timestamp=timestamp,
    )
    info = info_members(index, run_exports=run_exports, about=about, paths=paths, recipe=recipe)
    return f"{name}-{version}-{build}.tar.bz2", bz2.compress(tar([*info, *payload]), 1)


@dataclass(kw_only=True)
class MemorySource:
    """An ArtifactSource over bytes that counts its requests."""

    content: bytes
    md5: str | None = None
    sha256: str | None = None
    piece_bytes: int = 64 * 1024
    vanished: bool = False
    ranges: list[tuple[int, int]] = field(default_factory=list)
    streamed_bytes: int = 0

    @property
    def size(self) -> int:
        return len(self.content)

    def read_range(self, start: int, stop: int) -> bytes:
        if self.vanished:
            raise VanishedError("the object changed")
        assert 0 <= start < stop <= self.size, (start, stop)
        self.ranges.append((start, stop))
        return self.content[start:stop]

    def stream(self) -> Iterator[bytes]:
        if self.vanished:
            raise VanishedError("the object changed")
        for start in range(0, self.size, self.piece_bytes):
            piece = self.content[start : start + self.piece_bytes]
            self.streamed_bytes += len(piece)
            yield piece
