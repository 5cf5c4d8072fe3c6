"""From queue messages to the keys to inspect, parsed and grouped by subdir. Pure.

S3's notifications come at least once, in any order, and late: they are hints about which keys to inspect.
The principal in them decides whose turn it is, and whether a change of an index file needs a check. The
indexer also sends messages to itself: keys that it had no time for, keys that are to be read alone, and
``CHANNEL/SUBDIR/`` if outputs were deferred.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote_plus

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError
from lambdas.channel.layout import (
    ArtifactKey,
    AttestationsKey,
    FolderKey,
    ParsedKey,
    PatchesKey,
    WholeSubdirKey,
    parse_key,
)
from lambdas.channel.names import SubdirId
from lambdas.indexer.model import Mode, SubdirKeys

_TEST_EVENT: Final = "s3:TestEvent"
_REQUEUED: Final = "fairway:Requeued"
_ACTIONS: Final[Mapping[str, "Action"]] = {"ObjectCreated": "created", "ObjectRemoved": "removed"}
_PLACEHOLDER: Final = "EXAMPLE"  # the principal of every event on an emulator


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a batch of keys asks for."""

    subdirs: Mapping[SubdirId, SubdirKeys] = field(default_factory=dict)
    invalid_keys: Mapping[str, InvalidNameError] = field(default_factory=dict)
    """``{key: error}`` of uploads under keys where nothing can be indexed."""


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


def format_requeued(
    keys: Sequence[str], mode: Mode = "together", *, publisher: str | None = None, error: str | None = None
) -> str:
    """Return the message that has some keys inspected; ``error`` tells people why they failed."""
    message = {"Event": _REQUEUED, "Keys": list(keys), "Mode": mode}
    optional = {"Publisher": publisher, "Error": error}
    return json.dumps(message | {name: value for name, value in optional.items() if value is not None})


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


def plan_work(keys: Iterable[str]) -> Work:
    """Parse keys and group them by subdir; keys that concern no index are left out."""
    parsed: dict[SubdirId, list[ParsedKey]] = {}
    invalid_keys: dict[str, InvalidNameError] = {}
    for key in keys:
        try:
            found = parse_key(key)
        except InvalidNameError as error:
            if key.rpartition("/")[2]:  # a folder is no upload
                invalid_keys[key] = error
            continue
        if found is not None:
            parsed.setdefault(_subdir_of(found), []).append(found)
    return Work(
        subdirs={subdir: _group(found) for subdir, found in sorted(parsed.items(), key=lambda item: str(item[0]))},
        invalid_keys=invalid_keys,
    )


def _subdir_of(key: ParsedKey) -> SubdirId:
    return key.artifact.subdir if isinstance(key, AttestationsKey) else key.subdir


def _group(keys: Sequence[ParsedKey]) -> SubdirKeys:
    return SubdirKeys(
        artifacts=frozenset(key for key in keys if isinstance(key, ArtifactKey)),
        attestations=frozenset(key.artifact for key in keys if isinstance(key, AttestationsKey)),
        patches=any(isinstance(key, PatchesKey) for key in keys),
        deferred=any(isinstance(key, FolderKey) for key in keys),
        whole=any(isinstance(key, WholeSubdirKey) for key in keys),
    )
