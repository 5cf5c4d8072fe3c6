"""Events for operators, on one EventBridge bus."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import UnavailableError

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE: Final = "fairway"


class EventBus:
    """One bus."""

    def __init__(self, events: "EventBridgeClient", *, name: str) -> None:
        self._events = events
        self._name = name

    def publish(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Put one event on the bus; ``kind`` is its detail type.

        Raises:
            UnavailableError: the bus did not accept it.
        """
        entry = {
            "Source": SOURCE,
            "DetailType": kind,
            "Detail": json.dumps(detail),
            "EventBusName": self._name,
        }
        try:
            answer = self._events.put_events(Entries=[entry])  # type: ignore[list-item]  # a TypedDict, as a dict
        except (ClientError, BotoCoreError) as error:
            raise UnavailableError(f"EventBridge did not accept the event: {type(error).__name__}") from error
        if answer.get("FailedEntryCount"):
            raise UnavailableError("EventBridge did not accept the event")
