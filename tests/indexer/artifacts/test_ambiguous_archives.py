"""Archives that tools read differently are rejected.

Each construction makes some tool see ``depends: ["evil"]`` in info/index.json, or another file than Fairway read,
or it is one step away from that. ``conftest.py`` compares everything that is accepted with what clients extract.
"""

from __future__ import annotations

import bz2
import json
import stat
import tarfile
import zipfile

import pytest

from lambdas.channel.artifact_kinds import parse_filename
from tests.builders import (
    METADATA,
    PAYLOAD,
    compress_zstd,
    conda_package,
    index_json,
    info_members,
    tar,
    tar_bz2_package,
    zipped,
)
from tests.indexer.artifacts.conftest import Clients
from tests.indexer.reading import FOO_BZ2, FOO_CONDA, STEM, Builder, both_formats, foo_conda, info_tar, read, rejection

GOOD = json.dumps(index_json()).encode()
EVIL = json.dumps(index_json(depends=["evil"])).encode()
USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"


def member(
    name: bytes | str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    *,
    link: bytes = b"",
    magic: bytes = USTAR,
    prefix: bytes = b"",
    size: bytes | None = None,
    signed: bool = False,
) -> bytes:
    """A member, written field by field."""
    raw = name if isinstance(name, bytes) else name.encode()
    header = bytearray(512)
    header[0 : len(raw)] = raw
    header[100:108] = b"0000644\0"
    header[108:124] = b"0000000\0" * 2
    header[124:136] = size if size is not None else b"%011o\0" % len(content)
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = magic
    header[345 : 345 + len(prefix)] = prefix
    bodies = [*header[:148], *header[156:]]
    total = 8 * ord(" ") + sum(byte - 256 if signed and byte > 127 else byte for byte in bodies)
    header[148:156] = b"%06o\0 " % total
    return bytes(header) + content + bytes(-len(content) % 512)


def records(*pairs: tuple[bytes, bytes]) -> bytes:
    body = b""
    for key, value in pairs:
        size = len(key) + len(value) + 3
        while len(b"%d" % size) + len(key) + len(value) + 3 != size:
            size = len(b"%d" % size) + len(key) + len(value) + 3
        body += b"%d %s=%s\n" % (size, key, value)
    return body


def pax(*pairs: tuple[bytes, bytes]) -> bytes:
    return member("pax", records(*pairs), tarfile.XHDTYPE)


def long_name(name: bytes, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    return member("././@LongLink", name, kind, magic=GNU)


def padded(header: bytes, content: bytes) -> bytes:
    """An extended header with something in its padding, where zeros belong."""
    kept = header.rstrip(b"\0")
    assert len(kept + content) <= len(header)
    return (kept + content).ljust(len(header), b"\0")


def link(name: str, target: bytes, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return member(name, kind=kind, link=target)


INDEX = member("info/index.json", GOOD)
PATHS = member("info/paths.json", b'{"paths":[],"paths_version":1}')

AMBIGUOUS: dict[str, bytes] = {
    "through a symbolic link": link("info/x", b".") + member("info/x/index.json", EVIL),
    "through a chain of links": link("info/x", b".") + link("info/y", b"x") + member("info/y/index.json", EVIL),
    "a directory through a link": link("info/x", b".") + member("info/x/y", kind=tarfile.DIRTYPE),
    "a link through a link": link("info/x", b".") + link("info/x/index.json", b"/etc/passwd"),
    "a file replaces a link": link("info/x", b"index.json") + member("info/x", EVIL),
    "a directory replaces a link": link("info/x", b".") + member("info/x", kind=tarfile.DIRTYPE),
    "a hard link through a link": link("info/x", b".") + link("info/y", b"info/x/index.json", tarfile.LNKTYPE),
    "a hard link to a link": link("info/x", b"y") + link("info/y", b"info/x", tarfile.LNKTYPE),
    "a hard link to nothing": link("info/y", b"", tarfile.LNKTYPE),
    "long name and pax path": long_name(b"info/index.json\0") + pax((b"path", b"info/q")) + member("info/z", EVIL),
    "pax path and long name": pax((b"path", b"info/q")) + long_name(b"info/index.json\0") + member("info/z", EVIL),
    "two long names": long_name(b"info/index.json\0") + long_name(b"info/q\0") + member("info/z", EVIL),
    "two pax headers": pax((b"path", b"info/index.json")) + pax((b"path", b"info/q")) + member("info/z", EVIL),
    "two pax headers, one without a path": pax((b"path", b"info/q")) + pax((b"comment", b"x")) + member("info/z", EVIL),
    "long link and pax linkpath": (
        long_name(b"info/q\0", tarfile.GNUTYPE_LONGLINK) + pax((b"linkpath", b"info/r")) + link("info/z", b"s")
    ),
    "two long links": long_name(b"a\0", tarfile.GNUTYPE_LONGLINK) * 2 + link("info/z", b"s"),
    "long name that goes on in the padding": padded(long_name(b"info/in"), b"dex.json") + member("info/z", EVIL),
    "long name in the padding alone": padded(long_name(b"info/q\0"), b"\0info/index.json") + member("info/z", EVIL),
    "long link that goes on in the padding": padded(long_name(b"q", tarfile.GNUTYPE_LONGLINK), b"r")
    + link("info/z", b"s"),
    "pax record in the padding": padded(pax((b"comment", b"x")), records((b"path", b"info/index.json")))
    + member("info/z", EVIL),
    "global pax record in the padding": padded(
        member("pax", records((b"comment", b"x")), tarfile.XGLTYPE), records((b"path", b"info/index.json"))
    )
    + member("info/z", EVIL),
    "pax key twice": pax((b"path", b"info/index.json"), (b"path", b"info/a")) + member("info/b", EVIL),
    "another pax key twice": pax((b"comment", b"x"), (b"comment", b"y")) + member("info/b", EVIL),
    "pax record inside a value": pax((b"comment", b"x\n" + records((b"path", b"info/index.json"))[:-1]))
    + member("info/b", EVIL),
    "a line break in a pax path": pax((b"path", b"info/index.json\nx")) + member("info/b", EVIL),
    "pax record inside another value": pax(
        (b"SCHILY.xattr.x", b"x\n" + records((b"size", b"0"))[:-1]), (b"path", b"info/q")
    )
    + member("info/b", EVIL),
    "empty pax path": pax((b"path", b"")) + member("info/b", EVIL),
    "sparse file by pax": pax((b"GNU.sparse.name", b"info/index.json"), (b"GNU.sparse.major", b"1"))
    + member("info/b", EVIL),
    "NUL in a pax path": pax((b"path", b"info/index.json\0x")) + member("info/b", EVIL),
    "NUL in a long name": long_name(b"info/index.json\0x\0") + member("info/b", EVIL),
    "empty long name": long_name(b"\0") + member("info/b", EVIL),
    "ustar prefix under GNU magic": member("index.json", EVIL, magic=GNU, prefix=b"info"),
    "ustar prefix under no magic": member("index.json", EVIL, magic=bytes(8), prefix=b"info"),
    "ustar prefix under another version": member("index.json", EVIL, magic=b"ustar\x0001", prefix=b"info"),
    "ustar prefix under no magic, and a long link": long_name(b"x\0", tarfile.GNUTYPE_LONGLINK)
    + member("index.json", EVIL, magic=bytes(8), prefix=b"info"),
    "extended header under no magic": member("pax", records((b"path", b"info/q")), tarfile.XHDTYPE, magic=bytes(8))
    + member("info/b", EVIL),
    "long name under no magic": member("x", b"info/index.json\0", tarfile.GNUTYPE_LONGNAME, magic=bytes(8))
    + member("info/b", EVIL),
    "a file with a directory's name": member("info/x/", EVIL),
    "a file with a directory's name under no magic": member("info/x/", EVIL, magic=bytes(8)),
    "size with an underscore": member("info/x", EVIL, size=b"0000_00%04o\0" % len(EVIL)),
    "size with a prefix": member("info/x", EVIL, size=b"0o00000%04o\0" % len(EVIL)),
    "size with a sign": member("info/x", EVIL, size=b"+000000%04o\0" % len(EVIL)),
    "checksum of signed bytes": member(b"info/\xff", EVIL, signed=True),
    "no name": member("", EVIL),
}  # fmt: skip
UNSAFE: dict[str, tuple[bytes, str]] = {
    "a hard link out of the package": (link("info/x", b"../../etc/passwd", tarfile.LNKTYPE), "member-path-unsafe"),
    "a hard link to an absolute path": (link("info/x", b"/etc/passwd", tarfile.LNKTYPE), "member-path-unsafe"),
    "Windows separators": (member("info\\index.json", EVIL), "member-duplicated"),
    "Windows streams": (member("info/index.json::$DATA", EVIL), "member-duplicated"),
    "trailing dots": (member("info/index.json.", EVIL), "member-duplicated"),
    "trailing spaces": (member("info./index.json ", EVIL), "member-duplicated"),
    "Solaris pax header": (
        member("x", records((b"path", b"info/q")), b"X") + member("info/b", EVIL),
        "member-not-a-file",
    ),
    "global path": (
        member("pax", records((b"path", b"info/index.json")), tarfile.XGLTYPE) + member("info/b", EVIL),
        "archive-broken",
    ),
    "global character set": (member("pax", records((b"hdrcharset", b"BINARY")), tarfile.XGLTYPE), "archive-broken"),
    "global sparse name": (member("pax", records((b"GNU.sparse.name", b"x")), tarfile.XGLTYPE), "archive-broken"),
}  # fmt: skip
HARMLESS: dict[str, bytes] = {
    "a link": link("info/x", b"index.json"),
    "a link out of the package": link("info/x", b"/usr/share/licenses"),
    "a hard link": link("info/x", b"info/index.json", tarfile.LNKTYPE),
    "a sibling of a link": link("info/x", b"index.json") + member("info/x.json", EVIL),
    "ustar prefix": member("x.json", EVIL, prefix=b"info/test"),
    "a line break in a pax value": pax((b"SCHILY.xattr.user.x", b"a\n12 b=c\nd"), (b"path", b"info/q"))
    + member("info/z", EVIL),
    "pax path": pax((b"path", b"info/" + b"q" * 200)) + member("info/z", EVIL),
    "long name": long_name(b"info/" + b"q" * 200 + b"\0") + member("info/z", EVIL, magic=GNU),
    "long name and long link": (
        long_name(b"info/" + b"t" * 200 + b"\0", tarfile.GNUTYPE_LONGLINK)
        + long_name(b"info/" + b"q" * 200 + b"\0")
        + member("info/z", kind=tarfile.SYMTYPE, link=b"t", magic=GNU)
    ),
    "a path replaces a prefix": pax((b"path", b"info/q")) + member("z", EVIL, magic=GNU, prefix=b"info"),
    "no magic": member("info/x", EVIL, magic=bytes(8)),
    "size in base 256": member("info/x", EVIL, size=b"\x80" + len(EVIL).to_bytes(11, "big")),
    "size with spaces": member("info/x", EVIL, size=b"%11o " % len(EVIL)),
    "directory": member("info/x/", kind=tarfile.DIRTYPE) + member("info/x/y", EVIL),
    "contiguous file": member("info/x", EVIL, tarfile.CONTTYPE),
}  # fmt: skip


def build_archive(build_format: Builder, members: bytes, *, first: bool) -> bytes:
    """An archive with a good index.json and the members, before or after it."""
    plain = (members + INDEX + PATHS if first else INDEX + PATHS + members) + bytes(1024)
    return foo_conda(plain) if build_format is conda_package else bz2.compress(plain)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", AMBIGUOUS)
@both_formats
def test_read_artifact__attack_members_that_tools_read_differently(build: Builder, name: str, first: bool) -> None:
    error = rejection(build_archive(build, AMBIGUOUS[name], first=first), parse_filename(build()[0]))

    assert error.code in ({"archive-ambiguous", "member-duplicated"} if first else {"archive-ambiguous"})


@pytest.mark.parametrize("name", UNSAFE)
@both_formats
def test_read_artifact__attack_members_that_systems_read_differently(build: Builder, name: str) -> None:
    members, code = UNSAFE[name]

    assert rejection(build_archive(build, members, first=False), parse_filename(build()[0])).code == code


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", HARMLESS)
@both_formats
def test_read_artifact__accepts_members_that_every_tool_reads_alike(build: Builder, name: str, first: bool) -> None:
    assert read(build()[0], build_archive(build, HARMLESS[name], first=first)).index == index_json()


@pytest.mark.parametrize(
    "members",
    [
        link("x", b"info") + member("x/index.json", EVIL),
        link("x", b"info") + link("y", b"x") + member("y/index.json", EVIL),
        link("x", b"info/index.json") + member("x", EVIL),
        link("x", b"info/index.json", tarfile.LNKTYPE) + link("y", b"x") + member("y", EVIL),
    ],
)
def test_read_artifact__attack_link_outside_info(members: bytes) -> None:
    assert rejection(bz2.compress(INDEX + members + bytes(1024)), FOO_BZ2).code == "archive-ambiguous"


def test_read_artifact__attack_link_in_the_payload() -> None:
    payload = link("x", b"info") + member("x/index.json", EVIL) + bytes(1024)

    assert rejection(foo_conda(payload=payload), FOO_CONDA).code == "archive-ambiguous"


def test_read_artifact__accepts_links_in_the_payload() -> None:
    payload = [
        member("lib/libfoo.so.1", b"x"),
        link("lib/libfoo.so", b"libfoo.so.1"),
        link("lib64", b"lib"),
        link("etc/localtime", b"/usr/share/zoneinfo/UTC"),
        link("lib/copy", b"lib/libfoo.so.1", tarfile.LNKTYPE),
    ]

    assert read("foo-1.0-0.conda", foo_conda(payload=b"".join(payload) + bytes(1024))).index == index_json()


@pytest.mark.parametrize("name", ["info/git", "info/recipe/run_test.sh"])
def test_read_artifact__attack_payload_with_other_files_of_info(name: str) -> None:
    assert rejection(foo_conda(payload=tar([*PAYLOAD, (name, b"x")])), FOO_CONDA).code == "member-duplicated"


def test_read_artifact__attack_info_part_with_files_of_the_payload() -> None:
    assert rejection(foo_conda(info_tar(("bin/foo", b"x"))), FOO_CONDA).code == "archive-ambiguous"


# The zip around a .conda

HIDDEN = compress_zstd(tar(info_members(index_json(depends=["evil"]))))


def zip_of(*more: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    return zipped(
        [
            ("metadata.json", METADATA),
            (f"pkg-{STEM}.tar.zst", compress_zstd(tar(PAYLOAD))),
            (f"info-{STEM}.tar.zst", compress_zstd(info_tar())),
            *more,
        ]
    )


@pytest.mark.parametrize(
    "name",
    [
        f"zinfo-{STEM}.tar.zst", f"sub/info-{STEM}.tar.zst", "x.tar.zst", ".tar.zst", "X.TAR.ZST",
        f"sub\\info-{STEM}.tar.zst", "x.tar.zst/",
    ],
)  # fmt: skip
def test_read_artifact__attack_another_part_in_the_zip(name: str) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name

    assert rejection(zip_of((entry, HIDDEN)), FOO_CONDA).code == "archive-ambiguous"


def test_read_artifact__accepts_other_members_of_the_zip() -> None:
    assert (
        read("foo-1.0-0.conda", zip_of(("LICENSE", b"x"), ("sub/", b""), ("x.tar.zst.asc", b""))).index == index_json()
    )


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
@pytest.mark.parametrize("name", [f"info-{STEM}.tar.zst", "metadata.json"])
def test_read_artifact__attack_link_in_the_zip(name: str, kind: int) -> None:
    parts = {
        "metadata.json": METADATA,
        f"pkg-{STEM}.tar.zst": compress_zstd(tar(PAYLOAD)),
        f"info-{STEM}.tar.zst": compress_zstd(info_tar()),
    }
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = []
    for part, content in parts.items():
        entry = zipfile.ZipInfo(part)
        entry.create_system = 3
        entry.external_attr = ((kind if part == name else stat.S_IFREG) | 0o644) << 16
        entries.append((entry, content))

    assert rejection(zipped(entries), FOO_CONDA).code == "archive-ambiguous"


@pytest.mark.parametrize("part", ["pkg", "info"])
def test_read_artifact__attack_empty_part(part: str) -> None:
    parts = {"pkg": compress_zstd(tar(PAYLOAD)), "info": compress_zstd(info_tar())} | {part: b""}
    content = zipped([("metadata.json", METADATA), *((f"{name}-{STEM}.tar.zst", body) for name, body in parts.items())])

    error = rejection(content, FOO_CONDA)

    assert error.code == "archive-truncated"
    assert f"{part}-{STEM}.tar.zst" in str(error)


# What clients extract


def test_clients__some_construction_deceives_each_of_them(clients: Clients) -> None:
    """The attacks are real: each tool is shown to read evil from an archive that begins with a good index.json."""
    deceived: set[str] = set()
    for members in AMBIGUOUS.values():
        for filename, content in (
            ("foo-1.0-0.conda", build_archive(conda_package, members, first=False)),
            ("foo-1.0-0.tar.bz2", build_archive(tar_bz2_package, members, first=False)),
        ):
            for tool, files in clients.extract(filename, content).items():
                if files is not None and "evil" in files.get("info/index.json", ""):
                    deceived.add(tool)
    assert deceived == {"rattler", "cps", "cph"}


def test_clients__several_bzip2_streams(clients: Clients) -> None:
    """conda reads all of them, rattler the first alone; the documentation asks for bzip2, not pbzip2."""
    content = bz2.compress(INDEX) + bz2.compress(PATHS + member("share/x", b"x") + bytes(1024))

    assert read("foo-1.0-0.tar.bz2", content).index == index_json()
    extracted = clients.extract("foo-1.0-0.tar.bz2", content)
    assert set(extracted["cps"] or {}) == {"info/index.json", "info/paths.json"}
    assert set(extracted["rattler"] or {}) <= {"info/index.json"}
