"""``fairway token``: create, list, rotate, revoke."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import click

from lambdas.access.changes import (
    apply_token_created,
    apply_token_revoked,
    apply_token_rotated,
    find_tokens,
    format_scope,
)
from lambdas.access.document import (
    MAX_DOCUMENT_BYTES,
    NEARLY_FULL_BYTES,
    Scope,
    Token,
    encode_access,
    format_time,
    parse_scope,
    parse_token_name,
)
from lambdas.access.tokens import TOKEN_ENTROPY, format_token, hash_token, token_id
from lambdas.channel.errors import UsageError
from lambdas.key_refresher.store import change_access, fetch_access
from scripts.fairway.netrc import format_entry, write_entry
from scripts.fairway.session import Session, with_session, with_session_and_url
from scripts.fairway.terminal import format_table

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdwy])\Z")


@click.group(
    epilog="""\b
Example:
  fairway token create ada --channel team --netrc
"""
)
def token() -> None:
    """Create, list, rotate and revoke tokens.

    A token gives read access to the channels that its patterns match. It never gives access to
    publish. Changes take effect within 60 seconds.
    """


def parse_duration(text: str) -> int:
    """Return a duration such as ``90d``, ``12h``, ``30m``, ``2w`` or ``1y`` in seconds.

    Raises:
        UsageError: it is malformed.
    """
    match = _DURATION.match(text)
    if match is None:
        raise UsageError(f"invalid duration {text!r}", hint="give a number and a unit, such as 30m, 12h, 90d, 2w or 1y")
    return int(match[1]) * _UNITS[match[2]]


def parse_expiry(text: str, *, now: int) -> int | None:
    """Return the end of a duration, the beginning of a day (``2026-12-31``, UTC), or None for ``never``.

    Raises:
        UsageError: it is malformed, or in the past.
    """
    if text == "never":
        return None
    if _DURATION.match(text):
        return now + parse_duration(text)
    try:
        expires = int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise UsageError(
            f"invalid expiry {text!r}", hint="give a duration (90d, 12h), a day (2026-12-31), or never"
        ) from None
    if expires <= now:
        raise UsageError(f"expiry {text!r} is in the past", hint="give a later day; days begin at midnight UTC")
    return expires


def make_token(name: str, scope: Scope, *, now: int, expires: int | None, creator: str) -> tuple[str, Token]:
    """Generate a token; return the secret, and the entry for the access document."""
    secret = format_token(secrets.randbelow(TOKEN_ENTROPY))
    sha256 = hash_token(secret)
    return secret, Token(
        id=token_id(sha256), name=name, sha256=sha256, scope=scope, created=now, expires=expires, creator=creator
    )


@token.command(
    epilog="""\b
Examples:
  fairway token create ci --channel team
  fairway token create partner --channel 'shared-*' --package 'acme-*' --expires 90d
  fairway token create laptop --channel '*' --netrc
  TOKEN=$(fairway token create ci --channel '*' --expires 2026-12-31)

The token is printed to stdout, and the ways to use it to stderr. --netrc writes it to $NETRC or
~/.netrc (mode 0600), in place of the host's earlier entry.
"""
)
@click.argument("name")
@click.option(
    "--channel", "channels", multiple=True, required=True, metavar="GLOB", help="Channels it may read; repeatable."
)
@click.option(
    "--package", "packages", multiple=True, metavar="GLOB", help="Restrict to artifacts of these packages; repeatable."
)
@click.option(
    "--expires",
    default="never",
    show_default=True,
    metavar="WHEN",
    help="When it expires: 90d, 12h, 2026-12-31 or never.",
)
@click.option("--netrc", "to_netrc", is_flag=True, help="Also write the token to the netrc file.")
@with_session_and_url
def create(
    session: Session,
    name: str,
    *,
    channels: tuple[str, ...],
    packages: tuple[str, ...],
    expires: str,
    to_netrc: bool,
) -> None:
    """Create a token and print it.

    It is printed only once, because only its SHA-256 is stored.
    """
    now = session.now
    scope = parse_scope(channels, packages or None)
    if to_netrc:
        format_entry(session.require_url(), "")  # an error before the token exists
    secret, entry = make_token(
        parse_token_name(name), scope, now=now, expires=parse_expiry(expires, now=now), creator=session.caller
    )
    document = change_access(session.storage, lambda document: apply_token_created(document, entry), now=now)
    if (size := len(encode_access(document))) > NEARLY_FULL_BYTES:
        session.note(
            f"the access document has {size:,} of at most {MAX_DOCUMENT_BYTES:,} bytes: revoke unused tokens, or use "
            "one token for several machines"
        )
    session.note(f"created token {name!r} ({entry.id}) for {format_scope(scope)}; it {_format_end(entry)}")
    session.note("it works within 60 seconds, and is shown only once:")
    usage = describe_usage(session.url, secret, scope)
    session.show({"token": secret, **describe_token(entry, now=now), **usage}, secret)
    _note_usage(session, usage, is_written=to_netrc)
    if to_netrc:  # last: if it fails, the token has been printed
        session.note(f"written to {write_entry(format_entry(session.require_url(), secret))}")


@token.command(
    name="list",
    epilog="""\b
Examples:
  fairway token list
  fairway token list --all --json
""",
)
@click.option("--all", "with_ended", is_flag=True, help="Also list tokens revoked or expired in the last 90 days.")
@with_session
def list_tokens(session: Session, *, with_ended: bool) -> None:
    """List tokens with their scope, expiry and creator."""
    now = session.now
    tokens = [entry for entry in fetch_access(session.storage).tokens if with_ended or entry.is_valid(now)]
    descriptions = [describe_token(entry, now=now) for entry in tokens]
    rows = [
        (
            entry.id,
            entry.name,
            " ".join(entry.scope.channels),
            "all" if entry.scope.packages is None else " ".join(entry.scope.packages),
            description["expires"] or "never",
            entry.creator,
            description["state"],
        )
        for entry, description in zip(tokens, descriptions, strict=True)
    ]
    table = format_table(("ID", "NAME", "CHANNELS", "PACKAGES", "EXPIRES", "CREATOR", "STATE"), rows)
    session.show(descriptions, table if rows else "no tokens")


@token.command(
    epilog="""\b
Examples:
  fairway token revoke ci
  fairway token revoke 3f9a0c61b2d4
"""
)
@click.argument("id_or_name")
@with_session
def revoke(session: Session, id_or_name: str) -> None:
    """Revoke a token; it stops working within 60 seconds.

    A name revokes all tokens with this name.
    """
    now, caller = session.now, session.caller
    document = change_access(
        session.storage,
        lambda document: apply_token_revoked(document, id_or_name, now=now, by=caller),
        now=now,
    )
    revoked = [describe_token(entry, now=now) for entry in find_tokens(document, id_or_name)]
    session.show(revoked, f"revoked {id_or_name!r}; it stops working within 60 seconds")


@token.command(
    epilog="""\b
Examples:
  fairway token rotate ci
  fairway token rotate ci --overlap 7d --expires 90d
"""
)
@click.argument("id_or_name")
@click.option(
    "--overlap", default="24h", show_default=True, metavar="DURATION", help="How long the old token stays valid."
)
@click.option(
    "--expires", default=None, metavar="WHEN", help="As for create; by default the lifetime of the old token."
)
@with_session_and_url
def rotate(session: Session, id_or_name: str, overlap: str, expires: str | None) -> None:
    """Replace a token by a new one with the same name and scope.

    Both work during the overlap. The new token is printed only once.
    """
    now = session.now
    overlap_seconds = parse_duration(overlap)
    valid = [entry for entry in find_tokens(fetch_access(session.storage), id_or_name) if entry.is_valid(now)]
    if not valid:
        raise UsageError(f"no valid token {id_or_name!r}", hint="see 'fairway token list'")
    old = max(valid, key=lambda entry: entry.created)
    if expires is not None:
        end = parse_expiry(expires, now=now)
    else:
        end = None if old.expires is None else now + (old.expires - old.created)
    secret, entry = make_token(old.name, old.scope, now=now, expires=end, creator=session.caller)
    entry = replace(entry, extra=old.extra)
    change_access(
        session.storage,
        lambda document: apply_token_rotated(document, old.id, entry, overlap_seconds=overlap_seconds),
        now=now,
    )
    session.note(f"rotated token {old.name!r}: {old.id} expires within {overlap}; {entry.id} {_format_end(entry)}")
    session.note("the new token works within 60 seconds, and is shown only once:")
    usage = describe_usage(session.url, secret, entry.scope)
    session.show({"token": secret, **describe_token(entry, now=now), "replaces": old.id, **usage}, secret)
    _note_usage(session, usage, is_written=False)


def describe_token(entry: Token, *, now: int) -> dict[str, Any]:
    """Return the public fields of a token."""
    ended = "expired" if entry.revoked is None else "revoked"
    return {
        "id": entry.id,
        "name": entry.name,
        "channels": list(entry.scope.channels),
        "packages": None if entry.scope.packages is None else list(entry.scope.packages),
        "created": format_time(entry.created),
        "expires": None if entry.expires is None else format_time(entry.expires),
        "creator": entry.creator,
        "revoked": None if entry.revoked is None else format_time(entry.revoked),
        "state": "valid" if entry.is_valid(now) else ended,
    }


def _format_end(entry: Token) -> str:
    return "never expires" if entry.expires is None else f"expires {format_time(entry.expires)}"


def describe_usage(url: str | None, secret: str, scope: Scope) -> dict[str, str | None]:
    """Return how clients use a token: its line of a netrc file, and a channel's URL that contains it.

    Both are None if the URL of the channels is unknown; a channel that is a pattern is CHANNEL.
    """
    if url is None:
        return {"netrc": None, "channel_url": None}
    channel = scope.channels[0]
    name = "CHANNEL" if set("*?") & set(channel) else channel
    return {"netrc": format_entry(url, secret), "channel_url": f"{url.rstrip('/')}/t/{secret}/{name}"}


def _note_usage(session: Session, usage: Mapping[str, str | None], *, is_written: bool) -> None:
    """Print both, the netrc form first: a token in a URL ends up in the metadata of environments."""
    if usage["netrc"] is None:
        session.note("with FAIRWAY_URL or 'fairway use', the line for ~/.netrc is printed here as well")
        return
    session.note("the line of ~/.netrc:" if is_written else "append this line to ~/.netrc (mode 0600):")
    session.note(str(usage["netrc"]))
    session.note("for clients without netrc, in a URL:")
    session.note(f"conda install -c {usage['channel_url']} PACKAGE")
