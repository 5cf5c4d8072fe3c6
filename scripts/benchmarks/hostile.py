"""Hostile batches: uploads of a few kilobytes that cost an indexer without bounds gigabytes or minutes.

Each is a kind of attack: what it uploads, and what was published before it. Made by code, the same in
every run.
"""

from __future__ import annotations

import bz2
import io
import json
import random
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.names import PackageName
from lambdas.indexer.tree.cards import Card, Cards
from scripts.benchmarks.synthetic import iter_cards
from tests.builders import conda_package
from tests.indexer.zips import Member, build_zip

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB: Final = 1024 * 1024
_WINDOW_LOG: Final = 27  # 128 MiB: the largest that is accepted
_INDEX_BYTES: Final = 256 * 1024
_RECORDS: Final = 16_000  # of one name: a shard of nearly 16 MiB
_END: Final = bytes(1024)

Uploads = dict[str, bytes]
"""``{filename: bytes}``"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostileBatch:
    """One batch."""

    title: str
    build: Callable[[], Uploads]
    published: Callable[[], Mapping[PackageName, Cards]] = dict
    """What the subdir has before."""
    is_long: bool = False
    """Whether it takes more than some seconds: then it is left out of short runs."""


def build_windows() -> Uploads:
    """16 payloads with zstd windows of 128 MiB."""
    head = tarfile.TarInfo("share/zeros")
    head.size = 127 * MIB
    chunks = [head.tobuf(tarfile.GNU_FORMAT), *[bytes(MIB)] * 127, _END]
    payload = _compress(chunks, window_log=_WINDOW_LOG)
    return dict(_conda(f"window{number}", payload=payload) for number in range(16))


def build_values() -> Uploads:
    """40 documents of a megabyte with 340,000 values each."""
    return dict(_conda(f"values{number}", index={"x": [[]] * 340_000}) for number in range(40))


def build_documents() -> Uploads:
    """100 documents as large as is accepted, with as many values."""
    many: list[list[object]] = [[]] * 9_000
    text = "x" * (_INDEX_BYTES - 30_000)
    return dict(_conda(f"document{number}", index={"many": many, "text": text}) for number in range(100))


def build_deep() -> Uploads:
    """50 documents that are nested 100,000 levels deep."""
    content = b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    return dict(_conda(f"deep{number}", raw=content) for number in range(50))


def build_texts() -> Uploads:
    """50 summaries and descriptions of 1.9 MB."""
    about = {"summary": "s" * 1_900_000, "description": "d" * 1_900_000}
    return dict(conda_package(name=f"text{number}", subdir="linux-64", about=about) for number in range(50))


def build_slow() -> Uploads:
    """One archive that takes 50 s of processor time."""
    noise = random.Random(1).randbytes(7_000_000)  # noqa: S311 - synthetic data, not a secret
    record = b"".join(b"70 k%02d=" % number + b"v" * 62 + b"\n" for number in range(63))
    unit = (_member("pax", record, kind=b"x") + _member("share/x")) * 200
    payload = _compress([_member("share/noise", noise), *[unit] * 1249, _END], level=3)
    return dict(_conda(f"slow{number}", payload=payload) for number in range(1))


def build_bzip2() -> Uploads:
    """16 tarballs with 2 MiB of noise, which bzip2 decompresses slowly."""
    noise = _member("share/noise", random.Random(2).randbytes(2 * MIB))  # noqa: S311 - synthetic data, not a secret
    payload = bz2.compress(noise + _END)
    return {
        f"noise{number}-1.0-0.tar.bz2": bz2.compress(
            _member("info/index.json", json.dumps(_index(f"noise{number}")).encode())
        )
        + payload
        for number in range(16)
    }


def build_large_names() -> Uploads:
    """A small artifact for each of 3 names whose shards are nearly full."""
    return dict(conda_package(name=f"full{number}", subdir="linux-64", version="99.0") for number in range(3))


def publish_large_names() -> Mapping[PackageName, Cards]:
    """Return the cards of 3 names with 16,000 records each."""
    return {name: dict(iter_cards(name, _RECORDS)) for name in map(PackageName, ("full0", "full1", "full2"))}


def build_old_texts() -> Uploads:
    """One small artifact."""
    return dict([conda_package(name="small", subdir="linux-64")])


def publish_old_texts() -> Mapping[PackageName, Cards]:
    """Return cards of 200 names with texts of a megabyte, as version 0.1.0 wrote them."""
    return {name: dict(_iter_wordy(name)) for name in (PackageName(f"wordy{number}") for number in range(200))}


BATCHES: Final = (
    HostileBatch(title="16 zstd windows of 128 MiB", build=build_windows),
    HostileBatch(title="40 index.json of 340,000 values", build=build_values),
    HostileBatch(title="100 index.json of 256 KiB", build=build_documents),
    HostileBatch(title="50 index.json 50,000 levels deep", build=build_deep),
    HostileBatch(title="50 texts of 1.9 MB", build=build_texts),
    HostileBatch(title="1 archive of 50 s processor time", build=build_slow, is_long=True),
    HostileBatch(title="16 bzip2 archives of 2 MiB", build=build_bzip2),
    HostileBatch(
        title="3 names with full shards", build=build_large_names, published=publish_large_names, is_long=True
    ),
    HostileBatch(title="200 old texts of 1 MB", build=build_old_texts, published=publish_old_texts),
)


def _iter_wordy(name: PackageName) -> Iterator[tuple[str, Card]]:
    for filename, card in iter_cards(name, 1):
        facts = {**card.facts, "summary": "s" * MIB, "description": "d" * MIB}
        yield filename, Card(record=card.record, run_exports={}, facts=facts, etag=card.etag)


def _index(name: str, **more: object) -> dict[str, Any]:
    index = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "depends": [], "subdir": "linux-64"}
    return index | more


def _conda(
    name: str, *, index: Mapping[str, Any] | None = None, raw: bytes | None = None, payload: bytes | None = None
) -> tuple[str, bytes]:
    stem = f"{name}-1.0-0"
    content = raw or json.dumps(_index(name, **(index or {})), separators=(",", ":")).encode()
    info = _compress([_member("info/index.json", content), _END])
    members = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"pkg-{stem}.tar.zst": _compress([_member("share/x"), _END]) if payload is None else payload,
        f"info-{stem}.tar.zst": info,
    }
    return f"{stem}.conda", build_zip([Member(name=name, content=body) for name, body in members.items()])


def _member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = len(content), kind
    return entry.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _compress(chunks: list[bytes], *, level: int = 1, window_log: int | None = None) -> bytes:
    parameters = zstd.CompressionParameter
    options: dict[int, int] = {parameters.compression_level: level}
    if window_log is not None:
        options |= {parameters.window_log: window_log, parameters.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    out = io.BytesIO()
    for chunk in chunks:
        out.write(compressor.compress(chunk))
    out.write(compressor.flush())
    return out.getvalue()
