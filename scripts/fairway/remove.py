"""``fairway remove``: delete artifacts, after a question."""

from __future__ import annotations

import click

from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.indexer.upkeep.listing import list_files
from scripts.fairway.catalog import no_match
from scripts.fairway.copy import remove_artifacts
from scripts.fairway.session import Session, with_session
from scripts.fairway.specs import SPEC_HELP, parse_spec
from scripts.fairway.status import State, wait_for_state
from scripts.fairway.targets import resolve_target
from scripts.fairway.terminal import confirm, format_table
from scripts.fairway.waiting import with_wait


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway remove tools hello-1.0-0.conda
  fairway remove tools 'hello=0.*' --yes --wait

Lock files that name a removed artifact no longer work, and its filename is free for other bytes. To
take a bad artifact out of the index and keep it downloadable, use 'fairway yank' instead. The bucket
keeps removed objects for 'old_version_days' (30 days by default).
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--yes", is_flag=True, help="Don't ask.")
@with_wait("the index no longer has them")
@with_session
def remove(session: Session, target: str, spec: str, *, yes: bool, wait: float | None) -> None:
    """Delete artifacts; 'yank' keeps them downloadable."""
    matches = parse_spec(spec)
    _, subdirs = resolve_target(session.storage, target)
    keys: list[ArtifactKey] = [
        parse_artifact_key(subdir.layout.file(name))
        for subdir in subdirs
        for name, _ in list_files(subdir)
        if kind_of(name) is not None and matches(name)
    ]
    if not keys:
        raise no_match(target, spec)
    if not yes:
        for key in keys:
            session.note(str(key))
        session.note("Lock files that name them will fail. 'fairway yank' removes them from the index only.")
        confirm(
            f"Remove {len(keys)} artifact(s)?",
            UsageError("nothing was removed", hint="say --yes to remove without a question, or use 'fairway yank'"),
        )
    remove_artifacts(session, keys)
    if wait is not None:
        wait_for_state(session, keys, State.UNKNOWN, timeout_seconds=wait)
    rows = [(str(key), "removed") for key in keys]
    session.show([{"key": key, "state": state} for key, state in rows], format_table(("ARTIFACT", "STATE"), rows))
