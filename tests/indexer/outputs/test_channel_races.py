"""Runs of several subdirs of one channel, interleaved at every request, and stopped there.

Each run brings its own subdir's commit into the state of the channel. Whatever the order, the outputs of
the channel are at the end as if they were made from nothing.
"""

import functools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lambdas.channel.errors import TransientError
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.storage import parallel
from tests.indexer.world import (
    NOARCH,
    InlinePool,
    Reference,
    World,
    assert_same,
    assert_same_as_from_nothing,
    check_readable,
    package,
)
from tests.memory import MemoryStorage

PATHS = [NOARCH, *(parse_subdir_id(f"team/os{number}-64") for number in range(1, 5))]
ONE, OTHER, NEW = PATHS[1], PATHS[2], parse_subdir_id("team/os9-64")


@functools.cache
def prepared() -> MemoryStorage:
    """Several subdirs that have the same names, so that these are in a leaf."""
    world = World()
    for path in PATHS:
        world.publish(path, package(path=path), package("bar", path=path), package("baz", path=path))
    return world.storage


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", InlinePool)


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a publisher does, and which key is indexed because of it."""

    name: str
    key: str
    body: bytes | None

    def happen(self, world: World) -> None:
        if self.body is None:
            world.storage.remove(self.key)
        else:
            world.storage.upload(self.key, self.body)

    def run(self, world: World) -> None:
        world.index(self.key)


def upload(name: str, path: SubdirId, *, of: str = "foo", version: str = "1.0", build: str = "0") -> Action:
    filename, body = package(of, version, build, path=path)
    return Action(name=name, key=f"{path}/{filename}", body=body)


FIRST = upload("version", ONE, version="2.0")
SECONDS = [
    upload("other version", OTHER, version="3.0"),
    upload("build that channeldata.json does not show", OTHER, build="1"),
    upload("other name", OTHER, of="bar", version="2.0"),
    upload("same subdir", ONE, version="2.5"),
    upload("new subdir", NEW),
    upload("new name", OTHER, of="new"),
    Action(name="removal", key=f"{OTHER}/foo-1.0-0.conda", body=None),
]
seconds = pytest.mark.parametrize("second", SECONDS, ids=lambda second: second.name.replace(" ", "-"))


class Killed(BaseException):
    """The process dies: no code catches this."""


@dataclass(kw_only=True)
class At:
    """Calls a function at one moment of a run."""

    at: int
    call: Callable[[], None]
    moments: int = 0

    def __call__(self, kind: str, key: str, moment: str) -> None:
        number, self.moments = self.moments, self.moments + 1
        if number == self.at:
            self.call()


def count_moments(action: Action) -> int:
    world = World(storage=prepared().fork())
    action.happen(world)
    world.storage.fault = at = At(at=-1, call=lambda: None)
    action.run(world)
    return at.moments


def check(world: World, reference: Reference) -> None:
    check_readable(world.storage)
    assert_same(world.storage, reference.build(world.storage), times=False)


def kill() -> None:
    raise Killed


@pytest.mark.usefixtures("inline")
@seconds
def test_update_channel__run_of_another_subdir_in_between(second: Action, reference: Reference) -> None:
    for first, other in ((FIRST, second), (second, FIRST)):
        for number in range(count_moments(first)):
            world = World(storage=prepared().fork())
            first.happen(world)
            other.happen(world)

            def run_other(world: World = world, other: Action = other) -> None:
                world.storage.fault = None
                other.run(world)

            world.storage.fault = At(at=number, call=run_other)
            first.run(world)
            world.storage.fault = None
            check(world, reference)


@pytest.mark.usefixtures("inline")
@seconds
def test_update_channel__killed_in_one_subdir_while_another_is_published_to(
    second: Action, reference: Reference
) -> None:
    for number in range(count_moments(FIRST)):
        world = World(storage=prepared().fork())
        FIRST.happen(world)
        second.happen(world)
        world.storage.fault = At(at=number, call=kill)
        with pytest.raises(Killed):
            FIRST.run(world)
        world.storage.fault = None
        second.run(world)
        FIRST.run(world)  # its message is redelivered
        check(world, reference)


@pytest.mark.usefixtures("inline")
def test_update_channel__killed_in_both_subdirs(reference: Reference) -> None:
    chooser = random.Random(1)  # noqa: S311 - no secret
    for _ in range(100):
        second = chooser.choice(SECONDS)
        world = World(storage=prepared().fork())
        FIRST.happen(world)
        second.happen(world)
        runs = [FIRST, second]
        chooser.shuffle(runs)
        inner = chooser.randrange(120)

        def run_inner(world: World = world, action: Action = runs[1], inner: int = inner) -> None:
            world.storage.fault = At(at=inner, call=kill)
            action.run(world)
            world.storage.fault = None

        world.storage.fault = At(at=chooser.randrange(120), call=run_inner)
        killed = [*runs]
        try:
            runs[0].run(world)
        except (Killed, TransientError):
            world.storage.fault = None
        world.storage.fault = None
        chooser.shuffle(killed)
        for action in killed:  # their messages are redelivered
            action.run(world)
        check(world, reference)


def test_update_channel__all_subdirs_at_once() -> None:
    world = World(storage=prepared().fork())

    def publish(number: int) -> None:
        path = PATHS[number % len(PATHS)]
        for one in range(4):
            key = world.upload(path, package(chooser[number % 3], f"{number + 2}.{one}", path=path))
            (report,) = world.index(key)
            assert not report.failures

    chooser = ["foo", "bar", "new"]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(publish, range(10)))
    assert_same_as_from_nothing(world.storage)
