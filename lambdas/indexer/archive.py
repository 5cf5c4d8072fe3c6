"""The compressed layers of an artifact: zip and zstd of a ``.conda``, bzip2 of a ``.tar.bz2``.

Owns where the bytes are read from (ranges or one pass), that both hashes come out of the same pass,
and every bound on what decompressing may cost. The tar inside is :mod:`lambdas.indexer.tarball`'s;
what the members mean is :mod:`lambdas.indexer.artifact`'s.

Source: CEP 35 (file formats of artifacts); APPNOTE.TXT 6.3 (zip); RFC 8878 (zstd).
"""

from __future__ import annotations

import bz2
import hashlib
import io
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lambdas.channel.errors import RefusedError, VanishedError
from lambdas.channel.names import Distribution
from lambdas.indexer.tarball import TarRules, normalise_name, read_members

MIB = 1024 * 1024

RECIPES = ("info/recipe/meta.yaml", "info/recipe/meta.yaml.rendered", "info/meta.yaml")

_TAIL_BYTES = 128 * 1024  # a zip's end record, its longest comment, and an ordinary directory
_PIECE_BYTES = 256 * 1024
_WINDOW_BYTES = 4 * MIB
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22
_ZIP_LOCAL_BYTES = 30
_ZIP_FLAG_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_AGAIN = "upload the file again"
_REPACK = "make the file with conda-build, rattler-build or cph; don't rename another one"
_HEAD_BYTES = 512  # enough to tell formats apart
_BZ2_START = re.compile(rb"BZh[1-9]")
_BZ2_END_MAGIC = 0x177245385090
_BZ2_END_BYTES = 11  # 48 bits of magic, 32 of checksum, up to 7 of padding
_ZIP_MARGIN_BYTES = 1024  # a local header's name and extra field
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, UnicodeDecodeError)
_FORMATS = {  # how other files begin that people upload under an artifact's name
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\x1f\x8b": "a gzip file",
    _ZSTD_MAGIC: "a zstd file",
    b"\xfd7zXZ": "an xz file",
    b"<": "a web page or XML",
    b"{": "a JSON document",
}


class ArtifactSource(Protocol):
    """The bytes of one version of one artifact, wherever they are.

    ``md5`` and ``sha256`` are hex, where the storage vouches for the whole object; else None. Both
    reading methods raise VanishedError where the object is no longer the version that was looked at.
    """

    @property
    def size(self) -> int:
        """Bytes of the whole artifact."""

    @property
    def md5(self) -> str | None:
        """Hex digest, if the storage vouches for one."""

    @property
    def sha256(self) -> str | None:
        """Hex digest, if the storage vouches for one."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` up to, not including, ``stop``."""

    def stream(self) -> Iterator[bytes]:
        """Return all bytes in pieces of moderate size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactLimits:
    """Every bound on what reading one artifact may cost."""

    max_artifact_bytes: int = 16 * 1024 * MIB
    max_at_once_bytes: int = 8 * MIB  # up to here a .conda is read whole and checked whole
    max_whole_tar_bytes: int = 32 * MIB  # up to here a .tar.bz2 is walked to its end
    max_central_directory_bytes: int = MIB
    max_zip_members: int = 64
    max_members: int = 500_000
    max_info_members: int = 50_000
    max_index_bytes: int = MIB  # info/index.json
    max_about_bytes: int = 2 * MIB
    max_run_exports_bytes: int = MIB
    max_paths_bytes: int = 64 * MIB
    max_recipe_bytes: int = 4 * MIB
    max_zstd_window_bytes: int = 128 * MIB  # what zstd's decoders allow by default: level 22 needs it
    max_info_bytes: int = 512 * MIB  # decompressed info-*.tar
    max_payload_bytes: int = 16 * 1024 * MIB  # decompressed pkg-*.tar, or .tar of a .tar.bz2
    max_ratio: int = 250  # decompressed to compressed
    info_ratio_free_bytes: int = 32 * MIB  # below these sizes no ratio is judged
    payload_ratio_free_bytes: int = 128 * MIB
    max_cpu_seconds: float = 90.0

    def find_info_bound(self, compressed_bytes: int) -> int:
        """Return how many bytes the info part may decompress to."""
        return min(self.max_info_bytes, max(self.info_ratio_free_bytes, self.max_ratio * compressed_bytes))

    def find_payload_bound(self, compressed_bytes: int) -> int:
        """Return how many bytes the payload may decompress to."""
        return min(self.max_payload_bytes, max(self.payload_ratio_free_bytes, self.max_ratio * compressed_bytes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What was read of an artifact: content of members by name, and hashes (hex) of the whole."""

    members: dict[str, bytes]
    md5: str
    sha256: str


def fetch_contents(source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits) -> Contents:
    """Read the members of interest and both hashes.

    Raises:
        RefusedError: the archive is damaged, hostile, or not what its name says.
        VanishedError: the artifact changed meanwhile.
        UnavailableError: passed on from the source.
    """
    if source.size == 0:
        raise RefusedError("archive-empty", "the file is empty", hint=_AGAIN)
    if source.size > limits.max_artifact_bytes:
        raise RefusedError("artifact-oversized", f"the file has {source.size} bytes, over {limits.max_artifact_bytes}")
    if distribution.extension == ".conda":
        return _fetch_conda(source, distribution, limits)
    return _fetch_tar_bz2(source, limits)


class _Hashes:
    """Both hashes of one pass."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        self._md5.update(piece)
        self._sha256.update(piece)

    def read(self, source: ArtifactSource) -> Iterator[bytes]:
        """Yield the whole artifact, hashing it on the way.

        Raises:
            VanishedError: other than ``source.size`` bytes came.
        """
        size = 0
        for piece in source.stream():
            size += len(piece)
            self.update(piece)
            yield piece
        if size != source.size:
            raise VanishedError(f"{size} bytes came of an artifact of {source.size}")

    def finish(self, members: dict[str, bytes]) -> Contents:
        return Contents(members=members, md5=self._md5.hexdigest(), sha256=self._sha256.hexdigest())


class _Budget:
    """Counts what comes out of a decompressor, and the CPU time that went in."""

    def __init__(self, what: str, max_bytes: int, max_cpu_seconds: float) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._stop_at = time.thread_time() + max_cpu_seconds

    def take(self, count: int) -> None:
        """Raises RefusedError: ``decompression-bomb``."""
        self._left -= count
        if self._left < 0:
            raise RefusedError("decompression-bomb", f"{self._what} decompresses to more than {self._max_bytes} bytes")
        if time.thread_time() > self._stop_at:
            raise RefusedError("decompression-bomb", f"{self._what} takes too long to decompress")


def _describe_start(head: bytes) -> str:
    if head[257:262] == b"ustar":
        return "an uncompressed tar archive"
    return next((name for magic, name in _FORMATS.items() if head.startswith(magic)), "something else")


def _read(source: ArtifactSource, start: int, stop: int) -> bytes:
    content = source.read_range(start, stop)
    if len(content) != stop - start:
        raise VanishedError(f"{len(content)} bytes came of a range of {stop - start}")
    return content


class _Decompressor(Protocol):
    """What the decompressors of bzip2 and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _decompress(
    pieces: Iterator[bytes],
    start: Callable[[bytes], _Decompressor],
    failure: type[Exception],
    name: str,
    budget: _Budget,
) -> Iterator[bytes]:
    """Yield what compressed streams, one after the other, hold; ``start`` is given how each begins.

    Raises:
        RefusedError: ``archive-broken``, ``archive-truncated``, ``decompression-bomb``.
    """
    decompressor: _Decompressor | None = None
    for received in pieces:
        data = received
        while data:
            decompressor = decompressor or start(data)
            done = False
            while not done:
                try:
                    piece = decompressor.decompress(data, _PIECE_BYTES)
                except failure as error:
                    raise RefusedError("archive-broken", f"{name} is damaged: {error}", hint=_AGAIN) from error
                data = b""
                budget.take(len(piece))
                if piece:
                    yield piece
                done = decompressor.eof or decompressor.needs_input
            if decompressor.eof:
                data = decompressor.unused_data
                decompressor = None
    if decompressor is not None:
        raise RefusedError("archive-truncated", f"{name} has no end: the file is cut", hint=_AGAIN)


# .conda


class _RangeFile(io.RawIOBase):
    """A seekable file over ranges of an artifact: its tail, and one window that moves ahead."""

    def __init__(self, source: ArtifactSource, max_read_bytes: int) -> None:
        self._source = source
        self._max_read_bytes = max_read_bytes
        self._position = 0
        tail_start = max(0, source.size - _TAIL_BYTES)
        self.tail = _read(source, tail_start, source.size)
        self._spans = {"tail": (tail_start, self.tail)}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def prefetch(self, start: int, stop: int) -> None:
        """Fetch what will be read next, in one request if it is not large."""
        stop = min(stop, start + _WINDOW_BYTES, self._source.size)
        tail_start, _ = self._spans["tail"]
        if 0 <= start < min(stop, tail_start):
            self._spans["window"] = (start, _read(self._source, start, min(stop, tail_start)))

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._source.size - self._position if size < 0 else size
        stop = min(self._position + wanted, self._source.size)
        if stop - self._position > self._max_read_bytes:
            raise RefusedError("archive-broken", "the directory of the zip archive is too large")
        parts = []
        while self._position < stop:
            part = self._read_span(stop)
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def _read_span(self, stop: int) -> bytes:
        """Return at least one byte at the position, from what was fetched; fetch if need be."""
        for start, content in self._spans.values():
            if start <= self._position < start + len(content):
                return content[self._position - start : stop - start]
        self.prefetch(self._position, self._position + _WINDOW_BYTES)
        return self._read_span(stop)


def _fetch_conda(source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits) -> Contents:
    if source.size <= limits.max_at_once_bytes:
        content = _read(source, 0, source.size)
        members = _read_conda(io.BytesIO(content), content, distribution, limits, source.size)
        hashes = _Hashes()
        hashes.update(content)
        return hashes.finish(members)
    file = _RangeFile(source, limits.max_central_directory_bytes)
    members = _read_conda(file, file.tail, distribution, limits, source.size)
    if source.md5 and source.sha256:
        return Contents(members=members, md5=source.md5, sha256=source.sha256)
    hashes = _Hashes()
    for _ in hashes.read(source):
        pass
    return hashes.finish(members)


def _read_conda(
    file: io.BytesIO | _RangeFile, tail: bytes, distribution: Distribution, limits: ArtifactLimits, size: int
) -> dict[str, bytes]:
    _check_zip_end(tail, file)
    with _open_zip(file) as archive:
        entries = archive.infolist()
        _check_zip_entries(entries, archive.start_dir, limits)
        info = _find_parts(entries, distribution)
        if isinstance(file, _RangeFile):
            file.prefetch(info.header_offset, info.header_offset + info.compress_size + _ZIP_MARGIN_BYTES)
        else:
            _check_others(archive, info, limits, size)
        pieces = _decompress_zstd(archive, info, limits.find_info_bound(info.file_size), limits)
        return read_members(pieces, _find_rules(limits, limits.max_info_members, whole=True))


def _open_zip(file: io.BytesIO | _RangeFile) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (*_ZIP_ERRORS, ValueError, OverflowError) as error:
        raise _broken_zip(error) from error


def _read_zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a member; its checksum is compared at its end."""
    try:
        with archive.open(entry) as member:
            while piece := member.read(_PIECE_BYTES):
                yield piece
    except _ZIP_ERRORS as error:
        raise _broken_zip(error) from error


def _broken_zip(error: Exception) -> RefusedError:
    return RefusedError("archive-broken", f"the zip archive is damaged: {error}", hint=_AGAIN)


def _find_rules(limits: ArtifactLimits, max_members: int, *, whole: bool) -> TarRules:
    return TarRules(
        wanted={
            "info/index.json": limits.max_index_bytes,
            "info/about.json": limits.max_about_bytes,
            "info/run_exports.json": limits.max_run_exports_bytes,
            "info/paths.json": limits.max_paths_bytes,
        },
        welcome=dict.fromkeys(RECIPES, limits.max_recipe_bytes),
        max_members=max_members,
        max_info_members=limits.max_info_members,
        whole=whole,
    )


def _check_zip_end(tail: bytes, file: io.BytesIO | _RangeFile) -> None:
    """The end record must be the very end: else the file is cut, or reads differently elsewhere."""
    at = tail.rfind(_ZIP_END)
    if at < 0:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        if head.startswith(b"PK\x03\x04"):
            raise RefusedError("archive-truncated", "the zip archive has no end: the file is cut", hint=_AGAIN)
        raise RefusedError(
            "archive-wrong-format", f"a .conda is a zip archive, and this is {_describe_start(head)}", hint=_REPACK
        )
    comment = int.from_bytes(tail[at + 20 : at + 22], "little")
    if at + _ZIP_END_BYTES + comment != len(tail):
        raise RefusedError("archive-broken", "bytes follow the end of the zip archive, or it is cut")


def _check_zip_entries(entries: list[zipfile.ZipInfo], end: int, limits: ArtifactLimits) -> None:
    if len(entries) > limits.max_zip_members:
        raise RefusedError("too-many-members", f"the zip archive has more than {limits.max_zip_members} members")
    seen: set[str] = set()
    at = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.filename != entry.orig_filename or normalise_name(entry.filename) != entry.filename.rstrip("/"):
            raise RefusedError("member-path-unsafe", f"the zip archive has an odd member name: {entry.orig_filename!r}")
        if entry.filename in seen:
            raise RefusedError("member-duplicated", f"the zip archive has {entry.filename!r} twice", hint=_REPACK)
        seen.add(entry.filename)
        if entry.flag_bits & _ZIP_FLAG_ENCRYPTED:
            raise RefusedError("archive-encrypted", f"{entry.filename!r} in the zip archive is encrypted", hint=_REPACK)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(
                "archive-compressed", f"{entry.filename!r} in the zip archive is compressed", hint=_REPACK
            )
        if entry.compress_size != entry.file_size or entry.header_offset < at:
            raise RefusedError("archive-broken", f"{entry.filename!r} in the zip archive overlaps another member")
        at = entry.header_offset + _ZIP_LOCAL_BYTES + len(entry.orig_filename) + entry.compress_size
    first = min((entry.header_offset for entry in entries), default=0)
    if at > end or first:
        raise RefusedError("archive-broken", "the zip archive's directory does not fit its members")


def _find_parts(entries: list[zipfile.ZipInfo], distribution: Distribution) -> zipfile.ZipInfo:
    """Return the entry of the info part, if all parts are there under the right names."""
    by_name = {entry.filename: entry for entry in entries}
    for prefix in ("info-", "pkg-"):
        expected = f"{prefix}{distribution.stem}.tar.zst"
        parts = [name for name in by_name if name.startswith(prefix)]
        if not parts:
            raise RefusedError("member-missing", f"the zip archive has no {expected!r}", hint=_REPACK)
        if len(parts) > 1:
            raise RefusedError("member-duplicated", f"the zip archive has more than one {prefix}*.tar.zst")
        if parts != [expected]:
            raise RefusedError(
                "inner-name-mismatch",
                f"the zip archive has {parts[0]!r} where the filename demands {expected!r}",
                hint="upload it under the name that it was built with",
            )
    if "metadata.json" not in by_name:
        raise RefusedError("member-missing", "the zip archive has no 'metadata.json'", hint=_REPACK)
    return by_name[f"info-{distribution.stem}.tar.zst"]


def _check_others(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArtifactLimits, size: int) -> None:
    """Check what has been fetched anyway: that the payload is whole, and doesn't bring its own info/."""
    for entry in archive.infolist():
        if entry.filename.startswith("pkg-"):
            pieces = _decompress_zstd(archive, entry, limits.find_payload_bound(size), limits)
            found = read_members(pieces, _find_rules(limits, limits.max_members, whole=True))
            if found:
                raise RefusedError("member-duplicated", f"{entry.filename!r} brings {min(found)!r} as well")
        elif entry is not info:
            for _ in _read_zip_member(archive, entry):
                pass


def _decompress_zstd(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_bytes: int, limits: ArtifactLimits
) -> Iterator[bytes]:
    name = repr(entry.filename)
    options: dict[int, int] = {
        zstd.DecompressionParameter.window_log_max: limits.max_zstd_window_bytes.bit_length() - 1
    }

    def start(head: bytes) -> zstd.ZstdDecompressor:
        _check_zstd_window(head, name, limits.max_zstd_window_bytes)
        return zstd.ZstdDecompressor(options=options)

    budget = _Budget(name, max_bytes, limits.max_cpu_seconds)
    return _decompress(_read_zip_member(archive, entry), start, zstd.ZstdError, name, budget)


def _check_zstd_window(head: bytes, name: str, max_bytes: int) -> None:
    """Refuse a frame that wants more memory than clients give, with a reason that says so."""
    if not head.startswith(_ZSTD_MAGIC) or len(head) < 6:  # noqa: PLR2004 - magic, descriptor, window
        return  # skippable or damaged: the decompressor says which
    if head[4] & 0x20:  # a single segment: its window is its content
        return
    exponent, mantissa = head[5] >> 3, head[5] & 7
    base = 1 << (10 + exponent)
    window = base + (base >> 3) * mantissa
    if window > max_bytes:
        raise RefusedError("decompression-bomb", f"{name} needs a zstd window of {window} bytes, over {max_bytes}")


# .tar.bz2


def _fetch_tar_bz2(source: ArtifactSource, limits: ArtifactLimits) -> Contents:
    whole = source.size <= limits.max_whole_tar_bytes
    hashes = _Hashes()
    pieces = hashes.read(source)
    head = b""
    while len(head) < _HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    if not _BZ2_START.match(head):
        raise RefusedError(
            "archive-wrong-format", f"a .tar.bz2 is a bzip2 file, and this is {_describe_start(head)}", hint=_REPACK
        )
    name = "the bzip2 data"
    budget = _Budget(name, limits.find_payload_bound(source.size), limits.max_cpu_seconds)
    tar = _decompress(chain([head], pieces), lambda _: bz2.BZ2Decompressor(), OSError, name, budget)
    members = read_members(tar, _find_rules(limits, limits.max_members, whole=whole))
    if not whole:
        _check_bz2_end(_read(source, source.size - _BZ2_END_BYTES, source.size))
        if source.md5 and source.sha256:
            return Contents(members=members, md5=source.md5, sha256=source.sha256)
    for _ in pieces:
        pass
    return hashes.finish(members)


def _check_bz2_end(tail: bytes) -> None:
    """Refuse a file that doesn't end as bzip2 data end: magic, checksum, zero bits up to the byte."""
    bits = int.from_bytes(tail, "big")
    for padding in range(8):
        magic = (bits >> (32 + padding)) & ((1 << 48) - 1)
        if magic == _BZ2_END_MAGIC and not bits & ((1 << padding) - 1):
            return
    raise RefusedError("archive-truncated", "the bzip2 data has no end: the file is cut", hint=_AGAIN)
