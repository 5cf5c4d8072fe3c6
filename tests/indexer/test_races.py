"""Concurrent indexers: for any order of their requests, the resulting index is the same.

``FAIRWAY_RACES=N`` tries N times as many orders.
"""

import functools
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lambdas.channel.errors import TransientError
from lambdas.indexer.model import Outputs, Policy
from lambdas.storage import parallel
from tests.builders import conda_package
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
    index_own_writes,
    package,
    pause,
    sources,
    subdirs,
)
from tests.memory import MemoryStorage

TIMES = int(os.environ.get("FAIRWAY_RACES", "1"))
MOMENTS = 2 * TIMES  # of each pair
FOO = f"{NOARCH}/foo-1.0-0.conda"
ATTESTATIONS = b'[{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}]'
OTHERS = b'[{"other": 1}, {"other": 2}]'
PATCH = b'{"packages.conda": {"foo-1.0-0.conda": {"depends": ["b"]}}, "remove": ["bar-1.0-0.conda"]}'
MUTABLE = Policy(mutable_channels=("*",), outputs=Outputs(url=URL))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", InlinePool)


# One does all its work between two requests of another


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a publisher does, and an indexer handles."""

    name: str
    run: Callable[[World], None]


def put(key: str, body: bytes) -> Callable[[World], None]:
    def run(world: World) -> None:
        world.storage.upload(key, body)
        world.index(key)

    return run


def remove(key: str) -> Callable[[World], None]:
    def run(world: World) -> None:
        world.storage.remove(key)
        world.index(key)

    return run


def in_turn(*runs: Callable[[World], None]) -> Callable[[World], None]:
    def run(world: World) -> None:
        for one in runs:
            one(world)

    return run


SIGS, PATCHED = f"{FOO}.sigs", f"{NOARCH}/{PATCHES}"
BAZ, LINUX_FOO = f"{NOARCH}/baz-1.0-0.conda", f"{LINUX}/foo-1.0-0.conda"
ACTIONS = [
    Action(name="upload", run=put(BAZ, conda_package(name="baz")[1])),
    Action(name="version", run=put(f"{NOARCH}/foo-2.0-0.conda", conda_package(version="2.0")[1])),
    Action(name="elsewhere", run=put(LINUX_FOO, conda_package(subdir="linux-64")[1])),
    Action(name="overwrite", run=put(FOO, conda_package(depends=["x"])[1])),
    Action(name="same", run=put(FOO, conda_package()[1])),
    Action(name="bad", run=put(FOO, b"no archive")),
    Action(name="remove", run=remove(FOO)),
    Action(name="sign", run=put(SIGS, ATTESTATIONS)),
    Action(name="sign-otherwise", run=in_turn(put(SIGS, OTHERS), put(SIGS, ATTESTATIONS), put(SIGS, OTHERS))),
    Action(name="sign-nothing", run=in_turn(put(SIGS, b"[]"), put(SIGS, ATTESTATIONS))),
    Action(name="unsign", run=in_turn(put(SIGS, ATTESTATIONS), remove(SIGS))),
    Action(name="patch", run=put(PATCHED, PATCH)),
    Action(name="patch-and-back", run=in_turn(put(PATCHED, PATCH), remove(PATCHED))),
    Action(name="unpatch", run=remove(PATCHED)),
    Action(name="upload-and-back", run=in_turn(put(BAZ, conda_package(name="baz")[1]), remove(BAZ))),
    Action(name="remove-and-back", run=in_turn(remove(FOO), put(FOO, conda_package()[1]))),
]


def prepare(world: World) -> None:
    world.publish(NOARCH, package(), package(name="bar"))
    world.publish(LINUX, package(name="bar", path=LINUX))


def prepare_patched(world: World) -> None:
    prepare(world)
    put(PATCHED, PATCH)(world)


@dataclass(kw_only=True)
class Interruption:
    """At one moment of a run, lets another one run completely."""

    at: int
    world: World
    action: Action
    moments: int = 0
    done: bool = False

    def __call__(self, kind: str, key: str, moment: str) -> None:
        number, self.moments = self.moments, self.moments + 1
        if number == self.at:
            self.world.storage.fault = None
            self.action.run(self.world)
            self.world.storage.fault = self
            self.done = True


@functools.cache
def prepared(policy: Policy, *, patched: bool) -> MemoryStorage:
    world = World(policy=policy)
    (prepare_patched if patched else prepare)(world)
    return world.storage


@functools.cache
def reference(policy: Policy) -> Reference:
    return Reference(policy)


def run_interrupted(first: Action, second: Action, at: int, *, policy: Policy, patched: bool) -> bool:
    """Return whether there was such a moment."""
    world = World(policy=policy, storage=prepared(policy, patched=patched).fork())
    interruption = Interruption(at=at, world=world, action=second)
    world.storage.fault = interruption
    first.run(world)
    world.storage.fault = None
    index_own_writes(world)
    check_readable(world.storage)
    check_encodings(world.storage)
    check_attestations(world.storage)
    assert_same(world.storage, reference(policy).build(world.storage), times=False)
    return interruption.done


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
@pytest.mark.parametrize("policy", [POLICY, MUTABLE], ids=["immutable", "mutable"])
@pytest.mark.parametrize("first", ACTIONS, ids=lambda action: action.name)
def test_index__another_run_in_between(first: Action, policy: Policy, *, patched: bool) -> None:
    moments = Interruption(at=-1, world=World(), action=first)
    world = World(policy=policy, storage=prepared(policy, patched=patched).fork())
    world.storage.fault = moments
    first.run(world)
    chooser = random.Random(first.name)  # noqa: S311 - no secret
    for second in ACTIONS:
        for at in sorted(chooser.sample(range(moments.moments), min(MOMENTS, moments.moments))):
            try:
                assert run_interrupted(first, second, at, policy=policy, patched=patched)
            except AssertionError as error:
                error.add_note(f"{second.name} at moment {at} of {first.name}")
                raise


# Three requests deep: an interruption that is interrupted


@pytest.mark.usefixtures("inline")
def test_index__interrupted_run_in_between() -> None:
    chooser = random.Random(1)  # noqa: S311 - no secret
    for _ in range(60 * TIMES):
        first, second, third = chooser.choices(ACTIONS, k=3)
        policy, patched = chooser.choice([POLICY, MUTABLE]), chooser.random() < 0.5
        outer, inner = chooser.randrange(80), chooser.randrange(80)
        world = World(policy=policy, storage=prepared(policy, patched=patched).fork())

        def run_second(world: World, *, second: Action = second, third: Action = third, inner: int = inner) -> None:
            world.storage.fault = Interruption(at=inner, world=world, action=third)
            second.run(world)
            world.storage.fault = None

        world.storage.fault = Interruption(at=outer, world=world, action=Action(name="both", run=run_second))
        first.run(world)
        world.storage.fault = None
        index_own_writes(world)
        check_readable(world.storage)
        try:
            assert_same(world.storage, reference(policy).build(world.storage), times=False)
        except AssertionError as error:
            error.add_note(f"{third.name} at {inner} of {second.name} at {outer} of {first.name}, patched: {patched}")
            raise


# Any order of requests, any order of events


class Killed(BaseException):
    """The process dies: no code catches this."""


@dataclass(kw_only=True, eq=False)
class Process:
    """An indexer at work on a batch, one request at a time."""

    world: World
    keys: list[str]
    permit: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    killed: bool = False
    is_done: bool = False
    is_at_write: bool = False
    left: list[str] = field(default_factory=list)
    """The keys whose messages are redelivered."""
    error: BaseException | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def step(self) -> None:
        """Let it continue to its next request, or to its end."""
        if not self.is_done:
            self.permit.release()
            self.arrived.acquire()

    def step_to_write(self) -> None:
        """Let it continue until just before a write, or to its end."""
        self.step()
        while not self.is_done and not self.is_at_write:
            self.step()

    def kill(self) -> None:
        self.killed = True
        self.finish()

    def finish(self) -> None:
        while not self.is_done:
            self.step()
        self.thread.join()
        if self.error is not None:
            raise self.error

    def wait_for_permit(self, kind: str, moment: str) -> None:
        """Called in the process's own thread, before and after each request."""
        self.is_at_write = kind in {"put", "copy", "delete"} and moment == "before"
        self.arrived.release()
        self.permit.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self.permit.acquire()
        try:
            failed = {key for report in self.world.index(*self.keys) for key in report.failures}
            self.left = [key for key in self.keys if key.removesuffix(".sigs") in failed or key in failed]
        except (Killed, TransientError):
            self.left = self.keys
        except BaseException as error:  # noqa: BLE001 - the test is to see it
            self.error = error
        self.is_done = True
        self.arrived.release()


class Conductor:
    """Forwards each request's moments to the process of its thread."""

    def __init__(self) -> None:
        self.processes: dict[int | None, Process] = {}

    def __call__(self, kind: str, key: str, moment: str) -> None:
        process = self.processes.get(threading.get_ident())
        if process is not None:
            process.wait_for_permit(kind, moment)


PATHS = (NOARCH, LINUX)
BODIES = {
    f"{path}/{name}-{version}-0.conda": [
        conda_package(name=name, version=version, subdir=path.name)[1],
        conda_package(name=name, version=version, subdir=path.name, depends=["other"])[1],
        b"no archive",
    ]
    for path in PATHS
    for name, version in (("foo", "1.0"), ("foo", "2.0"), ("bar", "1.0"))
}
BODIES |= {f"{NOARCH}/foo-1.0-0.conda.sigs": [ATTESTATIONS, OTHERS, b"[]", b"{}"]}
BODIES |= {
    f"{NOARCH}/{PATCHES}": [
        PATCH,
        json.dumps({"packages.conda": {"foo-2.0-0.conda": {"license": "MIT"}}}).encode(),
        json.dumps({"remove": ["foo-1.0-0.conda"], "patch_instructions_version": 2}).encode(),
        b"{",
    ]
}
KEYS = sorted(BODIES)


class Bucket(RuleBasedStateMachine):
    """Publishers, a queue that repeats, reorders and loses messages, and indexers that take turns and crash."""

    policy = POLICY

    def __init__(self) -> None:
        super().__init__()
        self.world = World(policy=self.policy)
        self.conductor = Conductor()
        self.world.storage.fault = self.conductor
        self.pending: list[str] = []
        self.lost: list[str] = []
        self.running: list[Process] = []
        self.disturbed: set[str] = set()

    @initialize(keys=st.lists(st.sampled_from([key for key in KEYS if key.endswith(".conda")]), unique=True))
    def start_with(self, keys: list[str]) -> None:
        for key in keys:
            self.world.storage.upload(key, BODIES[key][0], last_modified_ms=time_of(key, 0))
        self.world.index(*keys)

    @rule(key=st.sampled_from(KEYS), which=st.sampled_from([0, 0, 0, 1, 1, 2, 3]))
    def upload(self, key: str, which: int) -> None:
        which = which % len(BODIES[key])
        if self.world.storage.head(key) is not None:
            self.disturbed.add(key)
        self.world.storage.upload(key, BODIES[key][which], last_modified_ms=time_of(key, which))
        self.pending.append(key)

    @rule(key=st.sampled_from(KEYS))
    def remove(self, key: str) -> None:
        self.disturbed.add(key)
        self.world.storage.remove(key)
        self.pending.append(key)

    @precondition(lambda self: len(self.running) < 4)
    @rule(key=st.sampled_from(KEYS), which=st.sampled_from([0, 0, 0, 1, 2, 3]), writes=st.integers(0, 4))
    def upload_and_start(self, key: str, which: int, writes: int) -> None:
        self.upload(key, which)
        self.start([self.pending.pop()], writes)

    @precondition(lambda self: len(self.running) < 4)
    @rule(key=st.sampled_from(KEYS), writes=st.integers(0, 4))
    def remove_and_start(self, key: str, writes: int) -> None:
        self.remove(key)
        self.start([self.pending.pop()], writes)

    @precondition(lambda self: self.pending and len(self.running) < 4)
    @rule(data=st.data(), writes=st.integers(0, 4))
    def deliver(self, data: st.DataObject, writes: int) -> None:
        """Pass some messages, in any order, to a new indexer."""
        keys = data.draw(st.lists(st.sampled_from(self.pending), min_size=1, max_size=4, unique=True))
        for key in keys:
            self.pending.remove(key)
        self.start(keys, writes)

    def start(self, keys: list[str], writes: int) -> None:
        """Start an indexer, which stops before one of its first writes: the swap is among them."""
        process = Process(world=self.world, keys=keys)
        process.start()
        self.conductor.processes[process.thread.ident] = process
        self.running.append(process)
        for _ in range(writes):
            process.step_to_write()
        self.reap()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.pending.append(data.draw(st.sampled_from(self.pending)))

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A message that never arrives; reconciliation finds its key later."""
        key = data.draw(st.sampled_from(self.pending))
        self.pending.remove(key)
        self.lost.append(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), requests=st.sampled_from([1, 2, 3, 5, 8, 13, 21, 34, 55]))
    def go_on(self, data: st.DataObject, requests: int) -> None:
        process = data.draw(st.sampled_from(self.running))
        for _ in range(requests):
            process.step()
        self.reap()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), writes=st.integers(1, 8))
    def write(self, data: st.DataObject, writes: int) -> None:
        process = data.draw(st.sampled_from(self.running))
        for _ in range(writes):
            process.step_to_write()
        self.reap()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running)).finish()
        self.reap()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running)).kill()
        self.reap()

    def reap(self) -> None:
        for process in [one for one in self.running if one.is_done]:
            process.finish()
            self.pending += process.left
            self.running.remove(process)

    @invariant()
    def readers_can_read(self) -> None:
        self.world.storage.fault = None
        check_readable(self.world.storage, gone=self.disturbed, replaced=self.disturbed)
        self.world.storage.fault = self.conductor

    def teardown(self) -> None:
        turn = 0
        while self.running:
            self.running[turn % len(self.running)].step()
            turn += 1
            self.reap()
        for _ in range(5):
            keys, self.pending = [*self.pending, *self.lost], []
            self.lost = []
            for path in PATHS:
                mine = [key for key in keys if key.startswith(f"{path}/")]
                self.pending += [key for report in self.world.index(*mine) for key in report.failures]
        assert not self.pending
        self.world.storage.fault = None
        index_own_writes(self.world)
        check_readable(self.world.storage)
        check_encodings(self.world.storage)
        check_attestations(self.world.storage)
        assert_same(self.world.storage, reference_of_seen(self.world, self.policy), times=False)


def time_of(key: str, which: int) -> int:
    """When these bytes were uploaded: the same time for each upload of them."""
    return 1_790_000_000_000 + 1000 * (10 * KEYS.index(key) + which)


def reference_of_seen(world: World, policy: Policy) -> MemoryStorage:
    """The index built from nothing, with those subdirs that this bucket has, empty or not."""
    built = reference(policy).build(world.storage)
    if subdirs(world.storage) == subdirs(built):
        return built
    seen = World(policy=policy)
    for path in subdirs(world.storage):
        seen.publish(path, package(name="once", path=path))
        seen.storage.remove(f"{path}/once-1.0-0.conda")
        seen.index(f"{path}/once-1.0-0.conda")
    for key in sources(world.storage):
        info = world.storage.head(key)
        assert info is not None
        seen.storage.upload(key, world.storage.body(key), last_modified_ms=info.last_modified_ms)
    seen.index(*sources(world.storage))
    return seen.storage


class MutableBucket(Bucket):
    """The same, in mutable channels."""

    policy = MUTABLE


BUCKET_SETTINGS = settings(
    max_examples=30 * TIMES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestBucket = Bucket.TestCase
TestBucket.settings = BUCKET_SETTINGS
TestBucket = pytest.mark.usefixtures("inline_all")(TestBucket)
TestMutableBucket = MutableBucket.TestCase
TestMutableBucket.settings = BUCKET_SETTINGS
TestMutableBucket = pytest.mark.usefixtures("inline_all")(TestMutableBucket)


@pytest.fixture(scope="class")
def inline_all() -> Iterator[None]:
    """Each process has one thread, so its requests are sequential."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "ThreadPoolExecutor", InlinePool)
        yield


# Real threads


def test_index__twenty_publishers_at_once() -> None:
    world = World(sleep=pause)
    packages = {
        number: [package(name=f"p{number % 7}", version=f"{number}.{one}") for one in range(25)] for number in range(20)
    }

    def publish(number: int) -> int:
        conflicts = 0
        for start in range(0, 25, 5):
            keys = [world.upload(NOARCH, one) for one in packages[number][start : start + 5]]
            (report,) = world.index(*keys)
            assert not report.failures
            assert {outcome.status for outcome in report.outcomes} == {"indexed"}
            conflicts += report.conflicts
        return conflicts

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(publish, packages))
    assert len(world.listed(NOARCH)) == 500
    assert world.notifier.rejections == []
    check_readable(world.storage)
    check_encodings(world.storage)
    assert_same_as_from_nothing(world.storage)


def test_index__all_publishers_change_all_artifacts() -> None:
    """Several indexers handle the same keys in several subdirs, while artifacts are uploaded and removed."""
    world = World(sleep=pause)
    keys = [key for key in KEYS if key.endswith(".conda")]

    def work(number: int) -> None:
        chooser = random.Random(number)  # noqa: S311 - no secret
        for _ in range(6):
            key = chooser.choice(keys)
            if chooser.random() < 0.3:
                world.storage.remove(key)
            else:
                world.storage.upload(key, BODIES[key][0], last_modified_ms=time_of(key, 0))
            for report in world.index(key, chooser.choice(keys)):
                assert not report.failures

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    world.index(*keys)
    check_readable(world.storage)
    assert_same(world.storage, reference_of_seen(world, POLICY), times=False)
