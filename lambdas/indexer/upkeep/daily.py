"""The daily run: reconciles subdirs, collects their garbage, and rejects uploads that belong to no subdir."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lambdas.channel.errors import DeadlineError
from lambdas.channel.names import Channel, SubdirId
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.telemetry import log_failures, log_report, logger
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.collect_garbage import try_collect_garbage
from lambdas.indexer.upkeep.reconcile import reconcile, reject_invalid_keys
from lambdas.storage.protocol import ObjectStorage


@dataclass(kw_only=True, slots=True)
class DailyRun:
    """One run, and what it has done so far."""

    storage: ObjectStorage
    indexer: Indexer
    rules: ReadingRules
    grace_ms: int
    """Unreferenced shards are kept as long."""
    has_time: Callable[[], bool]
    """Whether there is time to begin with another subdir."""
    requeue_later: Callable[[str], None] | None
    """Has a subdir's listing inspected before long, for what there was no time to read."""
    done: int = 0
    failed: int = 0
    unfinished: list[SubdirId] = field(default_factory=list)

    def reconcile_subdirs(self, subdirs: Iterable[SubdirId]) -> None:
        """Reconcile subdirs, and collect their garbage.

        They are processed in random order, so that none is starved when time runs out.
        """
        self.unfinished = list(subdirs)
        random.shuffle(self.unfinished)
        while self.unfinished and self.has_time():
            subdir = self.unfinished.pop()
            try:
                self._reconcile(subdir)
                self.done += 1
            except Exception:  # noqa: BLE001 - a bug that one subdir meets must not stop the others (invariant 3)
                logger.exception("subdir not reconciled", extra={"subdir": str(subdir)})
                self.failed += 1

    def reject_invalid_keys(self, channels: Sequence[Channel | None]) -> None:
        """Reject uploads outside any subdir of each channel, or outside any channel (None), while there is time."""
        for channel in channels:
            try:
                reports = reject_invalid_keys(self.storage, self.indexer, channel)
                while self.has_time() and (report := next(reports, None)) is not None:
                    log_report(channel or "", report)
                    log_failures(report)
            except Exception:  # noqa: BLE001 - nor one channel
                logger.exception("uploads under invalid keys not rejected", extra={"channel": channel})

    def _reconcile(self, subdir_id: SubdirId) -> None:
        subdir = open_subdir(self.storage, subdir_id)
        is_cut = False
        for report in reconcile(subdir, self.indexer, rules=self.rules):
            log_report(str(subdir), report)
            log_failures(report)
            is_cut = is_cut or any(isinstance(one, DeadlineError) for one in report.failures.values())
        if is_cut and self.requeue_later is not None:
            self.requeue_later(subdir.layout.whole)
        try_collect_garbage(subdir, now_ms=time.time_ns() // 10**6, grace_ms=self.grace_ms)
