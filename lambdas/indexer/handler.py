"""The indexer's entry points: a batch from the queue, and the daily schedule. Thin: wires and reports."""

import contextlib
import functools
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from lambdas.channel.errors import DeadlineError, FairwayError, UnavailableError
from lambdas.channel.names import Channel, SubdirId, parse_channel
from lambdas.indexer.events import find_subdir, make_invalid_key_rejection, parse_message, plan_work
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report
from lambdas.indexer.notify import AwsNotifier, QueueNotifier
from lambdas.indexer.policy import publish_settings
from lambdas.indexer.settings import Settings, parse_settings
from lambdas.indexer.upkeep.collect_garbage import try_collect_garbage
from lambdas.indexer.upkeep.listing import list_channels, list_subdirs
from lambdas.indexer.upkeep.reconcile import DAY_MS, reconcile, reject_invalid_keys
from lambdas.storage.parallel import THREADS
from lambdas.storage.s3 import S3Storage

_SUBDIR_MS: Final = 120_000  # with less time left, no further subdir is begun
_READING_SHARE: Final = 0.6  # of the function's time: the rest is for artifacts in hand, the swap and the files

logger = Logger()
metrics = Metrics()
tracer = Tracer()


@functools.cache
def settings() -> Settings:
    """Read the settings once per execution environment."""
    return parse_settings(os.environ)


@functools.cache
def storage() -> S3Storage:
    """Connect once per execution environment."""
    config = Config(max_pool_connections=2 * THREADS, retries={"mode": "standard", "max_attempts": 5})
    return S3Storage(settings().bucket, boto3.client("s3", config=config))


@functools.cache
def requeuer() -> QueueNotifier | None:
    """Connect once per execution environment."""
    queue_url = settings().queue_url
    if queue_url is None:
        return None
    return QueueNotifier(boto3.client("sqs"), queue_url=queue_url, delay_seconds=settings().deferral_seconds)


@functools.cache
def indexer() -> Indexer:
    """Wire the indexer once per execution environment, and write down what it runs under."""
    publish_settings(storage(), settings())
    notifier = AwsNotifier(
        events=boto3.client("events"),
        cloudfront=boto3.client("cloudfront"),
        event_bus=settings().event_bus,
        distribution_id=settings().distribution_id,
    )
    later = requeuer()
    return Indexer(storage(), notifier, settings().policy, requeue=None if later is None else later.requeue)


@logger.inject_lambda_context
@metrics.log_metrics
@tracer.capture_lambda_handler
def handle_queue(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Index what a batch of S3 notifications touched; report the messages that are to come again.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    _count("Messages", len(event["Records"]))
    batch = _Batch(event)
    # Artifacts are grouped by subdir over the whole batch, so that each subdir is swapped once;
    # then each message learns what became of its keys.
    batch.index(until=time.monotonic() + _READING_SHARE * context.get_remaining_time_in_millis() / 1000)
    batch.requeue_keys()
    return process_partial_response(
        event=event,
        record_handler=batch.settle,
        processor=BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False),
        context=context,
    )


@logger.inject_lambda_context
@metrics.log_metrics
@tracer.capture_lambda_handler
def handle_schedule(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Reconcile every channel, or those in ``event["channels"]``, and collect_garbage shards nobody names.

    Subdirs that time does not suffice for come first the next day, more or less: the order is drawn.
    What lies where nothing can be indexed harms no reader, and comes last.
    """
    channels = [parse_channel(name) for name in event.get("channels") or list_channels(storage())]
    subdirs = [subdir for channel in channels for subdir in list_subdirs(storage(), channel)]
    random.shuffle(subdirs)
    done = failed = 0
    while subdirs and context.get_remaining_time_in_millis() > _SUBDIR_MS:
        subdir = subdirs.pop()
        try:
            for report in reconcile(storage(), indexer(), subdir):
                _tell(str(subdir), report)
                _tell_failures(report)
            grace_ms = settings().shard_grace_days * DAY_MS
            try_collect_garbage(storage(), subdir, now_ms=time.time_ns() // 10**6, grace_ms=grace_ms)
            done += 1
        except FairwayError:
            logger.exception("subdir not reconciled", extra={"subdir": str(subdir)})
            failed += 1
    for channel in [*channels, *([] if event.get("channels") else [None])]:
        _reject_invalid_keys(channel, context)
    _count("UnreconciledSubdirs", failed + len(subdirs))
    return {"reconciled": done, "failed": failed, "unfinished": [str(subdir) for subdir in subdirs]}


def _reject_invalid_keys(channel: Channel | None, context: LambdaContext) -> None:
    """Set aside what lies in no subdir of a channel, or in no channel, while there is time."""
    try:
        reports = reject_invalid_keys(storage(), indexer(), channel)
        while context.get_remaining_time_in_millis() > _SUBDIR_MS and (report := next(reports, None)) is not None:
            _tell(channel or "nowhere", report)
            _tell_failures(report)
    except FairwayError:
        logger.exception("invalid_keys uploads not set aside", extra={"channel": channel})


class _Batch:
    def __init__(self, event: Mapping[str, Any]) -> None:
        self._keys: dict[str, tuple[str, ...] | FairwayError] = {}
        self._failures: dict[str, FairwayError] = {}
        for record in event["Records"]:
            try:
                self._keys[record["messageId"]] = parse_message(record["body"], bucket=settings().bucket)
            except FairwayError as error:
                self._keys[record["messageId"]] = error

    def index(self, *, until: float) -> None:
        keys = self._list_keys()
        work = plan_work(keys)
        by_subdir: dict[SubdirId | None, list[str]] = {}
        for key in keys:
            by_subdir.setdefault(find_subdir(key), []).append(key)
        if work.invalid_keys:
            with self._guarded(work.invalid_keys):
                report = indexer().reject_all(
                    {key: make_invalid_key_rejection(error) for key, error in work.invalid_keys.items()}
                )
                self._failures |= report.failures
                _tell("nowhere", report)
        for subdir, touched in work.subdirs.items():
            with self._guarded(by_subdir[subdir]):
                with tracer.provider.in_subsegment("## index"):
                    report = indexer().index(subdir, touched, until=until)
                self._failures |= report.failures
                self._failures |= {f"{key}.sigs": failure for key, failure in report.failures.items()}
                _tell(str(subdir), report)

    def _list_keys(self) -> list[str]:
        return [key for keys in self._keys.values() if not isinstance(keys, FairwayError) for key in keys]

    def requeue_keys(self) -> None:
        """Send what there was no time for as new messages: those of a large upload are no failures."""
        late = {key for key in self._list_keys() if isinstance(self._failures.get(key), DeadlineError)}
        later = requeuer()
        if not late or later is None:
            return
        with self._guarded(late):
            later.requeue_keys(sorted(late))
            for key in late:
                del self._failures[key]
            _count("HandedOn", len(late))

    @contextlib.contextmanager
    def _guarded(self, keys: Iterable[str]) -> Iterator[None]:
        """Have the messages of these keys come again where something fails; all others are settled (invariant 3)."""
        try:
            yield
        except FairwayError as failure:
            self._failures |= dict.fromkeys(keys, failure)
        except Exception as error:  # noqa: BLE001 - a bug that one subdir meets may not stop the others
            unforeseen = UnavailableError(f"something unforeseen: {error!r}")
            unforeseen.__cause__ = error
            self._failures |= dict.fromkeys(keys, unforeseen)

    def settle(self, record: SQSRecord) -> None:
        """Raise where a message is to come again."""
        keys = self._keys[record.message_id]
        if isinstance(keys, FairwayError):
            logger.error("message not understood", message_id=record.message_id, exc_info=keys)
            raise keys
        for key in keys:
            if key in self._failures:
                failure = self._failures[key]
                logger.error("to be tried again", key=key, exc_info=failure)
                raise failure


def _tell(subdir: str, report: Report) -> None:
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        if outcome.rejection is not None:
            logger.warning("rejected", key=outcome.key, code=outcome.rejection.code, reason=outcome.rejection.message)
    _count("IndexedArtifacts", counts.get("indexed", 0))
    _count("RemovedArtifacts", counts.get("removed", 0))
    _count("RejectedUploads", counts.get("rejected", 0))
    _count("Commits", report.commits)
    _count("CommitConflicts", report.conflicts)
    logger.info("settled", extra={"subdir": subdir, **counts, "commits": report.commits, "conflicts": report.conflicts})


def _tell_failures(report: Report) -> None:
    for key, failure in report.failures.items():
        logger.error("to be tried again", key=key, exc_info=failure)


def _count(name: str, value: int) -> None:
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
