"""The headers of a tar: goes from member to member, and rejects headers that tools read differently.

Owns what a member is called, how large it is and where a link points, after extended headers. Fields are
decoded by ``tarfile``; the walk is our own code, because ``tarfile`` ends silently at a damaged header,
reads extended headers of any size and follows chains of them by recursion. Python's ``tarfile`` (conda)
and the Rust crate ``tar`` (rattler) disagree about repeated and malformed headers: these are rejected.

Source: POSIX.1-2001 pax and ustar; GNU tar's long names and sparse files.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode

BLOCK_BYTES = 512
MAX_EXTENDED_HEADER_BYTES = 64 * 1024
MAX_PAX_RECORDS = 64
MAX_USTAR_BYTES = 8 * 1024**3  # the largest size that a plain header can state in octal

REBUILD = "build the package again with a current tool"
REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
LINKS = frozenset({tarfile.LNKTYPE, tarfile.SYMTYPE})

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_GNU_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, *_GNU_LONG})
_USTAR_MAGIC = b"ustar\x0000"
_GNU_MAGIC = b"ustar  \x00"
_PREFIX = slice(345, 500)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *[0-7]*[ \0]*\Z")
_BASE_256 = 0x80
_CHANGING_KEY = re.compile(r"(?:path|linkpath|size|hdrcharset)\Z|GNU\.sparse\.")
_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_SPARSE_MORE = {True: 482, False: 504}  # offset of the flag "another map block follows": in the header, in a map block


class Bytes:
    """Reads from an iterator of pieces, by count."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Take the pieces; nothing is read yet."""
        self._pieces = pieces
        self._piece = memoryview(b"")
        self.taken = 0

    def _next(self, limit: int) -> memoryview:
        """Return at most ``limit`` bytes; none means the end."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._piece = memoryview(piece)
        head, self._piece = self._piece[:limit], self._piece[limit:]
        self.taken += len(head)
        return head

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes, fewer at the end."""
        head = self._next(count)
        if len(head) == count:
            return bytes(head)
        parts = [head]
        missing = count - len(head)
        while missing and (part := self._next(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> bool:
        """Skip ``count`` bytes; return whether they were there."""
        while count:
            part = self._next(count)
            if not part:
                return False
            count -= len(part)
        return True

    def is_zero(self) -> bool:
        """Return whether all remaining bytes are zero; reads to the end."""
        clean = True
        while part := self._next(1 << 20):
            clean = clean and not part.tobytes().strip(b"\0")
        return clean


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One member, after extended headers; ``target`` is that of a link, as stated."""

    name: str
    kind: bytes
    size: int
    sparse: bool
    target: str


@dataclass(kw_only=True, slots=True)
class _Extended:
    """The extended headers of one member."""

    pax: dict[str, bytes] | None = None
    gnu: dict[str, str] = field(default_factory=dict)

    def add_pax(self, records: dict[str, bytes]) -> None:
        if self.pax is not None:
            raise ambiguous("a member of the tar has two pax headers")
        self.pax = records

    def add_gnu(self, key: str, text: str) -> None:
        if key in self.gnu:
            raise ambiguous(f"a member of the tar has two GNU headers for its {key}")
        self.gnu[key] = text

    def text(self, key: str, stated: str) -> str:
        """Return the value of ``path`` or ``linkpath``, of which there must not be two."""
        record = (self.pax or {}).get(key)
        if record is None:
            return self.gnu.get(key, stated)
        if key in self.gnu:
            raise ambiguous(f"a member of the tar has a pax and a GNU header for its {key}")
        return record.decode("utf-8", "surrogateescape")


class TarWalk:
    """Goes from header to header."""

    def __init__(self, data: Bytes, max_headers: int) -> None:
        """Take the bytes of the tar; ``max_headers`` counts extended headers too."""
        self._data = data
        self._max_headers = max_headers
        self._headers = 0

    def next(self) -> Member | None:
        """Return the next member, or None at the end; its content is what comes next in the data.

        Raises:
            RejectedError: ``archive-broken``, ``archive-truncated``, ``archive-ambiguous``,
                ``too-many-members``, ``member-path-unsafe``, ``member-oversized``.
        """
        extended = _Extended()
        pending = False  # an extended header announces a member
        while True:
            header = self._data.read(BLOCK_BYTES)
            if not header and not pending:
                return None  # no end marker: some writers omit it, and nothing can hide behind it
            if len(header) != BLOCK_BYTES:
                raise truncated()
            if header == _ZERO_BLOCK and not pending:
                return None
            self._headers += 1
            if self._headers > self._max_headers:
                raise RejectedError(
                    RejectionCode.TOO_MANY_MEMBERS, f"the archive has more than {self._max_headers} members"
                )
            info = _parse_header(header)
            if info.type not in _EXTENDED:
                return self._build(info, header, extended)
            self._read_extended(info, extended)
            pending = True

    def _read_extended(self, info: tarfile.TarInfo, extended: _Extended) -> None:
        if info.size > MAX_EXTENDED_HEADER_BYTES:
            raise RejectedError(
                RejectionCode.MEMBER_OVERSIZED,
                f"an extended header of the tar has {info.size} bytes, over {MAX_EXTENDED_HEADER_BYTES}",
            )
        content = self._data.read(info.size)
        padding = self._data.read(-info.size % BLOCK_BYTES)
        if len(content) != info.size or len(padding) != -info.size % BLOCK_BYTES:
            raise truncated()
        if padding.strip(b"\0"):  # Python's tarfile reads it as well
            raise ambiguous("an extended header of the tar is followed by bytes in its padding")
        if info.type == tarfile.XHDTYPE:
            extended.add_pax(parse_pax_records(content))
        elif info.type == tarfile.XGLTYPE:
            _check_global(parse_pax_records(content))
        else:
            extended.add_gnu(_GNU_LONG[info.type], _parse_long_text(content))

    def _build(self, info: tarfile.TarInfo, header: bytes, extended: _Extended) -> Member:
        pax = extended.pax or {}
        if any(key.startswith("GNU.sparse.") for key in pax):
            raise ambiguous("the tar has a sparse file by pax headers, which not every tool knows")
        stated = extended.text("path", info.name)
        _check_prefix(header, info, is_replaced="path" in extended.gnu or "path" in pax)
        if "\0" in stated:
            raise ambiguous(f"a member of the tar has a NUL in its name: {stated[:200]!r}")
        if info.type in REGULAR and stated.endswith("/"):
            raise ambiguous(f"the file {stated[:200]!r} of the tar has a name like a directory's")
        if info.type == tarfile.GNUTYPE_SPARSE:
            self._skip_sparse_map(header)
        member = Member(
            name=normalise_name(stated),
            kind=info.type,
            size=_member_size(info.size, pax, stated),
            sparse=info.type == tarfile.GNUTYPE_SPARSE,
            target=extended.text("linkpath", info.linkname) if info.type in LINKS else "",
        )
        if member.size and (info.type in LINKS or info.type == tarfile.DIRTYPE):
            raise RejectedError(
                RejectionCode.ARCHIVE_BROKEN,
                f"the link or directory {member.name!r} claims to have {member.size} bytes of content",
            )
        if not member.name and info.type != tarfile.DIRTYPE:
            raise ambiguous("the tar has a file without a name")
        return member

    def _skip_sparse_map(self, header: bytes) -> None:
        more = header[_SPARSE_MORE[True]]
        while more:
            block = self._data.read(BLOCK_BYTES)
            if len(block) != BLOCK_BYTES:
                raise truncated()
            more = block[_SPARSE_MORE[False]]

    def pad(self, size: int) -> None:
        """Skip the padding of the last block after ``size`` bytes."""
        if not self._data.skip(-size % BLOCK_BYTES):
            raise truncated()

    def skip(self, size: int) -> None:
        """Skip a member's content."""
        if not self._data.skip(size + -size % BLOCK_BYTES):
            raise truncated()


def normalise_name(name: str) -> str:
    """Return the member's name without ``.`` and empty parts.

    Raises:
        RejectedError: ``member-path-unsafe``: it is absolute, or leads out of the package.
    """
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise RejectedError(
            RejectionCode.MEMBER_PATH_UNSAFE,
            f"the archive has a member with an absolute path: {name[:200]!r}",
            hint=REBUILD,
        )
    parts = _SEPARATORS.split(name)
    if ".." in parts:
        raise RejectedError(
            RejectionCode.MEMBER_PATH_UNSAFE,
            f"the archive has a member with '..' in its path: {name[:200]!r}",
            hint=REBUILD,
        )
    if "\\" in name or "//" in name or "." in parts or name.endswith("/"):
        return "/".join(part for part in name.split("/") if part not in {"", "."})
    return name


def parse_pax_records(content: bytes) -> dict[str, bytes]:
    r"""Parse the records ``LENGTH KEY=VALUE\n`` of a pax extended header.

    Raises:
        RejectedError: ``archive-broken``, ``archive-ambiguous``, ``member-oversized``.
    """
    records: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        if len(records) >= MAX_PAX_RECORDS:
            raise RejectedError(
                RejectionCode.MEMBER_OVERSIZED, f"an extended header of the tar has more than {MAX_PAX_RECORDS} records"
            )
        space = content.find(b" ", at, at + 10)
        digits = content[at:space]
        stop = at + int(digits) if space > at and digits.isdigit() else 0
        name, equals, value = content[space + 1 : max(stop - 1, 0)].partition(b"=")
        if stop <= space or not equals or content[stop - 1 : stop] != b"\n":
            raise RejectedError(RejectionCode.ARCHIVE_BROKEN, "an extended header of the tar is damaged")
        key = name.decode("utf-8", "replace")
        if key in records:
            raise ambiguous(f"an extended header of the tar has the key {key[:100]!r} twice")
        if not value and key in {"path", "linkpath", "size"}:
            raise ambiguous(f"an extended header of the tar has an empty {key!r}")
        records[key] = value
        at = stop
    if content.count(b"\n") != len(records):
        _check_line_breaks(content, records)
    return records


def _check_line_breaks(content: bytes, records: dict[str, bytes]) -> None:
    """Check records with line breaks: the Rust crate ``tar`` splits them there, whatever their length."""
    found: dict[str, bytes] = {}
    for line in content.split(b"\n"):
        size, _, rest = line.partition(b" ")
        name, equals, value = rest.partition(b"=")
        if equals and size.isdigit() and int(size[:10]) == len(line) + 1:
            found[name.decode("utf-8", "replace")] = value
    for key in {*found, *records}:
        if _CHANGING_KEY.match(key) and found.get(key) != records.get(key):
            raise ambiguous(f"an extended header of the tar has {key[:100]!r} beside a line break")


def ambiguous(message: str) -> RejectedError:
    """Return the error for an archive that tools read differently."""
    return RejectedError(RejectionCode.ARCHIVE_AMBIGUOUS, message, hint=REBUILD)


def truncated() -> RejectedError:
    """Return the error for a tar that ends early."""
    return RejectedError(
        RejectionCode.ARCHIVE_TRUNCATED, "the tar ends in the middle of a member", hint="upload the file again"
    )


def _parse_header(header: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise RejectedError(RejectionCode.ARCHIVE_BROKEN, f"a header of the tar is damaged: {error}") from error
    if info.size < 0:
        raise RejectedError(
            RejectionCode.ARCHIVE_BROKEN, f"the member {info.name[:200]!r} of the tar has a negative size"
        )
    if header[124] != _BASE_256 and not _OCTAL.match(header[_SIZE]):
        raise ambiguous(f"the member {info.name[:200]!r} of the tar states its size in an unusual way")
    if not header.isascii() and sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ") != info.chksum:
        raise ambiguous(f"the member {info.name[:200]!r} of the tar has a checksum of signed bytes")
    if info.type in _EXTENDED and header[257:265] not in {_USTAR_MAGIC, _GNU_MAGIC}:
        raise ambiguous("the tar has an extended header in a format that has none")
    return info


def _check_prefix(header: bytes, info: tarfile.TarInfo, *, is_replaced: bool) -> None:
    """Reject a ustar prefix of the name in another format: some tools apply it, others do not."""
    if is_replaced or info.type in tarfile.GNU_TYPES or header[257:265] == _USTAR_MAGIC:
        return
    if header[_PREFIX].split(b"\0", 1)[0]:
        raise ambiguous(f"the member {info.name[:200]!r} of the tar has a name prefix that its format does not know")


def _parse_long_text(content: bytes) -> str:
    text, _, after = content.partition(b"\0")
    if after.strip(b"\0"):
        raise ambiguous("a GNU header of the tar has a NUL inside a name")
    if not text:
        raise ambiguous("a GNU header of the tar has an empty name")
    return text.decode("utf-8", "surrogateescape")


def _check_global(records: dict[str, bytes]) -> None:
    """Check a global header: comments are allowed, but nothing that changes the members that follow."""
    if changing := [key for key in records if _CHANGING_KEY.match(key)]:
        raise RejectedError(
            RejectionCode.ARCHIVE_BROKEN, f"a global header of the tar sets {changing[0]!r} for all members"
        )


def _member_size(stated: int, pax: dict[str, bytes], name: str) -> int:
    """Return the member's size. Headers that disagree make tools read an archive in two ways."""
    if "size" not in pax:
        return stated
    text = pax["size"]
    size = int(text) if text.isdigit() and len(text) < 20 else -1  # noqa: PLR2004 - digits of 64 bits
    if size < 0 or (size != stated and (size < MAX_USTAR_BYTES or stated)):
        raise RejectedError(
            RejectionCode.ARCHIVE_BROKEN, f"two headers of the tar disagree about the size of {name[:200]!r}"
        )
    return size
