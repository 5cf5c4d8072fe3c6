"""The indexer's entry points: a batch from the queue, and the daily schedule. Thin: wires and reports."""

import functools
import itertools
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.channel.errors import DeadlineError, FairwayError, LimitExceededError
from lambdas.channel.layout import SubdirLayout
from lambdas.channel.names import Channel, SubdirId, parse_channel
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.change.results import guard
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Mode, Report
from lambdas.indexer.quarantine.notify import AwsNotifier
from lambdas.indexer.queue.alarms import UNKNOWN_PRINCIPAL, OperatorEvents
from lambdas.indexer.queue.index_keys import index_batch
from lambdas.indexer.queue.index_watch import IndexWatch
from lambdas.indexer.queue.messages import Message, parse_message, plan_work
from lambdas.indexer.queue.senders import DeadLetters, Requeuer
from lambdas.indexer.queue.signals import ForeignIndex, Signal, find_signals, parse_index_key
from lambdas.indexer.queue.turns import list_offenders, take_turns
from lambdas.indexer.settings import Settings, parse_settings, publish_settings
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.collect_garbage import try_collect_garbage
from lambdas.indexer.upkeep.listing import list_channels, list_subdirs
from lambdas.indexer.upkeep.reconcile import DAY_MS, reconcile, reject_invalid_keys
from lambdas.storage.client import make_s3_client
from lambdas.storage.s3 import S3Storage

_SUBDIR_MS: Final = 120_000  # with less time left, no further subdir is begun
_MODES: Final[Sequence[Mode]] = get_args(Mode)
_RECEIVES_TOGETHER: Final = 3  # a message that was received more often is indexed by itself
_BACKLOG_SECONDS: Final = 5  # a message that waited longer was behind others
_SMALL_BATCH: Final = 10  # messages: such batches are packed into larger ones while others wait
_READING_SHARE: Final = 0.6  # of the function's time: the rest is for artifacts in hand, the commit and the outputs

logger = Logger()
metrics = Metrics()


@functools.cache
def settings() -> Settings:
    """Read the settings once per execution environment."""
    return parse_settings(os.environ)


@functools.cache
def storage() -> S3Storage:
    """Connect once per execution environment."""
    return S3Storage(settings().bucket, make_s3_client())


@functools.cache
def requeuer() -> Requeuer | None:
    """Connect once per execution environment."""
    queue_url = settings().queue_url
    if queue_url is None:
        return None
    return Requeuer(boto3.client("sqs"), queue_url=queue_url, delay_seconds=settings().deferral_seconds)


@functools.cache
def dead_letters() -> DeadLetters | None:
    """Connect once per execution environment."""
    queue_url = settings().dead_letters_url
    return None if queue_url is None else DeadLetters(boto3.client("sqs"), queue_url=queue_url)


@functools.cache
def operator_events() -> OperatorEvents | None:
    """Connect once per execution environment."""
    event_bus = settings().event_bus
    return None if event_bus is None else OperatorEvents(boto3.client("events"), event_bus=event_bus)


@functools.cache
def indexer() -> Indexer:
    """Wire the indexer once per execution environment, and store its settings for the command."""
    publish_settings(storage(), settings())
    notifier = AwsNotifier(
        events=boto3.client("events"),
        cloudfront=boto3.client("cloudfront"),
        event_bus=settings().event_bus,
        distribution_id=settings().distribution_id,
    )
    queue = requeuer()
    return Indexer(storage(), notifier, settings().policy, requeue=None if queue is None else queue.requeue_later)


@logger.inject_lambda_context
@metrics.log_metrics
def handle_queue(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Index what a batch of S3 notifications names; report the messages that are to be redelivered.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    _count("Messages", len(event["Records"]))
    batch = _Batch(event)
    batch.add_checks()
    batch.postpone_first_listings()
    batch.pack()
    share_seconds = _READING_SHARE * context.get_remaining_time_in_millis() / 1000
    batch.index(deadline=time.monotonic() + share_seconds)
    batch.count_latency()
    _invalidate_rejected()
    batch.requeue_unread()
    batch.count_failures()
    return process_partial_response(
        event=event,
        record_handler=batch.require_done,
        processor=BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False),
        context=context,
    )


@logger.inject_lambda_context
@metrics.log_metrics
def handle_schedule(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Reconcile every channel, or those in ``event["channels"]``, and collect garbage.

    Channels that the deployment declares by name are created.

    Subdirs are processed in random order, so that none is starved when time runs out. Artifacts that there
    was no time to read are left to the queue: a message asks for the rest of their subdir. Uploads under
    keys where nothing can be indexed harm no reader, and come last.
    """
    publish_settings(storage(), settings())  # whatever happened to them
    declared = settings().policy.list_declared_channels()
    channels = [parse_channel(name) for name in event.get("channels") or {*list_channels(storage()), *declared}]
    subdirs = [subdir for channel in channels for subdir in list_subdirs(storage(), channel)]
    random.shuffle(subdirs)
    rules = ReadingRules(deadline=time.monotonic() + _READING_SHARE * context.get_remaining_time_in_millis() / 1000)
    done = failed = 0
    while subdirs and context.get_remaining_time_in_millis() > _SUBDIR_MS:
        subdir = open_subdir(storage(), subdirs.pop())
        try:
            is_cut = False
            for report in reconcile(subdir, indexer(), rules=rules):
                _log_report(str(subdir), report)
                _log_failures(report)
                is_cut = is_cut or any(isinstance(one, DeadlineError) for one in report.failures.values())
            if is_cut and (queue := requeuer()) is not None:
                queue.requeue_later(subdir.layout.whole)
            grace_ms = settings().shard_grace_days * DAY_MS
            try_collect_garbage(subdir, now_ms=time.time_ns() // 10**6, grace_ms=grace_ms)
            done += 1
        except Exception:
            # A bug that one subdir meets must not stop the others (invariant 3).
            logger.exception("subdir not reconciled", extra={"subdir": str(subdir)})
            failed += 1
    for channel in [*channels, *([] if event.get("channels") else [None])]:
        _reject_invalid_keys(channel, context)
    _invalidate_rejected(all_runs=True)
    _count("UnreconciledSubdirs", failed + len(subdirs))
    return {"reconciled": done, "failed": failed, "unfinished": [str(subdir) for subdir in subdirs]}


def _reject_invalid_keys(channel: Channel | None, context: LambdaContext) -> None:
    """Reject uploads outside any subdir of a channel, or outside any channel, while there is time."""
    try:
        reports = reject_invalid_keys(storage(), indexer(), channel)
        while context.get_remaining_time_in_millis() > _SUBDIR_MS and (report := next(reports, None)) is not None:
            _log_report(channel or "", report)
            _log_failures(report)
    except Exception:
        logger.exception("uploads under invalid keys not rejected", extra={"channel": channel})


def _raise_alarm(subdir: SubdirId, found: ForeignIndex) -> None:
    """Tell operators which principal replaced or deleted a shard index that another one had just before."""
    events = operator_events()
    if events is not None:
        events.publish_foreign_index(subdir, found)
    logger.error("foreign index again", subdir=str(subdir), principal=found.principal or UNKNOWN_PRINCIPAL)
    _count("ForeignIndexes", 1)


def _invalidate_rejected(*, all_runs: bool = False) -> None:
    """Invalidate what was rejected: a failure delays that, and nothing else."""
    try:
        indexer().invalidate_rejected(all_runs=all_runs)
    except FairwayError as failure:
        logger.warning("rejected uploads not invalidated", exc_info=failure)


class _Batch:
    """The messages of one invocation."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._messages: dict[str, Message | FairwayError] = {}
        self._checks: dict[str, Sequence[str]] = {}
        """``{key of an index file: keys of the check that it leads to}``."""
        self._failures: dict[str, FairwayError] = {}
        self._modes: dict[str, Mode] = {}
        self._publishers: dict[str, str] = {}
        self._persistent: set[str] = set()
        """Keys that have failed repeatedly."""
        self._uploads: set[str] = set()
        """Keys of notifications that are received for the first time."""
        self._age: dict[str, tuple[int, int]] = {}
        """Sorts keys, the newest first."""
        self._waited_ms = 0
        """The longest time that a message waited for its turn."""
        for record in event["Records"]:
            try:
                message = parse_message(record["body"], bucket=settings().bucket)
            except FairwayError as error:
                self._messages[record["messageId"]] = error
                continue
            self._messages[record["messageId"]] = message
            receives = int(record["attributes"]["ApproximateReceiveCount"])
            mode: Mode = "alone" if receives > 1 and message.mode == "together" else message.mode
            if receives > _RECEIVES_TOGETHER:
                self._persistent.update(message.keys)
            for key in message.keys:
                self._add_key(key, mode)
                if message.publisher is not None:
                    self._publishers[key] = message.publisher
            for one in message.events:
                if one.principal is not None:
                    self._publishers[one.key] = one.principal
            sent_ms = int(record["attributes"].get("SentTimestamp", _now_ms()))
            self._age |= {key: (-sent_ms, position) for position, key in enumerate(message.keys)}
            if receives == 1 and (message.events or message.publisher is not None):
                self._waited_ms = max(self._waited_ms, _now_ms() - sent_ms)
                self._uploads |= {one.key for one in message.events if parse_index_key(one.key) is None}

    def _add_key(self, key: str, mode: Mode) -> None:
        self._modes[key] = max(mode, self._modes.get(key, mode), key=_MODES.index)
        self._publishers.setdefault(key, key.partition("/")[0])  # the channel, if the event names no principal

    def add_checks(self) -> None:
        """Add checks of subdirs whose index files other principals wrote or deleted."""
        subdirs: dict[SubdirId, list[Signal]] = {}
        for message in self._messages.values():
            if isinstance(message, Message):
                for signal in find_signals(message.events, role_id=settings().role_id):
                    subdirs.setdefault(signal.subdir, []).append(signal)
        for subdir, signals in subdirs.items():
            keys = self._list_checks(subdir, signals)
            self._checks |= dict.fromkeys((signal.event.key for signal in signals), keys)

    def postpone_first_listings(self) -> None:
        """Leave the first listing of a subdir for later while its first uploads are being indexed."""
        for subdir, keys in plan_work(self._modes).subdirs.items():
            if not keys.whole or keys.deferred:  # with both, it is a check
                continue
            postponed = guard(lambda one=subdir: _watch().postpone_listing(one), f"postpone the listing of {subdir}")  # type: ignore[misc]  # defaults bind now
            whole = SubdirLayout(subdir=subdir).whole
            if isinstance(postponed, FairwayError):
                self._failures[whole] = postponed
            if postponed:
                del self._modes[whole]
                self._persistent.discard(whole)

    def _list_checks(self, subdir: SubdirId, signals: Sequence[Signal]) -> Sequence[str]:
        """Return the keys of the check that signals lead to; they fail if the signals can't be judged."""
        keys = guard(lambda: _watch().list_checks(subdir, signals), f"plan a check of {subdir}")
        if isinstance(keys, FairwayError):
            failed = SubdirLayout(subdir=subdir).check_keys
            self._failures |= dict.fromkeys(failed, keys)
            return failed
        for key in keys:
            self._add_key(key, "together")
        return keys

    def index(self, *, deadline: float) -> None:
        """Index the keys of all messages: those that failed before or take long come last, one at a time.

        Before that, publishers take turns. What has failed repeatedly is committed one by one as well, in
        random order: should one of these keys crash the function, it does not hold up the same others each
        time.
        """
        for mode in _MODES:
            keys = set(self._list_keys(mode)) - self._persistent
            self._index_in_turns(keys, ReadingRules(deadline=deadline, mode=mode))
        persistent = sorted(self._persistent)
        random.shuffle(persistent)
        for key in persistent:
            rules = ReadingRules(deadline=deadline, mode=self._modes[key])
            if rules.is_over():
                self._failures[key] = DeadlineError(f"no time was left for {key!r}")
            else:
                self._index([key], rules)

    @property
    def _has_backlog(self) -> bool:
        """Whether other messages probably wait behind these."""
        return self._waited_ms > _BACKLOG_SECONDS * 1000 and requeuer() is not None

    def pack(self) -> None:
        """Send the keys of a small batch on as few messages, if others wait: a large batch is indexed faster."""
        if self._has_backlog and len(self._messages) <= _SMALL_BATCH and len(self._uploads) > 1:
            keys = sorted(self._uploads, key=self._get_age)
            self._send_to_the_back([key for key in keys if self._modes[key] == "together"])

    def _get_age(self, key: str) -> tuple[tuple[int, int], str]:
        return self._age.get(key, (0, 0)), key

    def _send_to_the_back(self, keys: Sequence[str]) -> None:
        """Have keys inspected after everything else that waits; those that the queue doesn't accept stay."""
        queue = requeuer()
        if queue is None:
            return
        for publisher in dict.fromkeys(self._publishers[key] for key in keys):
            some = [key for key in keys if self._publishers[key] == publisher]
            sent = guard(lambda one=publisher, some=some: queue.requeue_turn(some, one), "requeue keys")  # type: ignore[misc]  # defaults bind now
            for key in some:
                if isinstance(sent, FairwayError):
                    self._failures[key] = sent
                del self._modes[key]

    def _index_in_turns(self, keys: Iterable[str], rules: ReadingRules) -> None:
        """Index keys of one mode, round by round, the newest first.

        While others wait, a publisher of whose first turn most was rejected goes to the back of the queue.
        """
        publishers = {key: self._publishers[key] for key in sorted(keys, key=self._get_age)}
        is_probing = self._has_backlog and rules.mode == "together"
        offenders: frozenset[str] = frozenset()
        back: list[str] = []
        for turn in take_turns(publishers, is_probing=is_probing):
            back += [key for key in turn if publishers[key] in offenders]
            now = [key for key in turn if publishers[key] not in offenders]
            rejected = self._index(now, rules)
            if is_probing:
                offenders |= list_offenders(now, rejected, publishers)
        self._send_to_the_back(back)

    def requeue_unread(self) -> None:
        """Send keys that there was no time for, or that took too long, as new messages: neither is a failure."""
        for mode in _MODES:
            self._requeue(self._list_failures(mode, DeadlineError), mode)
        for mode, next_mode in itertools.pairwise(_MODES):
            self._requeue(self._list_failures(mode, LimitExceededError), next_mode)

    def count_failures(self) -> None:
        """Count the keys that are to be tried again."""
        _count("FailedKeys", len(self._failures))

    def count_latency(self) -> None:
        """Count the seconds from the first upload of the batch that is done until readers can see it."""
        messages = [message for message in self._messages.values() if isinstance(message, Message)]
        events = [event for message in messages for event in message.events if event.key not in self._failures]
        times = [event.at for event in events if event.at is not None]
        if times:
            seconds = (datetime.now(UTC) - min(times)).total_seconds()
            metrics.add_metric(name="VisibilitySeconds", unit=MetricUnit.Seconds, value=max(0.0, seconds))

    def require_done(self, record: SQSRecord) -> None:
        """Raise if a message is to be redelivered."""
        message = self._messages[record.message_id]
        if isinstance(message, FairwayError):
            logger.error("invalid message", message_id=record.message_id, exc_info=message)
            raise message
        failed = {key: self._failures[key] for key in self._list_keys_of(message) if key in self._failures}
        if not failed:
            return
        for key, failure in failed.items():
            logger.error("to be tried again", key=key, exc_info=failure)
        receives = int(record.attributes.approximate_receive_count)
        if not 0 < settings().max_receives <= receives or not self._send_dead_letters(failed):
            raise next(iter(failed.values()))

    def _list_keys_of(self, message: Message) -> list[str]:
        """Return the keys that have to be done for a message to be done."""
        return [one for key in message.keys for one in (key, *self._checks.get(key, ()))]

    def _send_dead_letters(self, failed: Mapping[str, FairwayError]) -> bool:
        """Send keys to the dead-letter queue, each with its error; return whether all of them were accepted.

        Otherwise SQS sends the message there, without the errors.
        """
        queue = dead_letters()
        if queue is None:
            return False
        try:
            for key, failure in failed.items():
                queue.send([key], self._modes.get(key, "together"), failure)
        except FairwayError:
            logger.exception("dead letter without its error")
            return False
        return True

    def _index(self, keys: Sequence[str], rules: ReadingRules) -> frozenset[str]:
        """Index keys in one go; return those that were rejected."""
        report = index_batch(indexer(), keys, rules=rules)
        self._failures |= report.failures
        if report.invalid_keys.outcomes:
            _log_report("", report.invalid_keys)
        for subdir, one in report.subdirs.items():
            _log_report(str(subdir), one)
        outcomes = [one for each in (report.invalid_keys, *report.subdirs.values()) for one in each.outcomes]
        return frozenset(one.key for one in outcomes if one.status == "rejected")

    def _requeue(self, keys: Sequence[str], mode: Mode) -> None:
        queue = requeuer()
        if not keys or queue is None:
            return
        try:
            queue.requeue_keys(keys, mode)
        except FairwayError as failure:
            self._failures |= dict.fromkeys(keys, failure)
            return
        for key in keys:
            del self._failures[key]
        _count("RequeuedKeys", len(keys))

    def _list_keys(self, mode: Mode) -> list[str]:
        return [key for key, its_mode in self._modes.items() if its_mode == mode]

    def _list_failures(self, mode: Mode, kind: type[FairwayError]) -> list[str]:
        return sorted(key for key in self._list_keys(mode) if isinstance(self._failures.get(key), kind))


def _log_report(subdir: str, report: Report) -> None:
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        if outcome.rejection is not None:
            rejection = outcome.rejection
            logger.warning("rejected", key=outcome.key, code=rejection.code, reason=rejection.message)
    _count("IndexedArtifacts", counts.get("indexed", 0))
    _count("RemovedArtifacts", counts.get("removed", 0))
    _count("RejectedUploads", counts.get("rejected", 0))
    _count("Commits", report.commits)
    _count("CommitConflicts", report.conflicts)
    if report.healed is not None:
        logger.error("healed", subdir=subdir, reason=report.healed)
        _count("HealedIndexes", 1)
    logger.info("indexed", extra={"subdir": subdir, **counts, "commits": report.commits, "conflicts": report.conflicts})


def _log_failures(report: Report) -> None:
    for key, failure in report.failures.items():
        if isinstance(failure, DeadlineError):
            continue  # no failure, and there may be thousands
        logger.error("to be tried again", key=key, exc_info=failure)


def _now_ms() -> int:
    return time.time_ns() // 10**6


def _watch() -> IndexWatch:
    return IndexWatch(
        storage=storage(),
        outputs=settings().policy.outputs,
        queue=requeuer(),
        period_seconds=settings().deferral_seconds,
        raise_alarm=_raise_alarm,
    )


def _count(name: str, value: int) -> None:
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
