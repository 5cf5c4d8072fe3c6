"""Builds zips record by record, as writers do and as attackers would."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

MAX_32 = 0xFFFFFFFF
STREAMED = 0x8


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member: its content, and the fields of its two headers that differ from the truth."""

    name: str
    content: bytes
    flags: int = 0
    zip64: bool = False
    signature: bool = True  # of the data descriptor
    local_extra: bytes = b""
    extra: bytes = b""
    before: bytes = b""
    behind: bytes = b""
    listed: bool = True
    local: Callable[[Local], Local] = lambda local: local


@dataclass(frozen=True, kw_only=True)
class Local:
    """A local header."""

    name: bytes
    flags: int
    crc: int
    compressed: int
    size: int
    method: int = 0
    extra: bytes = b""
    magic: bytes = b"PK\x03\x04"

    def encode(self) -> bytes:
        fixed = struct.pack(
            "<4s5H3I2H",
            self.magic, 20, self.flags, self.method, 0, 33, self.crc, self.compressed, self.size, len(self.name),
            len(self.extra),
        )  # fmt: skip
        return fixed + self.name + self.extra


def field(kind: int, content: bytes) -> bytes:
    """An extra field."""
    return struct.pack("<2H", kind, len(content)) + content


def zip64_field(*values: int) -> bytes:
    """The extra field with large values."""
    return field(1, struct.pack(f"<{len(values)}Q", *values))


def encode_member(member: Member) -> bytes:
    """Local header, content and data descriptor."""
    size, crc = len(member.content), zlib.crc32(member.content)
    streamed = bool(member.flags & STREAMED)
    known = 0 if streamed else size
    local = Local(
        name=member.name.encode(),
        flags=member.flags,
        crc=0 if streamed else crc,
        compressed=MAX_32 if member.zip64 else known,
        size=MAX_32 if member.zip64 else known,
        extra=(zip64_field(known, known) if member.zip64 else b"") + member.local_extra,
    )
    descriptor = b""
    if streamed:
        descriptor = struct.pack("<I2Q" if member.zip64 else "<3I", crc, size, size)
        descriptor = b"PK\x07\x08" * member.signature + descriptor
    return member.before + member.local(local).encode() + member.content + descriptor + member.behind


def build_zip(
    members: Sequence[Member],
    *,
    comment: bytes = b"",
    zip64_end: bool = False,
    before_directory: bytes = b"",
    behind_directory: bytes = b"",
    listed_entries: int | None = None,
) -> bytes:
    """A zip of stored members; the directory has those that are listed."""
    body, directory, count = b"", b"", 0
    for member in members:
        offset = len(body) + len(member.before)
        body += encode_member(member)
        if not member.listed:
            continue
        name, size = member.name.encode(), len(member.content)
        shown = MAX_32 if member.zip64 else size
        extra = (zip64_field(size, size) if member.zip64 else b"") + member.extra
        directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02", 20, 20, member.flags, 0, 0, 33, zlib.crc32(member.content), shown, shown, len(name),
            len(extra), 0, 0, 0, 0, offset,
        ) + name + extra  # fmt: skip
        count += 1
    body += before_directory
    start, count = len(body), count if listed_entries is None else listed_entries
    body += directory + behind_directory
    end = (0, 0, count, count, len(directory), start, len(comment))
    if zip64_end:
        at = len(body)
        body += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start)
        body += struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
        end = (0, 0, 0xFFFF, 0xFFFF, MAX_32, MAX_32, len(comment))
    return body + struct.pack("<4s4H2IH", b"PK\x05\x06", *end) + comment


def with_all(members: Sequence[Member], **fields: object) -> list[Member]:
    """The members, each with these fields."""
    return [replace(member, **fields) for member in members]  # type: ignore[arg-type] # of any field
