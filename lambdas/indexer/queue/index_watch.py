"""Watches index files: turns signals into checks, and remembers them in the bucket.

A check is an ordinary run over the whole subdir: it heals the shard index, replaces foreign outputs,
and removes those that this deployment does not write. Its keys are ``CHANNEL/SUBDIR/*`` and
``CHANNEL/SUBDIR/``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from lambdas.channel import caching
from lambdas.channel.layout import SubdirLayout
from lambdas.channel.names import SubdirId
from lambdas.indexer.model import Outputs
from lambdas.indexer.outputs.channel import SHOWN
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.queue.signals import (
    ForeignIndex,
    Signal,
    SubdirSignals,
    add_foreign,
    decode_signals,
    encode_signals,
    is_foreign,
    plan_check,
)
from lambdas.indexer.tree.index_files import get_replaceable, head_file
from lambdas.indexer.tree.subdir import COMMIT_OF
from lambdas.storage.protocol import ContentHeaders, ObjectInfo, ObjectStorage
from lambdas.storage.retry import retry_conflicts

_FIRST_BURST_MS: Final = 15 * 60 * 1000  # afterwards, a subdir without a quiet minute is listed nevertheless
_MARKS: Final = frozenset({COMMIT_OF, COMMIT, SHOWN})
"""Metadata of the files that Fairway writes."""
_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=caching.NO_STORE)


class CheckQueue(Protocol):
    """Where checks are queued."""

    def requeue_after(self, keys: Sequence[str], delay_seconds: int) -> None:
        """Have keys inspected after a delay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexWatch:
    """Decides about the signals of one batch."""

    storage: ObjectStorage
    outputs: Outputs
    queue: CheckQueue | None
    """None: every signal leads to a check at once."""
    period_seconds: int
    raise_alarm: Callable[[SubdirId, ForeignIndex], None]
    """Told of a second foreign index within an hour; may be called again for the same one."""
    now_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 10**6)

    def list_checks(self, subdir: SubdirId, signals: Sequence[Signal]) -> tuple[str, ...]:
        """Return the keys of the check that the signals of a subdir ask for; empty if none is needed now.

        Signals without a principal cost one HEAD together.

        Raises:
            TransientError: try again.
        """
        layout = SubdirLayout(subdir=subdir)
        foreign = self._list_foreign(signals)
        if not foreign:
            return ()
        is_of_index = any(signal.is_of_shard_index for signal in foreign)
        if not is_of_index and head_file(self.storage, layout.shard_index) is None:
            return ()  # no subdir of a channel: other files of an operator
        indexes = [signal for signal in foreign if self._is_foreign_index(signal)]
        return retry_conflicts(lambda: self._plan(layout, indexes))

    def postpone_listing(self, subdir: SubdirId) -> bool:
        """Queue a subdir's listing again if its first uploads are still being indexed; return whether it was.

        Most artifacts in the listing are then being read by other runs, or will be: they would be read twice.

        Raises:
            TransientError: try again.
        """
        layout = SubdirLayout(subdir=subdir)
        history = self.storage.list_history(layout.shard_index)
        committed_ms = [one.info.last_modified_ms for one in history if not one.is_deletion]
        now_ms = self.now_ms()
        if (
            self.queue is None
            or not committed_ms
            or now_ms - committed_ms[0] >= self.period_seconds * 1000
            or now_ms - committed_ms[-1] >= _FIRST_BURST_MS
        ):
            return False
        self.queue.requeue_after([layout.whole], self.period_seconds)
        return True

    def _list_foreign(self, signals: Sequence[Signal]) -> list[Signal]:
        """Return the signals that Fairway did not cause."""
        foreign = [signal for signal in signals if is_foreign(signal, self.outputs)]
        # Where some are certain, the check finds the others, too.
        if foreign or not signals:
            return foreign
        one = min(signals, key=lambda signal: (not signal.is_of_shard_index, signal.event.key))
        return [] if _is_as_expected(head_file(self.storage, one.event.key), one) else [one]

    def _is_foreign_index(self, signal: Signal) -> bool:
        """Tell whether a shard index was deleted or written by another tool, not by the command for an operator."""
        if not signal.is_of_shard_index or signal.event.action == "removed":
            return signal.is_of_shard_index
        return not _is_as_expected(head_file(self.storage, signal.event.key, version=signal.event.version), signal)

    def _plan(self, layout: SubdirLayout, indexes: Sequence[Signal]) -> tuple[str, ...]:
        body, condition = get_replaceable(self.storage, layout.signals)
        known = SubdirSignals() if body is None else decode_signals(body)
        now_ms = self.now_ms()
        known, repeated = add_foreign(known, indexes, now_ms=now_ms)
        for one in repeated:
            self.raise_alarm(layout.subdir, one)
        keys: tuple[str, ...] = layout.check_keys
        if self.queue is not None:
            known, delay_ms = plan_check(known, now_ms=now_ms, period_ms=self.period_seconds * 1000)
            if delay_ms is None:
                keys = ()
            elif delay_ms > 0:
                # Queued before it is remembered: if we stop in between, there is one check too many.
                self.queue.requeue_after(keys, -(-delay_ms // 1000))
                keys = ()
        self.storage.put(
            layout.signals,
            encode_signals(known),
            headers=_HEADERS,
            condition=condition,
        )
        return keys


def _is_as_expected(info: ObjectInfo | None, signal: Signal) -> bool:
    """Tell whether an index file that may be Fairway's carries the metadata of one."""
    if info is None:
        return signal.event.action == "removed"
    return not _MARKS.isdisjoint(info.metadata)
