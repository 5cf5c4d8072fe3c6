"""The messages of the queue: parsed, and formatted where the indexer sends them itself. Pure.

S3's notifications come at least once, in any order, and late: they are hints about which keys to inspect.
The principal in them decides whose turn it is, and whether a change of an index file needs a check. The
indexer also sends messages to itself: keys that it had no time for, keys that are to be read alone, and
``CHANNEL/SUBDIR/`` if outputs were deferred.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote_plus

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.model import Mode

_TEST_EVENT: Final = "s3:TestEvent"
_REQUEUED: Final = "fairway:Requeued"
_ACTIONS: Final[Mapping[str, "Action"]] = {"ObjectCreated": "created", "ObjectRemoved": "removed"}
_PLACEHOLDER: Final = "EXAMPLE"  # the principal of every event on an emulator


Action = Literal["created", "removed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectEvent:
    """One record of a notification: an object was created or removed."""

    key: str
    principal: str | None = None
    """``AWS:ROLE-ID:SESSION`` or ``AWS:USER-ID``; None if the event does not name it."""
    action: Action | None = None
    """None if the event does not name it."""
    version: str | None = None
    """The version that was created."""
    sequencer: str = ""
    """Identifies the event among those of its key."""
    at: datetime | None = None
    """When the object was written; None if the event does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What one queue message asks for."""

    keys: tuple[str, ...] = ()
    mode: Mode = "together"
    """How artifacts under the keys are read."""
    events: tuple[ObjectEvent, ...] = ()
    """The events that the keys come from; empty if the indexer sent the message itself."""
    publisher: str | None = None
    """Who uploaded the keys, in a message that the indexer sent itself; None if that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A message, as the queue passed it on."""

    message: Message
    receives: int
    """How often it was received; 1 for the first time."""
    sent_ms: int
    """When it was sent."""


def format_requeued(
    keys: Sequence[str], mode: Mode = "together", *, publisher: str | None = None, error: str | None = None
) -> str:
    """Return the message that has some keys inspected; ``error`` tells people why they failed."""
    message = {"Event": _REQUEUED, "Keys": list(keys), "Mode": mode}
    optional = {"Publisher": publisher, "Error": error}
    return json.dumps(message | {name: value for name, value in optional.items() if value is not None})


def parse_records(
    records: Iterable[Mapping[str, Any]], *, bucket: str, now_ms: int
) -> dict[str, Received | InvalidDocumentError]:
    """Return the messages of a batch by their IDs; for one that is invalid, the error."""
    found: dict[str, Received | InvalidDocumentError] = {}
    for record in records:
        try:
            message = parse_message(record["body"], bucket=bucket)
        except InvalidDocumentError as error:
            found[record["messageId"]] = error
            continue
        attributes = record["attributes"]
        found[record["messageId"]] = Received(
            message=message,
            receives=int(attributes["ApproximateReceiveCount"]),
            sent_ms=int(attributes.get("SentTimestamp", now_ms)),
        )
    return found


def parse_message(body: str, *, bucket: str) -> Message:
    """Return what one queue message asks for, its keys decoded.

    Raises:
        InvalidDocumentError: it is neither a message of the indexer nor an S3 notification about this
            bucket.
    """
    try:
        document: Any = json.loads(body)
        if document.get("Event") == _TEST_EVENT:  # sent when notifications are set up
            return Message()
        if document.get("Event") == _REQUEUED:
            if not all(isinstance(key, str) for key in document["Keys"]):
                raise InvalidDocumentError("a requeued key is not text")
            if document["Mode"] not in get_args(Mode):
                raise InvalidDocumentError(f"unknown mode of reading: {document['Mode']!r}")
            publisher = document.get("Publisher")
            return Message(
                keys=tuple(document["Keys"]),
                mode=document["Mode"],
                publisher=publisher if isinstance(publisher, str) else None,
            )
        events = tuple(_parse_record(record, bucket) for record in document["Records"])
        return Message(keys=tuple(event.key for event in events), events=events)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidDocumentError(f"not an S3 notification: {error!r}") from error


def _parse_record(record: Any, bucket: str) -> ObjectEvent:  # noqa: ANN401 - JSON
    if record["s3"]["bucket"]["name"] != bucket:
        raise InvalidDocumentError(f"notification about another bucket: {record['s3']['bucket']['name']!r}")
    found = record["s3"]["object"]
    identity = record.get("userIdentity")
    time = record.get("eventTime")
    principal = identity.get("principalId") if isinstance(identity, dict) else None
    return ObjectEvent(
        key=unquote_plus(found["key"], errors="strict"),  # keys are form-encoded
        principal=principal if isinstance(principal, str) and principal not in {"", _PLACEHOLDER} else None,
        action=_ACTIONS.get(str(record.get("eventName")).partition(":")[0]),
        version=version if isinstance(version := found.get("versionId"), str) else None,
        sequencer=str(found.get("sequencer", "")),
        at=None if time is None else datetime.fromisoformat(time).astimezone(UTC),
    )
