"""From queue messages to what is to be looked at. Pure.

S3's notifications come at least once, in any order, and late: only their keys count. Beside them come
*reminders* of keys that the indexer sends itself: ``CHANNEL/SUBDIR/`` where files were left for later.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError, RejectedError
from lambdas.channel.names import (
    PATCH_INSTRUCTIONS,
    PRIVATE_PREFIX,
    SIGNATURES_SUFFIX,
    SubdirId,
    find_extension,
    parse_artifact_key,
    parse_subdir_id,
)
from lambdas.indexer.model import SubdirKeys

_TEST_EVENT: Final = "s3:TestEvent"
_REMINDER: Final = "fairway:Reminder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a batch of keys asks for."""

    subdirs: Mapping[SubdirId, SubdirKeys] = field(default_factory=dict)
    invalid_keys: Mapping[str, InvalidNameError] = field(default_factory=dict)
    """``{key: error}`` of uploads under keys where nothing can be indexed."""


def format_requeue(keys: Sequence[str]) -> str:
    """Return the message that asks for some keys to be looked at."""
    return json.dumps({"Event": _REMINDER, "Keys": list(keys)})


def parse_message(body: str, *, bucket: str) -> tuple[str, ...]:
    """Return the keys that one queue message names, decoded.

    Raises:
        InvalidDocumentError: it is neither a requeuer nor an S3 notification about this bucket.
    """
    try:
        document: Any = json.loads(body)
        if document.get("Event") == _TEST_EVENT:  # sent when notifications are set up
            return ()
        if document.get("Event") == _REMINDER:
            if not all(isinstance(key, str) for key in document["Keys"]):
                raise InvalidDocumentError("a requeuer of what is no key")
            return tuple(document["Keys"])
        keys = []
        for record in document["Records"]:
            if record["s3"]["bucket"]["name"] != bucket:
                raise InvalidDocumentError(f"notification about another bucket: {record['s3']['bucket']['name']!r}")
            keys.append(unquote_plus(record["s3"]["object"]["key"], errors="strict"))  # keys are form-encoded
        return tuple(keys)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidDocumentError(f"not an S3 notification: {error!r}") from error


def plan_work(keys: Iterable[str]) -> Work:
    """Group keys by subdir; what is none of our business is left out."""
    artifacts: dict[SubdirId, set[str]] = {}
    sidecars: dict[SubdirId, set[str]] = {}
    patched: set[SubdirId] = set()
    deferred: set[SubdirId] = set()
    invalid_keys: dict[str, InvalidNameError] = {}
    for key in keys:
        if key.startswith(PRIVATE_PREFIX):
            continue
        folder, _, filename = key.rpartition("/")
        artifact = key.removesuffix(SIGNATURES_SUFFIX)
        try:
            if not filename:
                deferred.add(parse_subdir_id(folder))
            elif filename == PATCH_INSTRUCTIONS:
                patched.add(parse_subdir_id(folder))
            elif find_extension(artifact) is not None:
                parsed = parse_artifact_key(artifact)
                (artifacts if artifact == key else sidecars).setdefault(parsed.path, set()).add(parsed.filename)
        except InvalidNameError as error:
            if filename:
                invalid_keys[key] = error
    return Work(
        subdirs={
            path: SubdirKeys(
                artifacts=frozenset(artifacts.get(path, ())),
                sidecars=frozenset(sidecars.get(path, ())),
                patches=path in patched,
                deferred=path in deferred,
            )
            for path in sorted({*artifacts, *sidecars, *patched, *deferred}, key=str)
        },
        invalid_keys=invalid_keys,
    )


def make_invalid_key_rejection(error: InvalidNameError) -> RejectedError:
    """Return why an upload under an impossible key is refused."""
    return RejectedError("invalid-key", str(error), hint=error.hint)


def find_subdir(key: str) -> SubdirId | None:
    """Return the subdir whose index a key concerns, if any."""
    return next(iter(plan_work([key]).subdirs), None)
