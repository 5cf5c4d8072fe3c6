"""Sends messages: to the indexer's own queue, with keys to inspect again, and to the dead-letter queue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import FairwayError, UnavailableError
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.messages import format_requeued

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

KEYS_PER_MESSAGE: Final = 40  # of 1,024 bytes at most, escaped: within SQS's 256 KiB
_MAX_ERROR_CHARS: Final = 2000


class Requeuer:
    """Sends messages to the indexer's own queue."""

    def __init__(self, sqs: "SQSClient", *, queue_url: str, delay_seconds: int) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._delay_seconds = delay_seconds

    def requeue_later(self, key: str) -> None:
        """Have a key inspected after the delay: it stands for work that several runs may ask for.

        Raises:
            UnavailableError: the queue did not accept it.
        """
        self._send([key], "together", delay_seconds=self._delay_seconds)

    def requeue_keys(self, keys: Sequence[str], mode: Mode) -> None:
        """Have keys inspected that there was no time for, or that are to be read in another mode.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            self._send(keys[start : start + KEYS_PER_MESSAGE], mode, delay_seconds=0)

    def requeue_turn(self, keys: Sequence[str], publisher: str) -> None:
        """Have the keys of a publisher inspected after everything else that waits in the queue.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            part = keys[start : start + KEYS_PER_MESSAGE]
            self._send(part, "together", delay_seconds=0, publisher=publisher)

    def requeue_after(self, keys: Sequence[str], delay_seconds: int) -> None:
        """Have keys inspected after a delay of their own.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        self._send(keys, "together", delay_seconds=delay_seconds)

    def _send(self, keys: Sequence[str], mode: Mode, *, delay_seconds: int, publisher: str | None = None) -> None:
        body = format_requeued(keys, mode, publisher=publisher)
        _send(self._sqs, QueueUrl=self._queue_url, MessageBody=body, DelaySeconds=delay_seconds)


class DeadLetters:
    """The dead-letter queue: keys that kept failing for a day, with the last error of each."""

    def __init__(self, sqs: "SQSClient", *, queue_url: str) -> None:
        self._sqs = sqs
        self._queue_url = queue_url

    def send(self, keys: Sequence[str], mode: Mode, failure: FairwayError) -> None:
        """Keep keys with their error, as a message that has them inspected when it is redriven.

        Raises:
            UnavailableError: the queue did not accept them.
        """
        body = format_requeued(keys, mode, error=f"{type(failure).__name__}: {failure}"[:_MAX_ERROR_CHARS])
        _send(self._sqs, QueueUrl=self._queue_url, MessageBody=body)


def _send(sqs: "SQSClient", **message: Any) -> None:  # noqa: ANN401 - parameters of SendMessage
    try:
        sqs.send_message(**message)
    except (ClientError, BotoCoreError) as error:
        raise UnavailableError(f"SQS did not accept the message: {type(error).__name__}") from error
