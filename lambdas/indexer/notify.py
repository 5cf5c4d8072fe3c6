"""AWS notifications: rejection events, CloudFront invalidations, requeued messages."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import UnavailableError
from lambdas.indexer.cdn import plan_paths
from lambdas.indexer.events import format_requeued
from lambdas.indexer.model import Mode, Rejection

if TYPE_CHECKING:
    from mypy_boto3_cloudfront import CloudFrontClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

SOURCE: Final = "fairway"
REJECTED: Final = "Upload Rejected"
KEYS_PER_MESSAGE: Final = 40  # of 1,024 bytes at most, escaped: within SQS's 256 KiB


class AwsNotifier:
    """Sends events to one bus and invalidations to one distribution, if they are configured."""

    def __init__(
        self,
        *,
        events: "EventBridgeClient",
        cloudfront: "CloudFrontClient",
        event_bus: str | None,
        distribution_id: str | None,
    ) -> None:
        self._events = events
        self._cloudfront = cloudfront
        self._event_bus = event_bus
        self._distribution_id = distribution_id

    def publish_rejection(self, rejection: Rejection) -> None:
        """Put one event on the bus.

        Raises:
            UnavailableError: the bus did not accept it.
        """
        if self._event_bus is None:
            return
        entry = {
            "Source": SOURCE,
            "DetailType": REJECTED,
            "Detail": json.dumps(asdict(rejection)),
            "EventBusName": self._event_bus,
        }
        try:
            answer = self._events.put_events(Entries=[entry])  # type: ignore[list-item]  # a TypedDict, as a dict
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"EventBridge did not accept the event: {type(error).__name__}") from error
        if answer.get("FailedEntryCount"):
            raise UnavailableError("EventBridge did not accept the event")

    def invalidate(self, keys: Sequence[str]) -> None:
        """Invalidate the paths of some keys.

        Raises:
            UnavailableError: CloudFront did not accept it.
        """
        if self._distribution_id is None or not keys:
            return
        paths = plan_paths(keys)
        try:
            self._cloudfront.create_invalidation(
                DistributionId=self._distribution_id,
                InvalidationBatch={
                    "Paths": {"Quantity": len(paths), "Items": paths},
                    "CallerReference": uuid.uuid4().hex,
                },
            )
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"CloudFront did not accept the invalidation: {type(error).__name__}") from error


class Requeuer:
    """Sends messages to the indexer's own queue."""

    def __init__(self, sqs: "SQSClient", *, queue_url: str, delay_seconds: int) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._delay_seconds = delay_seconds

    def requeue_later(self, key: str) -> None:
        """Have a key inspected after the delay: it stands for work that several runs may ask for.

        Raises:
            UnavailableError: the queue did not accept it.
        """
        self._send([key], "together", delay_seconds=self._delay_seconds)

    def requeue_keys(self, keys: Sequence[str], mode: Mode) -> None:
        """Have keys inspected that there was no time for, or that are to be read in another mode.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            self._send(keys[start : start + KEYS_PER_MESSAGE], mode, delay_seconds=0)

    def requeue_turn(self, keys: Sequence[str], publisher: str) -> None:
        """Have the keys of a publisher inspected after everything else that waits in the queue.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            part = keys[start : start + KEYS_PER_MESSAGE]
            self._send(part, "together", delay_seconds=0, publisher=publisher)

    def requeue_after(self, keys: Sequence[str], delay_seconds: int) -> None:
        """Have keys inspected after a delay of their own.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        self._send(keys, "together", delay_seconds=delay_seconds)

    def _send(self, keys: Sequence[str], mode: Mode, *, delay_seconds: int, publisher: str | None = None) -> None:
        body = format_requeued(keys, mode, publisher=publisher)
        try:
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=body, DelaySeconds=delay_seconds)
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"SQS did not accept the message: {type(error).__name__}") from error
