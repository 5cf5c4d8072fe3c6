"""``fairway rebuild``: make an index from its artifacts, whatever the old one says."""

import click

from lambdas.channel.errors import UsageError
from lambdas.channel.layout import parse_artifact_key
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
  fairway rebuild tools/noarch --accept-bytes tools/noarch/hello-1.0-0.conda

Reads every artifact again. Use it if 'fairway verify' reports problems that 'fairway reconcile'
does not repair. Files that are already correct stay the same, byte for byte.

An artifact's bytes never change under its name: where the index knows other bytes, those in the
bucket are rejected. --accept-bytes makes an exception for one artifact.

Exit code 0 if every artifact could be read, 1 if not, 2 on a usage error. Rejected artifacts are
listed; they do not change the exit code.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.option("--accept-bytes", "accepted", metavar="KEY", multiple=True, help="Accept the bytes of KEY; repeatable.")
@with_session
def rebuild(session: Session, target: str, accepted: tuple[str, ...]) -> int:
    """Rebuild an index from its artifacts."""
    indexer, _ = connect_indexer(session)
    _, subdirs = resolve_target(session.storage, target)
    replaceable = frozenset(map(parse_artifact_key, accepted))
    for key in replaceable:
        if key.subdir not in {subdir.id for subdir in subdirs}:
            raise UsageError(f"{str(key)!r} is not below {target!r}", hint="the key of an artifact in it is needed")
        if session.storage.head(str(key)) is None:
            raise UsageError(f"there is no artifact {str(key)!r}", hint=f"see 'fairway list {key.subdir}'")

    def run(subdir: Subdir) -> list[Report]:
        return [rebuild_subdir(subdir, indexer, replaceable=replaceable, progress=session.note)]

    reports = list(run_each(subdirs, run))
    indexer.invalidate_rejected()
    return show_reports(session, reports)
