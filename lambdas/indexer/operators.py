"""What the indexer tells operators through AWS: foreign indexes, and messages that it gives up."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import FairwayError, UnavailableError
from lambdas.channel.names import SubdirId
from lambdas.indexer.events import format_requeued
from lambdas.indexer.model import Mode
from lambdas.indexer.notify import SOURCE
from lambdas.indexer.signals import FOREIGN_INDEX, ForeignIndex

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

UNKNOWN_PRINCIPAL: Final = "an unknown principal"
_MAX_ERROR_CHARS: Final = 2000


class OperatorEvents:
    """Events for operators, on one bus."""

    def __init__(self, events: "EventBridgeClient", *, event_bus: str) -> None:
        self._events = events
        self._event_bus = event_bus

    def publish_foreign_index(self, subdir: SubdirId, found: ForeignIndex) -> None:
        """Publish that a principal has replaced or deleted a shard index that another one had just before.

        Raises:
            UnavailableError: the bus did not accept it.
        """
        detail = asdict(found) | {"subdir": str(subdir), "principal": found.principal or UNKNOWN_PRINCIPAL}
        entry = {
            "Source": SOURCE,
            "DetailType": FOREIGN_INDEX,
            "Detail": json.dumps(detail),
            "EventBusName": self._event_bus,
        }
        try:
            answer = self._events.put_events(Entries=[entry])  # type: ignore[list-item]  # a TypedDict, as a dict
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"EventBridge did not accept the event: {type(error).__name__}") from error
        if answer.get("FailedEntryCount"):
            raise UnavailableError("EventBridge did not accept the event")


class DeadLetters:
    """The dead-letter queue: keys that kept failing for a day, with the last error of each."""

    def __init__(self, sqs: "SQSClient", *, queue_url: str) -> None:
        self._sqs = sqs
        self._queue_url = queue_url

    def send(self, keys: Sequence[str], mode: Mode, failure: FairwayError) -> None:
        """Keep keys with their error, as a message that has them inspected when it is redriven.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        body = format_requeued(keys, mode, error=f"{type(failure).__name__}: {failure}"[:_MAX_ERROR_CHARS])
        try:
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=body)
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"SQS did not accept the message: {type(error).__name__}") from error
