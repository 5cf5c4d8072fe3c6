"""From queue messages to the keys to inspect, parsed and grouped by subdir. Pure.

S3's notifications come at least once, in any order, and late: only their keys count. The indexer also
sends messages to itself: keys that it had no time for, keys that are to be read alone, and
``CHANNEL/SUBDIR/`` if outputs were deferred.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a batch of keys asks for."""

    subdirs: Mapping[SubdirId, SubdirKeys] = field(default_factory=dict)
    invalid_keys: Mapping[str, InvalidNameError] = field(default_factory=dict)
    """``{key: error}`` of uploads under keys where nothing can be indexed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What one queue message asks for."""

    keys: tuple[str, ...] = ()
    mode: Mode = "together"
    """How artifacts under the keys are read."""


def format_requeued(keys: Sequence[str], mode: Mode = "together") -> str:
    """Return the message that has some keys inspected."""
    return json.dumps({"Event": _REQUEUED, "Keys": list(keys), "Mode": mode})


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
            return Message(keys=tuple(document["Keys"]), mode=document["Mode"])
        keys = []
        for record in document["Records"]:
            if record["s3"]["bucket"]["name"] != bucket:
                raise InvalidDocumentError(f"notification about another bucket: {record['s3']['bucket']['name']!r}")
            keys.append(unquote_plus(record["s3"]["object"]["key"], errors="strict"))  # keys are form-encoded
        return Message(keys=tuple(keys))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidDocumentError(f"not an S3 notification: {error!r}") from error


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
