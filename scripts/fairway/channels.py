"""``fairway channel``: list, set-public, set-private."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import click

from lambdas.access.changes import apply_visibility
from lambdas.access.document import Action, Change, ChannelRule, Visibility, format_time
from lambdas.access.globs import matches_any
from lambdas.channel.errors import InvalidDocumentError, UsageError
from lambdas.channel.names import Channel, parse_channel
from lambdas.indexer.settings import fetch_settings
from lambdas.indexer.upkeep.listing import list_channels as list_existing
from lambdas.key_refresher.store import change_access, fetch_access, fetch_history
from scripts.fairway.session import Session, with_session
from scripts.fairway.terminal import confirm, format_table

_ACTION_OF: Final = {Visibility.PUBLIC: Action.CHANNEL_PUBLIC, Visibility.PRIVATE: Action.CHANNEL_PRIVATE}
_ACTIONS: Final = frozenset(_ACTION_OF.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Visible:
    """Whether a channel is public."""

    name: str
    visibility: str
    """``public``, ``private`` or, if the settings of the deployment are not known, ``as deployed``."""
    source: str
    by: str | None = None
    """Who set it, if a command did."""
    since: str | None = None
    """RFC 3339; None if a command did not set it."""


@click.group(
    epilog="""\b
Example:
  fairway channel list
"""
)
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
    """List channels: public or private, by what, and since when."""
    rules = fetch_access(session.storage).channels
    changes = {change.subject: change for change in fetch_history(session.storage) if change.action in _ACTIONS}
    globs = _fetch_public_globs(session)
    stored = set(list_existing(session.storage))
    channels = [
        asdict(describe_channel(name, rules.get(name), changes.get(name), globs)) | {"stored": name in stored}
        for name in sorted(stored | rules.keys())
    ]
    rows = [
        (
            str(row["name"]),
            str(row["visibility"]),
            f"{row['source']}, {row['by']}" if row["by"] else str(row["source"]),
            str(row["since"] or ""),
            "" if row["stored"] else "no packages",
        )
        for row in channels
    ]
    session.show(channels, format_table(("CHANNEL", "VISIBILITY", "BY", "SINCE", ""), rows) if rows else "no channels")


def describe_channel(
    name: str, rule: ChannelRule | None, change: Change | None, globs: tuple[str, ...] | None
) -> Visible:
    """Return whether a channel is public, and what decides that. Pure.

    ``change`` is the latest one of the channel's rule, ``globs`` are those of the deployment's public channels.
    """
    if rule is not None:
        source = f"set-{rule.visibility.value}"
        if change is None or change.action != _ACTION_OF[rule.visibility]:
            return Visible(name=name, visibility=rule.visibility.value, source=source)
        since = format_time(change.at)
        return Visible(name=name, visibility=rule.visibility.value, source=source, by=change.by, since=since)
    if globs is None:
        return Visible(name=name, visibility="as deployed", source="setting public_channels, unknown here")
    matching = [glob for glob in globs if matches_any((glob,), name)]
    if matching:
        source = f"setting public_channels: {matching[0]}"
        return Visible(name=name, visibility=Visibility.PUBLIC.value, source=source)
    return Visible(name=name, visibility=Visibility.PRIVATE.value, source="default")


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


def _fetch_public_globs(session: Session) -> tuple[str, ...] | None:
    """Return the setting ``public_channels``, or None: the indexer stores it when it first runs."""
    try:
        return fetch_settings(session.storage, bucket=session.bucket or "").public_channels
    except InvalidDocumentError:
        return None


def _confirm_missing(name: Channel) -> None:
    """Ask whether a channel that does not exist is meant.

    Raises:
        UsageError: it is not, or no person can answer.
    """
    confirm(
        f"There is no channel {name!r}. Make it public as soon as something is uploaded to it?",
        UsageError(f"there is no channel {name!r}", hint="see 'fairway channel list', or say --yes"),
    )


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
