"""The zip around a .conda reads the same from its front and from its directory, or is rejected."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conda_package_handling.api import create
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from tests.builders import METADATA, PAYLOAD, MemorySource, compress_zstd, index_json, info_members, tar
from tests.indexer.reading import FOO_CONDA, STEM, info_tar, rejection
from tests.indexer.reading import STREAMED as LARGE
from tests.indexer.zips import (
    STREAMED,
    Local,
    Member,
    build_zip,
    encode_member,
    field,
    with_all,
    zip64_field,
)

both_sizes = pytest.mark.parametrize("limits", [ArtifactLimits(), LARGE], ids=["small", "large"])

META = Member(name="metadata.json", content=METADATA)
PKG = Member(name=f"pkg-{STEM}.tar.zst", content=compress_zstd(tar(PAYLOAD)))
INFO = Member(name=f"info-{STEM}.tar.zst", content=compress_zstd(info_tar()))
PARTS = [META, PKG, INFO]
FILES = {str(name): content.decode("latin-1") for name, content in [*info_members(index_json()), *PAYLOAD]}

EVIL_INFO = replace(INFO, content=compress_zstd(tar(info_members(index_json(depends=["evil"])))), listed=False)
EVIL_PKG = replace(PKG, content=compress_zstd(tar([("share/foo.txt", b"evil"), ("bin/evil", b"evil")])), listed=False)


def read(content: bytes, limits: ArtifactLimits) -> ArtifactInfo:
    return read_artifact(MemorySource(content=content), FOO_CONDA, limits)


def local(member: Member, **fields: Any) -> Member:  # noqa: ANN401 - of any field
    """The member with a local header that says something else."""

    def change(header: Local) -> Local:
        return replace(header, **fields)

    return replace(member, local=change)


def unicode_path(name: str) -> bytes:
    return field(0x7075, b"\x01" + struct.pack("<I", zlib.crc32(INFO.name.encode())) + name.encode())


TIMES = field(0x5455, struct.pack("<BII", 3, 1, 1))

GOOD: dict[str, bytes] = {
    "plain": build_zip(PARTS),
    "other order": build_zip(PARTS[::-1]),
    "info first": build_zip([INFO, META, PKG]),
    "zip64 members": build_zip(with_all(PARTS, zip64=True)),
    "zip64 end": build_zip(PARTS, zip64_end=True),
    "zip64 all": build_zip(with_all(PARTS, zip64=True), zip64_end=True),
    "streamed": build_zip(with_all(PARTS, flags=STREAMED)),
    "streamed without signatures": build_zip(with_all(PARTS, flags=STREAMED, signature=False)),
    "streamed zip64": build_zip(with_all(PARTS, flags=STREAMED, zip64=True)),
    "streamed zip64 without signatures": build_zip(with_all(PARTS, flags=STREAMED, zip64=True, signature=False)),
    "extra fields": build_zip(with_all(PARTS, local_extra=TIMES, extra=TIMES + field(0xCAFE, b""))),
    "different extra fields": build_zip(with_all(PARTS, local_extra=field(0xCAFE, b"x" * 5000), extra=TIMES)),
    "needless zip64 field": build_zip(with_all(PARTS, extra=zip64_field(0, 0))),
    "its name again": build_zip([META, PKG, replace(INFO, extra=unicode_path(INFO.name))]),
    "utf-8 names": build_zip(with_all(PARTS, flags=0x800)),
    "more members": build_zip([*PARTS, Member(name="README.txt", content=b"hi"), Member(name="signs/", content=b"")]),
    "comment": build_zip(PARTS, comment=b"by hand"),
    "longest comment": build_zip(PARTS, comment=b"x" * 65535),
    "comment with an end record's magic": build_zip(PARTS, comment=b"a comment PK\x05\x06 here"),
    "comment that ends in an end record's magic": build_zip(PARTS, comment=b"PK\x05\x06"),
}

HIDDEN: dict[str, bytes] = {
    "info behind metadata.json": build_zip([META, EVIL_INFO, PKG, INFO]),
    "info before the directory": build_zip([*PARTS, EVIL_INFO]),
    "info at the front": build_zip([EVIL_INFO, *PARTS]),
    "payload behind payload": build_zip([META, PKG, EVIL_PKG, INFO]),
    "payload before the directory": build_zip([*PARTS, EVIL_PKG]),
    "another name": build_zip([META, replace(EVIL_PKG, name="pkg-bar-1.0-0.tar.zst"), PKG, INFO]),
    "behind a descriptor": build_zip([META, PKG, replace(INFO, flags=STREAMED, behind=encode_member(EVIL_INFO))]),
    "behind the directory": build_zip(PARTS, behind_directory=encode_member(EVIL_INFO)),
    "not counted": build_zip(PARTS, listed_entries=2),
    "counted too often": build_zip(PARTS, listed_entries=4),
}

JUNK: dict[str, bytes] = {
    "at the front": build_zip([replace(META, before=b"#!/bin/sh\n"), PKG, INFO]),
    "between": build_zip([META, PKG, replace(INFO, before=bytes(4))]),
    "before the directory": build_zip(PARTS, before_directory=b"x"),
    "behind the directory": build_zip(PARTS, behind_directory=b"x"),
    "behind the end": build_zip(PARTS) + b"x",
    "behind the comment": build_zip(PARTS, comment=b"x") + b"x",
    "instead of a descriptor": build_zip([META, replace(PKG, behind=bytes(16)), INFO]),
    "end record inside the comment": build_zip(PARTS, comment=build_zip(PARTS)),
    "end record inside the comment that does not fit": build_zip(PARTS, comment=build_zip(PARTS) + b"x"),
}

LIES: dict[str, bytes] = {
    "no header": build_zip([META, PKG, local(INFO, magic=b"PK\x07\x08")]),
    "name": build_zip([META, PKG, local(INFO, name=f"infx-{STEM}.tar.zst".encode())]),
    "shorter name": build_zip([META, PKG, local(INFO, name=b"info")]),
    "longer name": build_zip([META, PKG, local(INFO, name=INFO.name.encode() + b"\0")]),
    "endless name": build_zip([META, PKG, local(INFO, name=b"x" * 65535)]),
    "method": build_zip([META, PKG, local(INFO, method=8)]),
    "flags": build_zip([META, PKG, local(INFO, flags=STREAMED)]),
    "flags in the directory": build_zip([META, PKG, local(replace(INFO, flags=STREAMED), flags=0)]),
    "unknown flags": build_zip([META, PKG, replace(INFO, flags=0x20)]),
    "checksum": build_zip([META, PKG, local(INFO, crc=1)]),
    "size": build_zip([META, PKG, local(INFO, size=5, compressed=5)]),
    "compressed size": build_zip([META, PKG, local(INFO, compressed=5)]),
    "no size": build_zip([META, PKG, local(INFO, size=0, compressed=0)]),
    "size when streamed": build_zip([META, PKG, local(replace(INFO, flags=STREAMED), size=5, compressed=5)]),
    "size by zip64": build_zip([META, PKG, local(INFO, size=2**32 - 1, compressed=2**32 - 1, extra=zip64_field(5, 5))]),
    "size by a needless zip64 field": build_zip([META, PKG, replace(INFO, local_extra=zip64_field(5, 5))]),
    "zip64 twice": build_zip([META, PKG, replace(INFO, zip64=True, local_extra=zip64_field(5, 5))]),
    "zip64 of an odd length": build_zip([META, PKG, replace(INFO, local_extra=field(1, b"123"))]),
    "cut extra field": build_zip([META, PKG, replace(INFO, local_extra=field(0xCAFE, b"1234")[:-1])]),
    "cut extra field in the directory": build_zip([META, PKG, replace(INFO, extra=field(0xCAFE, b"1234")[:-1])]),
    "name by an extra field": build_zip([META, replace(PKG, local_extra=unicode_path("x")), INFO]),
    "name by an extra field in the directory": build_zip([META, replace(PKG, extra=unicode_path("x")), INFO]),
    "descriptor": build_zip([META, PKG, replace(INFO, flags=STREAMED)]).replace(
        b"PK\x07\x08" + struct.pack("<I", zlib.crc32(INFO.content)), b"PK\x07\x08" + bytes(4)
    ),
    "signature of a descriptor": build_zip([META, PKG, replace(INFO, flags=STREAMED)]).replace(
        b"PK\x07\x08", b"PK\x07\x07"
    ),
    "no descriptor": build_zip([META, PKG, INFO]).replace(
        b"PK\x03\x04" + struct.pack("<3H", 20, 0, 0), b"PK\x03\x04" + struct.pack("<3H", 20, STREAMED, 0)
    ).replace(b"PK\x01\x02" + struct.pack("<3H", 20, 20, 0), b"PK\x01\x02" + struct.pack("<3H", 20, 20, STREAMED)),
}  # fmt: skip


def shift_directory(content: bytes, start: int) -> bytes:
    """Have the end record say that the directory begins elsewhere."""
    return content[:-6] + struct.pack("<I", start) + content[-2:]


def two_ends() -> bytes:
    """A zip64 end record for one directory, and a plain end record for another, inside a member."""
    other = build_zip([META, PKG, replace(EVIL_INFO, listed=True)])
    content = build_zip([*PARTS, Member(name="x", content=other)], zip64_end=True)
    directory = content.index(other) + other.index(b"PK\x01\x02")
    return content[:-14] + struct.pack("<2H2I", 3, 3, len(other) - 22 - other.index(b"PK\x01\x02"), directory) + b"\0\0"


ENDS: dict[str, bytes] = {
    "directory elsewhere": shift_directory(build_zip(PARTS), 5),
    "directory beyond the file": shift_directory(build_zip(PARTS), 2**32 - 2),
    "two end records": two_ends(),
    "zip64 locator astray": build_zip(PARTS, zip64_end=True).replace(b"PK\x06\x07\0\0\0\0", b"PK\x06\x07\0\0\0\0\x01"),
    "zip64 end that is none": build_zip(PARTS, zip64_end=True).replace(b"PK\x06\x06", b"PK\x06\x05"),
    "several disks": build_zip(PARTS)[:-18] + b"\1" + build_zip(PARTS)[-17:],
    "cut zip64 end": b"PK\x06\x07".ljust(20, b"\0") + build_zip([])[-22:],
}


@both_sizes
@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_read_artifact__reads_any_zip_that_reads_the_same_everywhere(content: bytes, limits: ArtifactLimits) -> None:
    assert read(content, limits).index == index_json()


@both_sizes
@pytest.mark.parametrize("content", HIDDEN.values(), ids=HIDDEN)
def test_read_artifact__attack_member_that_the_directory_hides(content: bytes, limits: ArtifactLimits) -> None:
    assert rejection(content, FOO_CONDA, limits).code == "archive-broken"


@both_sizes
@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_read_artifact__attack_bytes_between_the_members_of_a_zip(content: bytes, limits: ArtifactLimits) -> None:
    assert rejection(content, FOO_CONDA, limits).code == "archive-broken"


@both_sizes
@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_read_artifact__attack_local_header_that_contradicts(content: bytes, limits: ArtifactLimits) -> None:
    assert rejection(content, FOO_CONDA, limits).code == "archive-broken"


@both_sizes
@pytest.mark.parametrize("content", ENDS.values(), ids=ENDS)
def test_read_artifact__attack_end_records_that_contradict(content: bytes, limits: ArtifactLimits) -> None:
    assert rejection(content, FOO_CONDA, limits).code == "archive-broken"


def test_read_artifact__reads_a_large_zip_by_three_ranges() -> None:
    """As tools build it: the payload keeps info/ and its own local header apart."""
    pkg = replace(PKG, content=os.urandom(9_000_000))
    info = replace(INFO, content=compress_zstd(info_tar(("info/licence", os.urandom(300_000)))))
    source = MemorySource(content=build_zip([META, pkg, info]), md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_CONDA).index == index_json()
    assert len(source.ranges) == 3
    assert sum(stop - start for start, stop in source.ranges) < 600_000


def test_read_artifact__reads_a_large_zip_whose_info_is_at_its_end_by_two_ranges() -> None:
    pkg = replace(PKG, content=os.urandom(9_000_000))
    source = MemorySource(content=build_zip([META, pkg, INFO]), md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_CONDA).index == index_json()
    assert len(source.ranges) == 2


def test_read_artifact__attack_zip_that_takes_many_ranges() -> None:
    """Members are spread so that no two of their headers come in one range."""
    spread = [Member(name=f"x{number}", content=bytes(200_000)) for number in range(61)]
    source = MemorySource(content=build_zip([META, *spread, PKG, INFO]), md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_CONDA).index == index_json()
    assert len(source.ranges) <= 65
    assert sum(stop - start for start, stop in source.ranges) < 1_000_000


# What clients extract


def extract_with_rattler(folder: Path, zips: dict[str, bytes]) -> dict[str, dict[str, str] | None]:
    names = {name: f"{number}-1.0-0.conda" for number, name in enumerate(zips)}
    for name, content in zips.items():
        (folder / names[name]).write_bytes(content)
    script = Path(__file__).with_name("extract_with_rattler.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        input=json.dumps(list(names.values())), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return {name: found[filename] for name, filename in names.items()}


def test_read_artifact__rattler_extracts_what_was_read_or_it_is_rejected(tmp_path: Path) -> None:
    zips = {
        f"{kind}: {name}": content
        for kind, several in (("good", GOOD), ("hidden", HIDDEN), ("junk", JUNK), ("lies", LIES), ("ends", ENDS))
        for name, content in several.items()
    }
    extracted = extract_with_rattler(tmp_path, zips)
    for name, content in zips.items():
        try:
            read(content, LARGE)
        except RejectedError:
            assert not name.startswith("good")
            continue
        assert extracted[name] in (FILES, None), name
    # The attacks are real: so much would have been installed unread.
    assert "bin/evil" in (extracted["hidden: payload behind payload"] or {})
    # Without sizes in front rattler extracts nothing from a file; while it downloads, it goes by the directory then.
    assert {name for name in GOOD if extracted[f"good: {name}"] is None} <= {
        name for name in GOOD if name.startswith("streamed")
    }


@settings(max_examples=300)
@given(data=st.data())
def test_read_artifact__no_change_of_any_record_goes_unnoticed(data: st.DataObject) -> None:
    """Whatever byte of a header or record changes, the archive reads the same, or is rejected."""
    content = bytearray(data.draw(st.sampled_from(sorted(GOOD.values(), key=len)[:-1])))
    for _ in range(data.draw(st.integers(1, 3))):
        magic = data.draw(st.sampled_from([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x07\x08"]))
        places = [at for at in range(len(content)) if content.startswith(magic, at)] or [0]
        at = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 60))
        if at < len(content):
            content[at] = data.draw(st.integers(0, 255))
    try:
        info = read(bytes(content), data.draw(st.sampled_from([ArtifactLimits(), LARGE])))
    except RejectedError:
        return
    assert info.index == index_json()


def test_read_artifact__reads_what_conda_package_handling_builds(tmp_path: Path) -> None:
    for name, content in [*info_members(index_json()), *PAYLOAD]:
        file = tmp_path / "prefix" / str(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    create(str(tmp_path / "prefix"), None, f"{STEM}.conda", out_folder=str(tmp_path))

    assert read((tmp_path / f"{STEM}.conda").read_bytes(), LARGE).index == index_json()
