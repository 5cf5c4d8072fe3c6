"""``fairway reconcile``: bring an index up to date from a listing of the bucket."""

from collections.abc import Iterator

import click

from lambdas.indexer.model import Report
from lambdas.indexer.tree.subdir import Subdir
from lambdas.indexer.upkeep.collect_garbage import try_collect_garbage
from lambdas.indexer.upkeep.reconcile import reconcile as reconcile_subdir
from lambdas.indexer.upkeep.reconcile import reject_invalid_keys
from scripts.fairway.indexing import DAY_MS, connect_indexer, note_each, run_each, show_reports
from scripts.fairway.session import Session, with_session
from scripts.fairway.targets import is_channel, resolve_target


@click.command(
    epilog="""\b
Examples:
  fairway reconcile tools
  fairway reconcile tools/linux-64
  fairway reconcile --collect-garbage tools

For a whole channel, uploads to invalid keys are rejected as well. The deployment does all this
once a day.

Exit code 0 if every key could be inspected, 1 if not, 2 on a usage error. Rejected artifacts are
listed; they do not change the exit code.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.option("--collect-garbage", is_flag=True, help="Also delete unreferenced shards after the grace period.")
@with_session
def reconcile(session: Session, target: str, *, collect_garbage: bool) -> int:
    """Repair an index by listing the bucket.

    Only artifacts that are missing from the index or have changed are downloaded.
    """
    indexer, settings = connect_indexer(session)
    reports: list[Report] = []
    deleted = 0
    channel, subdirs = resolve_target(session.storage, target)

    def run(subdir: Subdir) -> Iterator[Report]:
        nonlocal deleted
        session.note(f"{subdir}: listing")
        yield from note_each(session, subdir, reconcile_subdir(subdir, indexer))
        if collect_garbage:
            session.note(f"{subdir}: collecting garbage")
            grace_ms = settings.shard_grace_days * DAY_MS
            collected = try_collect_garbage(subdir, now_ms=session.now * 1000, grace_ms=grace_ms)
            deleted += collected.deleted if collected is not None else 0

    reports += run_each(subdirs, run)
    if is_channel(target):
        session.note(f"{channel}: looking for uploads to invalid keys")
        for place in (channel, None):
            reports += reject_invalid_keys(session.storage, indexer, place)
    indexer.invalidate_rejected(all_runs=True)
    return show_reports(session, reports, deleted_shards=deleted)
