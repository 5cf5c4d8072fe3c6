"""``fairway verify``: check an index without writing to it."""

import click

from lambdas.indexer.settings import fetch_settings
from lambdas.indexer.upkeep.findings import Depth, Finding
from lambdas.indexer.upkeep.verify import ChannelView, verify_all, verify_channel
from scripts.fairway.indexing import DAY_MS
from scripts.fairway.session import Session, with_session
from scripts.fairway.targets import is_channel, resolve_target
from scripts.fairway.terminal import format_table


@click.command(
    epilog="""\b
Examples:
  fairway verify tools
  fairway verify --deep tools/linux-64
  fairway verify --json tools | jq '.findings[] | select(.harmless | not)'

Some findings are harmless: unreferenced shards within the grace period (readers may still hold an
older index), deferred outputs that are not written yet, and attestations without an artifact.

Exit code 0 if there are no problems, 1 if there are, 2 on a usage error.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.option("--deep", is_flag=True, help="Also download and hash every artifact.")
@with_session
def verify(session: Session, target: str, *, deep: bool) -> int:
    """Check that the index and the bucket agree.

    Every record, shard and output is compared with what it is derived from. Nothing is written.
    """
    settings = fetch_settings(session.storage, bucket=session.bucket or "")
    depth = Depth(read_artifacts=deep, now_ms=session.now * 1000, grace_ms=settings.shard_grace_days * DAY_MS)
    channel, subdirs = resolve_target(session.storage, target)
    view = ChannelView(outputs=settings.policy.outputs, max_subdirs=settings.policy.max_subdirs)
    findings: list[Finding] = list(verify_all(subdirs, depth, view, progress=session.note))
    if is_channel(target):
        findings += verify_channel(session.storage, channel, view, progress=session.note)
    problems = [finding for finding in findings if not finding.is_harmless]
    rows = [(finding.problem.value, finding.key, finding.message) for finding in problems]
    harmless = len(findings) - len(problems)
    summary = f"{len(problems) or 'no'} problems ({len(subdirs)} subdirs, {harmless} harmless findings)"
    session.show(
        {
            "clean": not problems,
            "subdirs": [str(subdir) for subdir in subdirs],
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
        [*format_table(("PROBLEM", "KEY", "DESCRIPTION"), rows), summary] if rows else summary,
    )
    return 1 if problems else 0
