"""Tells operators which principals replace or delete index files again and again."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from lambdas.channel.names import SubdirId
from lambdas.indexer.quarantine.event_bus import EventBus
from lambdas.indexer.queue.signals import FOREIGN_INDEX, ForeignIndex
from lambdas.indexer.telemetry import count, logger

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

UNKNOWN_PRINCIPAL: Final = "an unknown principal"


class OperatorEvents:
    """Events about foreign indexes, on one bus."""

    def __init__(self, events: "EventBridgeClient", *, event_bus: str) -> None:
        self._bus = EventBus(events, name=event_bus)

    def publish_foreign_index(self, subdir: SubdirId, found: ForeignIndex) -> None:
        """Publish that a principal has replaced or deleted a shard index that another one had just before.

        Raises:
            UnavailableError: the bus did not accept it.
        """
        detail = asdict(found) | {"subdir": str(subdir), "principal": found.principal or UNKNOWN_PRINCIPAL}
        self._bus.publish(FOREIGN_INDEX, detail)


def raise_alarm(events: OperatorEvents | None, subdir: SubdirId, found: ForeignIndex) -> None:
    """Tell operators which principal replaced or deleted a shard index that another one had just before.

    Raises:
        UnavailableError: the bus did not accept it.
    """
    if events is not None:
        events.publish_foreign_index(subdir, found)
    logger.error("foreign index again", subdir=str(subdir), principal=found.principal or UNKNOWN_PRINCIPAL)
    count("ForeignIndexes", 1)
