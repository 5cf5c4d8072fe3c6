"""Budgets that all readers of artifacts share: memory and processor time.

Memory is reserved before it is used: headers state the windows and sizes of what is decompressed. Processor
time is charged while an artifact is read. Owns counting and waiting; the limits and the clock come from the
caller.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from lambdas.channel.errors import LimitExceededError


class Reservation(Protocol):
    """Reserved memory."""

    def grow(self, count: int) -> bool:
        """Have ``count`` bytes reserved from now on, if they are free; never waits."""


class MemoryBudget(Protocol):
    """Memory that readers reserve."""

    def reserve(self, count: int) -> AbstractContextManager[Reservation]:
        """Wait until ``count`` bytes are free, and hold them in the context."""


class UnboundedMemory:
    """A memory budget that never makes a reader wait."""

    @contextmanager
    def reserve(self, count: int) -> Iterator[Reservation]:  # noqa: ARG002 - unbounded
        """Return at once."""
        yield self

    def grow(self, count: int) -> bool:  # noqa: ARG002 - unbounded
        """Return True."""
        return True


class MemoryPermits:
    """A memory budget for threads, first come, first served.

    A request for more than the total is granted once everything is free, so that it cannot wait for ever.
    A thread must hold no more than one reservation.
    """

    def __init__(self, total_bytes: int) -> None:
        """Take the size of the budget."""
        self._total = total_bytes
        self._free = total_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, count: int) -> Iterator[Reservation]:
        """Wait until ``count`` bytes are free and earlier requests are granted."""
        permit = _Permit(self, min(count, self._total))
        self._acquire(permit.held)
        try:
            yield permit
        finally:
            with self._changed:
                self._free += permit.held
                self._changed.notify_all()

    def _acquire(self, count: int) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= count)
                self._free -= count
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def take(self, count: int) -> bool:
        """Take more bytes for a holder, if they are free."""
        with self._changed:
            if self._free < count:
                return False
            self._free -= count
            return True

    def clamp(self, count: int) -> int:
        """Return the count, at most the whole budget."""
        return min(count, self._total)


class _Permit:
    """What one thread holds of ``MemoryPermits``."""

    def __init__(self, permits: MemoryPermits, held: int) -> None:
        self._permits = permits
        self.held = held

    def grow(self, count: int) -> bool:
        count = self._permits.clamp(count)
        if count > self.held:
            if not self._permits.take(count - self.held):
                return False
            self.held = count
        return True


class ProcessorBudget:
    """Processor time that all threads of a run share.

    ``clock`` returns seconds of processor time of the calling thread (``time.thread_time``).
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        """Take the limit of the run, in seconds."""
        self._seconds = seconds
        self._clock = clock
        self._spent = 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """Seconds that were charged so far."""
        with self._lock:
            return self._spent

    def start(self, max_seconds: float) -> ProcessorMeter:
        """Begin to measure the calling thread, which reads one artifact for ``max_seconds`` at most."""
        return ProcessorMeter(self, self._clock, max_seconds)

    def charge(self, seconds: float) -> None:
        """Charge some seconds.

        Raises:
            LimitExceededError: the run has no time left.
        """
        with self._lock:
            self._spent += seconds
            exceeded = self._spent > self._seconds
        if exceeded:
            raise LimitExceededError(f"{self._seconds:g} s of processor time for all artifacts of a run", scope="run")


class ProcessorMeter:
    """Measures the processor time of one thread that reads one artifact."""

    def __init__(self, budget: ProcessorBudget, clock: Callable[[], float], max_seconds: float) -> None:
        """Begin now."""
        self._budget = budget
        self._clock = clock
        self._max_seconds = max_seconds
        self._start = self._last = clock()

    def check(self) -> None:
        """Charge the time since the last call.

        Raises:
            LimitExceededError: the artifact or the run has no time left.
        """
        now = self._clock()
        spent, self._last = now - self._last, now
        if now - self._start > self._max_seconds:
            raise LimitExceededError(f"{self._max_seconds:g} s of processor time for one artifact", scope="artifact")
        self._budget.charge(spent)


class MoreMemoryNeededError(Exception):
    """Reading must begin again, with ``count`` bytes reserved."""

    def __init__(self, count: int) -> None:
        """Take the bytes that are needed."""
        super().__init__(f"{count} bytes of memory are needed")
        self.count = count


class ReadingMemory:
    """The memory of reading one artifact, by purpose: what it holds, within what is reserved."""

    def __init__(self, reservation: Reservation, reserved: int) -> None:
        """Take a reservation of ``reserved`` bytes."""
        self._reservation = reservation
        self._reserved = reserved
        self._used: dict[str, int] = {}

    def use(self, purpose: str, count: int) -> None:
        """State how many bytes a purpose needs from now on.

        Raises:
            MoreMemoryNeededError: so much is not reserved, and not free.
        """
        self._used[purpose] = count
        total = sum(self._used.values())
        if total > self._reserved:
            if not self._reservation.grow(total):
                raise MoreMemoryNeededError(total)
            self._reserved = total


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingBudgets:
    """What all readers of a run share."""

    memory: MemoryBudget
    processor: ProcessorBudget


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The means of reading one artifact."""

    memory: ReadingMemory
    meter: ProcessorMeter
