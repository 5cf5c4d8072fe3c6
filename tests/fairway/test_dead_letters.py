"""``fairway dead-letters``: list, redrive, drop."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from lambdas.indexer.queue.messages import format_requeued
from lambdas.indexer.settings import parse_settings, publish_settings
from scripts.fairway.session import Session
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

QUEUE, DEAD = "https://sqs/queue", "https://sqs/dead"


def notification(key: str) -> str:
    return json.dumps({"Records": [{"s3": {"bucket": {"name": "bucket"}, "object": {"key": key}}}]})


@dataclass
class FakeSqs:
    """Two queues; received messages are hidden until they are deleted or released."""

    dead: list[str]
    sent: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    region_name: str = "us-east-1"

    def client(self, service: str, **_: str) -> "FakeSqs":
        assert service == "sqs"
        return self

    def get_queue_attributes(self, *, QueueUrl: str, **_: object) -> Any:  # noqa: ANN401, N803 - boto3's
        assert QueueUrl == QUEUE
        return {"Attributes": {"RedrivePolicy": json.dumps({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:dead"})}}

    def get_queue_url(self, *, QueueName: str) -> dict[str, str]:  # noqa: N803 - boto3's
        assert QueueName == "dead"
        return {"QueueUrl": DEAD}

    def receive_message(self, *, QueueUrl: str, MaxNumberOfMessages: int, **_: object) -> Any:  # noqa: ANN401, N803 - boto3's
        assert QueueUrl == DEAD
        visible = [body for body in self.dead if body not in self.hidden][:MaxNumberOfMessages]
        self.hidden |= set(visible)
        attributes = {"SentTimestamp": "1790000000000", "ApproximateReceiveCount": "288"}
        return {
            "Messages": [
                {"MessageId": body[-20:], "Body": body, "ReceiptHandle": body, "Attributes": attributes}
                for body in visible
            ]
        }

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803 - boto3's
        assert QueueUrl == QUEUE
        self.sent.append(MessageBody)

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:  # noqa: N803 - boto3's
        assert QueueUrl == DEAD
        self.dead.remove(ReceiptHandle)
        self.hidden.remove(ReceiptHandle)

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[Any]) -> None:  # noqa: N803 - boto3's
        assert len(Entries) <= 10
        self.hidden -= {entry["ReceiptHandle"] for entry in Entries}


@pytest.fixture
def sqs(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> FakeSqs:
    publish_settings(bucket.storage, parse_settings({"FAIRWAY_BUCKET": "bucket", "FAIRWAY_QUEUE_URL": QUEUE}))
    dead = [notification(f"tools/noarch/a%2B{number:02}-1-0.conda") for number in range(12)]
    failed = format_requeued(["other/noarch/b-1-0.conda"], error="AccessDeniedError: S3 answered 403")
    sqs = FakeSqs([*dead, failed, "garbage"])
    monkeypatch.setattr(Session, "aws", sqs)
    return sqs


def test_dead_letters_list__keys_of_each_message(sqs: FakeSqs, run_fairway: Run) -> None:
    before = list(sqs.dead)
    listed = run_fairway("dead-letters", "list", "--json").document
    assert [one["keys"] for one in listed] == [
        *([f"tools/noarch/a+{number:02}-1-0.conda"] for number in range(12)), ["other/noarch/b-1-0.conda"], []
    ]  # fmt: skip
    assert (listed[0]["sent"], listed[0]["received"]) == ("2026-09-21T14:13:20Z", 288)
    assert [one["error"] for one in listed] == [*[None] * 12, "AccessDeniedError: S3 answered 403", None]
    shown = run_fairway("dead-letters", "list").out
    assert "AccessDeniedError: S3 answered 403" in shown
    assert "unreadable" in shown
    assert (sqs.dead, sqs.hidden, sqs.sent) == (before, set(), [])  # unchanged, and visible again


def test_dead_letters_redrive__all(sqs: FakeSqs, run_fairway: Run) -> None:
    before = list(sqs.dead)
    assert run_fairway("dead-letters", "redrive", "--json").document == {"redriven": 14}
    assert (sqs.sent, sqs.dead) == (before, [])
    assert run_fairway("dead-letters", "list").out == "no dead letters\n"


def test_dead_letters_redrive__by_prefix(sqs: FakeSqs, run_fairway: Run) -> None:
    assert run_fairway("dead-letters", "redrive", "other/", "--json").document == {"redriven": 1}
    assert [json.loads(body)["Keys"] for body in sqs.sent] == [["other/noarch/b-1-0.conda"]]
    assert (len(sqs.dead), sqs.hidden) == (13, set())


def test_dead_letters_drop__asks(sqs: FakeSqs, run_fairway: Run) -> None:
    result = run_fairway("dead-letters", "drop", "tools/")
    assert (result.code, len(sqs.dead)) == (2, 14)
    assert run_fairway("dead-letters", "drop", "tools/", "--yes", "--json").document == {"dropped": 12}
    assert (len(sqs.dead), sqs.sent) == (2, [])


def test_dead_letters__timeout(sqs: FakeSqs, run_fairway: Run) -> None:
    result = run_fairway("dead-letters", "list", "--timeout", "0")
    assert result.code == 1
    assert "timed out after 0 s and 10 messages" in result.err
    assert sqs.hidden == set()


def test_dead_letters__deployment_without_a_queue(bucket: Bucket, run_fairway: Run) -> None:
    result = run_fairway("dead-letters", "list")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: the deployment's settings name no queue\nhint: ")
