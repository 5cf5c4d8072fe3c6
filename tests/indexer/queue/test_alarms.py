"""What operators are told, and failures to tell them."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.channel.errors import UnavailableError
from lambdas.channel.names import parse_subdir_id
from lambdas.indexer.queue.alarms import OperatorEvents
from lambdas.indexer.queue.signals import ForeignIndex

ACCESS: Any = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
NOARCH = parse_subdir_id("team/noarch")
URL = "https://sqs.example.org/dead"
KEY = "team/noarch/foo-1.0-0.conda"


@pytest.fixture
def events() -> Iterator[tuple[OperatorEvents, Stubber]]:
    client: Any = boto3.client("events", **ACCESS)
    with Stubber(client) as stubbed:
        yield OperatorEvents(client, event_bus="bus"), stubbed
        stubbed.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("principal", "named"), [("AWS:AROAMALLORY:ci", "AWS:AROAMALLORY:ci"), (None, "an unknown principal")]
)
def test_publish_foreign_index__names_the_principal(
    events: tuple[OperatorEvents, Stubber], principal: str | None, named: str
) -> None:
    operators, stubbed = events
    detail = {"at_ms": 1, "principal": named, "sequencer": "0A", "subdir": "team/noarch"}
    entry = {
        "Source": "fairway",
        "DetailType": "Foreign Index Again",
        "Detail": json.dumps(detail),
        "EventBusName": "bus",
    }
    stubbed.add_response("put_events", {"FailedEntryCount": 0, "Entries": []}, {"Entries": [entry]})
    operators.publish_foreign_index(NOARCH, ForeignIndex(at_ms=1, principal=principal, sequencer="0A"))


def test_publish_foreign_index__bus_fails(events: tuple[OperatorEvents, Stubber]) -> None:
    operators, stubbed = events
    stubbed.add_client_error("put_events", "ThrottlingException", http_status_code=400)
    stubbed.add_response("put_events", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]})
    for _ in range(2):
        with pytest.raises(UnavailableError):
            operators.publish_foreign_index(NOARCH, ForeignIndex(at_ms=1, principal=None, sequencer=""))
