"""Messages to the indexer's own queue and to the dead-letter queue, and failures to send them."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.channel.errors import UnavailableError
from lambdas.channel.names import parse_subdir_id
from lambdas.indexer.queue.messages import parse_message
from lambdas.indexer.queue.senders import DeadLetters, Requeuer

ACCESS: Any = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
URL = "https://sqs.example.org/dead"
KEY = "team/noarch/foo-1.0-0.conda"


@pytest.fixture
def sqs() -> Iterator[tuple[Any, Stubber]]:
    client: Any = boto3.client("sqs", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    with Stubber(client) as stubber:
        yield client, stubber
        stubber.assert_no_pending_responses()


def test_requeue_subdir__one_message_after_the_delay(sqs: tuple[Any, Stubber], monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = sqs
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(client, "send_message", lambda **message: sent.append(message))
    path = parse_subdir_id("team/noarch")
    Requeuer(client, queue_url="https://sqs.example.org/queue", delay_seconds=60).requeue_later(f"{path}/")
    ((message),) = sent
    assert (message["QueueUrl"], message["DelaySeconds"]) == ("https://sqs.example.org/queue", 60)
    assert parse_message(message["MessageBody"], bucket="any").keys == ("team/noarch/",)


@pytest.mark.parametrize("code", ["AWS.SimpleQueueService.NonExistentQueue", "AccessDenied", "RequestThrottled"])
def test_requeue_subdir__queue_fails(sqs: tuple[Any, Stubber], code: str) -> None:
    client, stubber = sqs
    stubber.add_client_error("send_message", code, http_status_code=400)
    requeuer = Requeuer(client, queue_url="https://sqs.example.org/queue", delay_seconds=60)
    with pytest.raises(UnavailableError):
        requeuer.requeue_later("team/noarch/")


def test_requeue_keys__few_messages_within_the_queue_s_limit(
    sqs: tuple[Any, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = sqs
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(client, "send_message", lambda **message: sent.append(message))
    keys = [f"team/noarch/{number:04}{chr(1) * 1008}" for number in range(100)]  # of 1,024 bytes, at their longest
    Requeuer(client, queue_url="https://sqs.example.org/queue", delay_seconds=60).requeue_keys(keys, "alone")
    assert [message["DelaySeconds"] for message in sent] == [0, 0, 0]
    assert max(len(message["MessageBody"]) for message in sent) < 256 * 1024
    assert [key for message in sent for key in parse_message(message["MessageBody"], bucket="any").keys] == keys


@pytest.fixture
def dead_letters() -> Iterator[tuple[DeadLetters, Stubber]]:
    client: Any = boto3.client("sqs", **ACCESS)
    with Stubber(client) as stubbed:
        yield DeadLetters(client, queue_url=URL), stubbed
        stubbed.assert_no_pending_responses()


def test_send__names_key_and_error_and_can_be_redriven(dead_letters: tuple[DeadLetters, Stubber]) -> None:
    queue, stubbed = dead_letters
    body = {
        "Event": "fairway:Requeued",
        "Keys": [KEY],
        "Mode": "alone",
        "Error": f"UnavailableError: S3 answered 503 for {KEY!r}",
    }
    stubbed.add_response("send_message", {}, {"QueueUrl": URL, "MessageBody": json.dumps(body)})
    queue.send([KEY], "alone", UnavailableError(f"S3 answered 503 for {KEY!r}"))
    message = parse_message(json.dumps(body), bucket="any")
    assert (message.keys, message.mode) == ((KEY,), "alone")


def test_send__long_error_fits_into_a_message(
    dead_letters: tuple[DeadLetters, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, _ = dead_letters
    sent: list[str] = []
    monkeypatch.setattr(queue._sqs, "send_message", lambda **arguments: sent.append(arguments["MessageBody"]))
    queue.send([KEY], "together", UnavailableError("é" * 10**6))
    assert len(sent[0]) < 256 * 1024


def test_send__queue_fails(dead_letters: tuple[DeadLetters, Stubber]) -> None:
    queue, stubbed = dead_letters
    stubbed.add_client_error("send_message", "InternalError", http_status_code=500)
    with pytest.raises(UnavailableError):
        queue.send([KEY], "together", UnavailableError("503"))
