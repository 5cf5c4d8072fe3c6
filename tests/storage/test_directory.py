"""The same indexer over a directory: the same bytes as over S3, and safe with two runs at once."""

import os
import threading
from pathlib import Path

import pytest

from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report
from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import StoredObject
from tests.indexer.world import (
    LINUX,
    NOARCH,
    PATCHES,
    POLICY,
    World,
    index_keys,
    package,
    public_view,
)
from tests.memory import MemoryStorage, RecordingNotifier

FOO = f"{NOARCH}/foo-1.0-0.conda"
TIME_MS = 1_750_000_000_000
UPLOADS = {
    f"{NOARCH}/{package()[0]}": package(about={"summary": "ünïcode"})[1],
    f"{NOARCH}/{package(name='bar')[0]}": package(name="bar", run_exports=["bar"])[1],
    f"{NOARCH}/foo-1!2.0+x-0.conda": package(version="1!2.0+x")[1],
    f"{LINUX}/{package(path=LINUX)[0]}": package(path=LINUX)[1],
    f"{FOO}.sigs": b"[]",
    f"{NOARCH}/{PATCHES}": b'{"remove": ["bar-1.0-0.conda"]}',
}


def write(root: Path, key: str, body: bytes) -> None:
    """Write a file as a user does, with the time of the upload to the bucket."""
    file = root / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    os.utime(file, ns=(TIME_MS * 10**6, TIME_MS * 10**6))


def index(root: Path, *keys: str) -> list[Report]:
    indexer = Indexer(DirectoryStorage(root), RecordingNotifier(), POLICY, sleep=lambda _: None)
    return index_keys(indexer, keys)


def read(root: Path) -> MemoryStorage:
    """Return the files."""
    storage = MemoryStorage()
    for file in sorted(root.rglob("*")):
        if file.is_file():
            storage.upload(str(file.relative_to(root)), file.read_bytes(), last_modified_ms=TIME_MS)
    return storage


def in_bucket() -> MemoryStorage:
    world = World()
    for key, body in UPLOADS.items():
        world.storage.upload(key, body, last_modified_ms=TIME_MS)
    world.index(*UPLOADS)
    return world.storage


def test_index__directory_as_bucket(tmp_path: Path) -> None:
    for key, body in UPLOADS.items():
        write(tmp_path, key, body)
    for report in index(tmp_path, *UPLOADS):
        assert not report.failures
    assert public_view(read(tmp_path)) == public_view(in_bucket())


def test_index__directory_step_by_step_as_bucket_at_once(tmp_path: Path) -> None:
    for key, body in reversed(UPLOADS.items()):
        write(tmp_path, key, body)
        index(tmp_path, key)
    assert public_view(read(tmp_path)) == public_view(in_bucket())


def test_index__directory_that_needs_nothing(tmp_path: Path) -> None:
    for key, body in UPLOADS.items():
        write(tmp_path, key, body)
    index(tmp_path, *UPLOADS)
    before = {str(file): file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    index(tmp_path, *UPLOADS)
    after = {str(file): file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    lock = str(tmp_path / ".fairway" / "lock")
    assert {**before, lock: 0} == {**after, lock: 0}


def test_index__directory_reads_shards_of_changed_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory keeps no old commit: the run itself knows the commit that outputs show."""
    for name in ("foo", "bar", "baz"):
        write(tmp_path, f"{NOARCH}/{package(name=name)[0]}", package(name=name)[1])
        index(tmp_path, f"{NOARCH}/{package(name=name)[0]}")
    shards = {f"{NOARCH}/shards/{file.name}" for file in (tmp_path / str(NOARCH) / "shards").iterdir()}
    read_keys: list[str] = []
    get = DirectoryStorage.get

    def record(storage: DirectoryStorage, key: str, *, version: str | None = None) -> StoredObject | None:
        read_keys.append(key)
        return get(storage, key, version=version)

    monkeypatch.setattr(DirectoryStorage, "get", record)
    new = package(name="bar", version="2.0")
    write(tmp_path, f"{NOARCH}/{new[0]}", new[1])
    index(tmp_path, f"{NOARCH}/{new[0]}")
    assert shards.isdisjoint(read_keys)
    assert b"foo-1.0" in (tmp_path / f"{NOARCH}/repodata.json").read_bytes()
    assert b"bar-2.0" in (tmp_path / f"{NOARCH}/repodata.json").read_bytes()
    assert b'"version":"2.0"' in (tmp_path / NOARCH.channel / "channeldata.json").read_bytes()


def test_index__directory_and_an_artifact_that_was_replaced(tmp_path: Path) -> None:
    """There is no earlier version to restore: both are removed from the index, and the bytes are quarantined."""
    write(tmp_path, FOO, package()[1])
    index(tmp_path, FOO)
    other = package(depends=["x"])[1]
    write(tmp_path, FOO, other)
    (report,) = index(tmp_path, FOO)
    assert [outcome.status for outcome in report.outcomes] == ["rejected"]
    assert not (tmp_path / FOO).exists()
    (kept,) = (tmp_path / ".fairway" / "rejected").rglob("object")
    assert kept.read_bytes() == other
    assert b"foo-1.0" not in (tmp_path / f"{NOARCH}/repodata.json").read_bytes()


@pytest.mark.parametrize("runs", [2, 4])
def test_index__directory_with_several_runs_at_once(tmp_path: Path, runs: int) -> None:
    for key, body in UPLOADS.items():
        write(tmp_path, key, body)
    barrier = threading.Barrier(runs)
    failures: list[object] = []

    def run() -> None:
        barrier.wait()
        try:
            failures.extend(failure for report in index(tmp_path, *UPLOADS) for failure in report.failures.items())
        except Exception as error:  # noqa: BLE001 - the test is to see it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert public_view(read(tmp_path)) == public_view(in_bucket())
