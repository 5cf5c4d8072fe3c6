"""The tar layer of an artifact: walks its members and keeps the wanted ones.

Owns the rules for members: names, kinds, sizes, counts. Takes plain tar bytes in pieces, and is
independent of compression and storage. ``tarfile`` decodes headers; the walk is our own code, because
``tarfile`` ends silently at a damaged header, reads extended headers of any size and follows chains of
them by recursion.

Source: POSIX.1-2001 pax and ustar; GNU tar's long names and sparse files.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lambdas.channel.errors import RejectedError

BLOCK_BYTES = 512
MAX_EXTENDED_HEADER_BYTES = 64 * 1024
MAX_PAX_RECORDS = 64
MAX_INFO_NAMES_CHARS = 16 * 1024 * 1024  # all names in info/ together
MAX_USTAR_BYTES = 8 * 1024**3  # the largest size that a plain header can state in octal

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_LINKS = frozenset({tarfile.LNKTYPE, tarfile.SYMTYPE})
_PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_GNU_LONG = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_SPARSE_MORE = {True: 482, False: 504}  # offset of the flag "another map block follows": in the header, in a map block


@dataclass(frozen=True, kw_only=True, slots=True)
class TarRules:
    """What is wanted of a tar, and how much of it may be there."""

    wanted: Mapping[str, int]  # name → most bytes; must be regular files where they are there at all
    dispensable: frozenset[str]  # those of the wanted that are passed over where they are too large
    welcome: Mapping[str, int]  # likewise, but passed over where it is no regular file or too large
    max_members: int
    max_info_members: int
    max_walk_bytes: int | None = None  # look so far for what may be missing, but for info/index.json; None: to the end

    def is_enough(self, found: Mapping[str, bytes], walked_bytes: int) -> bool:
        """Whether the walk may stop here: all is found, or it has gone on long enough."""
        if self.max_walk_bytes is None or "info/index.json" not in found:
            return False
        complete = self.wanted.keys() <= found.keys() and not self.welcome.keys().isdisjoint(found)
        return complete or walked_bytes > self.max_walk_bytes


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
        """Pass over ``count`` bytes; whether they were there."""
        while count:
            part = self._next(count)
            if not part:
                return False
            count -= len(part)
        return True

    def is_zero(self) -> bool:
        """Whether all that is left is zero bytes; reads to the end."""
        clean = True
        while part := self._next(1 << 20):
            clean = clean and not part.tobytes().strip(b"\0")
        return clean


@dataclass(kw_only=True, slots=True)
class _Member:
    """One member, with what extended headers said about it."""

    name: str
    kind: bytes
    size: int
    sparse: bool


def read_members(pieces: Iterator[bytes], rules: TarRules) -> dict[str, bytes]:
    """Walk a tar and return the content of the wanted members that are there.

    Names are normalised: ``./info/index.json`` is ``info/index.json``.

    Raises:
        RejectedError: ``archive-broken``, ``archive-truncated``, ``too-many-members``,
            ``member-path-unsafe``, ``member-duplicated``, ``member-not-a-file``, ``member-oversized``.
    """
    data = Bytes(pieces)
    walk = _Walk(data, rules)
    found: dict[str, bytes] = {}
    names = _InfoNames(rules.max_info_members)
    while (member := walk.next()) is not None:
        inside = _is_inside_info(member.name)
        if not inside and rules.is_enough(found, data.taken + member.size):
            return found
        _check_kind(member)
        _check_wanted(member, rules)
        if inside and member.kind != tarfile.DIRTYPE:
            names.add(member.name)
        if _is_kept(member, rules):
            content = data.read(member.size)
            if len(content) != member.size:
                raise _truncated()
            found[member.name] = content
            walk.pad(member.size)
        else:
            walk.skip(member.size)
    if not data.is_zero():
        raise RejectedError("archive-broken", "bytes follow the end of the tar inside the archive")
    return found


class _InfoNames:
    """The names of all files below info/: none twice, not too many."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._names: set[str] = set()
        self._chars = 0

    def add(self, name: str) -> None:
        if name in self._names:
            raise RejectedError("member-duplicated", f"the archive has {name[:200]!r} twice", hint=_REBUILD)
        self._names.add(name)
        self._chars += len(name)
        if len(self._names) > self._max_members or self._chars > MAX_INFO_NAMES_CHARS:
            raise RejectedError("too-many-members", f"the archive has more than {self._max_members} files in info/")


class _Walk:
    """Goes from header to header."""

    def __init__(self, data: Bytes, rules: TarRules) -> None:
        self._data = data
        self._rules = rules
        self._headers = 0

    def next(self) -> _Member | None:
        """Return the next member; its content is what comes next in the data. None at the end."""
        pax: dict[str, bytes] = {}
        long_name: str | None = None
        pending = False  # an extended header announces a member
        while True:
            header = self._data.read(BLOCK_BYTES)
            if not header and not pending:
                return None  # no end marker: some writers leave it out, and nothing can hide behind it
            if len(header) != BLOCK_BYTES:
                raise _truncated()
            if header == _ZERO_BLOCK and not pending:
                return None
            self._headers += 1
            if self._headers > self._rules.max_members:
                raise RejectedError("too-many-members", f"the archive has more than {self._rules.max_members} members")
            info = _parse_header(header)
            if info.type in _PAX:
                pax |= parse_pax_records(self._read_extended(info.size))
            elif info.type == tarfile.XGLTYPE:
                _check_global(parse_pax_records(self._read_extended(info.size)))
            elif info.type in _GNU_LONG:
                text = self._read_extended(info.size).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
                long_name = text if info.type == tarfile.GNUTYPE_LONGNAME else long_name
            else:
                return self._build(info, header, pax, long_name)
            pending = True

    def _build(self, info: tarfile.TarInfo, header: bytes, pax: dict[str, bytes], long_name: str | None) -> _Member:
        path = pax.get("GNU.sparse.name", pax.get("path"))
        name = (long_name or info.name) if path is None else path.decode("utf-8", "surrogateescape")
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax)
        if info.type == tarfile.GNUTYPE_SPARSE:
            more = header[_SPARSE_MORE[True]]
            while more:
                block = self._data.read(BLOCK_BYTES)
                if len(block) != BLOCK_BYTES:
                    raise _truncated()
                more = block[_SPARSE_MORE[False]]
        member = _Member(
            name=normalise_name(name), kind=info.type, size=_member_size(info.size, pax, name), sparse=sparse
        )
        if member.size and (info.type in _LINKS or info.type == tarfile.DIRTYPE):
            raise RejectedError(
                "archive-broken", f"the link or directory {member.name!r} claims to have {member.size} bytes of content"
            )
        return member

    def _read_extended(self, size: int) -> bytes:
        if size > MAX_EXTENDED_HEADER_BYTES:
            raise RejectedError(
                "member-oversized", f"an extended header of the tar has {size} bytes, over {MAX_EXTENDED_HEADER_BYTES}"
            )
        content = self._data.read(size)
        if len(content) != size:
            raise _truncated()
        self.pad(size)
        return content

    def pad(self, size: int) -> None:
        """Pass over what fills the last block after ``size`` bytes."""
        if not self._data.skip(-size % BLOCK_BYTES):
            raise _truncated()

    def skip(self, size: int) -> None:
        """Pass over a member's content."""
        if not self._data.skip(size + -size % BLOCK_BYTES):
            raise _truncated()


def normalise_name(name: str) -> str:
    """Return the member's name without ``.`` and empty parts.

    Raises:
        RejectedError: ``member-path-unsafe``: it is absolute, or leads out of the package.
    """
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise RejectedError(
            "member-path-unsafe", f"the archive has a member with an absolute path: {name[:200]!r}", hint=_REBUILD
        )
    parts = _SEPARATORS.split(name)
    if ".." in parts:
        raise RejectedError(
            "member-path-unsafe", f"the archive has a member with '..' in its path: {name[:200]!r}", hint=_REBUILD
        )
    if "\\" in name or "//" in name or "." in parts or name.endswith("/"):
        return "/".join(part for part in name.split("/") if part not in {"", "."})
    return name


def parse_pax_records(content: bytes) -> dict[str, bytes]:
    r"""Parse the records ``LENGTH KEY=VALUE\n`` of a pax extended header.

    Raises:
        RejectedError: ``archive-broken``.
    """
    records: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 10)
        digits = content[at:space]
        stop = at + int(digits) if space > at and digits.isdigit() else 0
        key, equals, value = content[space + 1 : max(stop - 1, 0)].partition(b"=")
        if stop <= space or not equals or content[stop - 1 : stop] != b"\n" or len(records) >= MAX_PAX_RECORDS:
            raise RejectedError("archive-broken", "an extended header of the tar is damaged")
        records[key.decode("utf-8", "replace")] = value
        at = stop
    return records


_REBUILD = "build the package again with a current tool"


def _truncated() -> RejectedError:
    return RejectedError("archive-truncated", "the tar ends in the middle of a member", hint="upload the file again")


def _parse_header(header: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise RejectedError("archive-broken", f"a header of the tar is damaged: {error}") from error
    if info.size < 0:
        raise RejectedError("archive-broken", f"the member {info.name[:200]!r} of the tar has a negative size")
    return info


def _check_global(records: dict[str, bytes]) -> None:
    """Global headers carry comments; one that renames or resizes all members is meant to confuse."""
    if odd := records.keys() & {"path", "linkpath", "size"}:
        raise RejectedError("archive-broken", f"a global header of the tar sets {min(odd)!r} for all members")


def _member_size(stated: int, pax: dict[str, bytes], name: str) -> int:
    """Return the member's size. Two headers that differ are how archives are made to read in two ways."""
    if "size" not in pax:
        return stated
    text = pax["size"]
    size = int(text) if text.isdigit() and len(text) < 20 else -1  # noqa: PLR2004 - digits of 64 bits
    if size < 0 or (size != stated and (size < MAX_USTAR_BYTES or stated)):
        raise RejectedError("archive-broken", f"two headers of the tar disagree about the size of {name[:200]!r}")
    return size


def _is_inside_info(name: str) -> bool:
    return name.startswith("info/") or name == "info"


def _check_kind(member: _Member) -> None:
    known = member.kind in _REGULAR or member.kind in _LINKS or member.kind in {tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE}
    if not known:
        raise RejectedError(
            "member-not-a-file", f"the archive has a device, pipe or unknown kind of member: {member.name[:200]!r}"
        )
    if member.name == "info" and member.kind != tarfile.DIRTYPE:
        raise RejectedError("member-not-a-file", "'info' is not a directory in the archive")


def _check_wanted(member: _Member, rules: TarRules) -> None:
    """Apply what holds for the files that are read."""
    name = member.name
    limit = rules.wanted.get(name)
    if limit is None:
        if name.casefold() in rules.wanted:
            raise RejectedError("member-duplicated", f"the archive has {name!r}, which is another name by case alone")
        return
    if member.kind not in _REGULAR or member.sparse:
        raise RejectedError("member-not-a-file", f"{name!r} is not a regular file in the archive", hint=_REBUILD)
    if member.size > limit and name not in rules.dispensable:
        raise RejectedError("member-oversized", f"{name!r} has {member.size} bytes, over {limit}")


def _is_kept(member: _Member, rules: TarRules) -> bool:
    if member.name in rules.wanted:
        return member.size <= rules.wanted[member.name]
    regular = member.kind in _REGULAR and not member.sparse
    return regular and member.size <= rules.welcome.get(member.name, -1)
