from __future__ import annotations

import bz2
import tarfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambdas.channel.artifact_kinds import parse_filename
from lambdas.channel.errors import RejectedError
from tests.builders import (
    PAYLOAD,
    Members,
    conda_package,
    index_json,
    info_members,
    tar,
    tar_member,
)
from tests.indexer.reading import (
    FOO_BZ2,
    FOO_CONDA,
    Builder,
    both_formats,
    damages,
    foo_bz2,
    foo_conda,
    read,
    rejection,
)


@both_formats
@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("/info/index.json", b"{}")], "member-path-unsafe"),
        ([("../info/index.json", b"{}")], "member-path-unsafe"),
        ([("info/../../x", b"")], "member-path-unsafe"),
        ([("info\\..\\..\\x", b"")], "member-path-unsafe"),
        ([("c:\\x", b"")], "member-path-unsafe"),
        ([("\\x", b"")], "member-path-unsafe"),
        ([("info/index.json", b"{}")], "member-duplicated"),
        ([("./info/index.json", b"{}")], "member-duplicated"),
        ([("info//index.json", b"{}")], "member-duplicated"),
        ([("info/./paths.json", b"{}")], "member-duplicated"),
        ([("INFO/Index.json", b"{}")], "member-duplicated"),
        ([("info/git", b"1"), ("info/git", b"2")], "member-duplicated"),
        ([tar_member("info/about.json", tarfile.SYMTYPE, target="/etc/passwd")], "member-not-a-file"),
        ([tar_member("info/about.json", tarfile.LNKTYPE, target="info/index.json")], "member-not-a-file"),
        ([tar_member("info/run_exports.json", tarfile.DIRTYPE)], "member-not-a-file"),
        ([tar_member("info/about.json", tarfile.CHRTYPE)], "member-not-a-file"),
        ([tar_member("info/about.json", tarfile.GNUTYPE_SPARSE)], "member-not-a-file"),
        ([tar_member("info", tarfile.SYMTYPE, target="/etc")], "member-not-a-file"),
        ([("info", b"")], "member-not-a-file"),
        ([tar_member("x", tarfile.BLKTYPE)], "member-not-a-file"),
        ([tar_member("x", tarfile.FIFOTYPE)], "member-not-a-file"),
        ([tar_member("x", b"Z")], "member-not-a-file"),
        ([tar_member("x", tarfile.SYMTYPE, target="y", size=512)], "archive-broken"),
    ],
)
def test_read_artifact__rejects_a_hostile_member(build: Builder, members: Members, code: str) -> None:
    plain = tar([*info_members(index_json()), *members])
    content = foo_conda(plain) if build is conda_package else bz2.compress(plain)

    assert rejection(content, parse_filename(build()[0])).code == code


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@both_formats
def test_read_artifact__accepts_links_where_no_file_is_needed(build: Builder, kind: bytes) -> None:
    link = tar_member("lib/libfoo.so", kind, target="share/foo.txt")

    assert read(*build(payload=[*PAYLOAD, link])).index == index_json()


@pytest.mark.parametrize("name", ["info/index.json", "./info/about.json", "info/recipe/meta.yaml"])
def test_read_artifact__rejects_a_payload_that_brings_its_own_info(name: str) -> None:
    filename, content = conda_package(payload=[*PAYLOAD, (name, b"{}")])

    assert rejection(content, parse_filename(filename)).code == "member-duplicated"


@pytest.mark.parametrize("name", ["/x", "../x"])
def test_read_artifact__rejects_an_unsafe_payload_that_it_has_anyway(name: str) -> None:
    filename, content = conda_package(payload=[(name, b"x")])

    assert rejection(content, parse_filename(filename)).code == "member-path-unsafe"


@both_formats
def test_read_artifact__rejects_an_archive_without_index(build: Builder) -> None:
    plain = tar([("info/about.json", b"{}")])
    content = foo_conda(plain) if build is conda_package else bz2.compress(plain)

    error = rejection(content, parse_filename(build()[0]))

    assert error.code == "member-missing"
    assert "info/index.json" in str(error)


def test_read_artifact__rejects_an_empty_tar() -> None:
    assert rejection(foo_conda(b""), FOO_CONDA).code == "archive-truncated"
    assert rejection(foo_conda(payload=b""), FOO_CONDA).code == "archive-truncated"
    assert rejection(bz2.compress(b""), FOO_BZ2).code == "archive-truncated"


def test_read_artifact__rejects_a_tar_without_members() -> None:
    assert rejection(foo_conda(tar([])), FOO_CONDA).code == "member-missing"
    assert rejection(bz2.compress(tar([])), FOO_BZ2).code == "member-missing"


def test_read_artifact__accepts_a_payload_without_members() -> None:
    assert read("foo-1.0-0.conda", foo_conda(payload=tar([]))).index == index_json()


def sparse_member(name: str, *, maps: int) -> tuple[str | tarfile.TarInfo, bytes]:
    """An old GNU sparse file whose map goes on for so many blocks, with one block of content."""
    header = bytearray(tar_member(name, tarfile.GNUTYPE_SPARSE, size=512)[0].tobuf(tarfile.GNU_FORMAT))
    header[482] = maps > 0
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    blocks = [bytes(504) + bytes([at < maps - 1]) + bytes(7) for at in range(maps)]
    return raw(bytes(header) + b"".join(blocks) + bytes(512))


def test_read_artifact__rejects_sparse_files_in_info_that_pages_depend_on() -> None:
    content = foo_bz2([*info_members(index_json()), sparse_member("info/recipe/meta.yaml", maps=0)])

    assert rejection(content, FOO_BZ2).code == "member-not-a-file"


def raw(blocks: bytes) -> tuple[str | tarfile.TarInfo, bytes]:
    """Blocks that stand in a tar as they are."""

    class Raw(tarfile.TarInfo):
        def tobuf(self, *_: object, **__: object) -> bytes:
            return b""

    return Raw(), blocks


@pytest.mark.parametrize("maps", [0, 1, 3])
def test_read_artifact__passes_over_sparse_files_in_the_payload(maps: int) -> None:
    about = ("info/about.json", b'{"home": "x"}')
    content = foo_bz2([*info_members(index_json()), sparse_member("share/x", maps=maps), about])

    assert read("foo-1.0-0.tar.bz2", content).about == {"home": "x"}


def test_read_artifact__rejects_a_sparse_file_whose_map_has_no_end() -> None:
    plain = tar([*info_members(index_json()), sparse_member("share/x", maps=3)])

    assert rejection(bz2.compress(plain[: -1024 - 512 * 3]), FOO_BZ2).code == "archive-truncated"


@pytest.mark.parametrize("name", ["info/index.json", "info/about.json"])
def test_read_artifact__rejects_sparse_files_in_info(name: str) -> None:
    record = b" GNU.sparse.name=%s\n" % name.encode()
    record = b"%d%s" % (len(record) + 2, record)
    content = foo_bz2([*info_members(index_json()), pax(record), ("GNUSparseFile.0/x", b"x")])

    assert rejection(content, FOO_BZ2).code == "archive-ambiguous"


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo("pax")
    member.type = kind
    member.size = len(records)
    return member, records


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (pax(b"17 path=/etc/pass\n"), "archive-broken"),  # the length is wrong
        (pax(b"15 path=/passw\n"), "member-path-unsafe"),
        (pax(b"24 path=info/index.json\n"), "member-duplicated"),
        (pax(b"12 size=512\n"), "archive-broken"),
        (pax(b"11 size=-1\n"), "archive-broken"),
        (pax(b"no records"), "archive-broken"),
        (pax(b"99999999999999999999 a=b\n"), "archive-broken"),
        (pax(b"6 a=b\n" * 2), "archive-ambiguous"),
        (pax(b"".join(b"7 %03d=\n" % number for number in range(64))), None),
        (pax(b"".join(b"7 %03d=\n" % number for number in range(65))), "member-oversized"),
        (pax(b"12 size=512\n", tarfile.XGLTYPE), "archive-broken"),
        (pax(b"24 path=info/index.json\n", tarfile.XGLTYPE), "archive-broken"),
        (pax(b"14 comment=ok\n", tarfile.XGLTYPE), None),
        (pax(b"x" * 70_000, tarfile.GNUTYPE_LONGNAME), "member-oversized"),
        (pax(b"/etc/passwd\0", tarfile.GNUTYPE_LONGNAME), "member-path-unsafe"),
        (pax(b"/anywhere\0", tarfile.GNUTYPE_LONGLINK), None),
    ],
)
def test_read_artifact__checks_extended_headers(header: tuple[tarfile.TarInfo, bytes], code: str | None) -> None:
    content = foo_bz2([*info_members(index_json()), header, ("share/x", b"x")])

    if code is None:
        assert read("foo-1.0-0.tar.bz2", content).index == index_json()
    else:
        assert rejection(content, FOO_BZ2).code == code


def test_read_artifact__survives_a_long_chain_of_extended_headers() -> None:
    chain = [pax(b"14 comment=ok\n", tarfile.XGLTYPE)] * 10_000

    assert read("foo-1.0-0.tar.bz2", foo_bz2([*info_members(index_json()), *chain, ("x", b"")])).index == index_json()


def test_read_artifact__rejects_a_header_that_ends_the_tar() -> None:
    plain = tar(info_members(index_json()))[:-1024] + pax(b"")[0].tobuf()

    assert rejection(bz2.compress(plain), FOO_BZ2).code == "archive-truncated"


def test_read_artifact__rejects_a_negative_size() -> None:
    header = bytearray(tarfile.TarInfo("x").tobuf())
    header[124:136] = b"\xff" * 12
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)

    assert rejection(bz2.compress(bytes(header) + tar([])), FOO_BZ2).code == "archive-broken"


@pytest.mark.parametrize("filename", ["foo-1.0-0.conda", "foo-1.0-0.tar.bz2"], ids=["conda", "tar.bz2"])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_read_artifact__reads_or_rejects_whatever_tar_is_inside(filename: str, data: st.DataObject) -> None:
    """Damage below the compression, where no checksum shields the reader."""
    plain = data.draw(damages(tar([*info_members(index_json(), run_exports=["a"]), *PAYLOAD], pax=True)))
    content = foo_conda(plain) if filename.endswith(".conda") else bz2.compress(plain, 1)
    with suppress(RejectedError):
        read(filename, content)
