"""Answers CloudFormation: creates the access document when the stack is created, and only then.

Without an access document the authorizer answers 503, so the first deployment creates one. A document
that is missing later was lost. An empty one in its place could make public what was set private, so
neither an update nor the hourly run writes one.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final

from lambdas.channel.errors import ConflictError, FairwayError, UnavailableError

PHYSICAL_ID: Final = "access-document"
TIMEOUT_SECONDS: Final = 30

Send = Callable[[str, bytes], None]


def is_deployment(event: object) -> bool:
    """Tell whether the event is a request from CloudFormation."""
    return isinstance(event, Mapping) and "RequestType" in event and "ResponseURL" in event


def answer_deployment(event: Mapping[str, Any], create: Callable[[], None], send: Send) -> dict[str, Any]:
    """Create the document if the stack is being created and has none, and send the answer.

    An update and a deletion leave the document alone. A failure is answered, too: CloudFormation would
    wait for an hour otherwise.
    """
    reason = ""
    if event["RequestType"] == "Create":
        try:
            with contextlib.suppress(ConflictError):  # it exists
                create()
        except FairwayError as error:
            reason = str(error)
    answer = {
        "Status": "FAILED" if reason else "SUCCESS",
        "Reason": reason,
        "PhysicalResourceId": PHYSICAL_ID,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    send(str(event["ResponseURL"]), json.dumps(answer).encode())
    return answer


def send_answer(url: str, body: bytes) -> None:
    """PUT the answer to CloudFormation's presigned URL.

    Raises:
        UnavailableError: CloudFormation did not accept it.
    """
    # The signature covers an empty content type.
    request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 - CloudFormation's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - as above
            pass
    except OSError as error:
        raise UnavailableError(f"CloudFormation did not accept the answer: {error}") from error
