"""The indexer's entry points: a batch from the queue, and the daily schedule. Thin: wires and reports."""

import functools
import itertools
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.channel.errors import DeadlineError, FairwayError, LimitExceededError
from lambdas.channel.names import Channel, parse_channel
from lambdas.indexer.batch import index_batch
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.events import Message, parse_message
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Mode, Report
from lambdas.indexer.notify import AwsNotifier, Requeuer
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
    share_seconds = _READING_SHARE * context.get_remaining_time_in_millis() / 1000
    batch.index(deadline=time.monotonic() + share_seconds)
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

    Subdirs are processed in random order, so that none is starved when time runs out. Uploads under
    keys where nothing can be indexed harm no reader, and come last.
    """
    publish_settings(storage(), settings())  # whatever happened to them
    channels = [parse_channel(name) for name in event.get("channels") or list_channels(storage())]
    subdirs = [subdir for channel in channels for subdir in list_subdirs(storage(), channel)]
    random.shuffle(subdirs)
    done = failed = 0
    while subdirs and context.get_remaining_time_in_millis() > _SUBDIR_MS:
        subdir = open_subdir(storage(), subdirs.pop())
        try:
            for report in reconcile(subdir, indexer()):
                _log_report(str(subdir), report)
                _log_failures(report)
            grace_ms = settings().shard_grace_days * DAY_MS
            try_collect_garbage(subdir, now_ms=time.time_ns() // 10**6, grace_ms=grace_ms)
            done += 1
        except Exception:
            # A bug that one subdir meets must not stop the others (invariant 3).
            logger.exception("subdir not reconciled", extra={"subdir": str(subdir)})
            failed += 1
    for channel in [*channels, *([] if event.get("channels") else [None])]:
        _reject_invalid_keys(channel, context)
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


class _Batch:
    """The messages of one invocation."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._messages: dict[str, Message | FairwayError] = {}
        self._failures: dict[str, FairwayError] = {}
        self._modes: dict[str, Mode] = {}
        self._persistent: set[str] = set()
        """Keys that have failed repeatedly."""
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
                self._modes[key] = max(mode, self._modes.get(key, mode), key=_MODES.index)

    def index(self, *, deadline: float) -> None:
        """Index the keys of all messages: those that failed before or take long come last, one at a time.

        What has failed repeatedly is committed one by one as well, in random order: should one of these
        keys crash the function, it does not hold up the same others each time.
        """
        for mode in _MODES:
            keys = set(self._list_keys(mode))
            self._index(sorted(keys - self._persistent), ReadingRules(deadline=deadline, mode=mode))
        persistent = sorted(self._persistent)
        random.shuffle(persistent)
        for key in persistent:
            rules = ReadingRules(deadline=deadline, mode=self._modes[key])
            if rules.is_over():
                self._failures[key] = DeadlineError(f"no time was left for {key!r}")
            else:
                self._index([key], rules)

    def requeue_unread(self) -> None:
        """Send keys that there was no time for, or that took too long, as new messages: neither is a failure."""
        for mode in _MODES:
            self._requeue(self._list_failures(mode, DeadlineError), mode)
        for mode, next_mode in itertools.pairwise(_MODES):
            self._requeue(self._list_failures(mode, LimitExceededError), next_mode)

    def count_failures(self) -> None:
        """Count the keys that are to be tried again."""
        _count("FailedKeys", len(self._failures))

    def require_done(self, record: SQSRecord) -> None:
        """Raise if a message is to be redelivered."""
        message = self._messages[record.message_id]
        if isinstance(message, FairwayError):
            logger.error("invalid message", message_id=record.message_id, exc_info=message)
            raise message
        for key in message.keys:
            if key in self._failures:
                failure = self._failures[key]
                logger.error("to be tried again", key=key, exc_info=failure)
                raise failure

    def _index(self, keys: Sequence[str], rules: ReadingRules) -> None:
        report = index_batch(indexer(), keys, rules=rules)
        self._failures |= report.failures
        if report.invalid_keys.outcomes:
            _log_report("", report.invalid_keys)
        for subdir, one in report.subdirs.items():
            _log_report(str(subdir), one)

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
        logger.error("to be tried again", key=key, exc_info=failure)


def _count(name: str, value: int) -> None:
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
