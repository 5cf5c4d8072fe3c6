"""Deferred outputs: in large subdirs, a publish defers most outputs, and none is forgotten."""

import bz2
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from lambdas.channel.errors import UnavailableError
from lambdas.channel.layout import SHARD_INDEX, parse_artifact_key
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, SubdirKeys
from lambdas.indexer.tree.encoding import decompress
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.findings import Depth, Finding, Problem
from lambdas.indexer.upkeep.listing import list_subdirs
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.indexer.upkeep.verify import ChannelView, verify_channel, verify_subdir
from tests.indexer.spliced.test_large_documents import check, fill, is_large
from tests.indexer.world import LINUX, NOARCH, PATCHES, SMALL, World, index_keys, package

PACKED = f"{NOARCH}/repodata.json.zst"
WRITES = {"put", "splice", "copy"}
PATCH = json.dumps({"packages.conda": {"pkg0003-1.0-0.conda": {"depends": ["patched"]}}}).encode()


@pytest.fixture
def world() -> World:
    world = World(limits=SMALL, defers=True)
    fill(world, 30)
    world.catch_up()
    assert is_large(world)
    return world


def watch(world: World, action: Callable[[], object]) -> list[str]:
    """Return which keys an action writes."""
    before = len(world.storage.log)
    action()
    return [key for kind, key in world.storage.log[before:] if kind in WRITES]


def compressed_filenames(world: World) -> set[str]:
    return set(json.loads(decompress(world.storage.body(PACKED), what=PACKED))["packages.conda"])


def list_wrong(world: World, *, later_ms: int = 0) -> list[Finding]:
    depth = Depth(now_ms=world.storage.clock_ms + later_ms, grace_ms=10**12)
    view = ChannelView(outputs=world.policy.outputs, limits=world.limits)
    found = [
        finding
        for path in list_subdirs(world.storage, NOARCH.channel)
        for finding in verify_subdir(open_subdir(world.storage, path), depth, view)
    ]
    found += verify_channel(world.storage, NOARCH.channel, view)
    return [finding for finding in found if not finding.is_harmless]


def test_index__large_subdir_writes_shards_and_the_compressed_file(world: World) -> None:
    written = watch(world, lambda: world.publish(NOARCH, package("pkg0012", "2.0")))
    public = [key for key in written if not key.startswith(".fairway/") and "/shards/" not in key]
    assert public == [f"{NOARCH}/{SHARD_INDEX}", PACKED]
    assert len(written) == 5, "with the shard, the cards and the tables"
    assert world.requeued == [NOARCH]
    assert "pkg0012-2.0-0.conda" in compressed_filenames(world)
    assert "pkg0012-2.0-0.conda" not in world.listed(NOARCH)


def test_index__deferred_outputs_are_written_when_requeued(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0", run_exports=["pkg0012"]))
    world.catch_up()
    assert world.requeued == []
    check(world)
    assert "pkg0012" in json.loads(world.storage.body("team/channeldata.json"))["packages"]


def test_index__once_for_all_publishes_in_between(world: World) -> None:
    for number in range(10):
        world.publish(NOARCH, package(f"pkg{number:04}", "2.0"))
    assert set(world.requeued) == {NOARCH}
    written = watch(world, world.catch_up)
    for name in ("repodata.json", "run_exports.json.zst", "run_exports.json", "index.html"):
        assert written.count(f"{NOARCH}/{name}") == 1
    assert PACKED not in written
    check(world)


def test_index__requeued_twice(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.catch_up()
    assert watch(world, lambda: world.index(f"{NOARCH}/")) == []
    assert world.requeued == []


def test_index__duplicate_event_while_outputs_are_deferred(world: World) -> None:
    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    world.index(key)
    world.requeued.clear()
    assert watch(world, lambda: world.index(key)) == []
    assert world.requeued == [NOARCH], "should the first requeuer have been lost"


def test_index__artifact_and_requeued_subdir_in_one_batch(world: World) -> None:
    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    world.index(key, f"{NOARCH}/")
    assert world.requeued == []
    check(world)


def test_index__small_subdir_defers_nothing() -> None:
    world = World(limits=SMALL, defers=True)
    world.publish(NOARCH, package())
    world.publish(LINUX, package(path=LINUX))
    assert world.requeued == []
    assert world.listed(LINUX) == {"foo-1.0-0.conda"}


def test_index__small_subdir_of_a_large_channel(world: World) -> None:
    before = world.storage.body("team/channeldata.json")
    world.publish(LINUX, package("linux", path=LINUX))
    assert world.listed(LINUX) == {"linux-1.0-0.conda"}
    assert world.storage.body("team/channeldata.json") == before
    assert world.requeued == [LINUX]
    world.catch_up()
    assert "linux" in json.loads(world.storage.body("team/channeldata.json"))["packages"]


def test_index__grows_large_and_shrinks_again() -> None:
    world = World(limits=SMALL, defers=True)
    keys = fill(world, 3)
    assert world.requeued == []
    keys += fill(world, 20, start=3)
    world.catch_up()
    check(world)
    for key in keys[2:]:
        world.storage.remove(key)
    world.index(*keys)
    assert compressed_filenames(world) == {"pkg0000-1.0-0.conda", "pkg0001-1.0-0.conda"}
    world.catch_up()
    assert not is_large(world)
    check(world)


def test_index__patches_while_outputs_are_deferred(world: World) -> None:
    world.storage.upload(f"{NOARCH}/{PATCHES}", PATCH)
    world.index(f"{NOARCH}/{PATCHES}")
    assert json.loads(decompress(world.storage.body(PACKED), what=""))["packages.conda"]["pkg0003-1.0-0.conda"][
        "depends"
    ] == ["patched"]
    world.catch_up()
    assert world.record(NOARCH, "pkg0003-1.0-0.conda")["depends"] == ["patched"]
    assert f"{NOARCH}/repodata_from_packages.json" in world.storage.list_keys()
    check(world)
    world.storage.remove(f"{NOARCH}/{PATCHES}")
    world.index(f"{NOARCH}/{PATCHES}")
    world.catch_up()
    assert f"{NOARCH}/repodata_from_packages.json" not in world.storage.list_keys()
    check(world)


def test_index__optional_outputs() -> None:
    world = World(limits=SMALL, defers=True, policy=Policy(outputs=Outputs(current_repodata=True, bz2=True)))
    fill(world, 30)
    assert watch(world, lambda: world.publish(NOARCH, package("pkg0012", "2.0")))[-1] == PACKED
    world.catch_up()
    check(world)
    plain = world.storage.body(f"{NOARCH}/repodata.json")
    assert bz2.decompress(world.storage.body(f"{NOARCH}/repodata.json.bz2")) == plain
    current = json.loads(world.storage.body(f"{NOARCH}/current_repodata.json"))
    assert "pkg0012-2.0-0.conda" in current["packages.conda"]


def test_index__requeueing_fails(world: World) -> None:
    def fail(_: object) -> None:
        raise UnavailableError("SQS did not take the requeuer")

    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    indexer = Indexer(
        world.storage, world.notifier, world.policy, requeue=fail, limits=world.limits, sleep=lambda _: None
    )
    with pytest.raises(UnavailableError, match="requeuer"):
        index_keys(indexer, [key])
    world.index(key)  # its message is redelivered
    assert world.requeued == [NOARCH]


def test_reconcile__defers_nothing(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.requeued.clear()  # lost
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert world.requeued == []
    check(world)


def test_rebuild__defers_nothing(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    artifacts = {f"pkg{number:04}-1.0-0.conda" for number in range(30)} | {"pkg0012-2.0-0.conda"}
    world.requeued.clear()
    keys = frozenset(parse_artifact_key(f"{NOARCH}/{filename}") for filename in artifacts)
    world.indexer().rebuild(NOARCH, SubdirKeys(artifacts=keys))
    assert world.requeued == []
    check(world)


def test_verify__deferred_outputs_are_harmless_for_a_while(world: World) -> None:
    world.storage.clock_ms += 10**6
    world.publish(NOARCH, package("pkg0012", "2.0"))
    assert list_wrong(world) == []
    behind = {finding.key for finding in list_wrong(world, later_ms=3_600_000)}
    assert f"{NOARCH}/repodata.json" in behind
    assert f"{NOARCH}/run_exports.json.zst" in behind
    assert behind >= {f"{NOARCH}/index.html", "team/channeldata.json", "team/rss.xml", "team/index.html"}
    world.catch_up()
    assert list_wrong(world, later_ms=3_600_000) == []


def test_verify__small_subdir_of_a_large_channel(world: World) -> None:
    world.storage.clock_ms += 3_600_000
    world.publish(LINUX, package(path=LINUX))
    assert list_wrong(world) == []
    channel_files = {"team/channeldata.json", "team/rss.xml", "team/index.html"}
    assert {finding.key for finding in list_wrong(world, later_ms=3_600_000)} == channel_files
    world.catch_up()
    assert list_wrong(world, later_ms=3_600_000) == []


def test_verify__large_files_of_a_channel(world: World) -> None:
    for name in ("team/channeldata.json", "team/rss.xml", "team/index.html", f"{NOARCH}/index.html"):
        versions = world.storage.versions[name]
        good = versions[-1]
        versions[-1] = replace(good, body=(good.body or b"").replace(b"pkg0012", b"pkg0099"))
        assert [(one.key, one.problem) for one in list_wrong(world)] == [(name, Problem.OUTPUT_WRONG)]
        versions[-1] = good
    assert list_wrong(world) == []


def test_verify__tampered_file_while_others_are_behind(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    info = world.storage.head(f"{NOARCH}/run_exports.json")
    assert info is not None
    world.storage.put(
        f"{NOARCH}/run_exports.json",
        b"{}",
        headers=world.storage.headers(f"{NOARCH}/run_exports.json"),
        metadata=dict(info.metadata),
    )
    assert [finding.problem for finding in list_wrong(world)] == [Problem.ENCODINGS_DISAGREE]


def test_update__only_the_compressed_file_of_a_large_subdir_is_left(world: World) -> None:
    for name in ("repodata.json", "run_exports.json", "run_exports.json.zst", "index.html"):
        world.storage.remove(f"{NOARCH}/{name}")
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.catch_up()
    check(world)
