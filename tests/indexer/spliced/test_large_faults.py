"""Large documents, kept in segments, under the same faults and races as small ones.

The sizes are scaled down. The documents' contents are compared, not their bytes: the cuts between segments
depend on history.
"""

import contextlib
import functools
import json
import os
import random
from collections.abc import Callable

import pytest

from lambdas.channel.errors import ConflictError, FairwayError, UnavailableError
from lambdas.indexer.spliced import files
from lambdas.indexer.tree.encoding import decompress
from lambdas.storage import parallel
from tests.indexer.world import (
    NOARCH,
    PATCHES,
    SMALL,
    InlinePool,
    World,
    build_from_nothing,
    check_encodings,
    check_readable,
    package,
    public_view,
)
from tests.memory import MemoryStorage

TIMES = int(os.environ.get("FAIRWAY_FAULTS", "1"))
WRITES = {"put", "copy", "delete", "splice"}
COUNT = 14
FIRST = f"{NOARCH}/pkg00-1.0-0.conda"
PATCH = b'{"packages.conda": {"pkg03-1.0-0.conda": {"depends": ["b"]}}, "remove": ["pkg05-1.0-0.conda"]}'


class Killed(BaseException):
    """The process dies: no code catches this."""


@pytest.fixture(autouse=True)
def one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", InlinePool)


def put(key: str, body: bytes) -> Callable[[World], str]:
    def happen(world: World) -> str:
        world.storage.upload(key, body)
        return key

    return happen


def remove(key: str) -> Callable[[World], str]:
    def happen(world: World) -> str:
        world.storage.remove(key)
        return key

    return happen


HAPPENINGS: dict[str, Callable[[World], str]] = {
    "upload": put(f"{NOARCH}/new-1.0-0.conda", package("new")[1]),
    "version": put(f"{NOARCH}/pkg07-2.0-0.conda", package("pkg07", "2.0", run_exports=["x"])[1]),
    "remove": remove(FIRST),
    "patch": put(f"{NOARCH}/{PATCHES}", PATCH),
    "unpatch": remove(f"{NOARCH}/{PATCHES}"),
    "requeuer": lambda _: f"{NOARCH}/",
}


@functools.cache
def prepared(*, patched: bool, defers: bool) -> MemoryStorage:
    world = World(limits=SMALL, defers=defers)
    keys = [world.upload(NOARCH, package(f"pkg{number:02}", run_exports=["x"])) for number in range(COUNT)]
    if patched:
        world.storage.upload(f"{NOARCH}/{PATCHES}", PATCH)
        keys.append(f"{NOARCH}/{PATCHES}")
    world.index(*keys)
    info = world.storage.head(f"{NOARCH}/repodata.json")
    assert info is not None
    assert files.TABLES in info.metadata, "large enough"
    if defers:
        world.publish(NOARCH, package("pkg02", "2.0", run_exports=["x"]))
        assert world.requeued, "something is deferred"
    return world.storage


def say(world: MemoryStorage) -> dict[str, object]:
    """The contents of the public files, apart from their bytes."""
    said: dict[str, object] = {}
    for key, body in public_view(world, times=False).items():
        if key.endswith((".json", ".json.zst")):
            said[key] = json.loads(decompress(body, what=key) if key.endswith(".zst") else body)
        else:
            said[key] = body
    return said


def check(world: World) -> None:
    """Compare with the index built from nothing, after deferred outputs were written."""
    world.catch_up()
    assert world.requeued == []
    check_readable(world.storage)
    check_encodings(world.storage)
    ours, theirs = say(world.storage), say(build_from_nothing(world.storage))
    assert sorted(ours) == sorted(theirs)
    for key in ours:
        assert ours[key] == theirs[key], key


def record(happening: str, *, patched: bool, defers: bool) -> list[tuple[str, str]]:
    """The moments of an undisturbed run."""
    moments: list[tuple[str, str]] = []
    world = World(limits=SMALL, storage=prepared(patched=patched, defers=defers).fork(), defers=defers)
    key = HAPPENINGS[happening](world)
    world.storage.fault = lambda kind, key, moment: moments.append((kind, moment))
    world.index(key)
    world.storage.fault = None
    check(world)
    return moments


def fail_at(number: int, error: BaseException) -> Callable[[str, str, str], None]:
    count = 0
    dead = False

    def fault(kind: str, key: str, moment: str) -> None:
        nonlocal count, dead
        count += 1
        if dead or count == number + 1:
            dead = isinstance(error, Killed)
            raise error

    return fault


@pytest.mark.parametrize("defers", [False, True], ids=["at once", "deferring"])
@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_index__large_documents_and_a_fault_at_a_write(happening: str, *, patched: bool, defers: bool) -> None:
    moments = record(happening, patched=patched, defers=defers)
    writes = [number for number, (kind, _) in enumerate(moments) if kind in WRITES]
    chooser = random.Random(happening)  # noqa: S311 - no secret
    for number in chooser.sample(writes, min(len(writes), 5 * TIMES)):
        for error in (Killed(), ConflictError("409"), UnavailableError("503")):
            world = World(limits=SMALL, storage=prepared(patched=patched, defers=defers).fork(), defers=defers)
            key = HAPPENINGS[happening](world)
            world.storage.fault = fail_at(number, error)
            with contextlib.suppress(Killed, FairwayError):
                world.index(key)
            world.storage.fault = None
            check_readable(world.storage, gone=[FIRST])
            world.index(key)
            check(world)


@pytest.mark.parametrize("defers", [False, True], ids=["at once", "deferring"])
@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
@pytest.mark.parametrize("first", HAPPENINGS)
def test_index__large_documents_and_another_writer(first: str, *, patched: bool, defers: bool) -> None:
    moments = record(first, patched=patched, defers=defers)
    chooser = random.Random(first)  # noqa: S311 - no secret
    for second, happen in HAPPENINGS.items():
        for at in chooser.sample(range(len(moments)), min(len(moments), 2 * TIMES)):
            world = World(limits=SMALL, storage=prepared(patched=patched, defers=defers).fork(), defers=defers)
            count = 0

            def interrupt(kind: str, key: str, moment: str, *, world: World = world, at: int = at) -> None:
                nonlocal count
                count += 1
                if count == at + 1:
                    fault, world.storage.fault = world.storage.fault, None
                    world.index(happen(world))  # noqa: B023 - called within this turn of the loop
                    world.storage.fault = fault

            key = HAPPENINGS[first](world)
            world.storage.fault = interrupt
            world.index(key)
            world.storage.fault = None
            try:
                check(world)
            except AssertionError as error:
                error.add_note(f"{second} at moment {at} of {first}")
                raise
