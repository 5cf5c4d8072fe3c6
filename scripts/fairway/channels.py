"""``fairway channel``: list, set-public, set-private."""

from __future__ import annotations

import sys

import click

from lambdas.access.changes import apply_visibility
from lambdas.access.document import Visibility
from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.names import Channel, parse_channel
from lambdas.key_refresher.store import change_access, fetch_access
from scripts.fairway.session import Session, with_session
from scripts.fairway.terminal import format_table

AS_DEPLOYED = "as deployed"


@click.group()
def channel() -> None:
    """List channels, and make them public or private.

    The first upload creates a channel. It is private, unless it is public in the deployment's
    settings or by 'set-public'. 'set-public' and 'set-private' override the deployment's settings.
    """


@channel.command(
    name="list",
    epilog="""\b
Examples:
  fairway channel list
  fairway channel list --json
""",
)
@with_session
def list_channels(session: Session) -> None:
    """List channels and their visibility."""
    rules = fetch_access(session.storage).channels
    stored = {name for name in session.storage.list_folders("") if _is_channel(name)}
    channels = [
        {
            "name": name,
            "visibility": rules[name].visibility.value if name in rules else AS_DEPLOYED,
            "stored": name in stored,
        }
        for name in sorted(stored | rules.keys())
    ]
    rows = [(str(row["name"]), str(row["visibility"]), "" if row["stored"] else "no packages") for row in channels]
    session.show(channels, format_table(("CHANNEL", "VISIBILITY", ""), rows) if rows else "no channels")


@channel.command(
    name="set-public",
    epilog="""\b
Examples:
  fairway channel set-public tools
  fairway channel set-public --yes planned
""",
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask, even if there is no such channel yet.")
@with_session
def set_public(session: Session, name: str, *, yes: bool) -> None:
    """Make a channel public: readers need no credentials.

    If there is no such channel, this asks first: the name may be misspelled, and whatever is uploaded
    under it later is public at once.
    """
    channel_name = parse_channel(name)
    if not yes and next(iter(session.storage.list_folders(f"{channel_name}/")), None) is None:
        _confirm_missing(channel_name)
    _set_visibility(session, channel_name, Visibility.PUBLIC)


@channel.command(
    name="set-private",
    epilog="""\b
Examples:
  fairway channel set-private tools
""",
)
@click.argument("name")
@with_session
def set_private(session: Session, name: str) -> None:
    """Make a channel private: readers need credentials."""
    _set_visibility(session, parse_channel(name), Visibility.PRIVATE)


def _confirm_missing(name: Channel) -> None:
    """Ask whether a channel that does not exist is meant.

    Raises:
        UsageError: it is not, or no person can answer.
    """
    error = UsageError(f"there is no channel {name!r}", hint="see 'fairway channel list', or say --yes")
    if not sys.stdin.isatty():
        raise error
    question = f"There is no channel {name!r}. Make it public as soon as something is uploaded to it?"
    if not click.confirm(question, err=True):
        raise error


def _set_visibility(session: Session, name: Channel, visibility: Visibility) -> None:
    now, caller = session.now, session.caller
    change_access(
        session.storage,
        lambda document: apply_visibility(document, name, visibility, now=now, by=caller),
        now=now,
    )
    session.show(
        {"name": name, "visibility": visibility.value},
        f"{name} is {visibility.value}; this takes effect within 60 seconds",
    )


def _is_channel(name: str) -> bool:
    try:
        parse_channel(name)
    except InvalidNameError:
        return False
    return True
