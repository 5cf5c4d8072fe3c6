"""The key refresher: checks the access document every hour, and refreshes the issuers' keys in it.

If the document is missing or malformed, the run fails and writes nothing, so that the function's
error metric raises an alarm wherever the readers are. If an issuer cannot be reached, its keys stay
and a log line is counted: the authorizer trusts keys for a week after they were last confirmed.
CloudFormation calls the function once, to create the document.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import boto3
from botocore.config import Config

from lambdas.channel.errors import AccessDeniedError
from lambdas.key_refresher.deployment import answer_deployment, is_deployment, send_answer
from lambdas.key_refresher.jwks import fetch_keys
from lambdas.key_refresher.refresh import (
    ISSUERS_UNAVAILABLE,
    FetchKeys,
    IssuersUnavailableError,
    apply_fetched_keys,
    fetch_all_keys,
)
from lambdas.key_refresher.store import create_access, fetch_access, swap_access
from lambdas.storage.protocol import ObjectStorage
from lambdas.storage.s3 import S3Storage

AUTHOR: Final = "key-refresher"
"""The history's name for the key refresher."""


def handle_event(event: object, _context: object) -> dict[str, Any]:
    """Run hourly for EventBridge, and once for CloudFormation: the entry point."""
    client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3}))
    storage = S3Storage(os.environ["FAIRWAY_BUCKET"], client)
    if is_deployment(event):
        return answer_deployment(cast("Mapping[str, Any]", event), lambda: create_access(storage), send_answer)
    return run_hourly(storage, fetch_keys, now=int(time.time()))


def run_hourly(storage: ObjectStorage, fetch: FetchKeys, *, now: int) -> dict[str, Any]:
    """Refresh the keys and log the result. An unreachable issuer is logged, but fails no run.

    Raises:
        FairwayError: as ``refresh_keys``, except for unreachable issuers.
    """
    try:
        result = refresh_keys(storage, fetch, now=now)
    except IssuersUnavailableError as error:
        _log("ERROR", ISSUERS_UNAVAILABLE, message=str(error))
        return {"failed": str(error)}
    except AccessDeniedError as error:
        # The function may not list the bucket, so S3 answers 403 for a missing object, too.
        raise AccessDeniedError(f"the access document is missing, or may not be read: {error}") from error
    _log("INFO", "keys-refreshed", **result)
    return result


def refresh_keys(
    storage: ObjectStorage, fetch: FetchKeys, *, now: int, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Check the access document and refresh all issuers' keys once; return how many issuers answered.

    Raises:
        UsageError: the document is missing.
        AccessDeniedError: the document is missing, or may not be read.
        InvalidDocumentError: the document is malformed.
        ConflictError: other writers were faster at every attempt.
        IssuersUnavailableError: an issuer cannot be reached; the others' keys are refreshed.
        UnavailableError: S3 cannot be reached.
    """
    fetched = fetch_all_keys(fetch_access(storage), fetch)
    swap_access(storage, lambda document: apply_fetched_keys(document, fetched, now=now, by=AUTHOR), sleep=sleep)
    if fetched.failures:
        raise IssuersUnavailableError(f"no keys from {', '.join(sorted(fetched.failures))}")
    return {"issuers": len(fetched.keys)}


def _log(level: str, code: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"level": level, "code": code, **more}) + "\n")
