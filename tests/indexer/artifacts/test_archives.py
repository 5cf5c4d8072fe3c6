from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile

import pytest

from lambdas.channel.artifact_kinds import Distribution, parse_filename
from lambdas.channel.errors import LimitExceededError
from lambdas.indexer.artifacts.read import ArtifactLimits
from tests.builders import (
    METADATA,
    PAYLOAD,
    compress_zstd,
    conda,
    conda_package,
    index_json,
    info_members,
    tar,
    tar_bz2_package,
    zipped,
)
from tests.indexer.reading import (
    FOO_BZ2,
    FOO_CONDA,
    STEM,
    STREAMED,
    Builder,
    both_formats,
    foo_bz2,
    foo_conda,
    info_tar,
    read,
    rejection,
)

# Damaged and wrong files


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@pytest.mark.parametrize("distribution", [FOO_CONDA, FOO_BZ2])
@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"", "archive-empty", "empty"),
        (b"x", "archive-wrong-format", "something else"),
        (b"not a package at all\n" * 100, "archive-wrong-format", "something else"),
        (b"<html>not found</html>", "archive-wrong-format", "web page"),
        (b'{"error": 404}', "archive-wrong-format", "JSON"),
        (b"\x1f\x8b" + bytes(600), "archive-wrong-format", "gzip"),
        (tar(info_members(index_json())), "archive-wrong-format", "uncompressed tar"),
        (compress_zstd(tar(info_members(index_json()))), "archive-wrong-format", "zstd"),
    ],
)
def test_read_artifact__rejects_what_is_no_such_archive(
    content: bytes, distribution: Distribution, limits: ArtifactLimits, code: str, word: str
) -> None:
    error = rejection(content, distribution, limits)

    assert error.code == code
    assert word in str(error)


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
def test_read_artifact__rejects_a_format_under_the_other_name(limits: ArtifactLimits) -> None:
    assert "bzip2 file" in str(rejection(tar_bz2_package()[1], FOO_CONDA, limits))
    assert "zip archive" in str(rejection(conda_package()[1], FOO_BZ2, limits))


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@both_formats
def test_read_artifact__rejects_every_truncation(build: Builder, limits: ArtifactLimits) -> None:
    filename, content = build()
    expected = {"archive-empty", "archive-truncated", "archive-broken", "archive-wrong-format"}

    for length in range(len(content)):
        error = rejection(content[:length], parse_filename(filename), limits)
        assert error.code in expected, length


def test_read_artifact__says_that_a_cut_file_is_cut() -> None:
    assert rejection(conda_package()[1][:-30], FOO_CONDA).code == "archive-truncated"
    assert rejection(tar_bz2_package()[1][:-30], FOO_BZ2).code == "archive-truncated"
    assert rejection(tar_bz2_package()[1][:-5], FOO_BZ2, STREAMED).code == "archive-truncated"


@both_formats
def test_read_artifact__rejects_bytes_after_the_end(build: Builder) -> None:
    filename, content = build()

    assert rejection(content + b"more", parse_filename(filename)).code == "archive-broken"


def test_read_artifact__rejects_bytes_before_a_zip() -> None:
    assert rejection(b"#!/bin/sh\n" + conda_package()[1], FOO_CONDA).code == "archive-broken"


def test_read_artifact__rejects_members_hidden_behind_the_end_of_the_tar() -> None:
    plain = tar(info_members(index_json())) + tar(info_members(index_json(version="2.0")))

    assert rejection(bz2.compress(plain), FOO_BZ2).code == "archive-broken"
    assert rejection(foo_conda(plain), FOO_CONDA).code == "archive-broken"


def test_read_artifact__rejects_a_tar_that_goes_on_behind_a_damaged_header() -> None:
    first, rest = info_members(index_json())
    plain = bytearray(tar([first, ("info/git", b"x"), rest]))
    at = plain.index(b"info/git")
    plain[at] ^= 1

    assert rejection(bz2.compress(bytes(plain)), FOO_BZ2).code == "archive-broken"


def test_read_artifact__rejects_a_member_longer_than_the_tar() -> None:
    member = tarfile.TarInfo("info/git")
    member.size = 10**12

    assert rejection(foo_conda(info_tar((member, b""))), FOO_CONDA).code == "archive-truncated"
    assert rejection(foo_bz2([*info_members(index_json()), (member, b"")]), FOO_BZ2).code == "archive-truncated"


def test_read_artifact__rejects_a_damaged_payload_that_it_has_anyway() -> None:
    content = bytearray(conda_package()[1])
    content[content.index(b"pkg-") + 60] ^= 1

    assert rejection(bytes(content), FOO_CONDA).code == "archive-broken"


# The zip around a .conda


def zip_member(name: str, **fields: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


GOOD_PARTS: list[tuple[str | zipfile.ZipInfo, bytes]] = [
    ("metadata.json", METADATA),
    (f"pkg-{STEM}.tar.zst", compress_zstd(tar(PAYLOAD))),
    (f"info-{STEM}.tar.zst", compress_zstd(info_tar())),
]


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@pytest.mark.parametrize("missing", range(3))
def test_read_artifact__rejects_a_conda_without_one_of_its_parts(missing: int, limits: ArtifactLimits) -> None:
    parts = [part for at, part in enumerate(GOOD_PARTS) if at != missing]

    error = rejection(zipped(parts), FOO_CONDA, limits)

    assert error.code == "member-missing"
    assert str(GOOD_PARTS[missing][0]) in str(error)


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("info-foo-2.0-0.tar.zst", "member-duplicated"),
        ("pkg-bar-1.0-0.tar.zst", "member-duplicated"),
        ("/etc/passwd", "member-path-unsafe"),
        ("../x", "member-path-unsafe"),
        ("a/../../x", "member-path-unsafe"),
        ("a\\..\\..\\x", "member-path-unsafe"),
        ("C:\\x", "member-path-unsafe"),
        ("./metadata.json", "member-path-unsafe"),
    ],
)
def test_read_artifact__rejects_a_zip_with_a_hostile_member(extra: str, code: str, limits: ArtifactLimits) -> None:
    member = zipfile.ZipInfo("x")
    member.filename = extra

    assert rejection(zipped([*GOOD_PARTS, (member, b"")]), FOO_CONDA, limits).code == code


@pytest.mark.parametrize("name", ["metadata.json", f"info-{STEM}.tar.zst", f"pkg-{STEM}.tar.zst"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_read_artifact__rejects_a_zip_with_a_member_twice(name: str) -> None:
    assert rejection(zipped([*GOOD_PARTS, (name, b"x")]), FOO_CONDA).code == "member-duplicated"


@pytest.mark.parametrize("stem", ["foo-1.1-0", "foo-1.0-1", "bar-1.0-0", "foo-1.0", ""])
def test_read_artifact__rejects_parts_that_contradict_the_filename(stem: str) -> None:
    error = rejection(conda(stem, info_tar(), tar(PAYLOAD)), FOO_CONDA)

    assert error.code == "inner-name-mismatch"
    assert f"info-{STEM}.tar.zst" in str(error)


@pytest.mark.parametrize("flags", [0x1, 0x1 | 0x40, 0x2000])
def test_read_artifact__rejects_an_encrypted_zip(flags: int) -> None:
    content = bytearray(zipped(GOOD_PARTS))
    at = content.index(b"PK\x01\x02")
    content[at + 8 : at + 10] = flags.to_bytes(2, "little")

    assert rejection(bytes(content), FOO_CONDA).code == "archive-encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_artifact__rejects_a_compressed_zip(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in GOOD_PARTS:
            archive.writestr(str(name), content)

    assert rejection(file.getvalue(), FOO_CONDA).code == "archive-compressed"


def test_read_artifact__rejects_members_of_a_zip_that_overlap() -> None:
    """The same bytes under many names: how a zip bomb is made without compression."""
    content = bytearray(zipped(GOOD_PARTS))
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    third = content.index(b"PK\x01\x02", second + 4)
    content[third + 42 : third + 46] = content[second + 42 : second + 46]

    assert rejection(bytes(content), FOO_CONDA).code == "archive-broken"


def test_read_artifact__rejects_a_zip_with_too_many_members() -> None:
    many = [(f"x{number}", b"") for number in range(100)]

    assert rejection(zipped([*GOOD_PARTS, *many]), FOO_CONDA).code == "too-many-members"


def test_read_artifact__rejects_a_zip_whose_directory_is_huge() -> None:
    content = zipped([*GOOD_PARTS, *((f"{number:0>60000}", b"") for number in range(40))])

    assert rejection(content, FOO_CONDA, STREAMED).code in {"archive-broken", "member-path-unsafe"}


def test_read_artifact__reads_a_zip64_conda() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in GOOD_PARTS:
            with archive.open(str(name), "w", force_zip64=True) as member:
                member.write(content)

    assert read("foo-1.0-0.conda", file.getvalue()).index == index_json()


# Bombs


LOW = ArtifactLimits(
    max_index_bytes=1000,
    max_about_bytes=1000,
    max_run_exports_bytes=1000,
    max_paths_bytes=1000,
    max_recipe_bytes=100,
    max_members=50,
    max_info_members=20,
    info_ratio_free_bytes=100_000,
    payload_ratio_free_bytes=200_000,
    max_ratio=10,
)


@pytest.mark.parametrize("name", ["index", "run_exports", "paths"])
@both_formats
def test_read_artifact__rejects_oversized_json(build: Builder, name: str) -> None:
    members = [("info/index.json", json.dumps(index_json()).encode())] if name != "index" else []
    plain = tar([*members, (f"info/{name}.json", b"[" + b" " * 2000 + b"]")])
    content = foo_conda(plain) if build is conda_package else bz2.compress(plain)

    assert rejection(content, parse_filename(build()[0]), LOW).code == "member-oversized"


@both_formats
def test_read_artifact__passes_over_an_oversized_about(build: Builder) -> None:
    filename, content = build(about={"summary": "x" * 2000}, run_exports=["a"])

    info = read(filename, content, LOW)

    assert info.about == {}
    assert info.run_exports == {"weak": ["a"]}


def test_read_artifact__passes_over_an_oversized_recipe() -> None:
    filename, content = conda_package(recipe="source:\n  url: https://example.org\n" + "#" * 200)

    assert "source_url" not in read(filename, content, LOW).channeldata


@both_formats
def test_read_artifact__rejects_too_many_members_in_info(build: Builder) -> None:
    plain = tar([*info_members(index_json()), *((f"info/x{number}", b"") for number in range(30))])
    content = foo_conda(plain) if build is conda_package else bz2.compress(plain)

    assert rejection(content, parse_filename(build()[0]), LOW).code == "too-many-members"


@both_formats
def test_read_artifact__rejects_too_many_members_in_the_payload(build: Builder) -> None:
    filename, content = build(payload=[(f"x{number}", b"") for number in range(60)])

    assert rejection(content, parse_filename(filename), LOW).code == "too-many-members"


def test_read_artifact__rejects_too_long_names_in_info() -> None:
    names = [("info/" + f"{number:0>60000}", b"") for number in range(300)]
    content = bz2.compress(tar([*info_members(index_json()), *names], pax=True))

    assert rejection(content, FOO_BZ2).code == "too-many-members"


def test_read_artifact__rejects_an_info_part_that_explodes() -> None:
    content = foo_conda(info_tar(("info/zeros", bytes(40 * 1024**2))))

    assert len(content) < 10_000
    for limits in (ArtifactLimits(), ArtifactLimits(max_at_once_bytes=1)):
        assert rejection(content, FOO_CONDA, limits).code == "decompression-bomb"


@both_formats
def test_read_artifact__rejects_a_payload_that_explodes(build: Builder) -> None:
    filename, content = build(payload=[("share/zeros", bytes(1_000_000))])

    assert rejection(content, parse_filename(filename), LOW).code == "decompression-bomb"
    assert read(filename, content).index == index_json()


def test_read_artifact__rejects_a_real_bzip2_bomb() -> None:
    """Half a gigabyte of zeros out of half a kilobyte, in front of info/."""
    block = bz2.compress(bytes(32 * 1024**2))
    first = tarfile.TarInfo("zeros")
    first.size = 512 * 1024**2
    content = bz2.compress(first.tobuf()) + block * 16 + bz2.compress(tar(info_members(index_json())))

    assert len(content) < 4000
    assert rejection(content, FOO_BZ2).code == "decompression-bomb"


def test_read_artifact__rejects_too_many_streams() -> None:
    """Each is empty, and each costs a decompressor."""
    assert rejection(bz2.compress(b"") * 30_000 + tar_bz2_package()[1], FOO_BZ2).code == "decompression-bomb"


def test_read_artifact__rejects_a_zstd_window_that_clients_cannot_hold() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + b"\x01\x00\x00"  # 2 GiB, one empty last block
    parts = [*GOOD_PARTS[:2], (f"info-{STEM}.tar.zst", frame)]

    error = rejection(zipped(parts), FOO_CONDA)

    assert error.code == "decompression-bomb"
    assert "window" in str(error)


def test_read_artifact__rejects_a_single_segment_larger_than_the_window() -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + (2**33).to_bytes(8, "little") + b"\x01\x00\x00"

    error = rejection(zipped([*GOOD_PARTS[:2], (f"info-{STEM}.tar.zst", frame)]), FOO_CONDA)

    assert error.code == "decompression-bomb"
    assert "window" in str(error)


@both_formats
def test_read_artifact__stops_at_the_processor_time_of_one_artifact(build: Builder) -> None:
    with pytest.raises(LimitExceededError) as caught:
        read(*build(), ArtifactLimits(max_cpu_seconds=-1))

    assert caught.value.scope == "artifact"
    assert "processor time" in caught.value.limit


def test_read_artifact__rejects_an_artifact_over_the_limit() -> None:
    filename, content = conda_package()

    assert rejection(content, parse_filename(filename), ArtifactLimits(max_artifact_bytes=10)).code == (
        "artifact-oversized"
    )
