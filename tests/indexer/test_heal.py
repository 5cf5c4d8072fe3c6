"""The index heals from anything that is under an index key (invariant 17)."""

import json
from collections.abc import Callable
from dataclasses import replace

import msgpack
import pytest

from lambdas.channel.errors import UnavailableError
from lambdas.channel.layout import SHARD_INDEX
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Policy, SubdirKeys
from lambdas.indexer.outputs.subdir import list_unwanted
from lambdas.indexer.tree.encoding import compress, decode_msgpack, decompress
from lambdas.indexer.tree.shard_index import decode_index, encode_index, is_marked_for
from lambdas.indexer.tree.subdir import ForeignIndexError, open_subdir
from lambdas.indexer.upkeep.findings import Problem
from lambdas.indexer.upkeep.rebuild import rebuild
from lambdas.indexer.upkeep.reconcile import reconcile
from tests.indexer.outputs.test_registry import verify
from tests.indexer.world import (
    LINUX,
    NOARCH,
    PATCHES,
    POLICY,
    World,
    assert_same_as_from_nothing,
    check_readable,
    package,
    shards_of,
)

POINTER = f"{NOARCH}/{SHARD_INDEX}"
OTHER_DEPLOYMENT = Policy(deployment="another-bucket", outputs=POLICY.outputs)


def foreign_index(*names: str) -> bytes:
    """A shard index as another indexer writes it, with shards that are not there."""
    info = {"subdir": "noarch", "base_url": "./", "shards_base_url": "./shards/", "created_at": "2026-01-01T00:00:00Z"}
    shards = {name: bytes(32) for name in names}
    return compress(bytes(msgpack.packb({"version": 1, "info": info, "shards": shards})), level=3)


def change_document(body: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    document = decode_msgpack(decompress(body, what=""), what="")
    change(document)
    return compress(bytes(msgpack.packb(document)), level=3)


def unmarked(body: bytes) -> bytes:
    return change_document(body, lambda document: document["info"].pop("fairway"))  # type: ignore[attr-defined]


BROKEN: dict[str, Callable[[World], bytes]] = {
    "not zstd": lambda world: b"damaged",
    "empty": lambda world: b"",
    "truncated": lambda world: world.storage.body(POINTER)[:-10],
    "followed by bytes": lambda world: world.storage.body(POINTER) + b"x",
    "not msgpack": lambda world: compress(b"\xc1", level=3),
    "a list": lambda world: compress(bytes(msgpack.packb([])), level=3),
    "foreign": lambda world: foreign_index("foo", "bar", "baz"),
    "of another subdir": lambda world: world.storage.body(f"{LINUX}/{SHARD_INDEX}"),
    "of another channel": lambda world: other_channel(),
    "unmarked and foreign": lambda world: unmarked(world.storage.body(f"{LINUX}/{SHARD_INDEX}")),
    "with a short hash": lambda world: change_document(
        world.storage.body(POINTER),
        lambda document: document["shards"].__setitem__("foo", b"short"),  # type: ignore[index]
    ),
    "with an invalid name": lambda world: change_document(
        world.storage.body(POINTER),
        lambda document: document["shards"].__setitem__("../x", bytes(32)),  # type: ignore[index]
    ),
    "with a date that is none": lambda world: change_document(
        world.storage.body(POINTER),
        lambda document: document["info"].__setitem__("created_at", 7),  # type: ignore[index]
    ),
}
broken = pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN.keys())


def other_channel() -> bytes:
    world = World()
    world.storage.upload("other/noarch/foo-1.0-0.conda", package()[1])
    world.index("other/noarch/foo-1.0-0.conda")
    return world.storage.body(f"other/noarch/{SHARD_INDEX}")


@pytest.fixture
def world() -> World:
    world = World()
    world.publish(NOARCH, package(), package("bar"))
    world.publish(LINUX, package(path=LINUX))
    return world


@broken
def test_index__heals_with_the_next_publish(world: World, make: Callable[[World], bytes]) -> None:
    world.storage.upload(POINTER, make(world))
    world.upload(NOARCH, package("lost"))  # its event came while the index was broken
    world.storage.fault = lambda *_: check_named(world)
    report = world.publish(NOARCH, package("new"))
    world.storage.fault = None
    assert report.healed
    assert not report.failures
    assert world.listed(NOARCH) == {f"{name}-1.0-0.conda" for name in ("foo", "bar", "lost", "new")}
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)
    assert not [key for key in world.storage.list_keys() if key.startswith(".fairway/drafts/")]


def check_named(world: World) -> None:
    """At every request: readers meet what was there, or every artifact."""
    try:
        index = decode_index(world.storage.body(POINTER))
    except Exception:  # noqa: BLE001 - the broken one is still there
        return
    if is_marked_for(index, NOARCH):
        assert {"foo", "bar", "lost"} <= index.shards.keys()


@broken
@pytest.mark.parametrize("how", ["reconcile", "rebuild", "empty event"])
def test_upkeep__heals(world: World, make: Callable[[World], bytes], how: str) -> None:
    world.storage.upload(POINTER, make(world))
    subdir = open_subdir(world.storage, NOARCH)
    if how == "reconcile":
        list(reconcile(subdir, world.indexer()))
    elif how == "rebuild":
        rebuild(subdir, world.indexer())
    else:
        world.index(f"{NOARCH}/*")
    assert_same_as_from_nothing(world.storage)
    assert verify(world) == []


def test_index__healing_reads_no_artifact_that_cards_describe(world: World) -> None:
    world.storage.upload(POINTER, foreign_index("foo"))
    world.storage.log.clear()
    world.publish(NOARCH, package("new"))
    read = [key for kind, key in world.storage.log if kind == "get" and key.endswith(".conda")]
    assert read == [f"{NOARCH}/new-1.0-0.conda"]


@pytest.mark.parametrize("kept", ["versions", "nothing"])
def test_index__shard_index_was_deleted(world: World, kept: str) -> None:
    if kept == "versions":
        world.storage.remove(POINTER)
    else:
        del world.storage.versions[POINTER]
        world.defers = True
    world.publish(NOARCH, package("new"))
    if kept == "nothing":
        assert world.listings == [NOARCH]
        world.index(f"{NOARCH}/*")
    assert world.listed(NOARCH) == {f"{name}-1.0-0.conda" for name in ("foo", "bar", "new")}
    assert_same_as_from_nothing(world.storage)


def test_index__first_commit_asks_for_one_listing() -> None:
    world = World(defers=True)
    world.publish(NOARCH, package())
    assert world.listings == [NOARCH]
    world.publish(NOARCH, package("bar"))
    assert world.listings == [NOARCH]


def test_index__commit_of_version_0_1_0_is_adopted(world: World) -> None:
    world.storage.upload(POINTER, unmarked(world.storage.body(POINTER)))
    world.storage.log.clear()
    world.publish(NOARCH, package("new"))
    read = [key for kind, key in world.storage.log if kind == "get" and key.endswith(".conda")]
    assert read == [f"{NOARCH}/new-1.0-0.conda"]
    assert is_marked_for(decode_index(world.storage.body(POINTER)), NOARCH)
    assert_same_as_from_nothing(world.storage)


def test_index__commit_of_another_deployment_is_reconciled_first(world: World) -> None:
    world.upload(NOARCH, package("lost"))
    world.policy = OTHER_DEPLOYMENT
    report = world.publish(NOARCH, package("new"))
    assert report.healed
    assert world.listed(NOARCH) == {f"{name}-1.0-0.conda" for name in ("foo", "bar", "lost", "new")}
    assert world.publish(NOARCH, package("newer")).healed is None


def test_index__first_bytes_hold_through_healing(world: World) -> None:
    world.storage.upload(POINTER, b"damaged")
    key = world.upload(NOARCH, package(depends=["other"]))
    world.publish(NOARCH, package("new"))
    assert world.storage.body(key) == package()[1]
    assert [one.code for one in world.notifier.rejections] == ["filename-taken"]


def test_index__foreign_index_is_kept_before_it_is_replaced(world: World) -> None:
    body = foreign_index("foo")
    world.storage.upload(POINTER, body)
    world.publish(NOARCH, package("new"))
    kept = [key for key in world.storage.list_keys() if key.startswith(f".fairway/replaced/{POINTER}/")]
    assert [world.storage.body(key) for key in kept] == [body]


def test_index__healing_goes_on_where_time_ran_out(world: World) -> None:
    world.storage.upload(POINTER, foreign_index("foo"))
    del world.storage.versions[POINTER][:-1]
    keys = [world.upload(NOARCH, package(f"p{number}")) for number in range(5)]
    failing = {keys[2]}

    def fault(kind: str, key: str, moment: str) -> None:
        if kind == "get" and key in failing and moment == "before":
            raise UnavailableError("503")

    world.storage.fault = fault
    with pytest.raises(UnavailableError):
        world.index(keys[0])
    assert decode_failing(world)
    failing.clear()
    world.storage.log.clear()
    world.index(keys[0])
    read = [key for kind, key in world.storage.log if kind == "get" and key.endswith(".conda")]
    assert read == [keys[2]]
    assert_same_as_from_nothing(world.storage)


def decode_failing(world: World) -> bool:
    try:
        open_subdir(world.storage, NOARCH).fetch_commit()
    except ForeignIndexError:
        return True
    return False


@pytest.mark.parametrize("lost", ["shard", "cards", "both", "broken shard and no cards", "broken cards and no shard"])
def test_index__lost_blobs_of_a_name(world: World, lost: str) -> None:
    index = decode_index(world.storage.body(POINTER))
    shard = f"{NOARCH}/shards/{index.shards['foo']}.msgpack.zst"  # type: ignore[index]  # names are text
    cards = f".fairway/cards/{NOARCH}/{index.shards['foo']}.json.zst"  # type: ignore[index]
    for key, word in ((shard, "shard"), (cards, "cards")):
        if lost in {word, "both"} or f"no {word}" in lost:
            world.storage.remove(key)
        elif f"broken {word}" in lost:
            world.storage.upload(key, b"broken")
    world.publish(NOARCH, package(version="2.0"))
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "foo-2.0-0.conda", "bar-1.0-0.conda"}
    assert {len(one.flat["packages.conda"]) for one in shards_of(world.storage, NOARCH)} == {1, 2}


def restore(world: World, change: Callable[[dict[str, bytes]], object]) -> None:
    """Restore a shard index that differs from the commit, with the same mark."""
    body = change_document(world.storage.body(POINTER), lambda document: change(document["shards"]))  # type: ignore[arg-type]  # a map of hashes
    world.storage.upload(POINTER, body)


RESTORED: dict[str, Callable[[dict[str, bytes]], object]] = {
    "a name whose shard was collected": lambda shards: shards.update(gone=bytes(32)),
    "a shard that was collected": lambda shards: shards.update(foo=bytes(32)),
    "another name's shard": lambda shards: shards.update(foo=shards["bar"]),
    "another name's shard for a name that is gone": lambda shards: shards.update(gone=shards["bar"]),
    "each other's shards": lambda shards: shards.update(foo=shards["bar"], bar=shards["foo"]),
}


@pytest.mark.parametrize("how", ["publish", "reconcile", "rebuild"])
@pytest.mark.parametrize("name", RESTORED)
def test_index__attack_restored_index_that_names_what_is_not_there(world: World, name: str, how: str) -> None:
    restore(world, RESTORED[name])
    world.upload(NOARCH, package("lost"))
    subdir = open_subdir(world.storage, NOARCH)
    if how == "publish":
        world.publish(NOARCH, package("new"))
        assert "new-1.0-0.conda" in world.listed(NOARCH)
    if how == "rebuild":
        rebuild(subdir, world.indexer())
    else:
        list(reconcile(subdir, world.indexer()))
    check_readable(world.storage)
    assert {"foo-1.0-0.conda", "bar-1.0-0.conda", "lost-1.0-0.conda"} <= world.listed(NOARCH)
    assert_same_as_from_nothing(world.storage)


def test_heal__shard_that_is_missing_is_made_of_its_cards(world: World) -> None:
    shards = decode_index(world.storage.body(POINTER)).shards
    world.storage.remove(f"{NOARCH}/shards/{shards['foo']}.msgpack.zst")  # type: ignore[index]  # names are text
    world.storage.upload(POINTER, b"damaged")
    world.storage.log.clear()
    world.publish(NOARCH, package("new"))
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)
    read = {key for kind, key in world.storage.log if kind == "get" and key.endswith(".conda")}
    assert read == {f"{NOARCH}/new-1.0-0.conda"}


def test_index__patches_in_force_are_lost(world: World) -> None:
    key = f"{NOARCH}/{PATCHES}"
    world.storage.upload(key, json.dumps({"remove": ["bar-1.0-0.conda"]}).encode())
    world.index(key)
    for private in [key for key in world.storage.list_keys() if key.startswith(".fairway/patches/")]:
        world.storage.remove(private)
    world.publish(NOARCH, package("new"))
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "new-1.0-0.conda"}
    world.storage.remove(key)
    for private in [key for key in world.storage.list_keys() if key.startswith(".fairway/patches/")]:
        world.storage.remove(private)
    world.publish(NOARCH, package("newer"))
    assert "bar-1.0-0.conda" in world.listed(NOARCH)


def test_index__two_indexers_heal_at_once(world: World) -> None:
    """The second one finds the work done by the first, at whichever request it comes in."""
    world.storage.upload(POINTER, foreign_index("foo"))
    key = world.upload(NOARCH, package("new"))
    counted = World(storage=world.storage.fork())
    requests: list[str] = []
    counted.storage.fault = lambda kind, key, moment: requests.append(key)
    counted.index(key)
    for moment in range(0, len(requests), 7):
        copy = World(storage=world.storage.fork())
        count = 0

        def fault(_kind: str, _key: str, _moment: str, copy: World = copy, moment: int = moment) -> None:
            nonlocal count
            count += 1
            if count == moment + 1:
                copy.storage.fault = None
                Indexer(copy.storage, copy.notifier, copy.policy, sleep=lambda _: None).index(
                    NOARCH, SubdirKeys(whole=True)
                )

        copy.storage.fault = fault
        copy.index(key)
        assert_same_as_from_nothing(copy.storage)


def test_encode_index__mark_is_in_the_bytes(world: World) -> None:
    index = decode_index(world.storage.body(POINTER))
    assert is_marked_for(index, NOARCH)
    assert not is_marked_for(index, LINUX)
    assert decode_index(encode_index(index)) == index


@pytest.mark.parametrize(
    ("body", "problem"), [(b"damaged", Problem.INDEX_BROKEN), (None, Problem.INDEX_FOREIGN)], ids=["broken", "foreign"]
)
def test_verify__names_what_is_wrong_and_goes_on(world: World, body: bytes | None, problem: Problem) -> None:
    world.storage.upload(POINTER, body or other_channel())
    world.storage.remove(f"{LINUX}/run_exports.json")
    found = {(one.key, one.problem) for one in verify(world)}
    assert found >= {(POINTER, problem), (f"{LINUX}/run_exports.json", Problem.OUTPUT_MISSING)}


def test_verify__lost_patches_in_force(world: World) -> None:
    world.storage.upload(f"{NOARCH}/{PATCHES}", json.dumps({"remove": ["bar-1.0-0.conda"]}).encode())
    world.index(f"{NOARCH}/{PATCHES}")
    (private,) = [key for key in world.storage.list_keys() if key.startswith(".fairway/patches/")]
    world.storage.upload(private, b"broken")
    assert (private, Problem.FOREIGN_PATCHES) in {(one.key, one.problem) for one in verify(world)}


def test_index__foreign_outputs_are_kept_before_they_are_replaced_or_removed(world: World) -> None:
    replaced, removed = f"{NOARCH}/repodata.json", f"{NOARCH}/current_repodata.json"
    channel = "team/channeldata.json"
    for key in (replaced, removed, channel):
        world.storage.upload(key, b'{"by": "another tool"}')
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert removed not in world.storage.list_keys()
    assert verify(world) == []
    for key in (replaced, removed, channel):
        kept = [one for one in world.storage.list_keys() if one.startswith(f".fairway/replaced/{key}/")]
        assert [world.storage.body(one) for one in kept] == [b'{"by": "another tool"}']


def test_index__foreign_files_of_a_directory_stay_unless_asked_for(world: World) -> None:
    key = f"{NOARCH}/current_repodata.json"
    world.storage.upload(key, b"{}")
    world.policy = replace(POLICY, outputs=replace(POLICY.outputs, remove_foreign=False))
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert key in world.storage.list_keys()
    assert list_unwanted(open_subdir(world.storage, NOARCH), world.policy.outputs) == [key]


def test_index__deleted_noarch_heals_with_a_publish_into_another_subdir(world: World) -> None:
    before = world.listed(NOARCH)
    assert before
    world.storage.remove(f"{NOARCH}/{SHARD_INDEX}")
    world.publish(LINUX, package(path=LINUX))
    assert world.listed(NOARCH) == before
    check_readable(world.storage)
