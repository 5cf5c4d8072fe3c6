"""Reads a ``.conda``: a zip of two zstd-compressed tars, by byte ranges where it is large.

Owns the zip layer: what may be in it, and that it reads the same in every tool.

Source: CEP 35 (file formats of artifacts); APPNOTE.TXT 6.3 (zip); RFC 8878 (zstd).
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lambdas.channel.errors import RefusedError
from lambdas.channel.names import Distribution
from lambdas.indexer.artifact_source import (
    MIB,
    PIECE_BYTES,
    ArtifactLimits,
    ArtifactSource,
    Contents,
    Hashes,
    read_range,
)
from lambdas.indexer.decompression import AGAIN, Budget, decompress, describe_format
from lambdas.indexer.tarball import normalise_name, read_members

_TAIL_BYTES = 128 * 1024  # a zip's end record, its longest comment, and an ordinary directory
_WINDOW_BYTES = 4 * MIB
_HEAD_BYTES = 512
_END = b"PK\x05\x06"
_END_BYTES = 22
_LOCAL = b"PK\x03\x04"
_LOCAL_BYTES = 30
_LOCAL_MARGIN_BYTES = 1024  # a local header's name and extra field
_FLAG_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ERRORS = (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, UnicodeDecodeError)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_REPACK = "make the file with conda-build, rattler-build or cph; don't rename another one"


def fetch_conda(source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits) -> Contents:
    """Read the members of interest and both hashes.

    Raises:
        RefusedError: the archive is damaged, hostile, or not what its name says.
        VanishedError: the artifact changed meanwhile.
        UnavailableError: passed on from the source.
    """
    if source.size <= limits.max_at_once_bytes:
        content = read_range(source, 0, source.size)
        members = _read_conda(io.BytesIO(content), content, distribution, limits, source.size)
        hashes = Hashes()
        hashes.update(content)
        return hashes.finish(members)
    file = _RangeFile(source, limits.max_central_directory_bytes)
    members = _read_conda(file, file.tail, distribution, limits, source.size)
    if source.md5 and source.sha256:
        return Contents(members=members, md5=source.md5, sha256=source.sha256)
    hashes = Hashes()
    for _ in hashes.read(source):
        pass
    return hashes.finish(members)


def _read_conda(
    file: io.BytesIO | _RangeFile, tail: bytes, distribution: Distribution, limits: ArtifactLimits, size: int
) -> dict[str, bytes]:
    _check_end(tail, file)
    with _open_zip(file) as archive:
        entries = archive.infolist()
        _check_entries(entries, archive.start_dir, limits)
        info = _find_parts(entries, distribution)
        if isinstance(file, _RangeFile):
            file.prefetch(info.header_offset, info.header_offset + info.compress_size + _LOCAL_MARGIN_BYTES)
        else:
            _check_others(archive, info, limits, size)
        pieces = _decompress_zstd(archive, info, limits.find_info_bound(info.file_size), limits)
        return read_members(pieces, limits.find_rules(max_members=limits.max_info_members))


def _open_zip(file: io.BytesIO | _RangeFile) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (*_ERRORS, ValueError, OverflowError) as error:
        raise _broken_zip(error) from error


def _read_zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a member; its checksum is compared at its end."""
    try:
        with archive.open(entry) as member:
            while piece := member.read(PIECE_BYTES):
                yield piece
    except _ERRORS as error:
        raise _broken_zip(error) from error


def _broken_zip(error: Exception) -> RefusedError:
    return RefusedError("archive-broken", f"the zip archive is damaged: {error}", hint=AGAIN)


def _check_end(tail: bytes, file: io.BytesIO | _RangeFile) -> None:
    """The end record must be the very end: else the file is cut, or reads differently elsewhere."""
    at = tail.rfind(_END)
    if at < 0:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        if head.startswith(_LOCAL):
            raise RefusedError("archive-truncated", "the zip archive has no end: the file is cut", hint=AGAIN)
        raise RefusedError(
            "archive-wrong-format", f"a .conda is a zip archive, and this is {describe_format(head)}", hint=_REPACK
        )
    comment = int.from_bytes(tail[at + 20 : at + 22], "little")
    if at + _END_BYTES + comment != len(tail):
        raise RefusedError("archive-broken", "bytes follow the end of the zip archive, or it is cut")


def _check_entries(entries: list[zipfile.ZipInfo], end: int, limits: ArtifactLimits) -> None:
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
        if entry.flag_bits & _FLAG_ENCRYPTED:
            raise RefusedError("archive-encrypted", f"{entry.filename!r} in the zip archive is encrypted", hint=_REPACK)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(
                "archive-compressed", f"{entry.filename!r} in the zip archive is compressed", hint=_REPACK
            )
        if entry.compress_size != entry.file_size or entry.header_offset < at:
            raise RefusedError("archive-broken", f"{entry.filename!r} in the zip archive overlaps another member")
        at = entry.header_offset + _LOCAL_BYTES + len(entry.orig_filename) + entry.compress_size
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
            found = read_members(pieces, limits.find_rules(max_members=limits.max_members))
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
        _check_window(head, name, limits.max_zstd_window_bytes)
        return zstd.ZstdDecompressor(options=options)

    budget = Budget(name, max_bytes, limits.max_cpu_seconds)
    return decompress(_read_zip_member(archive, entry), start, zstd.ZstdError, name, budget)


def _check_window(head: bytes, name: str, max_bytes: int) -> None:
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


class _RangeFile(io.RawIOBase):
    """A seekable file over ranges of an artifact: its tail, and one window that moves ahead."""

    def __init__(self, source: ArtifactSource, max_read_bytes: int) -> None:
        self._source = source
        self._max_read_bytes = max_read_bytes
        self._position = 0
        tail_start = max(0, source.size - _TAIL_BYTES)
        self.tail = read_range(source, tail_start, source.size)
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
            self._spans["window"] = (start, read_range(self._source, start, min(stop, tail_start)))

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
