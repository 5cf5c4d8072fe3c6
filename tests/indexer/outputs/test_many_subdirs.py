"""The requests of a publish do not depend on the number of subdirs; what they show is as if made from nothing."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from lambdas.channel.layout import SHARD_INDEX
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.outputs.leaves import LEAF_BYTES
from lambdas.indexer.spliced.files import TABLES
from lambdas.indexer.tree.encoding import compress, decompress, encode_json
from tests.indexer.world import LINUX, NOARCH, POLICY, World, build_from_nothing, index_keys, package
from tests.memory import MemoryStorage

LEAVES = ".fairway/channeldata/team/leaves/"
WIN = parse_subdir_id("team/win-64")
MANY = replace(POLICY, max_subdirs=200)


def path_of(number: int) -> SubdirId:
    return parse_subdir_id(f"team/os{number}-64") if number else NOARCH


def make_world(subdirs: int) -> World:
    """A channel with so many subdirs, all of which have the same name."""
    world = World(policy=MANY)
    fill(world, range(subdirs), shared=True)
    return world


def fill(world: World, subdirs: Iterable[int], *, shared: bool) -> None:
    for path in map(path_of, subdirs):
        world.publish(path, package("foo" if shared else f"foo-{path.name}", path=path))


def count(world: World, path: SubdirId, *packages: tuple[str, bytes]) -> Counter[str]:
    world.storage.requests.clear()
    world.publish(path, *packages)
    return Counter(world.storage.requests)


def check(world: World) -> None:
    fresh = build_from_nothing(world.storage, world.policy)
    for name in ("channeldata.json", "rss.xml", "index.html"):
        assert world.storage.body(f"team/{name}") == fresh.body(f"team/{name}"), name


def list_leaves(storage: MemoryStorage) -> list[str]:
    return [key for key in storage.list_keys() if key.startswith(LEAVES)]


@pytest.mark.parametrize("shared", [True, False], ids=["all-have-the-name", "others-have-other-names"])
def test_update_channel__requests_do_not_depend_on_the_subdirs(*, shared: bool) -> None:
    world = World(policy=MANY)
    path = path_of(1)
    name = "foo" if shared else f"foo-{path.name}"
    totals = []
    for subdirs, more in ((2, range(2)), (20, range(2, 20)), (100, range(20, 100))):
        fill(world, more, shared=shared)
        totals.append(count(world, path, package(name, f"2.{subdirs}", path=path)).total())
    assert max(totals) - min(totals) <= 2, totals
    check(world)


def test_update_channel__requests_of_a_burst_do_not_depend_on_the_subdirs() -> None:
    totals = []
    for subdirs in (2, 30):
        world = World(policy=MANY)
        for path in map(path_of, range(subdirs)):
            world.publish(path, *(package(f"p{number}", path=path) for number in range(10)))
        path = path_of(1)
        burst = [package(f"p{number}", "2.0", path=path) for number in range(10)]
        totals.append(count(world, path, *burst).total())
        check(world)
    assert totals[1] <= totals[0], totals  # of two subdirs, each name of the other is read


def test_update_channel__duplicate_event_inspects_its_own_subdir_and_noarch() -> None:
    world = make_world(10)
    key = f"{path_of(3)}/foo-1.0-0.conda"
    world.index(key)
    world.storage.log.clear()
    world.index(key)
    inspected = {key.split("/")[1] for kind, key in world.storage.log if key.endswith(SHARD_INDEX)}
    assert inspected == {"noarch", "os3-64"}


def test_update_channel__names_that_few_subdirs_have_are_in_no_leaf() -> None:
    world = make_world(2)
    assert list_leaves(world.storage) == []
    world.publish(path_of(2), package("foo", path=path_of(2)))
    assert len(list_leaves(world.storage)) == 1
    check(world)


def test_update_channel__new_and_removed_subdirs() -> None:
    world = make_world(5)
    world.publish(path_of(7), package("bar", path=path_of(7)))
    assert "os7-64" in json.loads(world.storage.body("team/channeldata.json"))["subdirs"]
    check(world)
    for key in world.storage.list_keys():
        if key.startswith(f"{path_of(2)}/"):
            world.storage.remove(key)
    world.publish(path_of(7), package("bar", "2.0", path=path_of(7)))
    world.index(f"{path_of(7)}/")  # as deferred outputs and the daily reconciliation do
    document = json.loads(world.storage.body("team/channeldata.json"))
    assert "os2-64" not in document["subdirs"]
    assert "os2-64" not in document["packages"]["foo"]["subdirs"]
    check(world)


def test_update_channel__first_upload_makes_noarch() -> None:
    world = World()
    world.publish(LINUX, package(path=LINUX))
    assert json.loads(world.storage.body("team/channeldata.json"))["subdirs"] == ["linux-64", "noarch"]
    check(world)


def test_update_channel__declared_subdirs() -> None:
    world = make_world(3)
    world.policy = replace(MANY, subdirs={"team": [WIN.name]})
    path = path_of(1)
    world.publish(path, package("foo", "2.0", path=path))
    assert json.loads(world.storage.body("team/channeldata.json"))["subdirs"] == [
        "noarch",
        "os1-64",
        "os2-64",
        "win-64",
    ]
    check(world)


def test_update_channel__killed_after_a_declared_subdir_was_made() -> None:
    world = make_world(3)
    world.policy = replace(MANY, subdirs={"team": [WIN.name]})
    world.storage.fault = stop_at(".fairway/channeldata/team/state.json.zst")
    key = world.upload(path_of(1), package("foo", "2.0", path=path_of(1)))
    with pytest.raises(Stop):
        world.index(key)
    world.storage.fault = None
    world.index(key)
    check(world)


def test_update_channel__noarch_is_gone() -> None:
    world = make_world(3)
    indexer = world.indexer()  # it inspects noarch once
    path = path_of(1)
    index_keys(indexer, [world.upload(path, package("foo", "2.0", path=path))])
    for key in world.storage.list_keys():
        if key.startswith(f"{NOARCH}/"):
            world.storage.remove(key)
    index_keys(indexer, [world.upload(path, package("foo", "3.0", path=path))])
    document = json.loads(world.storage.body("team/channeldata.json"))
    assert document["subdirs"] == document["packages"]["foo"]["subdirs"] == ["os1-64", "os2-64"]


@pytest.mark.parametrize(
    "lost", ["leaves", "leaves and versions", "broken leaves", "archived leaves", "state", "archived state"]
)
def test_update_channel__lost_leaves_or_state(lost: str) -> None:
    world = make_world(6)
    (leaf,) = list_leaves(world.storage)
    if lost == "leaves":
        world.storage.remove(leaf)
    elif lost == "leaves and versions":
        del world.storage.versions[leaf]
    elif lost == "broken leaves":
        world.storage.upload(leaf, b"broken")
    elif lost == "archived leaves":
        world.storage.archive(leaf, "GLACIER")
    elif lost == "archived state":
        world.storage.archive(".fairway/channeldata/team/state.json.zst", "GLACIER")
    else:
        del world.storage.versions[".fairway/channeldata/team/state.json.zst"]
    world.publish(path_of(1), package("foo", "2.0", path=path_of(1)))
    check(world)
    world.publish(path_of(2), package("foo", "3.0", path=path_of(2)))
    check(world)


def test_update_channel__names_come_and_go_in_many_subdirs() -> None:
    world = World(policy=MANY)
    paths = [path_of(number) for number in range(6)]
    keys = []
    for number, path in enumerate(paths):
        packages = [package(f"p{one}", f"1.{number}", path=path) for one in range(8) if (one + number) % 4]
        keys += [world.upload(path, one) for one in packages]
        world.index(*keys[-len(packages) :])
    check(world)
    for key in keys[::2]:
        world.storage.remove(key)
        world.index(key)
    check(world)
    world.index(*(world.upload(path, package("p1", "9.0", path=path)) for path in paths))
    check(world)


def test_update_channel__long_texts_fill_several_leaves() -> None:
    world = World(policy=MANY)
    summary = "x" * 500
    names = [f"p{number:02}" for number in range(60)]
    about = {"description": summary, "summary": summary}
    for number in range(5):
        path = path_of(number)
        world.publish(path, *(package(name, "1.0", path=path, about=about) for name in names))
    sizes = [len(name) for name in list_leaves(world.storage)]
    assert len(sizes) >= 5 * len(names) * 1000 // LEAF_BYTES
    assert len(sizes) > 1
    path = path_of(2)
    requests = count(world, path, package("p30", "2.0", path=path))
    world.publish(path, package("a", path=path), package("zz", path=path))
    check(world)
    assert requests["put"] == 13
    world.publish(path, *(package(name, "3.0", path=path) for name in names))
    check(world)
    for name in names[:50]:
        for number in range(5):
            world.storage.remove(f"{path_of(number)}/{name}-1.0-0.conda")
    for number in range(5):
        world.index(*(f"{path_of(number)}/{name}-1.0-0.conda" for name in names[:50]))
    check(world)


class Stop(BaseException):
    """The process ends here."""


def stop_at(stop: str) -> Callable[[str, str, str], None]:
    def fault(kind: str, key: str, moment: str) -> None:
        if (kind, key, moment) == ("put", stop, "before"):
            raise Stop

    return fault


def make_state_old(storage: MemoryStorage) -> None:
    """Replace the state, and what names it, by those of a version without leaves."""
    key = ".fairway/channeldata/team/state.json.zst"
    document = json.loads(decompress(storage.body(key), what=key))
    del document["leaves"]
    body = compress(encode_json(document), level=1)
    info = storage.upload(key, body)
    file = storage.versions["team/channeldata.json"]
    named = f"{hashlib.sha256(body).hexdigest()} {info.version}"
    file[-1] = replace(file[-1], info=replace(file[-1].info, metadata=dict(file[-1].info.metadata) | {TABLES: named}))


def test_update_channel__state_of_an_earlier_version() -> None:
    """It does not tell which commits were missed, so that every subdir is compared once."""
    world = make_world(4)
    world.storage.fault = stop_at("team/os1-64/repodata.json.zst")
    with_missed = world.upload(path_of(1), package("foo", "2.0", path=path_of(1)))
    with pytest.raises(Stop):
        world.index(with_missed)
    world.storage.fault = None
    make_state_old(world.storage)
    world.publish(path_of(2), package("foo", "1.5", path=path_of(2)))
    assert json.loads(world.storage.body("team/channeldata.json"))["packages"]["foo"]["version"] == "2.0"
    world.index(with_missed)
    check(world)
