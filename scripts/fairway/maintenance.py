"""``fairway verify``, ``reconcile`` and ``rebuild``: check and mend an index."""

from typing import TYPE_CHECKING, Final

import click

from lambdas.channel.errors import UsageError
from lambdas.channel.names import Channel, SubdirId, parse_channel, parse_subdir_id
from scripts.fairway.session import Session, format_table, with_session

if TYPE_CHECKING:
    from lambdas.indexer.indexer import Indexer
    from lambdas.indexer.model import Report
    from lambdas.indexer.settings import Settings
    from lambdas.indexer.upkeep.verify import Finding
    from lambdas.storage.protocol import ObjectStorage

DAY_MS: Final = 24 * 60 * 60 * 1000


@click.command(
    epilog="""\b
Examples:
  fairway verify tools
  fairway verify --deep tools/linux-64
  fairway verify --json tools | jq '.findings[] | select(.harmless | not)'

Exit code 0 if nothing is wrong, 1 if something is, 2 for wrong usage. Some findings are harmless:
shards that no index names while they are young (readers may still hold an older index), files that a
publish left for a minute later, and signatures without an artifact.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.option("--deep", is_flag=True, help="Also download and hash every artifact.")
@with_session
def verify(session: Session, target: str, *, deep: bool) -> int:
    """Check that index and bucket agree, file by file. Writes nothing."""
    from lambdas.indexer.policy import fetch_settings  # noqa: PLC0415 - slow; see session.py
    from lambdas.indexer.upkeep.verify import ChannelView, Depth, verify_channel, verify_subdir  # noqa: PLC0415 - as above

    settings = fetch_settings(session.storage, bucket=session.bucket or "")
    depth = Depth(read_artifacts=deep, now_ms=session.now * 1000, grace_ms=settings.shard_grace_days * DAY_MS)
    channel, paths = find_subdirs(session.storage, target)
    view = ChannelView(url=settings.policy.outputs.url)
    findings: list[Finding] = []
    for path in paths:
        findings += verify_subdir(session.storage, path, depth, view=view, progress=session.note)
    if is_channel(target):
        findings += verify_channel(session.storage, channel, view, progress=session.note)
    wrong = [finding for finding in findings if not finding.is_harmless]
    rows = [(finding.problem.value, finding.key, finding.message) for finding in wrong]
    harmless = len(findings) - len(wrong)
    summary = f"{len(wrong)} problems" if wrong else "all is well"
    text = f"{summary} ({len(paths)} subdirs, {harmless} harmless findings)"
    session.show(
        {
            "clean": not wrong,
            "subdirs": [str(path) for path in paths],
            "findings": [
                {
                    "problem": finding.problem.value,
                    "key": finding.key,
                    "message": finding.message,
                    "harmless": finding.is_harmless,
                }
                for finding in findings
            ],
        },
        f"{format_table(('PROBLEM', 'KEY', 'WHAT'), rows)}\n{text}" if rows else text,
    )
    return 1 if wrong else 0


@click.command(
    epilog="""\b
Examples:
  fairway reconcile tools
  fairway reconcile tools/linux-64
  fairway reconcile --collect-garbage tools

For a whole channel, uploads to places where nothing can be indexed are set aside too. The
deployment does the same by itself once a day.

Exit code 0 if everything could be looked at, 1 if not, 2 for wrong usage. Rejected artifacts are
listed, and are no error.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.option("--collect-garbage", is_flag=True, help="Also delete shards that nobody names any more, after the grace.")
@with_session
def reconcile(session: Session, target: str, *, collect_garbage: bool) -> int:
    """Repair an index by listing the bucket; only what is not known yet is downloaded."""
    from lambdas.indexer.upkeep.collect_garbage import try_collect_garbage  # noqa: PLC0415
    from lambdas.indexer.upkeep.reconcile import reconcile as run  # noqa: PLC0415 - slow; see session.py
    from lambdas.indexer.upkeep.reconcile import reject_invalid_keys  # noqa: PLC0415

    indexer, settings = connect_indexer(session)
    reports: list[Report] = []
    deleted = 0
    channel, paths = find_subdirs(session.storage, target)
    for path in paths:
        session.note(f"{path}: listing")
        for report in run(session.storage, indexer, path):
            reports.append(report)
            session.note(f"{path}: {len(report.outcomes)} looked at")
        if collect_garbage:
            grace_ms = settings.shard_grace_days * DAY_MS
            collected = try_collect_garbage(session.storage, path, now_ms=session.now * 1000, grace_ms=grace_ms)
            deleted += collected.deleted if collected is not None else 0
    if is_channel(target):
        for place in (channel, None):
            reports += reject_invalid_keys(session.storage, indexer, place)
    return show_reports(session, reports, deleted_shards=deleted)


@click.command(
    epilog="""\b
Examples:
  fairway rebuild tools/noarch
  fairway rebuild tools

Reads every artifact again: for an index that 'fairway verify' finds broken and 'fairway
reconcile' does not mend. What is right already comes out byte for byte as it was.

Exit code 0 if everything could be read, 1 if not, 2 for wrong usage. Rejected artifacts are listed,
and are no error.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@with_session
def rebuild(session: Session, target: str) -> int:
    """Make an index again from its artifacts alone."""
    from lambdas.indexer.upkeep.reconcile import rebuild as run  # noqa: PLC0415 - slow; see session.py

    indexer, _ = connect_indexer(session)
    reports = []
    _, paths = find_subdirs(session.storage, target)
    for path in paths:
        session.note(f"{path}: reading every artifact")
        reports.append(run(session.storage, indexer, path))
    return show_reports(session, reports)


def find_subdirs(storage: "ObjectStorage", target: str) -> tuple[Channel, list[SubdirId]]:
    """Return what ``CHANNEL[/SUBDIR]`` stands for.

    Raises:
        UsageError: there is no such channel.
    """
    from lambdas.indexer.upkeep.listing import list_subdirs  # noqa: PLC0415

    if not is_channel(target):
        path = parse_subdir_id(target.rstrip("/"))
        return path.channel, [path]
    channel = parse_channel(target.rstrip("/"))
    if channel not in storage.list_folders(""):
        raise UsageError(f"there is no channel {channel!r}", hint="fairway channel list")
    return channel, list(list_subdirs(storage, channel))


def is_channel(target: str) -> bool:
    """Tell whether ``CHANNEL[/SUBDIR]`` is a whole channel."""
    return "/" not in target.rstrip("/")


def connect_indexer(session: Session) -> "tuple[Indexer, Settings]":
    """Return the indexer as the deployment runs it, and what it runs under."""
    from lambdas.indexer.indexer import Indexer  # noqa: PLC0415 - as above
    from lambdas.indexer.notify import AwsNotifier  # noqa: PLC0415 - slow; see session.py
    from lambdas.indexer.policy import fetch_settings  # noqa: PLC0415 - as above

    settings = fetch_settings(session.storage, bucket=session.require_bucket())
    notifier = AwsNotifier(
        events=session.aws.client("events", region_name=session.region),
        cloudfront=session.aws.client("cloudfront", region_name=session.region),
        event_bus=settings.event_bus,
        distribution_id=settings.distribution_id,
    )
    return Indexer(session.storage, notifier, settings.policy), settings


def show_reports(session: Session, reports: "list[Report]", *, deleted_shards: int = 0) -> int:
    """Print what became of each key, and return the exit code: 1 if something could not be looked at."""
    counts = dict.fromkeys(("indexed", "removed", "unchanged", "rejected"), 0)
    refused = []
    for report in reports:
        for outcome in report.outcomes:
            counts[outcome.status] += 1
            if outcome.rejection is not None:
                refused.append(outcome.rejection)
    failures = {key: str(error) for report in reports for key, error in report.failures.items()}
    text = ", ".join(f"{number} {status}" for status, number in counts.items())
    lines = [
        *(f"refused {one.key}: {one.message} [{one.code}]" for one in refused),
        *(f"failed {key}: {message}" for key, message in failures.items()),
        text + (f", {deleted_shards} old shards deleted" if deleted_shards else ""),
    ]
    session.show(
        {
            **counts,
            "deleted_shards": deleted_shards,
            "rejections": [{"key": one.key, "code": one.code, "message": one.message} for one in refused],
            "failures": failures,
        },
        "\n".join(lines),
    )
    return 1 if failures else 0
