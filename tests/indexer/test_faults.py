"""Stops the indexer at each request in turn, and in pairs; then lets it run again.

Readers can read whatever was written when it stopped (invariant 1), and the next run ends in the same
state as an indexer that never stopped. ``FAIRWAY_FAULTS=N`` tries N times as many pairs.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lambdas.channel.errors import ConflictError, FairwayError, UnavailableError
from lambdas.indexer.model import Outputs, Policy
from lambdas.storage import parallel
from tests.builders import conda_package, tar_bz2_package
from tests.indexer.world import (
    LINUX,
    NOARCH,
    PATCHES,
    POLICY,
    URL,
    InlinePool,
    Reference,
    World,
    assert_same,
    assert_same_as_from_nothing,
    check_attestations,
    check_encodings,
    check_readable,
    package,
)
from tests.memory import MemoryStorage

FOO = f"{NOARCH}/foo-1.0-0.conda"
ATTESTATIONS = b'[{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}]'
SIGS = f"{FOO}.sigs"
MORE = ATTESTATIONS.replace(b"]", b', {"more": 1}]')
OTHERS = b'[{"other": 1}, {"other": 2}]'
TOO_MANY = json.dumps([{"many": number} for number in range(17)]).encode()
SIGS_COPY = f"{SIGS}.{hashlib.sha256(MORE).hexdigest()}"
PATCH = b'{"packages.conda": {"foo-1.0-0.conda": {"depends": ["b"]}}, "remove": ["bar-1.0-0.conda"]}'
OTHER_PATCH = b'{"packages.conda": {"bar-1.0-0.conda": {"license": "MIT"}}}'
PAIRS = int(os.environ.get("FAIRWAY_FAULTS", "1")) * 12  # of each scenario and kind
READS, WRITES = {"head", "get", "list"}, {"put", "copy", "delete", "splice"}


class Killed(BaseException):
    """The process dies: no code catches this."""


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", InlinePool)


@dataclass(kw_only=True)
class Scenario:
    """What is stored, what happens, and which keys are to be inspected because of it."""

    name: str
    happen: Callable[[World], list[str]]
    prepare: Callable[[World], None] = lambda world: None
    policy: Policy = POLICY
    times: bool = True
    """Whether ``created_at`` is as if the index were new: not where the newest artifact goes."""

    @functools.cached_property
    def prepared(self) -> MemoryStorage:
        world = World(policy=self.policy)
        self.prepare(world)
        return world.storage

    @functools.cached_property
    def reference(self) -> Reference:
        return Reference(self.policy)

    def make(self) -> World:
        return World(policy=self.policy, storage=self.prepared.fork())


def publish_some(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]), package(name="bar"))


def publish_attested(world: World) -> None:
    publish_some(world)
    world.storage.upload(SIGS, ATTESTATIONS)
    world.index(SIGS)


def publish_patched(world: World) -> None:
    publish_some(world)
    world.storage.upload(f"{NOARCH}/{PATCHES}", PATCH)
    world.index(f"{NOARCH}/{PATCHES}")


def upload(*uploads: tuple[str, bytes]) -> Callable[[World], list[str]]:
    def happen(world: World) -> list[str]:
        for key, body in uploads:
            world.storage.upload(key, body)
        return [key for key, _ in uploads]

    return happen


def remove(*keys: str) -> Callable[[World], list[str]]:
    def happen(world: World) -> list[str]:
        for key in keys:
            world.storage.remove(key)
        return list(keys)

    return happen


def several(*happenings: Callable[[World], list[str]]) -> Callable[[World], list[str]]:
    return lambda world: [key for happen in happenings for key in happen(world)]


MUTABLE = Policy(mutable_channels=("*",), outputs=Outputs(url=URL))
OPTIONAL = Policy(outputs=Outputs(current_repodata=True, bz2=True, url=URL))
LINUX_FOO = (f"{LINUX}/foo-1.0-0.conda", conda_package(subdir="linux-64")[1])
SECOND = (f"{NOARCH}/foo-2.0-0.conda", conda_package(version="2.0")[1])
SCENARIOS = [
    Scenario(name="first upload", happen=upload((FOO, conda_package()[1]))),
    Scenario(name="first upload elsewhere", happen=upload(LINUX_FOO)),
    Scenario(name="second build", prepare=publish_some, happen=upload(SECOND)),
    Scenario(
        name="batch",
        prepare=publish_some,
        happen=upload(SECOND, (f"{NOARCH}/bar-1.0-0.tar.bz2", tar_bz2_package(name="bar")[1]), LINUX_FOO),
    ),
    Scenario(name="removal", prepare=publish_some, happen=remove(FOO)),
    Scenario(name="same bytes", prepare=publish_some, happen=upload((FOO, conda_package(depends=["a"])[1]))),
    Scenario(name="rejected overwrite", prepare=publish_some, happen=upload((FOO, conda_package(depends=["x"])[1]))),
    Scenario(name="rejected archive", happen=upload((FOO, b"no archive"), SECOND)),
    Scenario(name="mutable overwrite", prepare=publish_some, happen=upload((FOO, conda_package()[1])), policy=MUTABLE),
    Scenario(name="attestations", prepare=publish_some, happen=upload((f"{FOO}.sigs", ATTESTATIONS))),
    Scenario(name="upload with attestations", happen=upload((f"{FOO}.sigs", ATTESTATIONS), (FOO, conda_package()[1]))),
    Scenario(name="appended attestations", prepare=publish_attested, happen=upload((SIGS, MORE))),
    Scenario(
        name="concurrent attestations",
        prepare=publish_attested,
        happen=upload((SIGS, OTHERS), (SIGS, MORE), (SIGS, OTHERS)),
    ),
    Scenario(name="truncated attestations", prepare=publish_attested, happen=upload((SIGS, OTHERS), (SIGS, b"[]"))),
    Scenario(name="too many attestations", prepare=publish_attested, happen=upload((SIGS, TOO_MANY), (SIGS, OTHERS))),
    Scenario(
        name="deleted attestations", prepare=publish_attested, happen=several(upload((SIGS, OTHERS)), remove(SIGS))
    ),
    Scenario(
        name="wrong copy of attestations", prepare=publish_attested, happen=upload((SIGS_COPY, b"[]"), (SIGS, MORE))
    ),
    Scenario(name="invalid attestations", prepare=publish_some, happen=upload((f"{FOO}.sigs", b"{}"))),
    Scenario(name="patches", prepare=publish_some, happen=upload((f"{NOARCH}/{PATCHES}", PATCH))),
    Scenario(name="other patches", prepare=publish_patched, happen=upload((f"{NOARCH}/{PATCHES}", OTHER_PATCH))),
    Scenario(name="bad patches", prepare=publish_patched, happen=upload((f"{NOARCH}/{PATCHES}", b"{"))),
    Scenario(name="patches end", prepare=publish_patched, happen=remove(f"{NOARCH}/{PATCHES}")),
    Scenario(
        name="patched upload and removal",
        prepare=publish_patched,
        happen=several(upload(SECOND), remove(f"{NOARCH}/bar-1.0-0.conda")),
    ),
    Scenario(name="optional outputs", prepare=publish_some, happen=upload(SECOND), policy=OPTIONAL),
]
scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))


@dataclass(kw_only=True)
class Faults:
    """Raises at numbered moments; each request has two, before and after."""

    plan: dict[int, BaseException]
    storage: MemoryStorage
    check: Callable[[], None] = lambda: None
    moments: list[tuple[str, str, str]] = field(default_factory=list)
    dead: bool = False

    def __call__(self, kind: str, key: str, moment: str) -> None:
        if self.dead:
            raise Killed
        number = len(self.moments)
        self.moments.append((kind, key, moment))
        error = self.plan.get(number)
        if error is not None:
            self.dead = isinstance(error, Killed)
            self.check()
            raise error


def run(scenario: Scenario, plan: dict[int, BaseException]) -> list[tuple[str, str, str]]:
    """Let the scenario happen under faults, then without; check what readers see at each stop and at the end."""
    world = scenario.make()
    before = world.storage.snapshot()
    keys = scenario.happen(world)
    now = world.storage.snapshot()
    gone = before.keys() - now.keys()
    replaced = {key for key in now if now[key] != before.get(key) or key in keys}

    def check() -> None:
        fault, world.storage.fault = world.storage.fault, None
        check_readable(world.storage, gone=gone, replaced=replaced)
        world.storage.fault = fault

    faults = Faults(plan=plan, storage=world.storage, check=check)
    world.storage.fault = faults
    with contextlib.suppress(Killed, FairwayError):
        world.index(*keys)
    world.storage.fault = None
    check_readable(world.storage, gone=gone, replaced=replaced)
    for report in world.index(*keys):  # the messages are redelivered
        assert not report.failures
    check_readable(world.storage)
    check_encodings(world.storage)
    check_attestations(world.storage)
    assert_same(world.storage, scenario.reference.build(world.storage), times=scenario.times)
    before_again = world.storage.snapshot(private=True)
    world.index(*keys)
    assert world.storage.snapshot(private=True) == before_again
    return faults.moments


def count_moments(scenario: Scenario) -> list[tuple[str, str, str]]:
    moments = run(scenario, {})
    assert moments
    return moments


@scenarios
def test_index__killed_at_each_request(scenario: Scenario) -> None:
    for number in range(len(count_moments(scenario))):
        run(scenario, {number: Killed()})


@scenarios
@pytest.mark.parametrize("error", [ConflictError("409"), UnavailableError("503")], ids=["conflict", "unavailable"])
def test_index__each_write_fails(scenario: Scenario, error: FairwayError) -> None:
    """Before: the write did not happen. After: it did, but the response was lost or wrong."""
    for number, (kind, _, _) in enumerate(count_moments(scenario)):
        if kind in WRITES:
            run(scenario, {number: error})


@scenarios
def test_index__each_read_fails(scenario: Scenario) -> None:
    for number, (kind, _, moment) in enumerate(count_moments(scenario)):
        if kind in READS and moment == "before":
            run(scenario, {number: UnavailableError("503")})


@scenarios
def test_index__pairs_of_faults(scenario: Scenario) -> None:
    moments = count_moments(scenario)
    pairs = list(itertools.combinations(range(len(moments) + 20), 2))
    chosen = random.Random(scenario.name).sample(pairs, min(len(pairs), PAIRS))  # noqa: S311 - no secret
    kinds = itertools.cycle(
        itertools.product((ConflictError("409"), UnavailableError("503")), (Killed(), ConflictError("412")))
    )
    for (first, second), (one, other) in zip(chosen, kinds, strict=False):
        run(scenario, {first: one, second: other})


@scenarios
def test_index__killed_again_and_again(scenario: Scenario) -> None:
    """Each run gets a few requests further than the one before, and starts from the state that it left."""
    for step in (1, 3, 7, 8):
        world = scenario.make()
        keys = scenario.happen(world)
        for attempt in range(200):
            faults = Faults(plan={attempt * step: Killed()}, storage=world.storage)
            world.storage.fault = faults
            try:
                world.index(*keys)
            except Killed:
                continue
            break
        else:
            pytest.fail("never finished")
        world.storage.fault = None
        check_encodings(world.storage)
        check_attestations(world.storage)
        assert_same(world.storage, scenario.reference.build(world.storage), times=scenario.times)


@pytest.mark.parametrize("error", [ConflictError("409"), UnavailableError("503")])
def test_index__permanent_fault(error: FairwayError) -> None:
    """It fails in bounded time, with an error."""
    world = World()
    key = world.upload(NOARCH, package())
    calls = 0

    def fault(kind: str, key: str, moment: str) -> None:
        nonlocal calls
        calls += 1
        if (kind, moment) == ("put", "before") and key.endswith("repodata_shards.msgpack.zst"):
            raise error

    world.storage.fault = fault
    with pytest.raises(type(error)):
        world.index(key)
    assert calls < 3000
    assert world.storage.snapshot().keys() & {f"{NOARCH}/repodata_shards.msgpack.zst"} == set()


class FailingNotifier:
    """Neither the bus nor the CDN answers."""

    def publish_rejection(self, rejection: object) -> None:
        raise UnavailableError("no bus")

    def invalidate(self, keys: object) -> None:
        raise UnavailableError("no caches")


def test_index__notifications_fail() -> None:
    """Failed notifications are repeated later; the other artifacts are indexed."""
    world = World(policy=MUTABLE)
    publish_some(world)
    told = world.notifier
    world.notifier = FailingNotifier()  # type: ignore[assignment]  # it has the same methods
    bad = f"{NOARCH}/bad-1.0-0.conda"
    changed = (FOO, conda_package()[1])
    keys = upload((bad, b"bad"), changed, SECOND)(world) + remove(f"{NOARCH}/bar-1.0-0.conda")(world)
    (report,) = world.index(*keys)
    assert set(report.failures) == {bad, FOO, f"{NOARCH}/bar-1.0-0.conda"}
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "foo-2.0-0.conda", "bar-1.0-0.conda"}
    world.notifier = told
    (report,) = world.index(*keys)
    assert not report.failures
    assert set(told.dropped) == {bad, FOO, f"{NOARCH}/bar-1.0-0.conda"}
    assert {rejection.key for rejection in told.rejections} == {bad}
    assert_same_as_from_nothing(world.storage, MUTABLE)
