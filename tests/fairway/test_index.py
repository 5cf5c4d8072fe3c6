"""``fairway index``: indexes a directory as a bucket is indexed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lambdas.channel.layout import CARDS_PREFIX
from lambdas.indexer.tree.encoding import compress
from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import StoredObject
from scripts.fairway.index import detect_channel
from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

MTIME = 1_780_000_000


def test_index__equals_the_bucket_byte_for_byte(bucket: Bucket, run_fairway: Run, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    packages = {
        "noarch": [
            conda_package(run_exports=["foo"]),
            tar_bz2_package(),
            conda_package(name="bär".replace("ä", "a")),
        ],
        "linux-64": [
            conda_package(subdir="linux-64", about={"summary": "ü <b>"}),
            tar_bz2_package(name="z", subdir="linux-64"),
        ],
    }
    bucket.storage.clock_ms = MTIME * 1000
    for subdir, several in packages.items():
        (directory / subdir).mkdir(parents=True)
        bucket.publish("team", *several, subdir=subdir)
        for filename, body in several:
            file = directory / subdir / filename
            file.write_bytes(body)
            os.utime(file, (MTIME, MTIME))
    result = run_fairway("index", "--json", str(directory))
    assert (result.code, result.document["indexed"]) == (0, 5), result.out
    written = {
        f"team/{file.relative_to(directory)}": file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and ".fairway" not in file.parts
    }
    assert written == bucket.storage.snapshot()
    again = run_fairway("index", "--json", str(directory))
    assert again.document["indexed"] == 0


def test_index__reads_no_cards_of_names_that_did_not_change(
    run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "team/noarch"
    folder.mkdir(parents=True)
    for name in ("foo", "bar"):
        filename, body = conda_package(name=name)
        (folder / filename).write_bytes(body)
    run_fairway("index", str(tmp_path / "team"))
    read: list[str] = []
    get = DirectoryStorage.get

    def record(storage: DirectoryStorage, key: str, *, version: str | None = None) -> StoredObject | None:
        read.append(key)
        return get(storage, key, version=version)

    monkeypatch.setattr(DirectoryStorage, "get", record)
    assert run_fairway("index", "--json", str(tmp_path / "team")).document["indexed"] == 0
    assert not [key for key in read if key.startswith(CARDS_PREFIX)]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no zstd",
        compress(b"[]", level=3),
        compress(b'{"form": 1, "names": {"foo": 1}}', level=3),
        compress(b'{"form": 1, "names": {"foo": ["00", {"foo-1.0-0.conda": []}]}}', level=3),
        compress(b'{"form": 0, "names": {}}', level=3),
        None,
    ],
    ids=["empty", "text", "list", "no rows", "no fields", "other form", "missing"],
)
def test_index__kept_copy_of_cards_is_broken(run_fairway: Run, tmp_path: Path, damage: bytes | None) -> None:
    folder = tmp_path / "team/noarch"
    folder.mkdir(parents=True)
    filename, body = conda_package()
    (folder / filename).write_bytes(body)
    run_fairway("index", str(tmp_path / "team"))
    kept = tmp_path / "team/.fairway/recorded/team/noarch/recorded.json.zst"
    if damage is None:
        kept.unlink()
    else:
        kept.write_bytes(damage)
    assert run_fairway("index", "--json", str(tmp_path / "team")).document["indexed"] == 0
    (folder / filename).unlink()
    assert run_fairway("index", "--json", str(tmp_path / "team")).document["removed"] == 1


def test_index__touched_artifact_is_read_once(
    run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card changes behind a shard that does not."""
    folder = tmp_path / "team/noarch"
    folder.mkdir(parents=True)
    filename, body = conda_package()
    (folder / filename).write_bytes(body)
    run_fairway("index", str(tmp_path / "team"))
    os.utime(folder / filename, (MTIME, MTIME))
    result = run_fairway("index", "--json", str(tmp_path / "team"))
    assert (result.document["unchanged"], result.document["indexed"]) == (1, 0)
    result = run_fairway("index", "--json", str(tmp_path / "team"))
    assert (result.document["unchanged"], result.document["indexed"]) == (0, 0)


def test_index__several_channels(run_fairway: Run, tmp_path: Path) -> None:
    for channel in ("one", "two"):
        (tmp_path / channel / "noarch").mkdir(parents=True)
        filename, body = conda_package(name=channel)
        (tmp_path / channel / "noarch" / filename).write_bytes(body)
    assert run_fairway("index", "--json", str(tmp_path)).document["indexed"] == 2
    for channel in ("one", "two"):
        assert channel in (tmp_path / channel / "noarch/repodata.json").read_text()


def test_index__rejects_invalid_artifacts(run_fairway: Run, tmp_path: Path) -> None:
    (tmp_path / "team/noarch").mkdir(parents=True)
    (tmp_path / "team/noarch/broken-1.0-0.conda").write_bytes(b"broken")
    filename, body = conda_package()
    (tmp_path / "team/noarch" / filename).write_bytes(body)
    result = run_fairway("index", "--json", str(tmp_path / "team"))
    assert (result.code, result.document["indexed"], result.document["rejected"]) == (0, 1, 1)
    assert not (tmp_path / "team/noarch/broken-1.0-0.conda").exists()
    assert list((tmp_path / "team/.fairway/rejected").rglob("reason.json"))


@pytest.mark.parametrize("more", [[], ["--rebuild"]], ids=["", "rebuild"])
def test_index__filename_that_is_not_utf_8(run_fairway: Run, tmp_path: Path, more: list[str]) -> None:
    folder = tmp_path / "team/noarch"
    folder.mkdir(parents=True)
    filename, body = conda_package()
    (folder / filename).write_bytes(body)
    odd = os.fsdecode(b"bad\xff-1.0-0.conda")
    for name in (odd, f"{odd}.sigs", "Upper-1.0-0.conda"):
        (folder / name).write_bytes(b"anything")
    shutil.copytree(tmp_path / "team", tmp_path / "again/team")
    document = run_fairway("index", "--json", str(tmp_path / "team"), *more).document
    assert (document["indexed"], document["rejected"], document["failures"]) == (1, 3, {})
    assert odd in {one["key"].rpartition("/")[2] for one in document["rejections"]}
    assert filename in (folder / "repodata.json").read_text()
    assert not (folder / odd).exists()
    assert list((tmp_path / "team/.fairway/rejected/team/noarch" / odd).rglob("object"))
    assert run_fairway("index", "--json", str(tmp_path / "team"), *more).document["rejected"] == 0
    result = run_fairway("index", str(tmp_path / "again/team"), *more)
    assert result.code == 0
    assert "rejected team/noarch/bad\\udcff-1.0-0.conda: " in result.out


def test_index__keeps_other_folders_of_the_directory(run_fairway: Run, tmp_path: Path) -> None:
    files = [tmp_path / "team" / name for name in ("noarch/old/foo-1.0-0.conda", "x/foo-1.0-0.conda")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"anything")
    assert run_fairway("index", "--json", str(tmp_path / "team")).document["rejected"] == 0
    assert all(file.exists() for file in files)


def test_index__replaced_file_is_read_again(run_fairway: Run, tmp_path: Path) -> None:
    file = tmp_path / "team/noarch/foo-1.0-0.conda"
    file.parent.mkdir(parents=True)
    file.write_bytes(conda_package()[1])
    run_fairway("index", str(tmp_path / "team"))
    file.write_bytes(conda_package(depends=["other"])[1])
    os.utime(file, (MTIME, MTIME))
    assert run_fairway("index", "--json", str(tmp_path / "team")).document["indexed"] == 1
    repodata = json.loads((file.parent / "repodata.json").read_text())
    assert repodata["packages.conda"]["foo-1.0-0.conda"]["depends"] == ["other"]


def test_index__empty_directory_is_not_a_channel(run_fairway: Run, tmp_path: Path) -> None:
    assert detect_channel(tmp_path) is None
    assert run_fairway("index", str(tmp_path / "missing")).code == 2


def test_index__invalid_channel_name(run_fairway: Run, tmp_path: Path) -> None:
    (tmp_path / "My Channel/noarch").mkdir(parents=True)
    result = run_fairway("index", str(tmp_path / "My Channel"))
    assert result.code == 2
    assert "--channel NAME" in result.err
    assert run_fairway("index", "--channel", "mine", str(tmp_path / "My Channel")).code == 0


def test_index__optional_outputs(run_fairway: Run, tmp_path: Path) -> None:
    (tmp_path / "team/noarch").mkdir(parents=True)
    filename, body = conda_package()
    (tmp_path / "team/noarch" / filename).write_bytes(body)
    run_fairway("index", "--current-repodata", "--bz2", str(tmp_path / "team"))
    written = {file.name for file in (tmp_path / "team/noarch").iterdir()}
    assert {"current_repodata.json", "current_repodata.json.bz2", "repodata.json.bz2"} <= written


@pytest.mark.parametrize("folders", [[], ["docs"], ["docs/pages"], ["team/notes"]])
@pytest.mark.parametrize("options", [[], ["--channel", "team"]])
def test_index__folder_without_subdirs(
    run_fairway: Run, tmp_path: Path, folders: list[str], options: list[str]
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    result = run_fairway("index", str(tmp_path), *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: no subdir in ")
    assert sorted(tmp_path.rglob("*")) == before


def test_index__other_folders_beside_channels(run_fairway: Run, tmp_path: Path) -> None:
    (tmp_path / "docs" / "pages").mkdir(parents=True)
    (tmp_path / "tools" / "noarch").mkdir(parents=True)
    assert run_fairway("index", str(tmp_path)).code == 0
    assert (tmp_path / "tools" / "noarch" / "repodata.json").is_file()
    assert sorted(tmp_path.joinpath("docs").rglob("*")) == [tmp_path / "docs" / "pages"]


def test_index__shows_its_progress(run_fairway: Run, tmp_path: Path) -> None:
    filename, body = conda_package()
    (tmp_path / "team" / "noarch").mkdir(parents=True)
    (tmp_path / "team" / "noarch" / filename).write_bytes(body)
    shown = run_fairway("index", str(tmp_path / "team")).err.splitlines()
    assert shown == ["team/noarch: reading", "team/noarch: 1 keys inspected"]
