"""The key refresher: checks the access document every hour, and refreshes issuers' keys in it.

The run fails where the document is missing or the authorizer could not understand it, so that the
function's error metric tells, wherever the readers are; it writes nothing then. An issuer that
can't be reached keeps its keys, and is counted by its line in the log: the edge believes keys for a
week after they were last confirmed. CloudFormation calls once, to have the document created.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from lambdas.access.document import AccessDocument
from lambdas.channel.errors import AccessDeniedError, ConflictError
from lambdas.key_refresher.deployment import is_deployment, send_answer, settle_deployment
from lambdas.key_refresher.jwks import fetch_keys
from lambdas.key_refresher.refresh import FetchKeys, IssuersUnavailableError, apply_fetched_keys, fetch_all_keys

MAX_ATTEMPTS: Final = 5
AUTHOR: Final = "key_refresher"
ISSUERS_UNAVAILABLE: Final = "issuers-unavailable"
"""The ``code`` that a metric filter looks for in the log."""


class DocumentStore(Protocol):
    """Where the access document is."""

    def fetch(self) -> tuple[AccessDocument, str] | None:
        """Return the document and its ETag; None where there may be none."""

    def replace(self, document: AccessDocument, etag: str) -> None:
        """Replace that one, else raise ``ConflictError``."""


def refresh_keys(store: DocumentStore, fetch: FetchKeys, *, now: int) -> dict[str, Any]:
    """Check the document and refresh all issuers' keys once; return what happened.

    Raises:
        AccessDeniedError: the document is missing, or may not be read.
        InvalidDocumentError: it can't be understood.
        ConflictError: others replaced it every time.
        IssuersUnavailableError: an issuer can't be reached; the others' keys are refreshed.
        UnavailableError: S3 can't be reached.
    """
    found = _require(store)
    fetched = fetch_all_keys(found[0], fetch)
    for _ in range(MAX_ATTEMPTS):
        document, etag = found
        changed = apply_fetched_keys(document, fetched, now=now, by=AUTHOR)
        if changed == document:
            break
        try:
            store.replace(changed, etag)
        except ConflictError:
            found = _require(store)
        else:
            break
    else:
        raise ConflictError("the access document is being changed by others all the time")
    if fetched.failures:
        raise IssuersUnavailableError(f"no keys from {', '.join(sorted(fetched.failures))}")
    return {"issuers": len(fetched.keys)}


def handle_event(event: object, _context: object) -> dict[str, Any]:
    """Run by EventBridge every hour, and by CloudFormation at deployments: the entry point."""
    import boto3  # noqa: PLC0415 - tests of the rest do without
    from botocore.config import Config  # noqa: PLC0415 - likewise

    from lambdas.key_refresher.document import S3Document  # noqa: PLC0415 - likewise

    client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3}))
    store = S3Document(os.environ["FAIRWAY_BUCKET"], client)
    if is_deployment(event):
        return settle_deployment(cast("Mapping[str, Any]", event), store.create, send_answer)
    return run_hourly(store, fetch_keys, now=int(time.time()))


def run_hourly(store: DocumentStore, fetch: FetchKeys, *, now: int) -> dict[str, Any]:
    """Refresh keys, and log what happened; issuers that fail make a line that is counted, not a failure.

    Raises:
        FairwayError: as ``refresh_keys``, but for issuers.
    """
    try:
        result = refresh_keys(store, fetch, now=now)
    except IssuersUnavailableError as error:
        _log("ERROR", ISSUERS_UNAVAILABLE, message=str(error))
        return {"failed": str(error)}
    _log("INFO", "keys-refreshed", **result)
    return result


def _require(store: DocumentStore) -> tuple[AccessDocument, str]:
    # Nothing is written in its place: an empty document would make channels public that were set private.
    found = store.fetch()
    if found is None:
        raise AccessDeniedError(
            "the access document is missing, or may not be read",
            hint="restore the earlier version of .fairway/access.json; see docs/operating.md",
        )
    return found


def _log(level: str, code: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"level": level, "code": code, **more}) + "\n")
