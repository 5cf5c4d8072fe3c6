"""The queue's handler: exactly the messages whose keys failed are redelivered."""

import functools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus

import pytest

from lambdas.channel.errors import FairwayError, LimitExceededError, UnavailableError
from lambdas.channel.names import SubdirName
from lambdas.indexer import handler, telemetry
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from lambdas.indexer.change import inspect
from lambdas.indexer.model import Mode
from lambdas.indexer.outputs.registry import channel_filenames, subdir_filenames
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.queue.messages import format_requeued
from lambdas.indexer.queue.signals import ForeignIndex
from lambdas.indexer.queue.turns import FIRST_TURN
from lambdas.indexer.settings import Settings
from lambdas.indexer.upkeep import reconcile as reconcile_module
from tests.builders import conda_package, tar_bz2_package
from tests.indexer.world import LINUX, NOARCH, POLICY, SMALL, World, assert_same_as_from_nothing, package

BUCKET = "fairway-test"
FOO = f"{NOARCH}/foo-1.0-0.conda"


@dataclass(kw_only=True)
class Context:
    """The context that Lambda passes to a handler."""

    function_name: str = "indexer"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:indexer"
    aws_request_id: str = "request"
    remaining_ms: int = 900_000

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


@dataclass(kw_only=True)
class Queue:
    """Passes messages to the handler, and returns those to be redelivered."""

    world: World
    bodies: dict[str, str] = field(default_factory=dict)
    receives: Counter[str] = field(default_factory=Counter)
    waited_ms: int = 0
    """How long each message was in the queue."""

    def send(
        self, *keys: str, identity: str | None = None, body: str | None = None, principal: str | None = None
    ) -> str:
        identity = identity or f"message-{len(self.bodies)}"
        records = [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": BUCKET}, "object": {"key": quote_plus(key)}},
                **({} if principal is None else {"userIdentity": {"principalId": principal}}),
            }
            for key in keys
        ]
        self.bodies[identity] = json.dumps({"Records": records}) if body is None else body
        return identity

    def deliver(self, *, remaining_ms: int = 900_000) -> set[str]:
        self.receives.update(list(self.bodies))
        event = {
            "Records": [
                {
                    "messageId": identity,
                    "receiptHandle": "handle",
                    "body": body,
                    "attributes": {
                        "ApproximateReceiveCount": str(self.receives[identity]),
                        # One after another, in the order in which they were sent.
                        "SentTimestamp": str(time.time_ns() // 10**6 - self.waited_ms + number),
                    },
                    "messageAttributes": {},
                    "md5OfBody": "",
                    "eventSource": "aws:sqs",
                    "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:queue",
                    "awsRegion": "us-east-1",
                }
                for number, (identity, body) in enumerate(self.bodies.items())
            ]
        }
        answer: Any = handler.handle_queue(event, Context(remaining_ms=remaining_ms))
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        self.bodies = {identity: body for identity, body in self.bodies.items() if identity in failed}
        return failed


@dataclass(kw_only=True)
class RecordingRequeuer:
    """Records what is requeued."""

    fails: bool = False
    requeued: list[tuple[Sequence[str], Mode]] = field(default_factory=list)
    delayed: list[tuple[Sequence[str], int]] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    turns: list[tuple[Sequence[str], str]] = field(default_factory=list)

    def requeue_turn(self, keys: Sequence[str], publisher: str) -> None:
        if self.fails:
            raise UnavailableError("SQS did not accept the message")
        self.turns.append((keys, publisher))

    def requeue_after(self, keys: Sequence[str], delay_seconds: int) -> None:
        self.delayed.append((keys, delay_seconds))

    def requeue_later(self, key: str) -> None:
        self.later.append(key)

    def requeue_keys(self, keys: Sequence[str], mode: Mode) -> None:
        if self.fails:
            raise UnavailableError("SQS did not accept the message")
        self.requeued.append((keys, mode))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    settings = Settings(
        bucket=BUCKET,
        policy=POLICY,
        event_bus=None,
        distribution_id=None,
        shard_grace_days=14,
        role_id="AROAINDEXER",
        max_receives=3,
    )
    monkeypatch.setattr(handler, "settings", lambda: settings)
    monkeypatch.setattr(handler, "storage", lambda: world.storage)
    monkeypatch.setattr(handler, "indexer", world.indexer)
    monkeypatch.setattr(handler, "requeuer", lambda: None)
    monkeypatch.setattr(handler, "dead_letters", lambda: None)
    monkeypatch.setattr(handler, "operator_events", lambda: None)
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Fairway")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "fairway-indexer")
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "1")
    telemetry.metrics.namespace = "Fairway"
    telemetry.metrics.service = "fairway-indexer"
    return world


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(world=world)


def read_metrics(text: str) -> dict[str, float]:
    """Return the metrics that were written to standard output (embedded metric format)."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if '"_aws"' in line:
            document = json.loads(line)
            for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                value = document[metric["Name"]]
                found[metric["Name"]] = sum(value) if isinstance(value, list) else value
    return found


def test_handle_queue__good_batch(world: World, queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    for path, one in ((NOARCH, package()), (NOARCH, package(name="bar")), (LINUX, package(path=LINUX))):
        queue.send(world.upload(path, one))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda"}
    assert world.listed(LINUX) == {"foo-1.0-0.conda"}
    metrics = read_metrics(capsys.readouterr().out)
    assert metrics["IndexedArtifacts"] == 3
    assert metrics["RejectedUploads"] == 0


def test_handle_queue__counts_the_time_from_upload_to_visibility(
    world: World, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    for age, one in ((30, package()), (90, package(name="bar"))):
        object_ = {"bucket": {"name": BUCKET}, "object": {"key": world.upload(NOARCH, one)}}
        time = (now - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
        queue.send(body=json.dumps({"Records": [{"eventTime": time, "s3": object_}]}))
    assert queue.deliver() == set()
    assert 90 <= read_metrics(capsys.readouterr().out)["VisibilitySeconds"] < 3600


def test_handle_queue__failed_upload_is_not_visible(
    world: World, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.upload(NOARCH, package())
    object_ = {"bucket": {"name": BUCKET}, "object": {"key": key}}
    queue.send(body=json.dumps({"Records": [{"eventTime": "2026-01-01T00:00:00.000Z", "s3": object_}]}))
    queue.deliver(remaining_ms=0)  # no time for reading
    assert "VisibilitySeconds" not in read_metrics(capsys.readouterr().out)


def test_handle_queue__each_subdir_is_swapped_once(world: World, queue: Queue) -> None:
    for number in range(8):
        queue.send(world.upload(NOARCH, package(name=f"p{number}")))
    queue.deliver()
    index = f"{NOARCH}/repodata_shards.msgpack.zst"
    assert world.storage.log.count(("put", index)) == 1


def test_handle_queue__keys_are_decoded(world: World, queue: Queue) -> None:
    queue.send(world.upload(NOARCH, conda_package(version="1!2.0+local")))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1!2.0+local-0.conda"}


def test_handle_queue__bad_artifact_is_counted_and_its_message_is_done(
    world: World, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.send(world.upload(NOARCH, ("foo-1.0-0.conda", b"bad")), world.upload(NOARCH, package(name="bar")))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    assert read_metrics(capsys.readouterr().out)["RejectedUploads"] == 1


def test_handle_queue__test_event(queue: Queue) -> None:
    queue.send(body=json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}))
    assert queue.deliver() == set()


@pytest.mark.parametrize("body", ["", "poison", "{}", "[]", '{"Records": [{"s3": 1}]}', "[" * 100_000])
def test_handle_queue__unreadable_message(world: World, queue: Queue, body: str) -> None:
    poison = queue.send(body=body)
    queue.send(world.upload(NOARCH, package()))
    assert queue.deliver() == {poison}
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert queue.deliver() == {poison}


def test_handle_queue__only_unreadable_messages(queue: Queue) -> None:
    sent = {queue.send(body="poison"), queue.send(body="poison too")}
    assert queue.deliver() == sent


def test_handle_queue__another_bucket(world: World, queue: Queue) -> None:
    foreign = queue.send(body=json.dumps({"Records": [{"s3": {"bucket": {"name": "x"}, "object": {"key": FOO}}}]}))
    assert queue.deliver() == {foreign}
    assert world.storage.log == []


def test_handle_queue__upload_to_an_invalid_key(world: World, queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("foo-1.0-0.conda", "team/deep/er/foo-1.0-0.conda", "TEAM/noarch/foo-1.0-0.conda"):
        world.storage.upload(key, b"anything")
        queue.send(key)
    assert queue.deliver() == set()
    assert {rejection.code for rejection in list_rejections(world.storage)} == {"invalid-key"}
    assert [key for key in world.storage.list_keys() if not key.startswith(".fairway/")] == []
    assert read_metrics(capsys.readouterr().out)["RejectedUploads"] == 3


def test_handle_queue__deletion_of_an_invalid_key(world: World, queue: Queue) -> None:
    queue.send("foo-1.0-0.conda")
    assert queue.deliver() == set()
    assert world.storage.list_keys() == []


def fail_for(part: str, *, kind: str = "", error: BaseException | None = None) -> Any:  # noqa: ANN401 - a fault
    def fault(this_kind: str, key: str, moment: str) -> None:
        if moment == "before" and part in key and kind in {"", this_kind}:
            raise error or UnavailableError("503")

    return fault


def test_handle_queue__one_artifact_is_unreadable(world: World, queue: Queue) -> None:
    stuck = queue.send(world.upload(NOARCH, package()))
    both = queue.send(FOO, world.upload(NOARCH, package(name="baz")))
    queue.send(world.upload(NOARCH, package(name="bar")))
    world.storage.fault = fail_for("foo-1.0-0.conda")
    assert queue.deliver() == {stuck, both}
    assert world.listed(NOARCH) == {"bar-1.0-0.conda", "baz-1.0-0.conda"}
    world.storage.fault = None
    assert queue.deliver() == set()
    assert_same_as_from_nothing(world.storage)


def test_handle_queue__attestations_of_an_unreadable_artifact(world: World, queue: Queue) -> None:
    world.upload(NOARCH, package())
    world.storage.upload(f"{FOO}.sigs", b'[{"bundle": 1}]')
    stuck = queue.send(f"{FOO}.sigs")
    world.storage.fault = fail_for("foo-1.0-0.conda")
    assert queue.deliver() == {stuck}
    world.storage.fault = None
    assert queue.deliver() == set()
    assert "attestations_sha256" in world.record(NOARCH, "foo-1.0-0.conda")


@pytest.mark.parametrize("error", [UnavailableError("503"), ZeroDivisionError("a bug"), MemoryError()])
def test_handle_queue__one_subdir_fails(world: World, queue: Queue, error: BaseException) -> None:
    stuck = {queue.send(world.upload(LINUX, package(path=LINUX))), queue.send(f"{LINUX}/patch_instructions.json")}
    queue.send(world.upload(NOARCH, package()))
    world.storage.fault = fail_for("linux-64/repodata_shards", kind="put", error=error)
    assert queue.deliver() == stuck
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    world.storage.fault = None
    assert queue.deliver() == set()
    assert world.listed(LINUX) == {"foo-1.0-0.conda"}


def test_handle_queue__one_subdir_is_damaged(world: World, queue: Queue) -> None:
    """It is healed in the same batch."""
    world.publish(LINUX, package(path=LINUX))
    world.storage.upload(f"{LINUX}/repodata_shards.msgpack.zst", b"damaged")
    queue.send(world.upload(NOARCH, package()), world.upload(LINUX, package(version="2.0", path=LINUX)))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert world.listed(LINUX) == {"foo-1.0-0.conda", "foo-2.0-0.conda"}
    assert_same_as_from_nothing(world.storage)


def test_handle_queue__one_upload_to_an_invalid_key_cannot_be_rejected(world: World, queue: Queue) -> None:
    world.storage.upload("invalid_keys-1-0.conda", b"anything")
    stuck = queue.send("invalid_keys-1-0.conda")
    queue.send(world.upload(NOARCH, package()))
    world.storage.fault = fail_for("rejected/invalid_keys")
    assert queue.deliver() == {stuck}
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_handle_queue__requeues_keys_without_time(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requeuer = RecordingRequeuer()
    known = world.upload(NOARCH, package(name="known"))
    world.index(known)
    queue.send(known)
    for number in range(3):
        queue.send(world.upload(NOARCH, package(name=f"p{number}")))
    stuck = queue.send(world.upload(NOARCH, tar_bz2_package(name="old")))
    monkeypatch.setattr(handler, "requeuer", lambda: requeuer)
    requeuer.fails = True
    assert stuck in queue.deliver(remaining_ms=0)
    requeuer.fails = False
    assert queue.deliver(remaining_ms=0) == set()
    assert world.listed(NOARCH) == {"known-1.0-0.conda"}
    assert read_metrics(capsys.readouterr().out)["RequeuedKeys"] == 4
    ((keys, mode),) = requeuer.requeued
    assert mode == "alone"  # they were delivered twice
    assert len(keys) == 4
    queue.send(body=format_requeued(keys, mode))
    assert queue.deliver() == set()
    assert len(world.listed(NOARCH)) == 5
    assert len(requeuer.requeued) == 1


SLOW: Final = f"{NOARCH}/slow-1.0-0.conda"


@pytest.fixture
def requeuer(monkeypatch: pytest.MonkeyPatch) -> RecordingRequeuer:
    requeuer = RecordingRequeuer()
    monkeypatch.setattr(handler, "requeuer", lambda: requeuer)
    return requeuer


def test_handle_queue__artifact_that_takes_long_is_read_alone(
    world: World, queue: Queue, requeuer: RecordingRequeuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(NOARCH, package(name="slow"))
    queue.send(SLOW, world.upload(LINUX, package(path=LINUX)))
    take_processor_time(monkeypatch, seconds=20)
    assert queue.deliver() == set()
    (requeued,) = [one for one in requeuer.requeued if SLOW in one[0]]
    assert requeued[1] == "alone"
    queue.send(body=format_requeued(*requeued))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"slow-1.0-0.conda"}


def take_processor_time(monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> None:
    """Let every artifact named slow take some time to read."""

    def read(source: Any, distribution: Any, limits: ArtifactLimits, *others: Any) -> Any:  # noqa: ANN401 - as the real one
        if str(distribution.name) == "slow" and limits.max_cpu_seconds < seconds:
            limit = f"{limits.max_cpu_seconds:g} s of processor time for one artifact"
            raise LimitExceededError(limit, scope="artifact")
        return real(source, distribution, limits, *others)

    real = read_artifact
    monkeypatch.setattr(inspect, "read_artifact", read)


def test_handle_queue__artifact_that_exceeds_a_limit_alone_in_two_runs_is_rejected(
    world: World, queue: Queue, requeuer: RecordingRequeuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(NOARCH, package(name="slow"))
    take_processor_time(monkeypatch, seconds=200)
    queue.send(SLOW)
    for mode in ("alone", "final"):
        assert queue.deliver() == set()
        assert list(list_rejections(world.storage)) == []
        assert requeuer.requeued.pop() == ([SLOW], mode)
        queue.send(body=format_requeued([SLOW], mode))
    assert queue.deliver() == set()
    (rejection,) = list_rejections(world.storage)
    assert (rejection.key, rejection.code) == (SLOW, "could-not-be-read")
    assert "150 s" in rejection.message
    assert world.storage.head(SLOW) is None
    assert not requeuer.requeued


def test_handle_queue__cloud_errors_never_reject(
    world: World, queue: Queue, requeuer: RecordingRequeuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve receives, five minutes apart: an hour."""
    stuck = {queue.send(world.upload(NOARCH, package()))}
    stuck |= {queue.send(body=format_requeued([world.upload(NOARCH, package(name=name))], "final")) for name in "ab"}
    for _ in range(12):
        world.storage.fault = fail_for("", error=UnavailableError("503"))
        assert queue.deliver() == stuck
    world.storage.fault = None
    assert queue.deliver() == set()
    assert list(list_rejections(world.storage)) == []
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "a-1.0-0.conda", "b-1.0-0.conda"}
    assert not requeuer.requeued


def test_handle_queue__redelivered_keys_come_last_and_alone(world: World, queue: Queue) -> None:
    old = [world.upload(NOARCH, package(name=name)) for name in ("a", "b")]
    stuck = {queue.send(key) for key in old}
    world.storage.fault = fail_for("", error=UnavailableError("503"))
    assert queue.deliver() == stuck
    world.storage.fault = None
    new = world.upload(NOARCH, package(name="z"))
    queue.send(new)
    world.storage.log.clear()
    assert queue.deliver() == set()
    index = f"{NOARCH}/repodata_shards.msgpack.zst"
    wanted = {("get", new), *(("get", key) for key in old), ("put", index)}
    assert [entry for entry in world.storage.log if entry in wanted and (entry != ("get", index))] == [
        ("get", new),
        ("put", index),
        ("get", old[0]),
        ("get", old[1]),
        ("put", index),
    ]


def test_handle_queue__keys_that_fail_repeatedly_are_committed_one_by_one(world: World, queue: Queue) -> None:
    keys = [world.upload(NOARCH, package(name=name)) for name in ("a", "b", "c")]
    stuck = {queue.send(key) for key in keys}
    for _ in range(3):
        world.storage.fault = fail_for("", error=UnavailableError("503"))
        assert queue.deliver() == stuck
    world.storage.fault = None
    world.storage.log.clear()
    assert queue.deliver() == set()
    assert world.storage.log.count(("put", f"{NOARCH}/repodata_shards.msgpack.zst")) == 3
    assert world.listed(NOARCH) == {f"{name}-1.0-0.conda" for name in "abc"}


def test_handle_queue__keys_that_fail_repeatedly_without_time(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    keys = [world.upload(NOARCH, package(name=name)) for name in ("a", "b")]
    for key in keys:
        queue.send(key)
    for _ in range(3):
        world.storage.fault = fail_for("", error=UnavailableError("503"))
        queue.deliver()
    world.storage.fault = None
    world.storage.log.clear()
    assert queue.deliver(remaining_ms=0) == set()
    assert world.storage.log == []
    assert requeuer.requeued == [(keys, "alone")]


def test_handle_queue__requeued_subdir(world: World, queue: Queue) -> None:
    world.defers = True
    world.limits = SMALL
    world.storage.min_part_bytes = SMALL.sizes.min_part
    for number in range(20):
        queue.send(world.upload(NOARCH, package(name=f"p{number}")))
    queue.deliver()
    queue.send(world.upload(NOARCH, package(name="late")))
    queue.deliver()
    assert "late-1.0-0.conda" not in world.listed(NOARCH)
    assert world.requeued
    stuck = queue.send(body=format_requeued([f"{NOARCH}/"]))
    world.storage.fault = fail_for("noarch/repodata.json", kind="splice")
    assert queue.deliver() == {stuck}
    world.storage.fault = None
    assert queue.deliver() == set()
    assert "late-1.0-0.conda" in world.listed(NOARCH)


def test_handle_queue__duplicates_in_one_batch(world: World, queue: Queue) -> None:
    key = world.upload(NOARCH, package())
    for _ in range(3):
        queue.send(key, key)
    assert queue.deliver() == set()
    assert world.storage.log.count(("get", key)) == 1


def test_handle_queue__irrelevant_keys(world: World, queue: Queue) -> None:
    queue.send("team/noarch/shards/00.msgpack.zst", ".fairway/rejected/x.conda", "team/notices.json")
    assert queue.deliver() == set()
    assert world.storage.log == []


def test_handle_queue__rejections_are_invalidated_once(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However their messages came: for the first time, again, or repeatedly."""
    monkeypatch.setattr(handler, "indexer", functools.cache(world.indexer))
    bad = [f"{subdir}/bad{number}-1.0-0.conda" for subdir in (LINUX, NOARCH) for number in range(3)]
    for number, key in enumerate(bad):
        world.storage.upload(key, b"bad")
        queue.receives[queue.send(key)] = 2 * (number % 3)
    assert queue.deliver() == set()
    assert {one.key for one in world.notifier.rejections} == set(bad)
    assert (world.notifier.invalidations, sorted(world.notifier.dropped)) == (1, sorted(bad))


def test_handle_queue__failed_invalidation_is_repeated_by_the_daily_run(world: World, queue: Queue) -> None:
    bad = f"{NOARCH}/bad-1.0-0.conda"
    world.storage.upload(bad, b"bad")
    queue.send(bad)
    invalidate = world.notifier.invalidate

    def fail(_: object) -> None:
        raise UnavailableError("throttled")

    world.notifier.invalidate = fail  # type: ignore[method-assign,assignment]
    assert queue.deliver() == set()
    assert world.storage.head(bad) is None
    world.notifier.invalidate = invalidate  # type: ignore[method-assign]
    handler.handle_schedule({}, Context())
    assert world.notifier.dropped == [bad]


def test_handle_schedule__indexes_uploads_without_events(world: World) -> None:
    world.upload(NOARCH, package())
    world.upload(LINUX, package(path=LINUX))
    answer: Any = handler.handle_schedule({}, Context())
    assert (answer["reconciled"], answer["failed"]) == (2, 0)
    assert world.listed(NOARCH) == world.listed(LINUX) == {"foo-1.0-0.conda"}


def test_handle_schedule__makes_declared_channels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before their first upload, but only those that are declared by name."""
    subdirs = [SubdirName("linux-64")]
    world.policy = policy = replace(POLICY, subdirs={"early": subdirs, "glob-*": subdirs})
    monkeypatch.setattr(handler, "settings", lambda: Settings(bucket=BUCKET, policy=policy))
    answer: Any = handler.handle_schedule({}, Context())
    assert answer == {"reconciled": 1, "failed": 0, "unfinished": []}
    for subdir in ("early/noarch", "early/linux-64"):
        assert f"{subdir}/repodata_shards.msgpack.zst" in world.storage.list_keys()
        assert f"{subdir}/repodata.json" in world.storage.list_keys()
    assert not any(key.startswith("glob-") for key in world.storage.list_keys())


def test_handle_schedule__one_subdir_fails(world: World) -> None:
    world.upload(NOARCH, package())
    world.upload(LINUX, package(path=LINUX))
    world.storage.fault = fail_for("linux-64/repodata_shards", kind="put")
    answer: Any = handler.handle_schedule({}, Context())
    assert (answer["reconciled"], answer["failed"]) == (1, 1)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_handle_schedule__no_time_left(world: World) -> None:
    world.upload(NOARCH, package())
    answer: Any = handler.handle_schedule({}, Context(remaining_ms=1000))
    assert answer["unfinished"] == ["team/noarch"]


def test_handle_schedule__no_time_left_to_read(
    world: World, monkeypatch: pytest.MonkeyPatch, requeuer: RecordingRequeuer
) -> None:
    """The queue is asked for the rest, by one message; what is read stays."""
    monkeypatch.setattr(reconcile_module, "BATCH", 4)
    monkeypatch.setattr(handler, "_READING_SHARE", 1e-9)
    for number in range(10):
        world.upload(NOARCH, package(f"foo{number}"))
    answer: Any = handler.handle_schedule({}, Context())
    assert answer["failed"] == 0
    assert requeuer.later == [f"{NOARCH}/*"]
    assert world.listed(NOARCH) == set()
    monkeypatch.setattr(handler, "_READING_SHARE", 0.6)
    queue = Queue(world=world)
    queue.send(body=format_requeued(requeuer.later))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {f"foo{number}-1.0-0.conda" for number in range(10)}


def test_handle_schedule__uploads_to_invalid_keys(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.upload(NOARCH, package())
    invalid_keys = ["top-1-0.conda", "TEAM/noarch/a-1-0.conda", "team/x/y-1-0.conda", f"{NOARCH}/Upper-1.0-0.conda"]
    for key in invalid_keys:
        world.storage.upload(key, b"anything")
    answer: Any = handler.handle_schedule({}, Context())
    assert (answer["reconciled"], answer["failed"]) == (1, 0)
    assert {rejection.key for rejection in list_rejections(world.storage)} == set(invalid_keys)
    assert not set(invalid_keys) & set(world.storage.list_keys())
    assert read_metrics(capsys.readouterr().out)["RejectedUploads"] == 4


def test_handle_schedule__uploads_to_invalid_keys_of_some_channels(world: World) -> None:
    for key in ("top-1-0.conda", "team/x-1-0.conda", "other/x-1-0.conda"):
        world.storage.upload(key, b"anything")
    handler.handle_schedule({"channels": ["team"]}, Context())
    assert [rejection.key for rejection in list_rejections(world.storage)] == ["team/x-1-0.conda"]


def test_handle_schedule__upload_to_an_invalid_key_cannot_be_rejected(world: World) -> None:
    world.storage.upload("stuck-1-0.conda", b"anything")
    world.storage.upload("team/x-1-0.conda", b"anything")
    world.storage.fault = fail_for("rejected/stuck")
    answer: Any = handler.handle_schedule({}, Context())
    assert answer["failed"] == 0
    assert [rejection.key for rejection in list_rejections(world.storage)] == ["team/x-1-0.conda"]


def test_handle_schedule__invalid_keys_cannot_be_listed(world: World) -> None:
    world.upload(NOARCH, package())
    listed: list[str] = []

    def fault(kind: str, key: str, moment: str) -> None:
        if (kind, key, moment) == ("list", "", "before"):
            listed.append(key)
            if len(listed) > 1:  # the first is for the channels
                raise UnavailableError("503")

    world.storage.fault = fault
    answer: Any = handler.handle_schedule({}, Context())
    assert (answer["reconciled"], answer["failed"], len(listed)) == (1, 0, 2)


# Index files


INDEX: Final = f"{NOARCH}/repodata_shards.msgpack.zst"
OWN: Final = "AWS:AROAINDEXER:fairway-indexer"
MALLORY: Final = "AWS:AROAMALLORY:ci"
INDEX_FILES: Final = (
    INDEX,
    *(f"{NOARCH}/{name}" for name in subdir_filenames()),
    *(f"team/{name}" for name in channel_filenames()),
)


@pytest.fixture
def operator_events(monkeypatch: pytest.MonkeyPatch) -> "RecordingOperatorEvents":
    events = RecordingOperatorEvents()
    monkeypatch.setattr(handler, "operator_events", lambda: events)
    return events


@dataclass(kw_only=True)
class RecordingOperatorEvents:
    """Records which principals are named."""

    fails: bool = False
    named: list[tuple[str, str | None]] = field(default_factory=list)

    def publish_foreign_index(self, subdir: object, found: ForeignIndex) -> None:
        if self.fails:
            raise UnavailableError("EventBridge did not accept the event")
        self.named.append((str(subdir), found.principal))


def test_handle_queue__index_files_written_by_the_indexer_cost_no_request(world: World, queue: Queue) -> None:
    world.publish(NOARCH, package())
    queue.send(*INDEX_FILES, principal=OWN)
    world.storage.log.clear()
    assert queue.deliver() == set()
    assert world.storage.log == []


def test_handle_queue__index_files_without_a_principal_cost_one_head_per_subdir(world: World, queue: Queue) -> None:
    world.publish(NOARCH, package())
    world.publish(LINUX, package(path=LINUX))
    written = [key for key in world.storage.list_keys() if key.endswith((".zst", ".json", ".xml", ".html"))]
    for key in written:
        queue.send(key)
    world.storage.log.clear()
    assert queue.deliver() == set()
    assert sorted(world.storage.log) == [("head", f"{LINUX}/repodata_shards.msgpack.zst"), ("head", INDEX)]


@pytest.mark.parametrize("principal", [None, MALLORY])
def test_handle_queue__foreign_index_is_healed(world: World, queue: Queue, principal: str | None) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(INDEX, b"foreign")
    queue.send(INDEX, principal=principal)
    assert queue.deliver() == set()
    assert_same_as_from_nothing(world.storage)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_handle_queue__deleted_index_is_healed(world: World, queue: Queue) -> None:
    world.publish(NOARCH, package())
    world.storage.remove(INDEX)
    queue.send(INDEX, principal=MALLORY)
    assert queue.deliver() == set()
    assert_same_as_from_nothing(world.storage)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_handle_queue__restored_older_index_is_reconciled(world: World, queue: Queue) -> None:
    world.publish(NOARCH, package())
    backup = world.storage.body(INDEX)
    world.publish(NOARCH, package(name="bar"))
    world.storage.upload(INDEX, backup)
    queue.send(INDEX, principal=MALLORY)
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda"}
    assert_same_as_from_nothing(world.storage)


@pytest.mark.parametrize("principal", [None, MALLORY])
@pytest.mark.parametrize("key", [f"{NOARCH}/repodata.json", f"{NOARCH}/index.html", "team/channeldata.json"])
def test_handle_queue__foreign_output_is_replaced(world: World, queue: Queue, key: str, principal: str | None) -> None:
    world.publish(NOARCH, package())
    before = world.storage.body(key)
    world.storage.upload(key, b"foreign")
    queue.send(key, principal=principal)
    assert queue.deliver() == set()
    assert world.storage.body(key) == before
    assert any(kept.startswith(f".fairway/replaced/{key}/") for kept in world.storage.list_keys())


@pytest.mark.parametrize("principal", [None, MALLORY])
def test_handle_queue__output_that_is_not_wanted_is_removed(world: World, queue: Queue, principal: str | None) -> None:
    world.publish(NOARCH, package())
    key = f"{NOARCH}/current_repodata.json.zst"
    world.storage.upload(key, b"foreign")
    queue.send(*INDEX_FILES[:2], principal=principal)
    queue.send(key, principal=principal)
    assert queue.deliver() == set()
    assert world.storage.head(key) is None


def test_handle_queue__files_that_no_channel_has(world: World, queue: Queue) -> None:
    """An operator's pages beside the channels make no channel."""
    for key in ("docs/index.html", "docs/linux-64/index.html", "docs/rss.xml"):
        world.storage.upload(key, b"a page")
        queue.send(key, principal=MALLORY)
    before = world.storage.list_keys()
    assert queue.deliver() == set()
    assert world.storage.list_keys() == before


def test_handle_queue__checks_are_coalesced_and_the_last_write_is_checked(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    world.publish(NOARCH, package())
    for number in range(5):
        world.storage.upload(INDEX, b"foreign %d" % number)
        queue.send(INDEX, principal=MALLORY)
        assert queue.deliver() == set()
    assert world.storage.body(INDEX) == b"foreign 4"
    ((keys, delay_seconds),) = requeuer.delayed
    assert 0 < delay_seconds <= 60
    queue.send(body=format_requeued(keys))
    assert queue.deliver() == set()
    assert_same_as_from_nothing(world.storage)


def test_handle_queue__check_that_cannot_be_planned_is_tried_again(world: World, queue: Queue) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(INDEX, b"foreign")
    stuck = queue.send(INDEX, principal=MALLORY)
    other = queue.send(world.upload(LINUX, package(path=LINUX)))
    world.storage.fault = fail_for("signals.json")
    assert queue.deliver() == {stuck}
    assert other not in queue.bodies
    world.storage.fault = None
    assert queue.deliver() == set()
    assert_same_as_from_nothing(world.storage)


def test_handle_queue__second_foreign_index_within_an_hour_names_the_principal(
    world: World,
    queue: Queue,
    operator_events: RecordingOperatorEvents,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(INDEX, b"foreign")
    queue.send(INDEX, f"{NOARCH}/repodata.json", principal="AWS:AIDAEVE")
    queue.deliver()
    assert "ForeignIndexes" not in read_metrics(capsys.readouterr().out)
    world.storage.remove(INDEX)
    queue.send(INDEX, principal=MALLORY)
    operator_events.fails = True
    assert len(queue.deliver()) == 1
    operator_events.fails = False
    assert queue.deliver() == set()
    assert operator_events.named == [("team/noarch", MALLORY)]
    assert read_metrics(capsys.readouterr().out)["ForeignIndexes"] == 1
    (logged,) = [record for record in caplog.records if record.message == "foreign index again"]
    assert vars(logged)["principal"] == MALLORY


def test_handle_queue__command_of_an_operator_raises_no_alarm(
    world: World, queue: Queue, operator_events: RecordingOperatorEvents
) -> None:
    for name in ("a", "b", "c"):
        world.publish(NOARCH, package(name=name))
        queue.send(INDEX, principal="AWS:AIDAOPERATOR")
        assert queue.deliver() == set()
    assert operator_events.named == []


# Turns


def test_handle_queue__publishers_take_turns(world: World, queue: Queue) -> None:
    """What one publisher uploads is committed before the rest of another's thousand."""
    for number in range(40):
        key = f"{NOARCH}/bad{number:02}-1.0-0.conda"
        world.storage.upload(key, b"bad")
        queue.send(key, principal=MALLORY)
    good = world.upload(NOARCH, package(name="z"))
    queue.send(good, principal="AWS:AIDAALICE")
    world.storage.log.clear()
    assert queue.deliver() == set()
    rejected = [key for kind, key in world.storage.log if kind == "delete"]
    assert len(rejected) == 40
    committed = world.storage.log.index(("put", INDEX))
    assert sum(kind == "delete" for kind, _ in world.storage.log[:committed]) == FIRST_TURN


def test_handle_queue__channels_take_turns_without_principals(world: World, queue: Queue) -> None:
    for number in range(40):
        key = f"aaa/noarch/bad{number:02}-1.0-0.conda"
        world.storage.upload(key, b"bad")
        queue.send(key)
    queue.send(world.upload(NOARCH, package(name="z")))
    world.storage.log.clear()
    assert queue.deliver() == set()
    committed = world.storage.log.index(("put", INDEX))
    assert sum(kind == "delete" for kind, _ in world.storage.log[:committed]) == FIRST_TURN


def upload_bad(world: World, number: int) -> str:
    key = f"{NOARCH}/bad{number:02}-1.0-0.conda"
    world.storage.upload(key, b"bad")
    return key


def test_handle_queue__small_batch_is_packed_while_others_wait(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    keys = [world.upload(NOARCH, package(name=name)) for name in "abc"]
    for key in keys:
        queue.send(key, principal="AWS:AIDAALICE")
    other = world.upload(LINUX, package(path=LINUX))
    queue.send(other)
    queue.waited_ms = 60_000
    assert queue.deliver() == set()
    assert requeuer.turns == [([other], "team"), ([keys[2], keys[1], keys[0]], "AWS:AIDAALICE")], "the newest first"
    assert world.storage.list_keys() == sorted([*keys, other])
    for some, publisher in requeuer.turns:
        queue.send(body=format_requeued(some, publisher=publisher))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {f"{name}-1.0-0.conda" for name in "abc"}
    assert world.listed(LINUX) == {"foo-1.0-0.conda"}


def test_handle_queue__packing_fails(world: World, queue: Queue, requeuer: RecordingRequeuer) -> None:
    sent = {queue.send(world.upload(NOARCH, package(name=name))) for name in "ab"}
    queue.waited_ms = 60_000
    requeuer.fails = True
    assert queue.deliver() == sent
    requeuer.fails = False
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"a-1.0-0.conda", "b-1.0-0.conda"}


@pytest.mark.parametrize("waited_ms", [0, 60_000])
def test_handle_queue__one_upload_is_not_packed(
    world: World, queue: Queue, requeuer: RecordingRequeuer, waited_ms: int
) -> None:
    queue.send(world.upload(NOARCH, package()))
    queue.waited_ms = waited_ms
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert requeuer.turns == []


def test_handle_queue__publisher_of_rejected_uploads_goes_to_the_back_while_others_wait(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    """Its newest upload is good, and indexed at once."""
    bad = [upload_bad(world, number) for number in range(40)]
    good = world.upload(NOARCH, package(name="z"))
    queue.send(body=format_requeued([good, *bad], publisher=MALLORY))
    queue.waited_ms = 60_000
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"z-1.0-0.conda"}
    assert len(list(list_rejections(world.storage))) == FIRST_TURN - 1
    assert requeuer.turns == [(bad[FIRST_TURN - 1 :], MALLORY)]


def test_handle_queue__publisher_of_good_uploads_goes_on(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    keys = [world.upload(NOARCH, package(name=f"p{number:02}")) for number in range(40)]
    queue.send(body=format_requeued(keys, publisher=MALLORY))
    queue.waited_ms = 60_000
    assert queue.deliver() == set()
    assert len(world.listed(NOARCH)) == 40
    assert requeuer.turns == []


def test_handle_queue__rejected_uploads_are_finished_where_none_wait(
    world: World, queue: Queue, requeuer: RecordingRequeuer
) -> None:
    for number in range(40):
        queue.send(upload_bad(world, number))
    assert queue.deliver() == set()
    assert len(list(list_rejections(world.storage))) == 40
    assert requeuer.turns == []


# First uploads


def test_handle_queue__first_burst_is_read_once(world: World, queue: Queue, requeuer: RecordingRequeuer) -> None:
    """The listing waits until no run has committed for a while: the artifacts in it are read by other runs."""
    world.storage.clock_ms = time.time_ns() // 10**6
    keys = [world.upload(NOARCH, package(name=f"p{number:02}")) for number in range(20)]
    listing = f"{NOARCH}/*"
    for start in range(0, 20, 5):
        queue.send(*keys[start : start + 5], identity=f"burst-{start}")
        assert queue.deliver() == set()
        queue.send(body=format_requeued([listing]), identity=f"listing-{start}")
        assert queue.deliver() == set()
    assert [one[0] for one in requeuer.delayed] == [[listing]] * 4
    read = Counter(key for kind, key in world.storage.log if kind == "get" and key in keys)
    assert read == dict.fromkeys(keys, 1)


def test_handle_queue__first_listing_finds_the_rest(world: World, queue: Queue, requeuer: RecordingRequeuer) -> None:
    for name in ("a", "b"):
        world.upload(NOARCH, package(name=name))
    queue.send(world.upload(NOARCH, package()))
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    queue.send(body=format_requeued([f"{NOARCH}/*"]))
    assert queue.deliver() == set()
    assert requeuer.delayed == []
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "a-1.0-0.conda", "b-1.0-0.conda"}


# Dead letters


@dataclass(kw_only=True)
class RecordingDeadLetters:
    """Records what is given up."""

    fails: bool = False
    sent: list[tuple[Sequence[str], Mode, str]] = field(default_factory=list)

    def send(self, keys: Sequence[str], mode: Mode, failure: FairwayError) -> None:
        if self.fails:
            raise UnavailableError("SQS did not accept the message")
        self.sent.append((keys, mode, str(failure)))


def test_handle_queue__dead_letter_names_key_and_error(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = RecordingDeadLetters(fails=True)
    monkeypatch.setattr(handler, "dead_letters", lambda: letters)
    stuck = queue.send(world.upload(NOARCH, package()), world.upload(NOARCH, package(name="bar")))
    world.storage.fault = fail_for("foo-1.0-0.conda")
    for _ in range(3):
        assert queue.deliver() == {stuck}
    assert letters.sent == []
    letters.fails = False
    assert queue.deliver() == set()
    assert letters.sent == [([FOO], "alone", "503")]
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    world.storage.fault = None
    queue.send(body=format_requeued([FOO], "alone", error="UnavailableError: 503"))  # redriven
    assert queue.deliver() == set()
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda"}
