"""The agenda of one invocation: which keys are inspected, how, in which order, and for which publisher. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, get_args

from lambdas.channel.errors import FairwayError
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.messages import ObjectEvent, Received
from lambdas.indexer.queue.signals import parse_index_key

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
"""In the order in which their keys are inspected."""
_RECEIVES_TOGETHER: Final = 3  # a message that was received more often is indexed by itself


@dataclass(kw_only=True, slots=True)
class Agenda:
    """The keys of one invocation, and what is known of each."""

    modes: dict[str, Mode] = field(default_factory=dict)
    """``{key: mode}``: the keys that are to be inspected, and how."""
    publishers: dict[str, str] = field(default_factory=dict)
    events: list[ObjectEvent] = field(default_factory=list)
    """The events that keys come from."""
    persistent: set[str] = field(default_factory=set)
    """Keys that have failed repeatedly."""
    uploads: set[str] = field(default_factory=set)
    """Keys of notifications that are received for the first time."""
    waited_ms: int = 0
    """The longest time that such a message waited."""
    failures: dict[str, FairwayError] = field(default_factory=dict)
    """``{key: error}``: keys to be tried again."""
    ages: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Sorts keys, the newest first."""

    def add_key(self, key: str, mode: Mode) -> None:
        """Have a key inspected; of two modes, the later one in ``MODES`` counts."""
        self.modes[key] = max(mode, self.modes.get(key, mode), key=MODES.index)
        self.publishers.setdefault(key, key.partition("/")[0])  # the channel, if the event names no principal

    def add_message(self, received: Received, *, now_ms: int) -> None:
        """Add the keys of a message. One that was received before has its keys read alone."""
        message = received.message
        self.events += message.events
        is_repeated = received.receives > 1
        mode: Mode = "alone" if is_repeated and message.mode == "together" else message.mode
        if received.receives > _RECEIVES_TOGETHER:
            self.persistent.update(message.keys)
        for key in message.keys:
            self.add_key(key, mode)
            if message.publisher is not None:
                self.publishers[key] = message.publisher
        for event in message.events:
            if event.principal is not None:
                self.publishers[event.key] = event.principal
        self.ages |= {key: (-received.sent_ms, position) for position, key in enumerate(message.keys)}
        if not is_repeated and (message.events or message.publisher is not None):
            self.waited_ms = max(self.waited_ms, now_ms - received.sent_ms)
            self.uploads |= {event.key for event in message.events if parse_index_key(event.key) is None}

    def sort(self, keys: Iterable[str]) -> list[str]:
        """Return keys in order, the newest first."""
        return sorted(keys, key=lambda key: (self.ages.get(key, (0, 0)), key))

    def list_keys(self, mode: Mode) -> list[str]:
        """Return the keys of one mode."""
        return [key for key, its_mode in self.modes.items() if its_mode == mode]

    def list_failures(self, mode: Mode, kind: type[FairwayError]) -> list[str]:
        """Return the keys of one mode that failed with an error of a kind."""
        return sorted(key for key in self.list_keys(mode) if isinstance(self.failures.get(key), kind))

    def find_first_done(self) -> datetime | None:
        """Return when the first upload was written that has not failed; None if the events don't tell."""
        return min((one.at for one in self.events if one.at is not None and one.key not in self.failures), default=None)


def make_agenda(messages: Iterable[Received | FairwayError], *, now_ms: int) -> Agenda:
    """Return the agenda of some messages; those that could not be parsed ask for nothing."""
    agenda = Agenda()
    for received in messages:
        if isinstance(received, Received):
            agenda.add_message(received, now_ms=now_ms)
    return agenda
