"""The outputs of a channel: updated by change, in any order, small or large."""

import json
from dataclasses import replace

import pytest

from lambdas.channel.layout import SHARD_INDEX
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.model import LIMITS, Limits
from lambdas.indexer.spliced.sizes import SIZES, Sizes
from tests.indexer.world import LINUX, NOARCH, World, build_from_nothing, package

LARGE = Limits(
    sizes=Sizes(large_uncompressed=2000, whole=500, min_part=600, max_part=2000, segment_scale=900 / 1024 / 256)
)
FILES = ("channeldata.json", "rss.xml", "index.html")
WIN = parse_subdir_id("team/win-64")


@pytest.fixture(params=["small", "large"])
def scaled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "large")


@pytest.fixture
def world(scaled: bool) -> World:
    return World(limits=LARGE if scaled else LIMITS)


def name_of(number: int) -> str:
    return f"pkg{number:03}"


def fill(world: World, path: SubdirId, count: int) -> list[str]:
    keys = [
        world.upload(path, package(name_of(number), path=path, about={"summary": f"It is {number}"}))
        for number in range(count)
    ]
    world.index(*keys)
    return keys


def check(world: World) -> None:
    limits = replace(world.limits, sizes=SIZES)
    fresh = build_from_nothing(world.storage, world.policy, limits)
    ours, theirs = (json.loads(one.body("team/channeldata.json")) for one in (world.storage, fresh))
    assert ours == theirs
    for name in ("rss.xml", "index.html"):
        assert world.storage.body(f"team/{name}") == fresh.body(f"team/{name}")


def test_update_channel__large_document_is_segmented(world: World, scaled: bool) -> None:
    fill(world, NOARCH, 40)
    world.storage.log.clear()
    world.publish(NOARCH, package(name_of(20), "2.0"))
    spliced = [key for kind, key in world.storage.log if kind == "splice"]
    assert spliced == (["team/channeldata.json"] if scaled else [])
    assert (("get", "team/channeldata.json") in world.storage.log) is True  # whole, or a range of it
    check(world)


def test_update_channel__reads_changed_names_only(world: World) -> None:
    fill(world, NOARCH, 20)
    fill(world, LINUX, 20)
    world.storage.log.clear()
    world.publish(LINUX, package(name_of(7), "2.0", path=LINUX))
    read = [key for kind, key in world.storage.log if kind == "get" and "/shards/" in key]
    assert len([key for key in read if key.startswith("team/noarch/")]) == 1
    assert [key for key in read if key.startswith("team/linux-64/")] == []  # it has just been committed


def test_update_channel__burst_is_not_read_again(world: World) -> None:
    def count(number_of_names: int) -> int:
        packages = [package(f"{number_of_names}-{number}") for number in range(number_of_names)]
        world.storage.log.clear()
        world.publish(NOARCH, *packages)
        return sum(kind == "get" and ("/shards/" in key or "/cards/" in key) for kind, key in world.storage.log)

    world.publish(NOARCH, package("foo"))
    assert [count(1), count(50)] == [0, 0]


def test_update_channel__subdirs_in_turn(world: World) -> None:
    keys = []
    for number in range(12):
        for path in (NOARCH, LINUX, WIN):
            if (number + len(path.name)) % 3:
                keys.append(world.upload(path, package(name_of(number), f"1.{number % 4}", path=path)))
                world.index(keys[-1])
    check(world)
    going = keys[3:]  # no subdir ends up empty, because an existing subdir stays
    for key in going[::2]:
        world.storage.remove(key)
        world.index(key)
    check(world)
    for key in going[1::2]:
        world.storage.remove(key)
    world.index(*going)
    check(world)


def test_update_channel__missed_commit_of_another_subdir(world: World) -> None:
    fill(world, NOARCH, 15)
    fill(world, LINUX, 15)

    def fault(kind: str, key: str, when: str) -> None:
        if when == "before" and kind in {"put", "splice"} and key.startswith("team/noarch/repodata.json"):
            raise Stop

    key = world.upload(NOARCH, package(name_of(3), "3.0"))
    world.storage.fault = fault
    with pytest.raises(Stop):
        world.index(key)
    world.storage.fault = None
    world.publish(LINUX, package(name_of(4), "4.0", path=LINUX))
    packages = json.loads(world.storage.body("team/channeldata.json"))["packages"]
    assert packages[name_of(3)]["version"] == "3.0"  # shown with the next one's commit
    world.index(key)
    check(world)


class Stop(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("lost", ["state", "state and versions", "channeldata", "old commits"])
def test_update_channel__damaged_state_or_files(world: World, lost: str) -> None:
    fill(world, NOARCH, 20)
    fill(world, LINUX, 5)
    state = ".fairway/channeldata/team/state.json.zst"
    assert state in world.storage.list_keys()
    if lost == "state":
        world.storage.upload(state, b"another writer's, who lost afterwards")
    elif lost == "state and versions":
        del world.storage.versions[state]
    elif lost == "channeldata":
        world.storage.upload("team/channeldata.json", b"{}")
    else:
        del world.storage.versions[f"{NOARCH}/{SHARD_INDEX}"][:-1]
    world.publish(NOARCH, package(name_of(7), "2.0"))
    if lost == "old commits":
        del world.storage.versions[f"{NOARCH}/{SHARD_INDEX}"][:-1]
    world.publish(NOARCH, package(name_of(8), "2.0"))
    check(world)


def test_update_channel__broken_shard_of_another_subdir(world: World) -> None:
    world.publish(NOARCH, package("foo"))
    world.publish(LINUX, package("foo", path=LINUX))
    (shard,) = [key for key in world.storage.list_keys() if key.startswith("team/noarch/shards/")]
    world.storage.upload(shard, b"damaged")
    world.publish(LINUX, package("foo", "2.0", path=LINUX))
    assert json.loads(world.storage.body("team/channeldata.json"))["packages"]["foo"]["version"] == "2.0"


def test_update_channel__bounded_feed_and_page(scaled: bool) -> None:
    world = World(limits=replace(LARGE if scaled else LIMITS, max_rows=5, max_feed_items=5))
    keys = []
    for number in range(25):
        world.storage.clock_ms += 1000
        keys.append(world.upload(NOARCH, package(name_of(number * 7 % 25))))
        world.index(keys[-1])
    check(world)
    assert b"the newest 5 of 25 packages" in world.storage.body("team/index.html")
    for key in reversed(keys[3:]):
        world.storage.remove(key)
        world.index(key)
        check(world)


def test_update_channel__up_to_date_writes_nothing(world: World) -> None:
    keys = fill(world, NOARCH, 5)
    before = world.storage.requests.copy()
    world.index(*keys)
    after = world.storage.requests - before
    assert (after["put"], after["splice"]) == (0, 0)


@pytest.mark.parametrize("name", FILES)
def test_update_channel__one_file_is_missing(world: World, name: str) -> None:
    keys = fill(world, NOARCH, 5)
    world.storage.remove(f"team/{name}")
    world.index(*keys)
    check(world)
