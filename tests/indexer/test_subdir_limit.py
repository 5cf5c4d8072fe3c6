"""A channel has a bounded number of subdirs."""

from dataclasses import replace

import pytest

from lambdas.channel.errors import UnavailableError
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.change.subdir_limit import describe_excess
from lambdas.indexer.model import MAX_SUBDIRS, Policy
from lambdas.indexer.upkeep.findings import Problem
from lambdas.indexer.upkeep.verify import ChannelView, verify_channel
from tests.indexer.world import NOARCH, POLICY, World, package

FULL = Policy(max_subdirs=3, outputs=POLICY.outputs)


def path(number: int) -> SubdirId:
    return parse_subdir_id(f"team/linux-{number}")


@pytest.fixture
def world() -> World:
    """A channel with as many subdirs as it may have: noarch and two others."""
    world = World(policy=FULL)
    for number in range(2):
        world.publish(path(number), package(path=path(number)))
    return world


def test_index__subdir_too_many_is_rejected(world: World) -> None:
    report = world.publish(path(2), package(path=path(2)))
    (outcome,) = report.outcomes
    assert outcome.rejection is not None
    assert outcome.rejection.code == "too-many-subdirs"
    assert "max_subdirs" in str(outcome.rejection.hint)
    assert not [key for key in world.storage.list_keys() if key.startswith(f"{path(2)}/")]


def test_index__existing_subdirs_of_a_full_channel(world: World) -> None:
    for subdir in (NOARCH, path(0), path(1)):
        world.publish(subdir, package(version="2.0", path=subdir))
        assert "foo-2.0-0.conda" in world.listed(subdir)
    assert not world.notifier.rejections


def test_index__lower_limit_keeps_existing_subdirs(world: World) -> None:
    world.policy = replace(FULL, max_subdirs=1)
    world.publish(path(1), package(version="2.0", path=path(1)))
    assert world.listed(path(1)) == {"foo-1.0-0.conda", "foo-2.0-0.conda"}


def test_index__noarch_of_a_full_channel() -> None:
    world = World(policy=replace(FULL, max_subdirs=1))
    world.publish(path(0), package(path=path(0)))
    world.publish(NOARCH, package())
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_index__folders_without_an_index_do_not_count(world: World) -> None:
    world = World(policy=FULL)
    for number in range(10, 30):
        world.storage.upload(f"team/linux-{number}/README", b"")
    world.publish(path(0), package(path=path(0)))
    assert world.listed(path(0)) == {"foo-1.0-0.conda"}


def test_index__another_channel_is_not_full(world: World) -> None:
    other = parse_subdir_id("other/linux-9")
    world.publish(other, package(path=other))
    assert world.listed(other) == {"foo-1.0-0.conda"}


def test_index__subdirs_cannot_be_counted(world: World) -> None:
    """A cloud error rejects nothing."""
    key = world.upload(path(2), package(path=path(2)))

    def fail(kind: str, key: str, _: str) -> None:
        if kind == "list" or key.startswith(f"{path(0)}/"):
            raise UnavailableError("no")

    world.storage.fault = fail
    with pytest.raises(UnavailableError):
        world.index(key)
    world.storage.fault = None
    assert world.storage.head(key) is not None
    assert not world.notifier.rejections


def test_verify_channel__names_the_subdirs_that_exceed_the_limit(world: World) -> None:
    view = ChannelView(outputs=FULL.outputs, max_subdirs=2)
    found = [one for one in verify_channel(world.storage, path(0).channel, view) if "subdirs" in one.problem.value]
    assert [(one.problem, one.key) for one in found] == [(Problem.TOO_MANY_SUBDIRS, "team/")]
    assert found[0].message == "3 subdirs, 1 more than 2: linux-1"
    view = ChannelView(outputs=FULL.outputs, max_subdirs=3)
    assert Problem.TOO_MANY_SUBDIRS not in {one.problem for one in verify_channel(world.storage, path(0).channel, view)}


def test_describe_excess__default() -> None:
    names = [path(number).name for number in range(MAX_SUBDIRS + 20)]
    assert describe_excess(names[:MAX_SUBDIRS], max_subdirs=MAX_SUBDIRS) is None
    assert "84 subdirs, 20 more than 64" in str(describe_excess(names, max_subdirs=MAX_SUBDIRS))
