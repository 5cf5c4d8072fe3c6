"""``fairway rebuild``: make an index from its artifacts, whatever the old one says."""

import click

from lambdas.indexer.model import Report
from lambdas.indexer.tree.subdir import Subdir
from lambdas.indexer.upkeep.rebuild import rebuild as rebuild_subdir
from scripts.fairway.indexing import connect_indexer, run_each, show_reports
from scripts.fairway.session import Session, with_session
from scripts.fairway.targets import resolve_target


@click.command(
    epilog="""\b
Examples:
  fairway rebuild tools/noarch
  fairway rebuild tools

Reads every artifact again. Use it if 'fairway verify' reports problems that 'fairway reconcile'
does not repair. Files that are already correct stay the same, byte for byte.

Exit code 0 if every artifact could be read, 1 if not, 2 on a usage error. Rejected artifacts are
listed; they do not change the exit code.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@with_session
def rebuild(session: Session, target: str) -> int:
    """Rebuild an index from its artifacts."""
    indexer, _ = connect_indexer(session)
    _, subdirs = resolve_target(session.storage, target)

    def run(subdir: Subdir) -> list[Report]:
        session.note(f"{subdir}: reading every artifact")
        return [rebuild_subdir(subdir, indexer)]

    return show_reports(session, list(run_each(subdirs, run)))
