"""Tells others through AWS: the world of rejections, CloudFront what to drop, the indexer what it left for later."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import UnavailableError
from lambdas.channel.names import SubdirId
from lambdas.indexer.events import format_requeue
from lambdas.indexer.model import Rejection

if TYPE_CHECKING:
    from mypy_boto3_cloudfront import CloudFrontClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

SOURCE: Final = "fairway"
REJECTED: Final = "Upload Rejected"
_SAFE: Final = "/!$'(),"
MAX_PATHS: Final = 20  # above, folders are named
KEYS_PER_MESSAGE: Final = 40  # of 1,024 bytes, written as escapes, at most: within SQS's 256 KiB


class AwsNotifier:
    """Announces to one bus and one distribution, where they are configured."""

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
            UnavailableError: the bus did not take it.
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
            raise UnavailableError(f"EventBridge did not take the event: {type(error).__name__}") from error
        if answer.get("FailedEntryCount"):
            raise UnavailableError("EventBridge did not take the event")

    def invalidate(self, keys: Sequence[str]) -> None:
        """Invalidate paths.

        Raises:
            UnavailableError: CloudFront did not take it.
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
            raise UnavailableError(f"CloudFront did not take the invalidation: {type(error).__name__}") from error


class QueueNotifier:
    """Reminds the indexer through its own queue."""

    def __init__(self, sqs: "SQSClient", *, queue_url: str, delay_seconds: int) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._delay_seconds = delay_seconds

    def requeue(self, subdir: SubdirId) -> None:
        """Have what was left for later in a subdir written after the delay.

        Raises:
            UnavailableError: the queue did not take it.
        """
        self._send([subdir.key("")], delay_seconds=self._delay_seconds)

    def requeue_keys(self, keys: Sequence[str]) -> None:
        """Have keys looked at that there was no time for.

        Raises:
            UnavailableError: the queue did not take them.
        """
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            self._send(keys[start : start + KEYS_PER_MESSAGE], delay_seconds=0)

    def _send(self, keys: Sequence[str], *, delay_seconds: int) -> None:
        body = format_requeue(keys)
        try:
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=body, DelaySeconds=delay_seconds)
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"SQS did not take the requeuer: {type(error).__name__}") from error


def plan_paths(keys: Sequence[str]) -> list[str]:
    """Return the paths to invalidate: each key's own, or, where there are many, whole folders. Pure.

    A wildcard is one subdir, and 1,000 paths a month are free.

    Source: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html
    """
    # The edge asks the origin for paths as viewers write them, but for "+", and caches by them: what
    # RFC 1738 calls safe must stay as it is.
    if len(keys) <= MAX_PATHS:
        return [f"/{quote(key, safe=_SAFE)}" for key in keys]
    folders = sorted({key.rpartition("/")[0] for key in keys})
    return [f"/{quote(folder, safe=_SAFE)}/*" for folder in folders] if len(folders) <= MAX_PATHS else ["/*"]
