"""Settles the messages of one invocation: each is done, redelivered, or replaced by dead letters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from lambdas.channel.errors import FairwayError, InvalidDocumentError
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.messages import Message, Received
from lambdas.indexer.queue.run import QueueRun
from lambdas.indexer.telemetry import logger


class LetterQueue(Protocol):
    """The dead-letter queue."""

    def send(self, keys: list[str], mode: Mode, failure: FairwayError) -> None:
        """Keep keys with their error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """What becomes of the messages of a run."""

    messages: Mapping[str, Received | InvalidDocumentError]
    """By message ID."""
    run: QueueRun
    dead_letters: LetterQueue | None
    max_receives: int
    """After as many, a message is a dead letter; 0: never."""

    def require_done(self, record: SQSRecord) -> None:
        """Raise the error for which a message is to be redelivered, if there is one."""
        received = self.messages[record.message_id]
        if isinstance(received, InvalidDocumentError):
            logger.error("invalid message", message_id=record.message_id, exc_info=received)
            raise received
        failures = self.run.agenda.failures
        failed = {key: failures[key] for key in self._list_keys(received.message) if key in failures}
        if not failed:
            return
        for key, failure in failed.items():
            logger.error("to be tried again", key=key, exc_info=failure)
        if not 0 < self.max_receives <= received.receives or not self._send_dead_letters(failed):
            raise next(iter(failed.values()))

    def _list_keys(self, message: Message) -> list[str]:
        """Return the keys that have to be done for a message to be done."""
        return [one for key in message.keys for one in (key, *self.run.checks.get(key, ()))]

    def _send_dead_letters(self, failed: Mapping[str, FairwayError]) -> bool:
        """Send keys to the dead-letter queue, each with its error; return whether all of them were accepted.

        Otherwise SQS sends the message there, without the errors.
        """
        if self.dead_letters is None:
            return False
        try:
            for key, failure in failed.items():
                self.dead_letters.send([key], self.run.agenda.modes.get(key, "together"), failure)
        except FairwayError:
            logger.exception("dead letter without its error")
            return False
        return True
