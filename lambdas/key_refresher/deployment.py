"""Answers CloudFormation, so that the access document is there when a stack is created, and only then.

Without an access document the authorizer answers 503; a first deployment therefore ends with one in
place. One that is missing later was lost: an empty one in its place would make channels public that
were set private, so none is written then, neither by an update nor by the hourly run.

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
    """Tell whether CloudFormation asks."""
    return isinstance(event, Mapping) and "RequestType" in event and "ResponseURL" in event


def settle_deployment(event: Mapping[str, Any], create: Callable[[], None], send: Send) -> dict[str, Any]:
    """Create the document where there is none if the stack is being created, and answer.

    An update and a deletion leave it alone. Whatever happens is answered: CloudFormation would wait
    for an hour otherwise.
    """
    reason = ""
    if event["RequestType"] == "Create":
        try:
            with contextlib.suppress(ConflictError):  # there is one
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
    """PUT the answer to the address that CloudFormation has signed.

    Raises:
        UnavailableError: it did not take it.
    """
    # An empty type: it is part of what was signed.
    request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 - CloudFormation's own address
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - as above
            pass
    except OSError as error:
        raise UnavailableError(f"CloudFormation did not take the answer: {error}") from error
