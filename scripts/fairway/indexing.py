"""What the commands that write an index share: the deployment's indexer, and the report of a run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from lambdas.channel.errors import FairwayError, UnavailableError
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report
from lambdas.indexer.quarantine.notify import AwsNotifier
from lambdas.indexer.settings import Settings, fetch_settings
from lambdas.indexer.tree.subdir import Subdir
from scripts.fairway.session import Session

DAY_MS: Final = 24 * 60 * 60 * 1000


def connect_indexer(session: Session) -> tuple[Indexer, Settings]:
    """Return an indexer with the settings of the deployment, and these settings."""
    settings = fetch_settings(session.storage, bucket=session.require_bucket())
    notifier = AwsNotifier(
        events=session.aws.client("events", region_name=session.region),
        cloudfront=session.aws.client("cloudfront", region_name=session.region),
        event_bus=settings.event_bus,
        distribution_id=settings.distribution_id,
    )
    return Indexer(session.storage, notifier, settings.policy), settings


def run_each(subdirs: Iterable[Subdir], run: Callable[[Subdir], Iterable[Report]]) -> Iterator[Report]:
    """Yield the reports of some subdirs; one that fails does not stop the others."""
    for subdir in subdirs:
        try:
            yield from run(subdir)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other subdirs are next
            failure = error if isinstance(error, FairwayError) else UnavailableError(repr(error))
            yield Report(outcomes=(), failures={subdir.layout.prefix: failure})


def note_each(session: Session, subdir: Subdir, reports: Iterable[Report]) -> Iterator[Report]:
    """Yield the reports of a subdir's batches, and say after each how many keys have been inspected."""
    inspected = 0
    for report in reports:
        inspected += len(report.outcomes)
        session.note(f"{subdir}: {inspected} keys inspected")
        yield report


def show_reports(session: Session, reports: Sequence[Report], *, deleted_shards: int = 0) -> int:
    """Print the outcome of each key; return the exit code: 1 if a key could not be inspected, else 0."""
    counts = dict.fromkeys(("indexed", "removed", "unchanged", "rejected"), 0)
    rejections = []
    for report in reports:
        for outcome in report.outcomes:
            counts[outcome.status] += 1
            if outcome.rejection is not None:
                rejections.append(outcome.rejection)
    failures = {key: str(error) for report in reports for key, error in report.failures.items()}
    summary = ", ".join(f"{number} {status}" for status, number in counts.items())
    lines = [
        *(f"rejected {one.key}: {one.message} [{one.code}]" for one in rejections),
        *(f"failed {key}: {message}" for key, message in failures.items()),
        summary + (f", {deleted_shards} unreferenced shards deleted" if deleted_shards else ""),
    ]
    session.show(
        {
            **counts,
            "deleted_shards": deleted_shards,
            "rejections": [{"key": one.key, "code": one.code, "message": one.message} for one in rejections],
            "failures": failures,
        },
        lines,
    )
    return 1 if failures else 0
