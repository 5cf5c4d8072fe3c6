"""Packages from public channels, compared with conda-index's results, if they are available."""

import json
from pathlib import Path
from typing import Any

import pytest

from lambdas.indexer.model import Outputs, Policy
from tests.indexer.world import World, assert_same_as_from_nothing, check_encodings, check_readable

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
POLICY = Policy(outputs=Outputs(current_repodata=True))

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason=f"no packages of others at {CORPUS.name}")


def packages() -> dict[str, Path]:
    return {f"team/{file.parent.name}/{file.name}": file for file in sorted((CORPUS / "packages").glob("*/*"))}


def golden(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((CORPUS / "golden" / name).read_bytes())


def without(document: Any, *keys: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(document, dict):
        return {key: without(value, *keys) for key, value in document.items() if key not in keys}
    return [without(value, *keys) for value in document] if isinstance(document, list) else document


@pytest.fixture(scope="module")
def world() -> World:
    world = World(policy=POLICY)
    for key, file in packages().items():
        world.storage.upload(key, file.read_bytes())
    for report in world.index(*packages()):
        assert not report.failures
        assert {outcome.status for outcome in report.outcomes} == {"indexed"}
    return world


SUBDIRS = ("linux-32", "linux-64", "noarch", "osx-64", "win-32", "win-64")


@pytest.mark.parametrize("subdir", SUBDIRS)
@pytest.mark.parametrize("name", ["repodata.json", "run_exports.json"])
def test_index__equals_conda_index(world: World, subdir: str, name: str) -> None:
    ours = json.loads(world.storage.body(f"team/{subdir}/{name}"))
    assert without(ours, "indexed_timestamp") == golden(f"{subdir}/{name}")


@pytest.mark.parametrize("subdir", SUBDIRS)
def test_index__current_repodata_equals_conda_index_s(world: World, subdir: str) -> None:
    ours = json.loads(world.storage.body(f"team/{subdir}/current_repodata.json"))
    theirs = golden(f"{subdir}/current_repodata.json")
    # conda-index writes the MD5 of the .tar.bz2 even if there is none.
    assert without(ours, "indexed_timestamp", "legacy_bz2_md5") == without(theirs, "legacy_bz2_md5")


def test_index__channeldata_equals_conda_index_s(world: World) -> None:
    ours = json.loads(world.storage.body("team/channeldata.json"))
    theirs = golden("channeldata.json")
    # conda-index knows no linux-ppc, and uses the timestamp of any artifact where Fairway uses the latest.
    ours["subdirs"].remove("linux-ppc")
    del ours["packages"]["cpp-expected"]
    assert without(ours, "timestamp") == without(theirs, "timestamp")
    for name, entry in theirs["packages"].items():
        assert ours["packages"][name]["timestamp"] >= entry["timestamp"]


def test_index__equals_an_index_from_nothing(world: World) -> None:
    check_readable(world.storage)
    check_encodings(world.storage)
    assert_same_as_from_nothing(world.storage, POLICY)


def test_index__one_by_one_equals_one_batch(world: World) -> None:
    one_by_one = World(policy=POLICY)
    for key, file in reversed(packages().items()):
        if "/noarch/" in key:
            one_by_one.storage.upload(key, file.read_bytes())
            one_by_one.index(key)
    for name in ("repodata.json", "run_exports.json", "repodata_shards.msgpack.zst", "current_repodata.json"):
        assert one_by_one.storage.body(f"team/noarch/{name}") == world.storage.body(f"team/noarch/{name}")
