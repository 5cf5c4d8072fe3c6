"""The keykeeper: refreshes issuers' keys in the access document, and creates it if need be.

An issuer that can't be reached keeps its keys; the invocation then fails in the end, so that the
function's error metric tells. The edge believes keys for a week after they were last confirmed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from lambdas.channel.access import AccessDocument
from lambdas.channel.errors import AccessDeniedError, ConflictError, UnavailableError
from lambdas.keykeeper.deployment import is_deployment, send_answer, settle_deployment
from lambdas.keykeeper.jwks import fetch_keys
from lambdas.keykeeper.refresh import FetchKeys, apply_fetched_keys, fetch_all_keys

MAX_ATTEMPTS: Final = 5
AUTHOR: Final = "keykeeper"


class DocumentStore(Protocol):
    """Where the access document is."""

    def fetch(self) -> tuple[AccessDocument, str] | None:
        """Return the document and its ETag; None where there may be none."""

    def create(self) -> None:
        """Write an empty one where there is none, else raise ``ConflictError``."""

    def replace(self, document: AccessDocument, etag: str) -> None:
        """Replace that one, else raise ``ConflictError``."""


def refresh_keys(store: DocumentStore, fetch: FetchKeys, *, now: int) -> dict[str, Any]:
    """Refresh all issuers' keys once; return what happened.

    Raises:
        AccessDeniedError: the document is there, but may not be read.
        ConflictError: others replaced it every time.
        UnavailableError: an issuer, or S3, can't be reached.
    """
    found = store.fetch()
    if found is None:
        try:
            store.create()
        except ConflictError as error:
            raise AccessDeniedError("the access document is there, but may not be read") from error
        return {"created": True, "issuers": 0}
    fetched = fetch_all_keys(found[0], fetch)
    for _ in range(MAX_ATTEMPTS):
        document, etag = found
        changed = apply_fetched_keys(document, fetched, now=now, by=AUTHOR)
        if changed == document:
            break
        try:
            store.replace(changed, etag)
        except ConflictError:
            found = store.fetch()
            if found is None:
                raise
        else:
            break
    else:
        raise ConflictError("the access document is being changed by others all the time")
    if fetched.failures:
        raise UnavailableError(f"no keys from {', '.join(sorted(fetched.failures))}")
    return {"created": False, "issuers": len(fetched.keys)}


def handle_event(event: object, _context: object) -> dict[str, Any]:
    """Run by EventBridge every hour, and by CloudFormation at each deployment: the entry point."""
    import boto3  # noqa: PLC0415 - tests of the rest do without
    from botocore.config import Config  # noqa: PLC0415 - likewise

    from lambdas.keykeeper.document import S3Document  # noqa: PLC0415 - likewise

    client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3}))
    store = S3Document(os.environ["FAIRWAY_BUCKET"], client)
    if is_deployment(event):
        return settle_deployment(cast("Mapping[str, Any]", event), store.create, send_answer)
    result = refresh_keys(store, fetch_keys, now=int(time.time()))
    sys.stdout.write(json.dumps({"level": "INFO", "code": "keys-refreshed", **result}) + "\n")
    return result
