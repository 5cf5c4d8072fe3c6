"""Inspects and indexes the keys of one invocation: checks, turns of publishers, and what is requeued."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from lambdas.channel.errors import DeadlineError, FairwayError, LimitExceededError
from lambdas.channel.layout import SubdirLayout
from lambdas.channel.names import SubdirId
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.change.results import guard
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.agenda import MODES, Agenda
from lambdas.indexer.queue.index_keys import index_batch
from lambdas.indexer.queue.index_watch import IndexWatch
from lambdas.indexer.queue.signals import Signal
from lambdas.indexer.queue.turns import list_offenders, take_turns
from lambdas.indexer.queue.work import plan_work
from lambdas.indexer.telemetry import count, log_report

_BACKLOG_SECONDS: Final = 5  # a message that waited longer was behind others
_SMALL_BATCH: Final = 10  # messages: such batches are packed into larger ones while others wait


class KeyQueue(Protocol):
    """The indexer's own queue."""

    def requeue_keys(self, keys: Sequence[str], mode: Mode) -> None:
        """Have keys inspected in a mode."""

    def requeue_turn(self, keys: Sequence[str], publisher: str) -> None:
        """Have the keys of a publisher inspected after everything else that waits."""


@dataclass(kw_only=True, slots=True)
class QueueRun:
    """One invocation's work on its agenda; what fails is in ``agenda.failures``."""

    agenda: Agenda
    indexer: Indexer
    watch: IndexWatch
    queue: KeyQueue | None
    """None: nothing is requeued."""
    checks: dict[str, Sequence[str]] = field(default_factory=dict)
    """``{key of an index file: keys of the check that it leads to}``."""

    def add_checks(self, signals: Iterable[Signal]) -> None:
        """Add checks of subdirs whose index files other principals wrote or deleted."""
        subdirs: dict[SubdirId, list[Signal]] = {}
        for signal in signals:
            subdirs.setdefault(signal.subdir, []).append(signal)
        for subdir, its_signals in subdirs.items():
            keys = self._list_checks(subdir, its_signals)
            self.checks |= dict.fromkeys((signal.event.key for signal in its_signals), keys)

    def postpone_first_listings(self) -> None:
        """Leave the first listing of a subdir for later while its first uploads are being indexed."""
        for subdir, keys in plan_work(self.agenda.modes).subdirs.items():
            if not keys.whole or keys.deferred:  # with both, it is a check
                continue
            postponed = guard(lambda one=subdir: self.watch.postpone_listing(one), f"postpone the listing of {subdir}")  # type: ignore[misc]  # defaults bind now
            whole = SubdirLayout(subdir=subdir).whole
            if isinstance(postponed, FairwayError):
                self.agenda.failures[whole] = postponed
            if postponed:
                del self.agenda.modes[whole]
                self.agenda.persistent.discard(whole)

    def pack(self, *, messages: int) -> None:
        """Send the keys of a small batch on as few messages, if others wait: a large batch is indexed faster."""
        agenda = self.agenda
        if self._has_backlog and messages <= _SMALL_BATCH and len(agenda.uploads) > 1:
            self._send_to_the_back([key for key in agenda.sort(agenda.uploads) if agenda.modes[key] == "together"])

    def index(self, *, deadline: float) -> None:
        """Index all keys: those that failed before or take long come last, one at a time.

        Before that, publishers take turns. What has failed repeatedly is committed one by one as well, in
        random order: should one of these keys crash the function, it does not hold up the same others each
        time. After the deadline (``time.monotonic``), no further artifact is read.
        """
        agenda = self.agenda
        for mode in MODES:
            keys = set(agenda.list_keys(mode)) - agenda.persistent
            self._index_in_turns(keys, ReadingRules(deadline=deadline, mode=mode))
        persistent = sorted(agenda.persistent)
        random.shuffle(persistent)
        for key in persistent:
            rules = ReadingRules(deadline=deadline, mode=agenda.modes[key])
            if rules.is_over():
                agenda.failures[key] = DeadlineError(f"no time was left for {key!r}")
            else:
                self._index([key], rules)

    def requeue_unread(self) -> None:
        """Send keys that there was no time for, or that took too long, as new messages: neither is a failure."""
        for mode in MODES:
            self._requeue(self.agenda.list_failures(mode, DeadlineError), mode)
        for mode, next_mode in itertools.pairwise(MODES):
            self._requeue(self.agenda.list_failures(mode, LimitExceededError), next_mode)

    @property
    def _has_backlog(self) -> bool:
        """Whether other messages probably wait behind these."""
        return self.agenda.waited_ms > _BACKLOG_SECONDS * 1000 and self.queue is not None

    def _list_checks(self, subdir: SubdirId, signals: Sequence[Signal]) -> Sequence[str]:
        """Return the keys of the check that signals lead to; they fail if the signals can't be judged."""
        keys = guard(lambda: self.watch.list_checks(subdir, signals), f"plan a check of {subdir}")
        if isinstance(keys, FairwayError):
            failed = SubdirLayout(subdir=subdir).check_keys
            self.agenda.failures |= dict.fromkeys(failed, keys)
            return failed
        for key in keys:
            self.agenda.add_key(key, "together")
        return keys

    def _index_in_turns(self, keys: Iterable[str], rules: ReadingRules) -> None:
        """Index keys of one mode, round by round, the newest first.

        While others wait, a publisher of whose first turn most was rejected goes to the back of the queue.
        """
        publishers = {key: self.agenda.publishers[key] for key in self.agenda.sort(keys)}
        is_probing = self._has_backlog and rules.mode == "together"
        offenders: frozenset[str] = frozenset()
        back: list[str] = []
        for turn in take_turns(publishers, is_probing=is_probing):
            back += [key for key in turn if publishers[key] in offenders]
            now = [key for key in turn if publishers[key] not in offenders]
            rejected = self._index(now, rules)
            if is_probing:
                offenders |= list_offenders(now, rejected, publishers)
        self._send_to_the_back(back)

    def _index(self, keys: Sequence[str], rules: ReadingRules) -> frozenset[str]:
        """Index keys in one go; return those that were rejected."""
        report = index_batch(self.indexer, keys, rules=rules)
        self.agenda.failures |= report.failures
        if report.invalid_keys.outcomes:
            log_report("", report.invalid_keys)
        for subdir, one in report.subdirs.items():
            log_report(str(subdir), one)
        outcomes = [one for each in (report.invalid_keys, *report.subdirs.values()) for one in each.outcomes]
        return frozenset(one.key for one in outcomes if one.status == "rejected")

    def _send_to_the_back(self, keys: Sequence[str]) -> None:
        """Have keys inspected after everything else that waits; those that the queue doesn't accept have failed."""
        queue, agenda = self.queue, self.agenda
        if queue is None:
            return
        for publisher in dict.fromkeys(agenda.publishers[key] for key in keys):
            some = [key for key in keys if agenda.publishers[key] == publisher]
            sent = guard(lambda one=publisher, some=some: queue.requeue_turn(some, one), "requeue keys")  # type: ignore[misc]  # defaults bind now
            for key in some:
                if isinstance(sent, FairwayError):
                    agenda.failures[key] = sent
                del agenda.modes[key]

    def _requeue(self, keys: Sequence[str], mode: Mode) -> None:
        if not keys or self.queue is None:
            return
        try:
            self.queue.requeue_keys(keys, mode)
        except FairwayError as failure:
            self.agenda.failures |= dict.fromkeys(keys, failure)
            return
        for key in keys:
            del self.agenda.failures[key]
        count("RequeuedKeys", len(keys))
