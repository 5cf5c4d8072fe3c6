"""The indexer's entry points: a batch from the queue, and the daily schedule. Thin: connects what they need."""

import functools
import os
import time
from collections.abc import Mapping
from typing import Any, Final

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.channel.errors import FairwayError
from lambdas.channel.names import parse_channel
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.quarantine.notify import AwsNotifier
from lambdas.indexer.queue.agenda import make_agenda
from lambdas.indexer.queue.alarms import OperatorEvents, raise_alarm
from lambdas.indexer.queue.index_watch import IndexWatch
from lambdas.indexer.queue.messages import parse_records
from lambdas.indexer.queue.run import QueueRun
from lambdas.indexer.queue.senders import DeadLetters, Requeuer
from lambdas.indexer.queue.settle import Settlement
from lambdas.indexer.queue.signals import find_signals
from lambdas.indexer.settings import Settings, parse_settings, publish_settings
from lambdas.indexer.telemetry import count, count_latency, logger, metrics
from lambdas.indexer.upkeep.daily import DailyRun
from lambdas.indexer.upkeep.listing import list_channels, list_subdirs
from lambdas.indexer.upkeep.reconcile import DAY_MS
from lambdas.storage.client import make_s3_client
from lambdas.storage.s3 import S3Storage

_SUBDIR_MS: Final = 120_000  # with less time left, no further subdir is begun
_READING_SHARE: Final = 0.6  # of the function's time: the rest is for artifacts in hand, the commit and the outputs


@logger.inject_lambda_context
@metrics.log_metrics
def handle_queue(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Index what a batch of S3 notifications names; report the messages that are to be redelivered.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    count("Messages", len(event["Records"]))
    now_ms = time.time_ns() // 10**6
    messages = parse_records(event["Records"], bucket=settings().bucket, now_ms=now_ms)
    agenda = make_agenda(messages.values(), now_ms=now_ms)
    run = QueueRun(agenda=agenda, indexer=indexer(), watch=index_watch(), queue=requeuer())
    run.add_checks(find_signals(agenda.events, role_id=settings().role_id))
    run.postpone_first_listings()
    run.pack(messages=len(messages))
    run.index(deadline=_make_deadline(context))
    count_latency(agenda.find_first_done())
    _invalidate_rejected()
    run.requeue_unread()
    count("FailedKeys", len(run.agenda.failures))
    settlement = Settlement(
        messages=messages, run=run, dead_letters=dead_letters(), max_receives=settings().max_receives
    )
    return process_partial_response(
        event=event,
        record_handler=settlement.require_done,
        processor=BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False),
        context=context,
    )


@logger.inject_lambda_context
@metrics.log_metrics
def handle_schedule(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Reconcile every channel, or those in ``event["channels"]``, and collect garbage.

    Channels that the deployment declares by name are created.

    Artifacts that there was no time to read are left to the queue: a message asks for the rest of their
    subdir. Uploads under keys where nothing can be indexed harm no reader, and come last.
    """
    publish_settings(storage(), settings())  # whatever happened to them
    declared = settings().policy.list_declared_channels()
    channels = [parse_channel(name) for name in event.get("channels") or {*list_channels(storage()), *declared}]
    queue = requeuer()
    run = DailyRun(
        storage=storage(),
        indexer=indexer(),
        rules=ReadingRules(deadline=_make_deadline(context)),
        grace_ms=settings().shard_grace_days * DAY_MS,
        has_time=lambda: context.get_remaining_time_in_millis() > _SUBDIR_MS,
        requeue_later=None if queue is None else queue.requeue_later,
    )
    run.reconcile_subdirs(subdir for channel in channels for subdir in list_subdirs(storage(), channel))
    run.reject_invalid_keys([*channels, *([] if event.get("channels") else [None])])
    _invalidate_rejected(all_runs=True)
    count("UnreconciledSubdirs", run.failed + len(run.unfinished))
    return {"reconciled": run.done, "failed": run.failed, "unfinished": [str(subdir) for subdir in run.unfinished]}


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


def index_watch() -> IndexWatch:
    """Wire the watch over index files."""
    return IndexWatch(
        storage=storage(),
        outputs=settings().policy.outputs,
        queue=requeuer(),
        period_seconds=settings().deferral_seconds,
        raise_alarm=functools.partial(raise_alarm, operator_events()),
    )


def _make_deadline(context: LambdaContext) -> float:
    """Return when reading artifacts ends, as ``time.monotonic`` counts."""
    return time.monotonic() + _READING_SHARE * context.get_remaining_time_in_millis() / 1000


def _invalidate_rejected(*, all_runs: bool = False) -> None:
    """Invalidate what was rejected: a failure delays that, and nothing else."""
    try:
        indexer().invalidate_rejected(all_runs=all_runs)
    except FairwayError as failure:
        logger.warning("rejected uploads not invalidated", exc_info=failure)
