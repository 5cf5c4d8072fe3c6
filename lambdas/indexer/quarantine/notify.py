"""Notifies operators of rejected uploads, and has CloudFront drop what was rejected."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import UnavailableError
from lambdas.indexer.model import Rejection
from lambdas.indexer.quarantine.cdn import plan_paths
from lambdas.indexer.quarantine.event_bus import EventBus

if TYPE_CHECKING:
    from mypy_boto3_cloudfront import CloudFrontClient
    from mypy_boto3_events import EventBridgeClient

REJECTED: Final = "Upload Rejected"
"""The type of the events."""


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
        self._bus = None if event_bus is None else EventBus(events, name=event_bus)
        self._cloudfront = cloudfront
        self._distribution_id = distribution_id

    def publish_rejection(self, rejection: Rejection) -> None:
        """Put one event on the bus.

        Raises:
            UnavailableError: the bus did not accept it.
        """
        if self._bus is not None:
            self._bus.publish(REJECTED, asdict(rejection))

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
