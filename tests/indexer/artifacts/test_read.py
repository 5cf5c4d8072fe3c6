from __future__ import annotations

import bz2
import dataclasses
import hashlib
import io
import json
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambdas.channel.artifact_kinds import parse_filename
from lambdas.channel.errors import RejectedError, UnavailableError, VanishedError
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from tests.builders import (
    METADATA,
    PAYLOAD,
    Members,
    MemorySource,
    compress_zstd,
    conda_package,
    index_json,
    info_members,
    tar,
    tar_bz2_package,
    tar_member,
    zipped,
)
from tests.indexer.reading import (
    FOO_BZ2,
    FOO_CONDA,
    STEM,
    STREAMED,
    Builder,
    both_formats,
    damages,
    foo_bz2,
    foo_conda,
    info_tar,
    read,
    rejection,
)

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"


# What good artifacts say


@both_formats
def test_read_artifact__finds_index_run_exports_and_hashes(build: Builder) -> None:
    filename, content = build(depends=["bar >=1"], run_exports={"weak": ["foo >=1"], "strong": []})

    info = read(filename, content)

    assert info.index == index_json(depends=["bar >=1"])
    assert info.run_exports == {"weak": ["foo >=1"], "strong": []}
    assert info.md5 == hashlib.md5(content).hexdigest()  # noqa: S324 - what clients compare
    assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert info.size == len(content)


@both_formats
def test_read_artifact__without_about_run_exports_and_recipe(build: Builder) -> None:
    info = read(*build())

    assert info.run_exports == {}
    assert info.about == {}
    assert not any(info.channeldata.values())


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (["foo >=1"], {"weak": ["foo >=1"]}),
        ([], {}),
        ({}, {}),
        ({"noarch": ["x"], "weak": None, "later": {"kept": 1}}, {"noarch": ["x"], "later": {"kept": 1}}),
    ],
)
def test_read_artifact__normalises_run_exports(written: object, normal: object) -> None:
    assert read(*conda_package(run_exports=written)).run_exports == normal


@pytest.mark.parametrize("written", ["foo", 1, {"weak": "foo"}, {"strong": [1]}, [1], [["foo"]], {"noarch": {}}])
def test_read_artifact__rejects_run_exports_that_clients_cannot_read(written: object) -> None:
    filename, content = conda_package(run_exports=written)

    assert rejection(content, parse_filename(filename)).code == "run-exports-invalid"


@both_formats
def test_read_artifact__keeps_of_about_what_channeldata_shows(build: Builder) -> None:
    about = {
        "summary": " two\nlines ",
        "description": ["one ", "two"],
        "home": "https://example.org",
        "doc_url": ["https://a.example", "https://b.example"],
        "license": "MIT",
        "dev_url": None,
        "doc_source_url": {"odd": 1},
        "tags": ["a"],
        "keywords": [],
        "root_pkgs": ["python 3.11"],
        "env_vars": {"SECRET": "x"},
    }

    info = read(*build(about=about))

    assert info.about == {
        "summary": "two lines",
        "description": "one two",
        "home": "https://example.org",
        "doc_url": ["https://a.example", "https://b.example"],
        "license": "MIT",
    }
    assert info.channeldata["tags"] == ["a"]
    assert "keywords" not in info.channeldata


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        ({"_path": "a", "prefix_placeholder": "/p", "file_mode": "binary"}, "binary_prefix"),
        ({"_path": "a", "prefix_placeholder": "/p", "file_mode": "text"}, "text_prefix"),
        ({"_path": "etc/conda/activate.d/x.sh"}, "activate.d"),
        ({"_path": "etc/conda/deactivate.d/x.sh"}, "deactivate.d"),
        ({"_path": "bin/.foo-pre-link.sh"}, "pre_link"),
        ({"_path": "bin/.foo-post-link.sh"}, "post_link"),
        ({"_path": "Scripts/.foo-pre-unlink.bat"}, "pre_unlink"),
        ({"_path": "a", "prefix_placeholder": "", "file_mode": "text"}, None),
        ({"_path": "bin/foo-post-link.sh"}, None),
        ({"_path": 3}, None),
    ],
)
def test_read_artifact__finds_steps_of_installing_in_paths(entry: dict[str, Any], fact: str | None) -> None:
    info = read(*conda_package(paths=[{"_path": "lib/x", "sha256": "0" * 64}, entry]))

    assert {key for key, value in info.channeldata.items() if value} == ({fact} if fact else set())


def test_read_artifact__finds_the_source_in_the_recipe() -> None:
    info = read(*conda_package(recipe="package:\n  name: foo\nsource:\n  url: https://example.org/foo.tar.gz\n"))

    assert info.channeldata["source_url"] == "https://example.org/foo.tar.gz"


@both_formats
def test_read_artifact__passes_over_a_recipe_that_is_a_link(build: Builder) -> None:
    link = tar_member("info/recipe/meta.yaml", tarfile.SYMTYPE, target="../../x")
    content = foo_conda(info_tar(link)) if build is conda_package else foo_bz2([*info_members(index_json()), link])

    assert read(build()[0], content).index == index_json()


def test_read_artifact__reads_names_with_a_leading_dot() -> None:
    members: Members = [tar_member("./", tarfile.DIRTYPE), tar_member("./info", tarfile.DIRTYPE)]
    members += [(f"./{name}", content) for name, content in info_members(index_json())]

    assert read("foo-1.0-0.tar.bz2", foo_bz2(members)).index == index_json()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@both_formats
def test_read_artifact__reads_each_tar_format(build: Builder, form: int) -> None:
    long = "info/recipe/" + "x" * 80 + "/" + "é" * 40
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in [(long, b"1"), *info_members(index_json(), run_exports=["a"])]:
            assert isinstance(name, str)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(member, io.BytesIO(content))
    plain = file.getvalue()
    content = foo_conda(plain) if build is conda_package else bz2.compress(plain)

    assert read(build()[0], content).run_exports == {"weak": ["a"]}


def test_read_artifact__reads_several_bzip2_streams() -> None:
    plain = tar([*info_members(index_json()), *PAYLOAD])
    content = b"".join(bz2.compress(plain[at : at + 700]) for at in range(0, len(plain), 700))

    assert read("foo-1.0-0.tar.bz2", content).index == index_json()
    assert read("foo-1.0-0.tar.bz2", content, STREAMED).index == index_json()


def test_read_artifact__reads_several_zstd_frames() -> None:
    info = info_tar()
    parts = [
        ("metadata.json", METADATA),
        (f"pkg-{STEM}.tar.zst", compress_zstd(tar(PAYLOAD))),
        (f"info-{STEM}.tar.zst", compress_zstd(info[:700]) + compress_zstd(info[700:])),
    ]

    assert read("foo-1.0-0.conda", zipped(parts)).index == index_json()


@pytest.mark.parametrize("piece_bytes", [1, 2, 511, 100_000])
@both_formats
def test_read_artifact__does_not_depend_on_how_pieces_are_cut(build: Builder, piece_bytes: int) -> None:
    filename, content = build()
    source = MemorySource(content=content, piece_bytes=piece_bytes)

    for limits in (ArtifactLimits(), STREAMED):
        assert read_artifact(source, parse_filename(filename), limits) == read(filename, content)


# What reading costs


def test_read_artifact__reads_a_small_conda_once() -> None:
    filename, content = conda_package()
    source = MemorySource(content=content)

    read_artifact(source, parse_filename(filename))

    assert source.ranges == [(0, len(content))]
    assert source.streamed_bytes == 0


def test_read_artifact__reads_two_ranges_of_a_large_conda_whose_hashes_are_known() -> None:
    # The payload stands between the parts, so that info/ is not in the tail.
    parts = [
        (f"info-{STEM}.tar.zst", compress_zstd(info_tar(("info/licence", os.urandom(300_000))))),
        ("metadata.json", METADATA),
        (f"pkg-{STEM}.tar.zst", os.urandom(9_000_000)),
    ]
    content = zipped(parts)
    source = MemorySource(content=content, md5="a" * 32, sha256="b" * 64)

    info = read_artifact(source, FOO_CONDA)

    assert info.index == index_json()
    assert (info.md5, info.sha256) == ("a" * 32, "b" * 64)
    assert len(source.ranges) == 2
    assert sum(stop - start for start, stop in source.ranges) < 500_000
    assert source.streamed_bytes == 0


def test_read_artifact__reads_a_large_info_part_in_windows() -> None:
    parts = [
        (f"info-{STEM}.tar.zst", compress_zstd(info_tar(("info/licence", os.urandom(9_000_000))))),
        ("metadata.json", METADATA),
        (f"pkg-{STEM}.tar.zst", os.urandom(200_000)),
    ]
    source = MemorySource(content=zipped(parts), md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_CONDA).index == index_json()
    assert len(source.ranges) == 5  # the tail, three windows, and the headers behind them
    assert max(stop - start for start, stop in source.ranges) <= 4 * 1024**2


@pytest.mark.parametrize("known", [{"md5": "a" * 32}, {"sha256": "b" * 64}, {}])
def test_read_artifact__streams_a_large_conda_once_where_a_hash_is_unknown(known: dict[str, str]) -> None:
    filename, content = conda_package()
    source = MemorySource(content=content, **known)  # type: ignore[arg-type] # of text alone

    info = read_artifact(source, parse_filename(filename), STREAMED)

    assert source.streamed_bytes == len(content)
    assert info.sha256 == hashlib.sha256(content).hexdigest()


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A .conda of 5 GiB, most of it a hole in the file."""
    path = tmp_path / "foo-1.0-0.conda"
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", METADATA)
        hole = zipfile.ZipInfo(f"pkg-{STEM}.tar.zst")
        hole.file_size = hole.compress_size = 5 * 1024**3
        hole.CRC = 0
        hole.header_offset = file.tell()
        file.write(hole.FileHeader(zip64=True))
        file.seek(hole.file_size, os.SEEK_CUR)
        archive.filelist.append(hole)
        archive.start_dir = file.tell()
        archive.writestr(f"info-{STEM}.tar.zst", compress_zstd(info_tar()))
    yield path
    path.unlink()


@dataclasses.dataclass
class FileSource:
    """An ArtifactSource over a file."""

    path: Path
    limit: int | None = None
    md5: str | None = "a" * 32
    sha256: str | None = "b" * 64
    ranges: int = 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read_range(self, start: int, stop: int) -> bytes:
        self.ranges += 1
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def stream(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece


def test_read_artifact__reads_five_gibibytes_with_few_ranges_and_little_memory(huge: Path) -> None:
    source = FileSource(huge)
    tracemalloc.start()
    try:
        info = read_artifact(source, FOO_CONDA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert info.index == index_json()
    assert info.size > 5 * 1024**3
    assert source.ranges <= 2
    assert peak < 8 * 1024**2


def test_read_artifact__streams_a_large_tar_bz2_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "foo-1.0-0.tar.bz2"
    plain = tar([*info_members(index_json()), ("share/noise", os.urandom(16_000_000))])
    path.write_bytes(bz2.compress(plain, 1))
    del plain
    tracemalloc.start()
    try:
        info = read_artifact(FileSource(path, md5=None), FOO_BZ2, STREAMED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert info.index == index_json()
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert peak < 8 * 1024**2


def test_read_artifact__stops_reading_a_large_tar_bz2_after_info_where_hashes_are_known() -> None:
    content = foo_bz2([*info_members(index_json()), ("share/noise", os.urandom(2_000_000))])
    source = MemorySource(content=content, md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_BZ2, STREAMED).index == index_json()
    assert source.streamed_bytes < len(content) / 2


def test_read_artifact__reads_on_in_a_large_tar_bz2_until_info_is_complete() -> None:
    first, *others = info_members(index_json(), run_exports=["a"], about={"home": "x"})
    content = foo_bz2([*PAYLOAD, ("info/git", b""), *PAYLOAD, first, *others, ("share/noise", os.urandom(2_000_000))])

    info = read("foo-1.0-0.tar.bz2", content, STREAMED)

    assert info.run_exports == {"weak": ["a"]}
    assert info.about == {"home": "x"}


NOISE: Members = [("share/noise", os.urandom(2_000_000))]
ALL = info_members(index_json(), run_exports=["a"], about={"home": "x"}, recipe="source:\n  url: https://example.org\n")


@pytest.mark.parametrize("at", range(1, len(ALL)))
def test_read_artifact__finds_documents_wherever_they_stand_in_a_large_tar_bz2(at: int) -> None:
    """As conda-index, which looks on until it has them all."""
    content = foo_bz2([*PAYLOAD, *ALL[:at], *NOISE, *ALL[at:]])
    whole = read("foo-1.0-0.tar.bz2", content)

    assert whole.run_exports == {"weak": ["a"]}
    assert whole.about == {"home": "x"}
    assert whole.channeldata["source_url"] == "https://example.org"
    assert read("foo-1.0-0.tar.bz2", content, LARGE_TAR) == whole


LARGE_TAR = ArtifactLimits(max_whole_tar_bytes=1)


def test_read_artifact__stops_reading_a_large_tar_bz2_where_all_documents_are_found() -> None:
    source = MemorySource(content=foo_bz2([*ALL, *NOISE]), md5="a" * 32, sha256="b" * 64)

    assert read_artifact(source, FOO_BZ2, LARGE_TAR).about == {"home": "x"}
    assert source.streamed_bytes < len(source.content) / 2


def test_read_artifact__stops_before_a_member_that_goes_beyond_the_walk() -> None:
    endless = tarfile.TarInfo("share/zeros")
    endless.size = 8 * 1024**3 - 1
    content = foo_bz2([*info_members(index_json()), (endless, b"")])

    assert read("foo-1.0-0.tar.bz2", content, LARGE_TAR).index == index_json()


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("info/index.json", b"{}")], "member-duplicated"),
        ([("../../evil", b"x")], "member-path-unsafe"),
        ([tar_member("dev", tarfile.CHRTYPE)], "member-not-a-file"),
    ],
)
def test_read_artifact__attack_member_behind_a_large_payload(members: Members, code: str) -> None:
    """Behind 34 MiB, in what would have been looked at for info/ alone."""
    assert rejection(behind_a_large_payload(members), FOO_BZ2).code == code


def test_read_artifact__attack_large_tar_bz2_that_is_damaged_in_the_middle() -> None:
    content = bytearray(behind_a_large_payload([]))
    content[20_000_000:20_005_000] = bytes(5000)

    assert rejection(bytes(content), FOO_BZ2).code == "archive-broken"


def behind_a_large_payload(members: Members) -> bytes:
    noise = os.urandom(1024**2)
    large = tarfile.TarInfo("share/noise")
    large.size = 34 * len(noise)
    head = tar([*info_members(index_json()), (large, b"")])[:-1024]
    return bz2.compress(head) + bz2.compress(noise, 1) * 34 + bz2.compress(tar(members))


# What changes or fails meanwhile


@both_formats
def test_read_artifact__passes_on_that_the_artifact_vanished(build: Builder) -> None:
    filename, content = build()

    for limits in (ArtifactLimits(), STREAMED):
        with pytest.raises(VanishedError):
            read_artifact(MemorySource(content=content, vanished=True), parse_filename(filename), limits)


@dataclasses.dataclass
class ShortSource(MemorySource):
    """Gives fewer bytes than it has, as a connection that breaks."""

    short_by: int = 100

    def read_range(self, start: int, stop: int) -> bytes:
        return super().read_range(start, stop)[: -self.short_by]

    def stream(self) -> Iterator[bytes]:
        yield self.content[: -self.short_by]


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@both_formats
def test_read_artifact__never_blames_the_publisher_for_a_broken_connection(
    build: Builder, limits: ArtifactLimits
) -> None:
    filename, content = build()

    with pytest.raises(VanishedError):
        read_artifact(ShortSource(content=content), parse_filename(filename), limits)


class FailingSource(MemorySource):
    """Fails as the cloud does."""

    def read_range(self, start: int, stop: int) -> bytes:
        raise UnavailableError("503")

    def stream(self) -> Iterator[bytes]:
        yield self.content[:600]
        raise UnavailableError("503")


@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED])
@both_formats
def test_read_artifact__passes_on_that_the_cloud_is_unavailable(build: Builder, limits: ArtifactLimits) -> None:
    filename, content = build(payload=[("share/noise", os.urandom(2000))])

    with pytest.raises(UnavailableError):
        read_artifact(FailingSource(content=content), parse_filename(filename), limits)


# Any damage at all


CONDA = conda_package(depends=["a >1"], run_exports=["foo"], about={"home": "x"}, paths=[{"_path": "a"}])
TAR_BZ2 = tar_bz2_package(depends=["a >1"], run_exports=["foo"], about={"home": "x"}, paths=[{"_path": "a"}])


@pytest.mark.parametrize(("filename", "content"), [CONDA, TAR_BZ2], ids=["conda", "tar.bz2"])
@pytest.mark.parametrize("limits", [ArtifactLimits(), STREAMED], ids=["small", "large"])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_read_artifact__reads_the_same_or_rejects_whatever_is_damaged(
    filename: str, content: bytes, limits: ArtifactLimits, data: st.DataObject
) -> None:
    damaged = data.draw(damages(content))
    source = MemorySource(content=damaged, piece_bytes=data.draw(st.sampled_from([1, 100, 100_000])))
    try:
        info = read_artifact(source, parse_filename(filename), limits)
    except RejectedError:
        return
    sound = dataclasses.replace(read(filename, content), md5=info.md5, sha256=info.sha256, size=info.size)
    assert info == sound
    assert info.sha256 == hashlib.sha256(damaged).hexdigest()


# Packages by other people


def corpus_packages() -> list[Path]:
    return sorted(CORPUS.glob("packages/*/*"))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no packages by other people at {CORPUS}")
def test_read_artifact__reads_packages_by_other_people_in_either_way() -> None:
    for path in corpus_packages():
        content = path.read_bytes()
        known = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}  # noqa: S324
        distribution = parse_filename(path.name)
        whole = read_artifact(MemorySource(content=content), distribution)
        source = MemorySource(content=content, **known)  # type: ignore[arg-type] # of text alone
        ranged = read_artifact(source, distribution, ArtifactLimits(max_at_once_bytes=1))
        assert ranged == whole, path.name
        assert (whole.md5, whole.sha256) == (known["md5"], known["sha256"])


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no packages by other people at {CORPUS}")
def test_read_artifact__finds_the_facts_that_conda_index_shows() -> None:
    golden = json.loads((CORPUS / "golden" / "channeldata.json").read_text())["packages"]
    found: dict[str, list[dict[str, Any]]] = {}
    for path in corpus_packages():
        info = read_artifact(MemorySource(content=path.read_bytes()), parse_filename(path.name))
        if path.parent.name != "linux-ppc":  # conda-index doesn't know it
            found.setdefault(info.index["name"], []).append(info.about | info.channeldata | {"index": info.index})
    assert found.keys() == golden.keys()
    for name, facts in found.items():
        for key, value in golden[name].items():
            if key in {"subdirs", "timestamp", "version", "run_exports", "license"}:
                continue  # of the channel, or of the record
            if isinstance(value, bool):
                assert any(fact[key] for fact in facts) is value, (name, key)
            elif value is not None:
                assert value in [fact.get(key) for fact in facts], (name, key)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no packages by other people at {CORPUS}")
@pytest.mark.parametrize(
    ("filename", "code"),
    [
        ("another_bad_package.conda", "archive-empty"),
        ("bad_package.tar.bz2", "archive-wrong-format"),
        ("fly-2.5.2-0.tar.bz2", "archive-wrong-format"),
        ("pkg_with_unicode.conda", "inner-name-mismatch"),
        ("zip64-extra-field-test.conda", "inner-name-mismatch"),
    ],
)
def test_read_artifact__rejects_malformed_packages_by_other_people(filename: str, code: str) -> None:
    content = (CORPUS / "malformed" / filename).read_bytes()
    distribution = FOO_CONDA if filename.endswith(".conda") else FOO_BZ2

    assert rejection(content, distribution).code == code


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no packages by other people at {CORPUS}")
@pytest.mark.parametrize(
    ("filename", "built_as", "name"),
    [
        ("zip64-extra-field-test.conda", "zip64-test-pkg-1.0-test_0.conda", "zip64-test-pkg"),
        ("virtualdep-package-1.0-0.tar.bz2", "virtualdep-package-1.0-0.tar.bz2", "virtualdep-package"),
    ],
)
def test_read_artifact__reads_what_only_seems_malformed(filename: str, built_as: str, name: str) -> None:
    """Zip64 fields and names with a leading dot trouble other readers; every client installs such packages."""
    content = (CORPUS / "malformed" / filename).read_bytes()

    assert read(built_as, content).index["name"] == name
