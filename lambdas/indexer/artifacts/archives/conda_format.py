"""Reads a ``.conda``: a zip of two zstd-compressed tars, by byte ranges where it is large.

Owns the rules for members of the zip, and reading it in few requests. That all tools read the zip the
same way is checked in :mod:`lambdas.indexer.artifacts.archives.zip_records`.

Source: CEP 35 (file formats of artifacts); RFC 8878 (zstd).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lambdas.channel.artifact_kinds import Distribution
from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.artifact_source import (
    MIB,
    PIECE_BYTES,
    ArtifactLimits,
    ArtifactSource,
    Contents,
    Hashes,
    read_range,
)
from lambdas.indexer.artifacts.archives.decompression import AGAIN, Budget, decompress, describe_format
from lambdas.indexer.artifacts.archives.tar_headers import ambiguous, normalise_name
from lambdas.indexer.artifacts.archives.tarball import read_members
from lambdas.indexer.artifacts.archives.zip_records import (
    DESCRIPTOR_BYTES,
    STORED,
    ZipEntry,
    check_layout,
    find_end,
    is_local_header,
    parse_directory,
)
from lambdas.indexer.artifacts.budgets import Reading

_TAIL_BYTES = 128 * 1024  # a zip's end records, its longest comment, and an ordinary directory
_WINDOW_BYTES = 4 * MIB
_HEADERS_BYTES = 4 * 1024  # local headers of small members that follow each other
_HEAD_BYTES = 512
_LOCAL_MARGIN_BYTES = 1024  # a local header, and the next one
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DECOMPRESSOR_BYTES = MIB  # beside the window: blocks, and pieces on their way
_CONTENT_SIZE_BYTES = (1, 2, 4, 8)
_DICTIONARY_BYTES = (0, 1, 2, 4)
_PART_SUFFIX = ".tar.zst"  # rattler extracts every member with this suffix
_REPACK = "make the file with conda-build, rattler-build or cph; don't rename another one"


def fetch_conda(
    source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits, reading: Reading
) -> Contents:
    """Read the wanted members and both hashes.

    Raises:
        RejectedError: the archive is damaged, hostile, or not what its name says.
        VanishedError: the artifact changed meanwhile.
        UnavailableError: passed on from the source.
        LimitExceededError: there is no processor time left.
        MoreMemoryNeededError: more memory has to be reserved.
    """
    hashes = Hashes()
    whole = source.size <= limits.max_at_once_bytes
    reading.memory.use("fetched", source.size if whole else _TAIL_BYTES + 2 * _WINDOW_BYTES)
    ranges = _Ranges(source, tail_bytes=source.size if whole else _TAIL_BYTES)
    conda = _open_conda(ranges, distribution, limits)
    if whole:
        _check_others(conda, limits, source.size, reading)
    info = _decompress_zstd(conda, conda.info, limits.info_bound(conda.info.size), limits, reading)
    rules = limits.tar_rules(max_members=limits.max_info_members, has_payload=False)
    members = read_members(info, rules, reading.memory)
    reading.memory.use("decompressor", 0)
    if whole:
        hashes.update(ranges.tail)
        return hashes.finish(members)
    if source.md5 and source.sha256:
        return Contents(members=members, md5=source.md5, sha256=source.sha256)
    for _ in hashes.read(source, reading.meter):
        pass
    return hashes.finish(members)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Conda:
    """A zip that all tools read the same way and that has the parts of a ``.conda``."""

    ranges: _Ranges
    entries: Sequence[ZipEntry]
    info: ZipEntry
    starts: Mapping[str, int]

    def read(self, entry: ZipEntry) -> Iterator[bytes]:
        """Yield a member's content; its checksum is compared at the end."""
        start = self.starts[entry.name]
        stop = start + entry.size
        crc = 0
        for at in range(start, stop, PIECE_BYTES):
            piece = self.ranges.read(at, min(at + PIECE_BYTES, stop))
            crc = zlib.crc32(piece, crc)
            yield piece
        if crc != entry.crc:
            raise RejectedError(
                RejectionCode.ARCHIVE_BROKEN,
                f"{entry.name!r} in the zip archive is damaged: its checksum is wrong",
                hint=AGAIN,
            )


def _open_conda(ranges: _Ranges, distribution: Distribution, limits: ArtifactLimits) -> _Conda:
    end = find_end(ranges.tail, ranges.size)
    if end is None:
        raise _describe(ranges.read(0, min(_HEAD_BYTES, ranges.size)))
    if end.entries > limits.max_zip_members:
        raise RejectedError(
            RejectionCode.TOO_MANY_MEMBERS, f"the zip archive has more than {limits.max_zip_members} members"
        )
    if end.stop - end.start > limits.max_central_directory_bytes:
        raise RejectedError(RejectionCode.ARCHIVE_BROKEN, "the directory of the zip archive is too large")
    entries = parse_directory(ranges.read(end.start, end.stop), end)
    _check_entries(entries)
    info = _info_part_of(entries, distribution)
    # The headers around the info part are fetched with it: in most packages, that is all but the head of the file.
    ranges.prefetch(info.offset - DESCRIPTOR_BYTES, info.offset + info.size + _LOCAL_MARGIN_BYTES)
    starts = check_layout(ranges.read_headers, entries, end)
    return _Conda(ranges=ranges, entries=entries, info=info, starts=starts)


def _describe(head: bytes) -> RejectedError:
    """Return the error for a file without a zip's end record."""
    if is_local_header(head):
        return RejectedError(
            RejectionCode.ARCHIVE_TRUNCATED, "the zip archive has no end record: the file is truncated", hint=AGAIN
        )
    return RejectedError(
        RejectionCode.ARCHIVE_WRONG_FORMAT,
        f"a .conda is a zip archive, and this is {describe_format(head)}",
        hint=_REPACK,
    )


def _check_entries(entries: Sequence[ZipEntry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.name
        if "\0" in name or normalise_name(name) != name.rstrip("/"):
            raise RejectedError(
                RejectionCode.MEMBER_PATH_UNSAFE, f"the zip archive has an unsafe member name: {name[:200]!r}"
            )
        if name in seen:
            raise RejectedError(
                RejectionCode.MEMBER_DUPLICATED, f"the zip archive has {name[:200]!r} twice", hint=_REPACK
            )
        seen.add(name)
        if not entry.is_regular:
            raise ambiguous(f"{name[:200]!r} in the zip archive is a link or device")
        if entry.encrypted:
            raise RejectedError(
                RejectionCode.ARCHIVE_ENCRYPTED, f"{name[:200]!r} in the zip archive is encrypted", hint=_REPACK
            )
        if entry.method != STORED:
            raise RejectedError(
                RejectionCode.ARCHIVE_COMPRESSED, f"{name[:200]!r} in the zip archive is compressed", hint=_REPACK
            )


def _info_part_of(entries: Sequence[ZipEntry], distribution: Distribution) -> ZipEntry:
    """Return the entry of the info part, after checking that all parts have the right names."""
    by_name = {entry.name: entry for entry in entries}
    for prefix in ("info-", "pkg-"):
        expected = f"{prefix}{distribution.stem}.tar.zst"
        parts = [name for name in by_name if name.startswith(prefix)]
        if not parts:
            raise RejectedError(RejectionCode.MEMBER_MISSING, f"the zip archive has no {expected!r}", hint=_REPACK)
        if len(parts) > 1:
            raise RejectedError(RejectionCode.MEMBER_DUPLICATED, f"the zip archive has more than one {prefix}*.tar.zst")
        if parts != [expected]:
            raise RejectedError(
                RejectionCode.INNER_NAME_MISMATCH,
                f"the zip archive has {parts[0]!r} instead of {expected!r}",
                hint="upload it under the name that it was built with",
            )
    info = by_name[f"info-{distribution.stem}.tar.zst"]
    payload = by_name[f"pkg-{distribution.stem}.tar.zst"]
    for entry in entries:
        if entry in (info, payload):
            if not entry.size:
                raise RejectedError(
                    RejectionCode.ARCHIVE_TRUNCATED, f"{entry.name!r} in the zip archive is empty", hint=AGAIN
                )
        elif entry.name.casefold().rstrip("/").endswith(_PART_SUFFIX):
            raise ambiguous(f"the zip archive has {entry.name[:200]!r}, which some tools extract too")
    if "metadata.json" not in by_name:
        raise RejectedError(RejectionCode.MEMBER_MISSING, "the zip archive has no 'metadata.json'", hint=_REPACK)
    return info


def _check_others(conda: _Conda, limits: ArtifactLimits, size: int, reading: Reading) -> None:
    """Check the other members, which were fetched anyway: the payload is whole and has no info/ of its own."""
    for entry in conda.entries:
        if entry.name.startswith("pkg-"):
            pieces = _decompress_zstd(conda, entry, limits.payload_bound(size), limits, reading)
            read_members(pieces, limits.tar_rules(max_members=limits.max_members, has_info=False), reading.memory)
        elif entry is not conda.info:
            for _ in conda.read(entry):
                pass


def _decompress_zstd(
    conda: _Conda, entry: ZipEntry, max_bytes: int, limits: ArtifactLimits, reading: Reading
) -> Iterator[bytes]:
    name = repr(entry.name)
    options: dict[int, int] = {
        zstd.DecompressionParameter.window_log_max: limits.max_zstd_window_bytes.bit_length() - 1
    }

    def start(head: bytes) -> zstd.ZstdDecompressor:
        window = frame_window_bytes(head)
        if window > limits.max_zstd_window_bytes:
            raise RejectedError(
                RejectionCode.DECOMPRESSION_BOMB,
                f"{name} needs a zstd window of {window} bytes, over {limits.max_zstd_window_bytes}",
            )
        reading.memory.use("decompressor", window + _DECOMPRESSOR_BYTES)
        return zstd.ZstdDecompressor(options=options)

    budget = Budget(name, max_bytes, reading.meter)
    return decompress(conda.read(entry), start, zstd.ZstdError, name, budget)


def frame_window_bytes(head: bytes) -> int:
    """Return how much memory the window of a zstd frame takes; 0 if it is not a frame with content.

    ``head`` is the beginning of the frame, at least 18 bytes or all of it.

    Source: RFC 8878, 3.1.1.1 (frame headers).
    """
    if not head.startswith(_ZSTD_MAGIC) or len(head) < 6:  # noqa: PLR2004 - magic, descriptor, window
        return 0  # skippable or damaged: the decompressor says which
    descriptor = head[4]
    if descriptor & 0x20:  # a single segment: its window is its content
        start = 5 + _DICTIONARY_BYTES[descriptor & 3]
        count = _CONTENT_SIZE_BYTES[descriptor >> 6]
        return int.from_bytes(head[start : start + count], "little") + (256 if count == 2 else 0)  # noqa: PLR2004
    exponent, mantissa = head[5] >> 3, head[5] & 7
    base = 1 << (10 + exponent)
    return base + (base >> 3) * mantissa


class _Ranges:
    """Reads an artifact by ranges: its tail, a window that moves ahead, and headers in between."""

    def __init__(self, source: ArtifactSource, *, tail_bytes: int) -> None:
        self._source = source
        self.size = source.size
        self._tail_start = max(0, source.size - tail_bytes)
        self.tail = read_range(source, self._tail_start, source.size)
        self._spans = {"tail": (self._tail_start, self.tail)}

    def prefetch(self, start: int, stop: int) -> None:
        """Fetch the range that is read next, in one request if it is not large."""
        self._fetch("window", max(start, 0), min(stop, max(start, 0) + _WINDOW_BYTES))

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes of a member, or of the directory."""
        return self._read(start, stop, "window", _WINDOW_BYTES)

    def read_headers(self, start: int, stop: int) -> bytes:
        """Return bytes of headers, without discarding the fetched bytes of members."""
        return self._read(start, stop, "headers", _HEADERS_BYTES)

    def _read(self, start: int, stop: int, span: str, ahead: int) -> bytes:
        parts = []
        while start < stop:
            part = self._cached(start, stop)
            if not part:
                self._fetch(span, start, max(stop, start + ahead))
                part = self._cached(start, stop)
            if not part:
                raise RejectedError(RejectionCode.ARCHIVE_BROKEN, "the zip archive refers to bytes beyond its end")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _cached(self, start: int, stop: int) -> bytes:
        for at, content in self._spans.values():
            if at <= start < at + len(content):
                return content[start - at : stop - at]
        return b""

    def _fetch(self, span: str, start: int, stop: int) -> None:
        stop = min(stop, self._tail_start)
        if start < stop:
            self._spans[span] = (start, read_range(self._source, start, stop))
