"""A batch is cut into commits by the memory of their cards."""

import pytest

from lambdas.indexer.model import LIMITS, Limits
from lambdas.indexer.tree.cards import decode_cards, encode_cards, estimate_encoded, estimate_memory
from tests.builders import conda_package
from tests.indexer.world import NOARCH, World, assert_same_as_from_nothing, package

HEAVY: list[list[object]] = [[]] * 500
"""Takes more than 64,000 bytes of memory, as estimated."""


def list_commits(world: World) -> int:
    return sum(not one.is_deletion for one in world.storage.list_history(f"{NOARCH}/repodata_shards.msgpack.zst"))


def heavy(number: int, *, name: str | None = None) -> tuple[str, bytes]:
    return package(name or f"heavy{number}", version=f"{number}.0", index_extra={"x": HEAVY})


@pytest.fixture
def world() -> World:
    """Of whose limits three heavy artifacts, more or less, fill one commit."""
    return World(limits=Limits(max_kept_bytes=200_000))


def test_index__batch_is_cut_by_memory(world: World) -> None:
    keys = [world.upload(NOARCH, heavy(number)) for number in range(60)]
    world.index(*keys)
    assert world.listed(NOARCH) == {key.rpartition("/")[2] for key in keys}
    assert list_commits(world) >= 60 // (4 + 16)  # as many as threads read may be on the way
    assert_same_as_from_nothing(world.storage, world.policy)


def test_index__small_batch_is_one_commit(world: World) -> None:
    world.index(*(world.upload(NOARCH, package(f"small{number}")) for number in range(20)))
    assert list_commits(world) == 1


def test_index__batch_is_cut_by_the_memory_of_what_the_names_have(world: World) -> None:
    """Cards that are read again, not new ones, take the memory."""
    for number in range(8):
        world.publish(NOARCH, heavy(number))
    before = list_commits(world)
    world.index(*(world.upload(NOARCH, package(f"heavy{number}", version="99.0")) for number in range(8)))
    assert len(world.listed(NOARCH)) == 16
    assert list_commits(world) - before >= 3
    assert_same_as_from_nothing(world.storage, world.policy)


def test_index__name_that_takes_more_than_a_commit_may(world: World) -> None:
    """One name at least is committed each time."""
    for start in range(0, 12, 4):
        world.index(*(world.upload(NOARCH, heavy(number, name="one")) for number in range(start, start + 4)))
    assert len(world.listed(NOARCH)) == 12
    assert_same_as_from_nothing(world.storage, world.policy)


def test_index__attestations_of_a_batch_that_is_cut(world: World) -> None:
    keys = [world.upload(NOARCH, heavy(number)) for number in range(40)]
    for key in keys:
        world.storage.upload(f"{key}.sigs", b"[]")  # rejected: each has to be inspected
    world.index(*keys, *(f"{key}.sigs" for key in keys))
    assert {one.key for one in world.notifier.rejections} == {f"{key}.sigs" for key in keys}
    assert len(world.listed(NOARCH)) == 40


def test_index__attack_values_that_fill_a_name() -> None:
    """Many values take little space in a shard, and much memory."""
    world = World(limits=Limits(max_name_bytes=300_000))
    keys = [world.upload(NOARCH, heavy(number, name="one")) for number in range(8)]
    other = world.upload(NOARCH, package("other"))
    world.index(*keys, other)
    rejected = {one.key for one in world.notifier.rejections}
    assert {one.code for one in world.notifier.rejections} == {"shard-full"}
    assert rejected < set(keys)
    assert world.listed(NOARCH) == {key.rpartition("/")[2] for key in {*keys, other} - rejected}
    assert len(world.listed(NOARCH)) >= 3


def test_estimate_memory__real_cards_of_a_full_shard_fit() -> None:
    """A record of 900 bytes in a shard, of which 16 MiB hold 18,000."""
    world = World()
    depends = [f"some-dependency-{number} >=1.2.{number},<2.0a0" for number in range(12)]
    world.publish(NOARCH, conda_package(depends=depends, about={"summary": "s" * 80, "description": "d" * 500}))
    (key,) = (key for key in world.storage.list_keys() if key.startswith(".fairway/cards/"))
    body = world.storage.body(key)
    (card,) = decode_cards(body).values()
    assert 18_000 * estimate_memory(card) < LIMITS.max_name_bytes
    assert estimate_memory(card) <= estimate_encoded(encode_cards({"foo-1.0-0.conda": card}))
