"""Where documents are large, a publish leaves what few wait for until later: nothing of it is forgotten."""

import bz2
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from lambdas.channel.errors import UnavailableError
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, SubdirKeys
from lambdas.indexer.tree.encoding import decompress
from lambdas.indexer.tree.shard_index import SHARD_INDEX
from lambdas.indexer.upkeep import verify
from lambdas.indexer.upkeep.listing import list_subdirs
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.indexer.upkeep.verify import ChannelView, Depth, Finding, Problem, verify_channel, verify_subdir
from tests.indexer.spliced.test_large_documents import check, fill, is_large
from tests.indexer.world import LINUX, NOARCH, PATCHES, URL, World, index_keys, package

PACKED = NOARCH.key("repodata.json.zst")
WRITES = {"put", "splice", "copy"}
PATCH = json.dumps({"packages.conda": {"pkg0003-1.0-0.conda": {"depends": ["patched"]}}}).encode()

pytestmark = pytest.mark.usefixtures("scaled_down")


@pytest.fixture
def world() -> World:
    world = World(defers=True)
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


def find_wrong(world: World, *, later_ms: int = 0) -> list[Finding]:
    depth = Depth(now_ms=world.storage.clock_ms + later_ms, grace_ms=10**12)
    view = ChannelView(url=URL)
    found = [
        finding
        for path in list_subdirs(world.storage, NOARCH.channel)
        for finding in verify_subdir(world.storage, path, depth, view=view)
    ]
    found += verify_channel(world.storage, NOARCH.channel, view)
    return [finding for finding in found if not finding.is_harmless]


def test_index__only_shards_and_the_compressed_file_at_once(world: World) -> None:
    written = watch(world, lambda: world.publish(NOARCH, package("pkg0012", "2.0")))
    public = [key for key in written if not key.startswith(".fairway/") and "/shards/" not in key]
    assert public == [NOARCH.key(SHARD_INDEX), PACKED]
    assert len(written) == 5, "with the shard, the cards and the tables"
    assert world.reminded == [NOARCH]
    assert "pkg0012-2.0-0.conda" in compressed_filenames(world)
    assert "pkg0012-2.0-0.conda" not in world.listed(NOARCH)


def test_index__the_rest_when_reminded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0", run_exports=["pkg0012"]))
    world.catch_up()
    assert world.reminded == []
    check(world, monkeypatch)
    assert "pkg0012" in json.loads(world.storage.body("team/channeldata.json"))["packages"]


def test_index__once_for_all_publishes_in_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        world.publish(NOARCH, package(f"pkg{number:04}", "2.0"))
    assert set(world.reminded) == {NOARCH}
    written = watch(world, world.catch_up)
    for name in ("repodata.json", "run_exports.json.zst", "run_exports.json", "index.html"):
        assert written.count(NOARCH.key(name)) == 1
    assert PACKED not in written
    check(world, monkeypatch)


def test_index__reminded_twice(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.catch_up()
    assert watch(world, lambda: world.index(NOARCH.key(""))) == []
    assert world.reminded == []


def test_index__duplicate_event_while_something_is_left(world: World) -> None:
    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    world.index(key)
    world.reminded.clear()
    assert watch(world, lambda: world.index(key)) == []
    assert world.reminded == [NOARCH], "should the first requeuer have been lost"


def test_index__artifact_and_reminder_in_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    world.index(key, NOARCH.key(""))
    assert world.reminded == []
    check(world, monkeypatch)


def test_index__small_subdirs_leave_nothing() -> None:
    world = World(defers=True)
    world.publish(NOARCH, package())
    world.publish(LINUX, package(path=LINUX))
    assert world.reminded == []
    assert world.listed(LINUX) == {"foo-1.0-0.conda"}


def test_index__small_subdir_of_a_large_channel(world: World) -> None:
    before = world.storage.body("team/channeldata.json")
    world.publish(LINUX, package("linux", path=LINUX))
    assert world.listed(LINUX) == {"linux-1.0-0.conda"}
    assert world.storage.body("team/channeldata.json") == before
    assert world.reminded == [LINUX]
    world.catch_up()
    assert "linux" in json.loads(world.storage.body("team/channeldata.json"))["packages"]


def test_index__grows_large_and_shrinks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(defers=True)
    keys = fill(world, 3)
    assert world.reminded == []
    keys += fill(world, 20, start=3)
    world.catch_up()
    check(world, monkeypatch)
    for key in keys[2:]:
        world.storage.remove(key)
    world.index(*keys)
    assert compressed_filenames(world) == {"pkg0000-1.0-0.conda", "pkg0001-1.0-0.conda"}
    world.catch_up()
    assert not is_large(world)
    check(world, monkeypatch)


def test_index__patches_come_and_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.storage.upload(NOARCH.key(PATCHES), PATCH)
    world.index(NOARCH.key(PATCHES))
    assert json.loads(decompress(world.storage.body(PACKED), what=""))["packages.conda"]["pkg0003-1.0-0.conda"][
        "depends"
    ] == ["patched"]
    world.catch_up()
    assert world.record(NOARCH, "pkg0003-1.0-0.conda")["depends"] == ["patched"]
    assert NOARCH.key("repodata_from_packages.json") in world.storage.list_keys()
    check(world, monkeypatch)
    world.storage.remove(NOARCH.key(PATCHES))
    world.index(NOARCH.key(PATCHES))
    world.catch_up()
    assert NOARCH.key("repodata_from_packages.json") not in world.storage.list_keys()
    check(world, monkeypatch)


def test_index__optional_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(defers=True, policy=Policy(outputs=Outputs(current_repodata=True, bz2=True)))
    fill(world, 30)
    assert watch(world, lambda: world.publish(NOARCH, package("pkg0012", "2.0")))[-1] == PACKED
    world.catch_up()
    check(world, monkeypatch)
    plain = world.storage.body(NOARCH.key("repodata.json"))
    assert bz2.decompress(world.storage.body(NOARCH.key("repodata.json.bz2"))) == plain
    current = json.loads(world.storage.body(NOARCH.key("current_repodata.json")))
    assert "pkg0012-2.0-0.conda" in current["packages.conda"]


def test_index__the_queue_does_not_take_the_reminder(world: World) -> None:
    def refuse(_: object) -> None:
        raise UnavailableError("SQS did not take the requeuer")

    key = world.upload(NOARCH, package("pkg0012", "2.0"))
    indexer = Indexer(world.storage, world.notifier, world.policy, requeue=refuse, sleep=lambda _: None)
    with pytest.raises(UnavailableError, match="requeuer"):
        index_keys(indexer, [key])
    world.index(key)  # its message comes again
    assert world.reminded == [NOARCH]


def test_reconcile__leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.reminded.clear()  # lost
    list(reconcile(world.storage, world.indexer(), NOARCH))
    assert world.reminded == []
    check(world, monkeypatch)


def test_rebuild__leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    artifacts = {f"pkg{number:04}-1.0-0.conda" for number in range(30)} | {"pkg0012-2.0-0.conda"}
    world.reminded.clear()
    world.indexer().rebuild(NOARCH, SubdirKeys(artifacts=frozenset(artifacts)))
    assert world.reminded == []
    check(world, monkeypatch)


def test_verify__what_is_left_for_later_is_harmless_for_a_while(world: World) -> None:
    world.storage.clock_ms += 10**6
    world.publish(NOARCH, package("pkg0012", "2.0"))
    assert find_wrong(world) == []
    behind = {finding.key for finding in find_wrong(world, later_ms=3_600_000)}
    assert NOARCH.key("repodata.json") in behind
    assert NOARCH.key("run_exports.json.zst") in behind
    assert behind >= {NOARCH.key("index.html"), "team/channeldata.json", "team/rss.xml", "team/index.html"}
    world.catch_up()
    assert find_wrong(world, later_ms=3_600_000) == []


def test_verify__small_subdir_of_a_large_channel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LARGE_CHANNELDATA_BYTES", 1200)
    world.storage.clock_ms += 3_600_000
    world.publish(LINUX, package(path=LINUX))
    assert find_wrong(world) == []
    channel_files = {"team/channeldata.json", "team/rss.xml", "team/index.html"}
    assert {finding.key for finding in find_wrong(world, later_ms=3_600_000)} == channel_files
    world.catch_up()
    assert find_wrong(world, later_ms=3_600_000) == []


def test_verify__large_files_of_a_channel(world: World) -> None:
    for name in ("team/channeldata.json", "team/rss.xml", "team/index.html", NOARCH.key("index.html")):
        versions = world.storage.versions[name]
        good = versions[-1]
        versions[-1] = replace(good, body=(good.body or b"").replace(b"pkg0012", b"pkg0099"))
        assert [(one.key, one.problem) for one in find_wrong(world)] == [(name, Problem.PROJECTION_WRONG)]
        versions[-1] = good
    assert find_wrong(world) == []


def test_verify__tampered_file_is_found_while_others_are_behind(world: World) -> None:
    world.publish(NOARCH, package("pkg0012", "2.0"))
    info = world.storage.head(NOARCH.key("run_exports.json"))
    assert info is not None
    world.storage.put(
        NOARCH.key("run_exports.json"),
        b"{}",
        headers=world.storage.headers(NOARCH.key("run_exports.json")),
        metadata=dict(info.metadata),
    )
    assert [finding.problem for finding in find_wrong(world)] == [Problem.ENCODINGS_DISAGREE]


def test_project__all_of_a_large_subdir_is_lost_but_the_compressed_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("repodata.json", "run_exports.json", "run_exports.json.zst", "index.html"):
        world.storage.remove(NOARCH.key(name))
    world.publish(NOARCH, package("pkg0012", "2.0"))
    world.catch_up()
    check(world, monkeypatch)
