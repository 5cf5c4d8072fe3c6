"""The tar layer of an artifact: walks its members and keeps the wanted ones.

Owns the rules for members: kinds, sizes, counts, and that no member reaches its place through a link.
Takes plain tar bytes in pieces, and is independent of compression and storage.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.tar_headers import (
    LINKS,
    REBUILD,
    REGULAR,
    Bytes,
    Member,
    TarWalk,
    ambiguous,
    normalise_name,
    truncated,
)
from lambdas.indexer.artifacts.budgets import ReadingMemory

MAX_NAMES_CHARS = 16 * 1024 * 1024
"""All names in info/ together, and likewise all names of links."""

_PART_END = re.compile(r"[ .]*(?::.*)?\Z")  # what Windows ignores at the end of a name


@dataclass(frozen=True, kw_only=True, slots=True)
class TarRules:
    """Which members of a tar to keep, and the limits."""

    wanted: Mapping[str, int]  # name → most bytes; must be regular files if present
    dispensable: frozenset[str]  # the wanted members that are ignored if they are too large
    welcome: Mapping[str, int]  # as wanted, but ignored if it is not a regular file or too large
    max_members: int
    max_info_members: int
    max_walk_bytes: int | None = None  # search this far for optional members; None: to the end
    has_info: bool = True  # False for a payload, which must have no info/
    has_payload: bool = True  # False for an info part, which must have nothing else

    def is_enough(self, found: Mapping[str, bytes], walked_bytes: int) -> bool:
        """Return whether the walk may stop: all is found, or it has gone on long enough."""
        if self.max_walk_bytes is None or "info/index.json" not in found:
            return False
        complete = self.wanted.keys() <= found.keys() and not self.welcome.keys().isdisjoint(found)
        return complete or walked_bytes > self.max_walk_bytes


def read_members(pieces: Iterator[bytes], rules: TarRules, memory: ReadingMemory) -> dict[str, bytes]:
    """Walk a tar and return the content of the wanted members that are present.

    Names are normalised: ``./info/index.json`` is ``info/index.json``.

    Raises:
        RejectedError: ``archive-broken``, ``archive-truncated``, ``archive-ambiguous``, ``too-many-members``,
            ``member-path-unsafe``, ``member-duplicated``, ``member-not-a-file``, ``member-oversized``.
        MoreMemoryNeededError: the members do not fit into the reserved memory.
    """
    data = Bytes(pieces)
    walk = TarWalk(data, rules.max_members)
    found: dict[str, bytes] = {}
    kept_bytes = 0
    names = _InfoNames(rules.max_info_members)
    links = _Links()
    while (member := walk.next()) is not None:
        inside = _is_inside_info(member.name)
        if not inside and rules.is_enough(found, data.taken + member.size):
            return found
        _check_kind(member)
        _check_wanted(member, rules)
        _check_place(member, rules, inside=inside)
        links.check(member)
        if inside and member.kind != tarfile.DIRTYPE:
            names.add(member.name)
        if _is_kept(member, rules):
            kept_bytes += member.size
            memory.use("documents", kept_bytes)
            content = data.read(member.size)
            if len(content) != member.size:
                raise truncated()
            found[member.name] = content
            walk.pad(member.size)
        else:
            walk.skip(member.size)
    if not data.taken:
        raise RejectedError(
            RejectionCode.ARCHIVE_TRUNCATED, "a part of the archive is empty", hint="upload the file again"
        )
    if not data.is_zero():
        raise RejectedError(RejectionCode.ARCHIVE_BROKEN, "bytes follow the end of the tar inside the archive")
    return found


class _InfoNames:
    """The names of all files below info/: no duplicates, not too many."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._names: set[str] = set()
        self._chars = 0

    def add(self, name: str) -> None:
        if name in self._names:
            raise RejectedError(RejectionCode.MEMBER_DUPLICATED, f"the archive has {name[:200]!r} twice", hint=REBUILD)
        self._names.add(name)
        self._chars += len(name)
        if len(self._names) > self._max_members or self._chars > MAX_NAMES_CHARS:
            raise RejectedError(
                RejectionCode.TOO_MANY_MEMBERS, f"the archive has more than {self._max_members} files in info/"
            )


class _Links:
    """The links of a tar: no member goes through one, replaces one, or is a hard link to the outside.

    Such a member ends up elsewhere than its name says, in some tools or in all.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._chars = 0

    def check(self, member: Member) -> None:
        if self._names:
            self._check_path(member.name, "a member")
            if member.name in self._names:
                raise ambiguous(f"the archive has a member that replaces the link {member.name[:200]!r}")
        if member.kind == tarfile.LNKTYPE:
            target = normalise_name(member.target)
            if not target or "\0" in target:
                raise ambiguous(f"the hard link {member.name[:200]!r} in the archive has no target")
            self._check_path(target, "a hard link")
            if target in self._names:
                raise ambiguous(f"the archive has a hard link to the link {target[:200]!r}")
        if member.kind == tarfile.SYMTYPE:
            self._add(member.name)

    def _check_path(self, path: str, what: str) -> None:
        end = path.find("/")
        while end >= 0:
            if path[:end] in self._names:
                raise ambiguous(f"the archive has {what} that goes through the link {path[:end][:200]!r}")
            end = path.find("/", end + 1)

    def _add(self, name: str) -> None:
        self._names.add(name)
        self._chars += len(name)
        if self._chars > MAX_NAMES_CHARS:
            raise RejectedError(RejectionCode.TOO_MANY_MEMBERS, "the names of the links in the archive are too long")


def _is_inside_info(name: str) -> bool:
    return name.startswith("info/") or name == "info"


def _check_kind(member: Member) -> None:
    known = member.kind in REGULAR or member.kind in LINKS or member.kind in {tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE}
    if not known:
        raise RejectedError(
            RejectionCode.MEMBER_NOT_A_FILE,
            f"the archive has a device, pipe or unknown kind of member: {member.name[:200]!r}",
        )
    if member.name == "info" and member.kind != tarfile.DIRTYPE:
        raise RejectedError(RejectionCode.MEMBER_NOT_A_FILE, "'info' is not a directory in the archive")


def _check_place(member: Member, rules: TarRules, *, inside: bool) -> None:
    """Check that info/ has no sparse files, and that the parts of a ``.conda`` do not have each other's members."""
    is_file = member.kind != tarfile.DIRTYPE
    if inside and member.sparse:
        raise RejectedError(
            RejectionCode.MEMBER_NOT_A_FILE, f"{member.name[:200]!r} is a sparse file in the archive", hint=REBUILD
        )
    if inside and is_file and not rules.has_info:
        raise RejectedError(
            RejectionCode.MEMBER_DUPLICATED, f"the payload has {member.name[:200]!r} as well", hint=REBUILD
        )
    if not inside and is_file and not rules.has_payload:
        raise ambiguous(f"the info part has {member.name[:200]!r}, which belongs to the payload")


def _check_wanted(member: Member, rules: TarRules) -> None:
    """Check the files that are read."""
    name = member.name
    limit = rules.wanted.get(name)
    if limit is None:
        if _simplify(name) in rules.wanted:
            raise RejectedError(
                RejectionCode.MEMBER_DUPLICATED, f"the archive has {name[:200]!r}, which some systems equate"
            )
        return
    if member.kind not in REGULAR or member.sparse:
        raise RejectedError(
            RejectionCode.MEMBER_NOT_A_FILE, f"{name!r} is not a regular file in the archive", hint=REBUILD
        )
    if member.size > limit and name not in rules.dispensable:
        raise RejectedError(RejectionCode.MEMBER_OVERSIZED, f"{name!r} has {member.size} bytes, over {limit}")


def _simplify(name: str) -> str:
    """Return the name as macOS and Windows compare it: by case, with other separators, dots and streams."""
    if "info" not in name.casefold():
        return name
    parts = name.replace("\\", "/").casefold().split("/")
    return "/".join(_PART_END.sub("", part) for part in parts if part)


def _is_kept(member: Member, rules: TarRules) -> bool:
    if member.name in rules.wanted:
        return member.size <= rules.wanted[member.name]
    regular = member.kind in REGULAR and not member.sparse
    return regular and member.size <= rules.welcome.get(member.name, -1)
