"""The log and the metrics of the functions: what a run did, and what it could not do."""

from datetime import UTC, datetime
from typing import Final

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from lambdas.channel.errors import DeadlineError
from lambdas.indexer.model import Report

logger: Final = Logger()
metrics: Final = Metrics()


def count(name: str, value: int) -> None:
    """Add to a metric of this invocation."""
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


def count_latency(since: datetime | None) -> None:
    """Count the seconds from the first upload of a batch that is done until now, when readers can see it."""
    if since is not None:
        seconds = (datetime.now(UTC) - since).total_seconds()
        metrics.add_metric(name="VisibilitySeconds", unit=MetricUnit.Seconds, value=max(0.0, seconds))


def log_report(subdir: str, report: Report) -> None:
    """Log and count the outcomes of a run; ``subdir`` is empty, or the channel, for keys outside any subdir."""
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        if outcome.rejection is not None:
            rejection = outcome.rejection
            logger.warning("rejected", key=outcome.key, code=rejection.code, reason=rejection.message)
    count("IndexedArtifacts", counts.get("indexed", 0))
    count("RemovedArtifacts", counts.get("removed", 0))
    count("RejectedUploads", counts.get("rejected", 0))
    count("Commits", report.commits)
    count("CommitConflicts", report.conflicts)
    if report.healed is not None:
        logger.error("healed", subdir=subdir, reason=report.healed)
        count("HealedIndexes", 1)
    logger.info("indexed", extra={"subdir": subdir, **counts, "commits": report.commits, "conflicts": report.conflicts})


def log_failures(report: Report) -> None:
    """Log the keys that could not be inspected, except those that there was no time for: there may be thousands."""
    for key, failure in report.failures.items():
        if not isinstance(failure, DeadlineError):
            logger.error("to be tried again", key=key, exc_info=failure)
