"""Runs of several subdirs of one channel, interleaved at every request, and stopped there.

Each run brings its own subdir's commit into the state of the channel. Whatever the order, the outputs of
the channel are at the end as if they were made from nothing, and say that they show the latest commits.
``FAIRWAY_RACES=N`` tries N times as many moments.
"""

import contextlib
import functools
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lambdas.channel.errors import TransientError
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.outputs.channel import SHOWN, fetch_etags, hash_shown
from lambdas.indexer.outputs.registry import channel_filenames
from lambdas.indexer.tree.subdir import open_subdir
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
    pause,
    subdirs,
)
from tests.memory import MemoryStorage

TIMES = int(os.environ.get("FAIRWAY_RACES", "1"))
MOMENTS = 20 * TIMES  # of each pair
PATHS = [NOARCH, *(parse_subdir_id(f"team/os{number}-64") for number in range(1, 5))]
ATTESTATIONS = b'[{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}]'
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


def sign(name: str, path: SubdirId) -> Action:
    """A commit that no output of the channel shows: they keep their bytes."""
    return Action(name=name, key=f"{path}/foo-1.0-0.conda.sigs", body=ATTESTATIONS)


FIRST = upload("version", ONE, version="2.0")
SECONDS = [
    upload("other version", OTHER, version="3.0"),
    upload("other build", OTHER, build="1"),
    upload("other name", OTHER, of="bar", version="2.0"),
    upload("same subdir", ONE, version="2.5"),
    upload("new subdir", NEW),
    upload("new name", OTHER, of="new"),
    Action(name="removal", key=f"{OTHER}/foo-1.0-0.conda", body=None),
    sign("sign", OTHER),
]
PAIRS = [*((FIRST, second) for second in SECONDS), (sign("sign", ONE), SECONDS[-1])]
pairs = pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{one.name}-{other.name}".replace(" ", "-") for one, other in PAIRS]
)


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
    shown = hash_shown(fetch_etags([open_subdir(world.storage, path) for path in subdirs(world.storage)]))
    for name in channel_filenames():
        info = world.storage.head(f"team/{name}")
        assert info is not None
        assert info.metadata[SHOWN] == shown, name


def kill() -> None:
    raise Killed


def choose_moments(first: Action, second: Action) -> list[int]:
    moments = count_moments(first)
    chooser = random.Random(f"{first.name} {second.name}")  # noqa: S311 - no secret
    return sorted(chooser.sample(range(moments), min(MOMENTS, moments)))


@pytest.mark.usefixtures("inline")
@pairs
def test_update_channel__run_of_another_subdir_in_between(first: Action, second: Action, reference: Reference) -> None:
    for outer, inner in ((first, second), (second, first)):
        for number in choose_moments(outer, inner):
            world = World(storage=prepared().fork())
            outer.happen(world)
            inner.happen(world)

            def run_inner(world: World = world, inner: Action = inner) -> None:
                world.storage.fault = None
                inner.run(world)

            world.storage.fault = At(at=number, call=run_inner)
            outer.run(world)
            world.storage.fault = None
            check(world, reference)


@pytest.mark.usefixtures("inline")
@pairs
def test_update_channel__killed_in_one_subdir_while_another_is_published_to(
    first: Action, second: Action, reference: Reference
) -> None:
    for number in choose_moments(first, second):
        world = World(storage=prepared().fork())
        first.happen(world)
        second.happen(world)
        world.storage.fault = At(at=number, call=kill)
        with pytest.raises(Killed):
            first.run(world)
        world.storage.fault = None
        second.run(world)
        first.run(world)  # its message is redelivered
        check(world, reference)


@pytest.mark.usefixtures("inline")
def test_update_channel__killed_in_both_subdirs(reference: Reference) -> None:
    chooser = random.Random(1)  # noqa: S311 - no secret
    for _ in range(60 * TIMES):
        runs = [*chooser.choice(PAIRS)]
        world = World(storage=prepared().fork())
        for action in runs:
            action.happen(world)
        chooser.shuffle(runs)
        inner = chooser.randrange(120)

        def run_inner(world: World = world, action: Action = runs[1], inner: int = inner) -> None:
            world.storage.fault = At(at=inner, call=kill)
            action.run(world)
            world.storage.fault = None

        world.storage.fault = At(at=chooser.randrange(120), call=run_inner)
        with contextlib.suppress(Killed, TransientError):
            runs[0].run(world)
        world.storage.fault = None
        chooser.shuffle(runs)
        for action in runs:  # their messages are redelivered
            action.run(world)
        check(world, reference)


def test_update_channel__all_subdirs_at_once() -> None:
    world = World(storage=prepared().fork(), sleep=pause)

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
