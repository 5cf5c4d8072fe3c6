"""A channel's own files: brought up to date by change, whatever the order, small or large."""

import json

import pytest

from lambdas.channel.layout import SHARD_INDEX
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.outputs import channel as project_channel
from lambdas.indexer.outputs import feed, newest, pages
from lambdas.indexer.outputs.channeldata import ChanneldataForm
from lambdas.indexer.spliced import files
from lambdas.storage import protocol as storage
from tests.indexer.world import LINUX, NOARCH, World, build_from_nothing, package

FILES = ("channeldata.json", "rss.xml", "index.html")
WIN = parse_subdir_id("team/win-64")


@pytest.fixture(params=["small", "large"])
def scaled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "small":
        return False
    monkeypatch.setattr(project_channel, "LARGE_CHANNELDATA_BYTES", 2000)
    monkeypatch.setattr(files, "WHOLE_BYTES", 500)
    monkeypatch.setattr(files, "MIN_PART_BYTES", 600)
    monkeypatch.setattr(files, "PART_BYTES", 2000)
    monkeypatch.setattr(storage, "MIN_PART_BYTES", 600)
    monkeypatch.setattr(ChanneldataForm, "segment_bytes", 900)
    return True


def name_of(number: int) -> str:
    return f"pkg{number:03}"


def fill(world: World, path: SubdirId, count: int) -> list[str]:
    keys = [
        world.upload(path, package(name_of(number), path=path, about={"summary": f"It is {number}"}))
        for number in range(count)
    ]
    world.index(*keys)
    return keys


def check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(project_channel, "LARGE_CHANNELDATA_BYTES", 2**40)
        fresh = build_from_nothing(world.storage, world.policy)
    ours, theirs = (json.loads(one.body("team/channeldata.json")) for one in (world.storage, fresh))
    assert ours == theirs
    for name in ("rss.xml", "index.html"):
        assert world.storage.body(f"team/{name}") == fresh.body(f"team/{name}")


def test_project_channel__is_kept_in_segments_where_large(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    fill(world, NOARCH, 40)
    world.storage.log.clear()
    world.publish(NOARCH, package(name_of(20), "2.0"))
    spliced = [key for kind, key in world.storage.log if kind == "splice"]
    assert spliced == (["team/channeldata.json"] if scaled else [])
    assert (("get", "team/channeldata.json") in world.storage.log) is True  # whole, or a range of it
    check(world, monkeypatch)


@pytest.mark.usefixtures("scaled")
def test_project_channel__reads_the_changed_names_alone() -> None:
    world = World()
    fill(world, NOARCH, 20)
    fill(world, LINUX, 20)
    world.storage.log.clear()
    world.publish(LINUX, package(name_of(7), "2.0", path=LINUX))
    read = [key for kind, key in world.storage.log if kind == "get" and "/shards/" in key]
    assert len([key for key in read if key.startswith("team/noarch/")]) == 1
    assert len([key for key in read if key.startswith("team/linux-64/")]) == 1


@pytest.mark.usefixtures("scaled")
def test_project_channel__subdirs_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    keys = []
    for number in range(12):
        for path in (NOARCH, LINUX, WIN):
            if (number + len(path.name)) % 3:
                keys.append(world.upload(path, package(name_of(number), f"1.{number % 4}", path=path)))
                world.index(keys[-1])
    check(world, monkeypatch)
    going = keys[3:]  # no subdir ends up empty: one that has been there stays
    for key in going[::2]:
        world.storage.remove(key)
        world.index(key)
    check(world, monkeypatch)
    for key in going[1::2]:
        world.storage.remove(key)
    world.index(*going)
    check(world, monkeypatch)


@pytest.mark.usefixtures("scaled")
def test_project_channel__the_other_subdir_did_not_get_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
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
    check(world, monkeypatch)


class Stop(BaseException):
    """The process ends here."""


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("lost", ["state", "state and versions", "channeldata", "old commits"])
def test_project_channel__heals(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    world = World()
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
    check(world, monkeypatch)


@pytest.mark.usefixtures("scaled")
def test_project_channel__a_broken_shard_elsewhere_keeps_nobody_waiting() -> None:
    world = World()
    world.publish(NOARCH, package("foo"))
    world.publish(LINUX, package("foo", path=LINUX))
    (shard,) = [key for key in world.storage.list_keys() if key.startswith("team/noarch/shards/")]
    world.storage.upload(shard, b"damaged")
    world.publish(LINUX, package("foo", "2.0", path=LINUX))
    assert json.loads(world.storage.body("team/channeldata.json"))["packages"]["foo"]["version"] == "2.0"


@pytest.mark.usefixtures("scaled")
def test_project_channel__bounded_feed_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pages, project_channel):
        monkeypatch.setattr(module, "MAX_ROWS", 5)
    monkeypatch.setattr(newest, "KEPT_ROWS", 10)
    monkeypatch.setattr(feed, "MAX_ITEMS", 5)
    world = World()
    keys = []
    for number in range(25):
        world.storage.clock_ms += 1000
        keys.append(world.upload(NOARCH, package(name_of(number * 7 % 25))))
        world.index(keys[-1])
    check(world, monkeypatch)
    assert b"the newest 5 of 25 packages" in world.storage.body("team/index.html")
    for key in reversed(keys[3:]):
        world.storage.remove(key)
        world.index(key)
        check(world, monkeypatch)


def test_project_channel__up_to_date_writes_nothing() -> None:
    world = World()
    keys = fill(world, NOARCH, 5)
    before = world.storage.requests.copy()
    world.index(*keys)
    after = world.storage.requests - before
    assert (after["put"], after["splice"]) == (0, 0)


@pytest.mark.parametrize("name", FILES)
def test_project_channel__one_file_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    world = World()
    keys = fill(world, NOARCH, 5)
    world.storage.remove(f"team/{name}")
    world.index(*keys)
    check(world, monkeypatch)
