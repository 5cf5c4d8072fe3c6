"""``fairway audit``: the history of the access document."""

from __future__ import annotations

import click

from lambdas.access.document import Action, Change, format_time
from lambdas.key_refresher.store import fetch_history
from scripts.fairway.session import Session, with_session
from scripts.fairway.terminal import format_table
from scripts.fairway.tokens import parse_duration


@click.command(
    epilog="""\b
Examples:
  fairway audit
  fairway audit --since 30d --subject ci
  fairway audit --json
"""
)
@click.option("--since", default=None, metavar="DURATION", help="Only changes of the last 30d, 12h, …")
@click.option("--subject", default=None, help="Only changes to this token, channel or issuer.")
@with_session
def audit(session: Session, since: str | None, subject: str | None) -> None:
    """Show who changed access, when and how, oldest first.

    WHO is the AWS identity that the command found at that time. AWS records writes to the access
    document in CloudTrail, if data events are enabled for the bucket.
    """
    start = 0 if since is None else session.now - parse_duration(since)
    changes = [
        change for change in fetch_history(session.storage) if change.at >= start and subject in {None, change.subject}
    ]
    rows = [(format_time(change.at), change.by, _name(change), change.subject, change.detail) for change in changes]
    session.show(
        [
            {
                "at": format_time(change.at),
                "by": change.by,
                "action": _name(change),
                "subject": change.subject,
                "detail": change.detail,
            }
            for change in changes
        ],
        format_table(("WHEN", "WHO", "WHAT", "SUBJECT", "DETAIL"), rows) if rows else "no changes",
    )


def _name(change: Change) -> str:
    return change.action.value if isinstance(change.action, Action) else change.action
