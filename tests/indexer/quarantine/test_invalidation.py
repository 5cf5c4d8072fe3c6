"""Rejected artifacts leave caches: one call per batch, repeated until it succeeds."""

import pytest

from lambdas.channel.errors import RejectedError, UnavailableError
from lambdas.channel.layout import STALE_PREFIX
from lambdas.channel.rejection_codes import RejectionCode
from tests.indexer.world import LINUX, NOARCH, World, package


@pytest.fixture
def world() -> World:
    return World()


BAD = tuple(f"{NOARCH}/bad{number}-1.0-0.conda" for number in range(30))


def upload_bad(world: World, *keys: str) -> tuple[str, ...]:
    for key in keys:
        world.storage.upload(key, b"bad")
    return keys


def list_notes(world: World) -> list[str]:
    return [key for key in world.storage.list_keys() if key.startswith(STALE_PREFIX)]


def is_rejected(world: World, key: str) -> bool:
    return world.storage.head(key) is None and any(one.key == key for one in world.notifier.rejections)


def test_invalidate__one_call_for_all_rejections_of_a_batch(world: World) -> None:
    other = f"{LINUX}/bad-1.0-0.conda"
    world.index(*upload_bad(world, *BAD, other))
    assert all(is_rejected(world, key) for key in (*BAD, other))
    assert (world.notifier.invalidations, sorted(world.notifier.dropped)) == (1, sorted([*BAD, other]))
    assert not list_notes(world)


def test_invalidate__after_the_deletion(world: World) -> None:
    """Otherwise a cache could fetch the object again between the two."""
    upload_bad(world, BAD[0])
    seen = []
    world.notifier.invalidate = lambda keys: seen.append(world.storage.head(*keys))  # type: ignore[method-assign]
    world.index(BAD[0])
    assert seen == [None]


@pytest.mark.parametrize(
    "key", [f"{NOARCH}/foo-1.0-0.conda.sigs", f"{NOARCH}/foo.conda.sigs", str(NOARCH), f"{NOARCH}/foo-1.0-0.CONDA"]
)
def test_invalidate__nothing_that_caches_do_not_keep(world: World, key: str) -> None:
    upload_bad(world, key)
    world.publish(NOARCH, package())
    world.indexer().reject({key: RejectedError(RejectionCode.INVALID_KEY, "no")})
    world.index()
    assert world.storage.head(key) is None
    assert world.notifier.invalidations == 0
    assert not list_notes(world)


def test_invalidate__nothing_after_a_batch_without_rejections(world: World) -> None:
    world.storage.log.clear()
    world.publish(NOARCH, package())
    assert world.notifier.invalidations == 0
    assert not [key for _, key in world.storage.log if key.startswith(STALE_PREFIX)]


def test_invalidate__failure_leaves_nothing_in_place_and_is_repeated(world: World) -> None:
    """A throttled call: every bad object is gone, the good one is indexed, and the next call has them all."""
    indexer = world.indexer()
    calls = []

    def fail(keys: object) -> None:
        calls.append(keys)
        raise UnavailableError("too many invalidations in progress")

    invalidate, world.notifier.invalidate = world.notifier.invalidate, fail  # type: ignore[method-assign]
    (report,) = world.index(*upload_bad(world, *BAD[:3]), world.upload(NOARCH, package()))
    assert not report.failures
    assert all(is_rejected(world, key) for key in BAD[:3])
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert len(calls) == 1
    assert len(list_notes(world)) == 3
    world.notifier.invalidate = invalidate  # type: ignore[method-assign]
    indexer.invalidate_rejected()  # another run, which has rejected nothing
    assert world.notifier.invalidations == 0
    indexer.invalidate_rejected(all_runs=True)  # the daily one
    assert sorted(world.notifier.dropped) == sorted(BAD[:3])
    assert not list_notes(world)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_invalidate__run_that_stops_after_the_deletion(world: World, moment: str) -> None:
    def stop(kind: str, key: str, when: str) -> None:
        if (kind, key, when) == ("delete", BAD[0], moment):
            raise KeyboardInterrupt

    upload_bad(world, BAD[0])
    world.storage.fault = stop
    with pytest.raises(KeyboardInterrupt):
        world.index(BAD[0])
    world.storage.fault = None
    world.indexer().invalidate_rejected(all_runs=True)
    assert world.notifier.dropped == [BAD[0]]


def test_invalidate__rejection_while_another_run_invalidates(world: World) -> None:
    """The note of the later rejection stays."""
    upload_bad(world, BAD[0])
    invalidate = world.notifier.invalidate

    def reject_again(keys: list[str]) -> None:
        world.notifier.invalidate = invalidate  # type: ignore[method-assign]
        invalidate(keys)
        upload_bad(world, BAD[0])
        world.indexer().reject({BAD[0]: RejectedError(RejectionCode.INVALID_KEY, "again")})

    world.notifier.invalidate = reject_again  # type: ignore[method-assign,assignment]
    world.index(BAD[0])
    assert len(list_notes(world)) == 1
    world.indexer().invalidate_rejected(all_runs=True)
    assert world.notifier.dropped == [BAD[0], BAD[0]]
