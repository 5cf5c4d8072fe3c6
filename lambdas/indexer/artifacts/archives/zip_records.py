"""The records of a zip: its end record, its directory, its local headers.

Ensures that all tools read a zip the same way, whether they use the directory at the end, like conda,
or the local headers from the start, like rattler while it downloads: members follow each other without
a gap from the first byte to the directory, and each local header agrees with the directory. Pure: takes
bytes, and is independent of storage and of the content of a ``.conda``.

Source: APPNOTE.TXT 6.3 (zip).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode

STORED = 0

_END = b"PK\x05\x06"
_END_LAYOUT = struct.Struct("<4s4H2IH")
_END64 = b"PK\x06\x06"
_END64_LAYOUT = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = b"PK\x06\x07"
_LOCATOR_LAYOUT = struct.Struct("<4sIQI")
_ENTRY = b"PK\x01\x02"
_ENTRY_LAYOUT = struct.Struct("<4s6H3I5H2I")
_LOCAL = b"PK\x03\x04"
_LOCAL_LAYOUT = struct.Struct("<4s5H3I2H")
_DESCRIPTOR = b"PK\x07\x08"
_DESCRIPTOR_FORMS = {12: "<3I", 16: "<4s3I", 20: "<I2Q", 24: "<4sI2Q"}  # with and without signature, zip64 or not
DESCRIPTOR_BYTES = max(_DESCRIPTOR_FORMS)

_FLAG_DESCRIPTOR = 0x8
_FLAG_UTF8 = 0x800
_FLAGS_ENCRYPTED = 0x1 | 0x40 | 0x2000
_FLAGS_KNOWN = 0x2 | 0x4 | _FLAG_DESCRIPTOR | _FLAG_UTF8  # the first two mean nothing for stored members
_EXTRA_ZIP64 = 0x0001
_EXTRA_UNICODE_PATH = 0x7075
_UNIX_SYSTEMS = frozenset({3, 19})  # Unix and macOS
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipEnd:
    """The location of the directory, and its number of entries."""

    start: int
    stop: int
    entries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipEntry:
    """A member, as the directory describes it. ``offset`` is that of its local header."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    compressed_bytes: int
    size: int
    offset: int
    mode: int = 0
    """Type and permissions as in Unix, or 0 if the writer did not state them."""

    @property
    def is_regular(self) -> bool:
        """Whether its type is that of a file or directory, or missing."""
        return stat.S_IFMT(self.mode) in {0, stat.S_IFREG, stat.S_IFDIR}

    @property
    def encrypted(self) -> bool:
        """Whether its content is encrypted."""
        return bool(self.flags & _FLAGS_ENCRYPTED)


def is_local_header(head: bytes) -> bool:
    """Whether a file begins like a zip."""
    return head.startswith(_LOCAL)


def find_end(tail: bytes, size: int) -> ZipEnd | None:
    """Return the content of the end record; None if it is missing.

    ``tail`` is the end of a file of ``size`` bytes: all of it, or at least 66 KiB (records and the longest comment).

    Raises:
        RejectedError: ``archive-broken``: bytes follow the end, or tools find different end records.
    """
    # Tools use the last complete record; some do not check where its comment ends.
    at = tail.rfind(_END, 0, max(0, len(tail) - _END_LAYOUT.size + len(_END)))
    if at < 0:
        if _END in tail:
            raise _broken("the zip archive is truncated in its end record")
        return None
    _, disk, first_disk, here, entries, directory_bytes, start, comment_bytes = _END_LAYOUT.unpack_from(tail, at)
    if at + _END_LAYOUT.size + comment_bytes != len(tail):
        raise _broken("bytes follow the end of the zip archive, or it is truncated")
    stop = size - len(tail) + at
    stated = (disk, first_disk, here, entries, directory_bytes, start)
    limits = (_MAX_16,) * 4 + (_MAX_32,) * 2
    real = stated
    if tail[max(0, at - _LOCATOR_LAYOUT.size) : at].startswith(_LOCATOR):
        stop -= _LOCATOR_LAYOUT.size + _END64_LAYOUT.size
        real = _parse_end64(tail[max(0, at - _LOCATOR_LAYOUT.size - _END64_LAYOUT.size) : at], stop)
    for short, long, limit in zip(stated, real, limits, strict=True):
        if short not in {long, limit}:
            raise _broken("the zip archive has two end records that contradict each other")
    disk, first_disk, here, entries, directory_bytes, start = real
    if disk or first_disk or here != entries or start + directory_bytes != stop:
        raise _broken("the zip archive's end record contradicts its directory")
    return ZipEnd(start=start, stop=stop, entries=entries)


def _parse_end64(records: bytes, at: int) -> tuple[int, int, int, int, int, int]:
    """Parse the zip64 end record and its locator, which are adjacent, the first at offset ``at``."""
    if len(records) != _END64_LAYOUT.size + _LOCATOR_LAYOUT.size:
        raise _broken("the zip archive's zip64 records are truncated")
    _, disk_of_end, offset, disks = _LOCATOR_LAYOUT.unpack_from(records, _END64_LAYOUT.size)
    magic, rest_bytes, _, _, disk, first_disk, here, entries, directory_bytes, start = _END64_LAYOUT.unpack_from(
        records
    )
    fits = magic == _END64 and rest_bytes == _END64_LAYOUT.size - 12 and offset == at
    if not fits or disk_of_end or disks > 1:
        raise _broken("the zip archive's zip64 records contradict each other")
    return disk, first_disk, here, entries, directory_bytes, start


def parse_directory(content: bytes, end: ZipEnd) -> list[ZipEntry]:
    """Parse the directory; entries keep its order.

    Raises:
        RejectedError: ``archive-broken``.
    """
    entries = []
    at = 0
    while at < len(content):
        if not content.startswith(_ENTRY, at) or at + _ENTRY_LAYOUT.size > len(content):
            raise _broken("the zip archive's directory is damaged")
        fields = _ENTRY_LAYOUT.unpack_from(content, at)
        _, made_by, _, flags, method, _, _, crc, compressed_bytes, size = fields[:10]
        name_bytes, extra_bytes, comment_bytes, disk, _, attributes, offset = fields[10:]
        at += _ENTRY_LAYOUT.size
        raw_name = content[at : at + name_bytes]
        extra = content[at + name_bytes : at + name_bytes + extra_bytes]
        at += name_bytes + extra_bytes + comment_bytes
        if at > len(content) or disk:
            raise _broken("the zip archive's directory is damaged")
        size, compressed_bytes, offset = _apply_extra(extra, (size, compressed_bytes, offset), raw_name)
        entries.append(
            ZipEntry(
                name=_decode_name(raw_name, flags),
                raw_name=raw_name,
                flags=flags,
                method=method,
                crc=crc,
                compressed_bytes=compressed_bytes,
                size=size,
                offset=offset,
                mode=attributes >> 16 if made_by >> 8 in _UNIX_SYSTEMS else 0,
            )
        )
    if len(entries) != end.entries:
        raise _broken("the number of entries in the zip archive's directory differs from its end record")
    return entries


def check_layout(read: Read, entries: Sequence[ZipEntry], end: ZipEnd) -> dict[str, int]:
    """Return the offset of each member's content, after checking that there are no gaps.

    ``read(start, stop)`` returns bytes of the file. Members are stored, not compressed.

    Raises:
        RejectedError: ``archive-broken``.
    """
    in_order = sorted(entries, key=lambda entry: entry.offset)
    stops = [*(entry.offset for entry in in_order[1:]), end.start]
    starts: dict[str, int] = {}
    at = 0
    for entry, stop in zip(in_order, stops, strict=True):
        name = repr(entry.name[:200])
        if entry.offset != at or stop > end.start:
            raise _broken(f"the zip archive has bytes before {name} that belong to no member")
        if entry.flags & ~_FLAGS_KNOWN:
            raise _broken(f"{name} in the zip archive has unknown flags: {entry.flags:#x}")
        start = _check_local(read, entry, stop)
        gap = stop - start - entry.size
        if gap < 0 or entry.compressed_bytes != entry.size:
            raise _broken(f"{name} in the zip archive overlaps what follows it")
        if entry.flags & _FLAG_DESCRIPTOR:
            _check_descriptor(read, entry, start + entry.size, gap)
        elif gap:
            raise _broken(f"the zip archive has bytes after {name} that belong to no member")
        starts[entry.name] = start
        at = stop
    if at != end.start:
        raise _broken("the zip archive's directory contradicts its members")
    return starts


def _check_local(read: Read, entry: ZipEntry, stop: int) -> int:
    """Compare a local header with the directory; return the offset of its end."""
    name = repr(entry.name[:200])
    at = entry.offset + _LOCAL_LAYOUT.size
    if at > stop:
        raise _broken(f"{name} in the zip archive overlaps what follows it")
    fields = _LOCAL_LAYOUT.unpack(read(entry.offset, at))
    magic, _, flags, method, _, _, crc, compressed_bytes, size, name_bytes, extra_bytes = fields
    if magic != _LOCAL:
        raise _broken(f"{name} in the zip archive has no local header")
    if at + name_bytes + extra_bytes > stop:
        raise _broken(f"{name} in the zip archive overlaps what follows it")
    variable = read(at, at + name_bytes + extra_bytes)
    size, compressed_bytes = _apply_extra(variable[name_bytes:], (size, compressed_bytes), entry.raw_name)
    stated = (crc, compressed_bytes, size)
    real = (entry.crc, entry.compressed_bytes, entry.size)
    streamed = bool(entry.flags & _FLAG_DESCRIPTOR)
    agree = all(one == other or (streamed and one == 0) for one, other in zip(stated, real, strict=True))
    if variable[:name_bytes] != entry.raw_name or (flags, method) != (entry.flags, entry.method) or not agree:
        raise _broken(f"the local header of {name} in the zip archive contradicts the directory")
    return at + len(variable)


def _check_descriptor(read: Read, entry: ZipEntry, at: int, count: int) -> None:
    """Check the data descriptor, which follows a member whose size was unknown when its header was written."""
    form = _DESCRIPTOR_FORMS.get(count)
    if form is not None:
        *signature, crc, compressed_bytes, size = struct.unpack(form, read(at, at + count))
        if signature in ([], [_DESCRIPTOR]) and (crc, compressed_bytes, size) == (
            entry.crc,
            entry.compressed_bytes,
            entry.size,
        ):
            return
    raise _broken(f"the data descriptor of {entry.name[:200]!r} in the zip archive contradicts the directory")


def _apply_extra(extra: bytes, values: tuple[int, ...], raw_name: bytes) -> tuple[int, ...]:
    """Return size, compressed size and offset, taken from the zip64 field if they do not fit 32 bits.

    Other fields are ignored, except one that states another name.
    """
    zip64: bytes | None = None
    at = 0
    while at + 4 <= len(extra):
        kind, count = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + count]
        at += 4 + count
        if at > len(extra) or (kind == _EXTRA_ZIP64 and zip64 is not None):
            raise _broken("an extra field in the zip archive is damaged")
        if kind == _EXTRA_ZIP64:
            zip64 = field
        if kind == _EXTRA_UNICODE_PATH and field[5:] != raw_name:
            raise _broken(f"an extra field in the zip archive gives {raw_name[:200]!r} another name")
    if zip64 is None:
        return values
    if len(zip64) % 8:
        raise _broken("a zip64 field in the zip archive is damaged")
    large = list(struct.unpack(f"<{len(zip64) // 8}Q", zip64))
    missing = values.count(_MAX_32)
    if not missing:
        # Old versions of rattler-build write zeros. Other writers repeat the values.
        if len(large) > len(values) or any(one not in {0, value} for one, value in zip(large, values, strict=False)):
            raise _broken("a zip64 field in the zip archive contradicts its header")
        return values
    if len(large) != missing:
        raise _broken("a zip64 field in the zip archive contradicts its header")
    return tuple(large.pop(0) if value == _MAX_32 else value for value in values)


def _decode_name(raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & _FLAG_UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise _broken(f"the zip archive has a member name that is not UTF-8: {raw_name[:200]!r}") from error


def _broken(message: str) -> RejectedError:
    return RejectedError(RejectionCode.ARCHIVE_BROKEN, message)
