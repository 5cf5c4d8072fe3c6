"""``fairway dead-letters``: list, redrive and drop messages that the indexer could not process for a day.

The queue is found from the deployment's settings: the indexer's queue names its dead-letter queue. SQS has no
request that only looks at messages, so a message that is listed is hidden from others for a moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from lambdas.access.document import format_time
from lambdas.channel.errors import InvalidDocumentError, UnavailableError, UsageError
from lambdas.indexer.queue.messages import parse_message
from lambdas.indexer.settings import fetch_settings
from scripts.fairway.session import Session, with_session
from scripts.fairway.status import strip_bucket
from scripts.fairway.terminal import confirm, format_table
from scripts.fairway.waiting import with_timeout

_AT_ONCE: Final = 10  # SQS's limit for one request
_HIDDEN_SECONDS: Final = 120
_EMPTY_WAIT_SECONDS: Final = 1  # long polling asks every server of SQS, so that "empty" means empty


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """One message of the dead-letter queue."""

    id: str
    sent: str
    """RFC 3339: when it was sent to a queue."""
    received: int
    """How often it was delivered."""
    keys: tuple[str, ...]
    """What it is about; empty if it cannot be parsed."""
    error: str | None
    """Why it failed; None if the function crashed."""
    body: str
    receipt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Queues:
    """The dead-letter queue, and the queue that its messages come from."""

    sqs: Any
    source_url: str
    url: str


@click.group(
    name="dead-letters",
    epilog="""\b
Example:
  fairway dead-letters list
""",
)
def dead_letters() -> None:
    """List, redrive and drop messages that failed for a day.

    Each message names keys that the indexer could not inspect. Nothing is lost with a message: the
    artifacts are in the bucket, and 'fairway reconcile' indexes them as well.
    """


@dead_letters.command(
    name="list",
    epilog="""\b
Examples:
  fairway dead-letters list
  fairway dead-letters list tools/
  fairway dead-letters list --json | jq -r '.[].keys[]'

Listed messages are hidden from other readers of the queue until the command ends.
""",
)
@click.argument("prefix", default="")
@with_timeout
@with_session
def list_dead_letters(session: Session, prefix: str, *, timeout: float) -> None:
    """List the messages about keys that start with PREFIX."""
    queues = find_queues(session)
    found: list[DeadLetter] = []

    def collect(letter: DeadLetter) -> bool:
        found.append(letter)
        return False

    _for_each(session, queues, prefix, timeout, collect)
    rows = [
        (one.sent, str(one.received), " ".join(one.keys) or "unreadable", one.error or "see the indexer's log")
        for one in found
    ]
    session.show(
        [{name: value for name, value in asdict(one).items() if name != "receipt"} for one in found],
        format_table(("SENT (UTC)", "DELIVERED", "KEYS", "ERROR"), rows) if rows else "no dead letters",
    )


@dead_letters.command(
    epilog="""\b
Examples:
  fairway dead-letters redrive
  fairway dead-letters redrive tools/noarch/hello-1.0-0.conda

Fix the cause first: 'list' shows the error, or the indexer's log. A message that fails for another day comes back.
"""
)
@click.argument("prefix", default="")
@with_timeout
@with_session
def redrive(session: Session, prefix: str, *, timeout: float) -> None:
    """Send messages about keys that start with PREFIX to the indexer again."""
    queues = find_queues(session)

    def send(letter: DeadLetter) -> bool:
        # Sent before it is deleted: if we stop here, the indexer gets it twice, which changes nothing.
        queues.sqs.send_message(QueueUrl=queues.source_url, MessageBody=letter.body)
        return True

    number = _for_each(session, queues, prefix, timeout, send)
    session.show({"redriven": number}, f"{number} messages are in the indexer's queue again")


@dead_letters.command(
    epilog="""\b
Examples:
  fairway dead-letters drop tools/noarch/hello-1.0-0.conda
  fairway dead-letters drop --yes

The uploads stay in the bucket; the daily reconciliation inspects them again.
"""
)
@click.argument("prefix", default="")
@click.option("--yes", is_flag=True, help="Don't ask.")
@with_timeout
@with_session
def drop(session: Session, prefix: str, *, yes: bool, timeout: float) -> None:
    """Delete messages about keys that start with PREFIX."""
    queues = find_queues(session)
    if not yes:
        which = f"about keys that start with {prefix!r}" if prefix else "in the dead-letter queue"
        confirm(f"Delete the messages {which}?", UsageError("nothing was deleted", hint="say --yes to delete them"))
    number = _for_each(session, queues, prefix, timeout, lambda _: True)
    session.show({"dropped": number}, f"{number} messages deleted")


def find_queues(session: Session) -> Queues:
    """Return the queues of the deployment.

    Raises:
        InvalidDocumentError: the settings name no queue.
    """
    settings = fetch_settings(session.storage, bucket=session.require_bucket())
    if settings.queue_url is None:
        raise InvalidDocumentError("the deployment's settings name no queue", hint="deploy it again")
    sqs = session.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=settings.queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]
    name = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    return Queues(sqs=sqs, source_url=settings.queue_url, url=sqs.get_queue_url(QueueName=name)["QueueUrl"])


def _for_each(
    session: Session, queues: Queues, prefix: str, timeout: float, handle: Callable[[DeadLetter], bool]
) -> int:
    """Call a function for each message about the keys; delete those for which it returns true, and count them.

    Raises:
        UnavailableError: messages were left at the timeout.
    """
    prefix = strip_bucket(session, prefix)
    kept: list[DeadLetter] = []
    deleted = 0
    try:
        for letter in _receive(session, queues, timeout):
            if _matches(letter, prefix) and handle(letter):
                queues.sqs.delete_message(QueueUrl=queues.url, ReceiptHandle=letter.receipt)
                deleted += 1
            else:
                kept.append(letter)
    finally:
        _release(queues, kept)
    return deleted


def _matches(letter: DeadLetter, prefix: str) -> bool:
    return not prefix or any(key.startswith(prefix) for key in letter.keys)


def _receive(session: Session, queues: Queues, timeout: float) -> Iterator[DeadLetter]:
    """Yield each message once."""
    deadline = time.monotonic() + timeout
    seen: set[str] = set()
    while True:
        answer = queues.sqs.receive_message(
            QueueUrl=queues.url,
            MaxNumberOfMessages=_AT_ONCE,
            VisibilityTimeout=_HIDDEN_SECONDS,
            WaitTimeSeconds=_EMPTY_WAIT_SECONDS,
            AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
        )
        letters = [_parse(session, message) for message in answer.get("Messages", [])]
        fresh = [letter for letter in letters if letter.id not in seen]
        if not fresh:  # empty, or visible again by now
            return
        seen |= {letter.id for letter in fresh}
        yield from fresh
        session.note(f"{len(seen)} messages received")
        if time.monotonic() >= deadline:
            raise UnavailableError(
                f"timed out after {timeout:.0f} s and {len(seen)} messages", hint="repeat the command, or use --timeout"
            )


def _parse(session: Session, message: Any) -> DeadLetter:  # noqa: ANN401 - boto3's
    error = None
    try:
        parsed = parse_message(message["Body"], bucket=session.require_bucket())
        keys, error = parsed.keys, json.loads(message["Body"]).get("Error")
    except InvalidDocumentError:
        keys = ()
    attributes = message.get("Attributes", {})
    return DeadLetter(
        id=message["MessageId"],
        sent=format_time(int(attributes.get("SentTimestamp", 0)) // 1000),
        received=int(attributes.get("ApproximateReceiveCount", 0)),
        keys=keys,
        error=error,
        body=message["Body"],
        receipt=message["ReceiptHandle"],
    )


def _release(queues: Queues, letters: Sequence[DeadLetter]) -> None:
    """Make messages visible again."""
    for start in range(0, len(letters), _AT_ONCE):
        entries = [
            {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
            for number, letter in enumerate(letters[start : start + _AT_ONCE])
        ]
        queues.sqs.change_message_visibility_batch(QueueUrl=queues.url, Entries=entries)
