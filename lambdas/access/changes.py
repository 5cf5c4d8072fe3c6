"""Changes of the access document, each with its entry in the history. Pure.

Every change is a function of the document, and may be applied twice: after a lost swap it is applied to
the new document, and a write that seemed to be lost may have succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from lambdas.access.document import (
    AccessDocument,
    Action,
    Change,
    ChannelRule,
    Issuer,
    Scope,
    SigningKey,
    Token,
    Visibility,
    format_time,
)
from lambdas.channel.errors import UsageError
from lambdas.channel.names import Channel

MAX_HISTORY: Final = 1000
"""Maximum number of entries in the document; the command moves older ones to ``.fairway/audit/``."""
KEPT_SECONDS: Final = 90 * 24 * 3600
"""How long a revoked or expired token stays listed; the history keeps it forever."""


def find_tokens(document: AccessDocument, id_or_name: str) -> tuple[Token, ...]:
    """Return the token with this id, or else all tokens with this name."""
    by_id = tuple(token for token in document.tokens if token.id == id_or_name)
    return by_id or tuple(token for token in document.tokens if token.name == id_or_name)


def apply_token_created(document: AccessDocument, token: Token) -> AccessDocument:
    """Add a token.

    Raises:
        UsageError: a valid token has the same name.
    """
    if any(known.sha256 == token.sha256 for known in document.tokens):
        return document  # a write that seemed to be lost had succeeded
    if any(known.name == token.name and known.is_valid(token.created) for known in document.tokens):
        raise UsageError(
            f"a token named {token.name!r} exists already",
            hint=f"replace it with 'fairway token rotate {token.name}', or choose another name",
        )
    change = Change(
        at=token.created,
        by=token.creator,
        action=Action.TOKEN_CREATED,
        subject=token.name,
        detail=f"{token.id}, {format_scope(token.scope)}, expires {_format_expiry(token.expires)}",
    )
    return _record(replace(document, tokens=(*document.tokens, token)), change)


def apply_token_rotated(document: AccessDocument, old_id: str, token: Token, *, overlap_seconds: int) -> AccessDocument:
    """Add a token with the old one's name; the old one expires after the overlap.

    Raises:
        UsageError: the old token does not exist or is no longer valid.
    """
    if any(known.sha256 == token.sha256 for known in document.tokens):
        return document
    old = next((known for known in document.tokens if known.id == old_id and known.is_valid(token.created)), None)
    if old is None:
        raise UsageError(f"no valid token {old_id!r}", hint="see 'fairway token list'")
    end = token.created + overlap_seconds
    if old.expires is not None:
        end = min(end, old.expires)
    tokens = tuple(replace(known, expires=end) if known.id == old_id else known for known in document.tokens)
    change = Change(
        at=token.created,
        by=token.creator,
        action=Action.TOKEN_ROTATED,
        subject=token.name,
        detail=f"{old_id} expires {format_time(end)}, {token.id} expires {_format_expiry(token.expires)}",
    )
    return _record(replace(document, tokens=(*tokens, token)), change)


def apply_token_revoked(document: AccessDocument, id_or_name: str, *, now: int, by: str) -> AccessDocument:
    """Revoke the token with this id, or all tokens with this name.

    Raises:
        UsageError: no token has this id or name.
    """
    found = find_tokens(document, id_or_name)
    if not found:
        raise UsageError(f"no token {id_or_name!r}", hint="see 'fairway token list'")
    revoked = {token.id for token in found if token.revoked is None}
    if not revoked:
        return document
    tokens = tuple(replace(token, revoked=now) if token.id in revoked else token for token in document.tokens)
    change = Change(
        at=now, by=by, action=Action.TOKEN_REVOKED, subject=found[0].name, detail=", ".join(sorted(revoked))
    )
    return _record(replace(document, tokens=tokens), change)


def apply_visibility(
    document: AccessDocument, channel: Channel, visibility: Visibility, *, now: int, by: str
) -> AccessDocument:
    """Make a channel public or private; this overrides the deployment's settings."""
    known = document.channels.get(channel)
    if known is not None and known.visibility is visibility:
        return document
    rule = ChannelRule(visibility=visibility, extra=known.extra if known else {})
    action = Action.CHANNEL_PUBLIC if visibility is Visibility.PUBLIC else Action.CHANNEL_PRIVATE
    change = Change(at=now, by=by, action=action, subject=channel)
    return _record(replace(document, channels={**document.channels, channel: rule}), change)


def apply_issuer_added(document: AccessDocument, issuer: Issuer, *, now: int, by: str) -> AccessDocument:
    """Trust an issuer, or add rules and audiences to a trusted one; its keys are replaced by those given."""
    known = next((known for known in document.issuers if known.issuer == issuer.issuer), None)
    merged = issuer
    if known is not None:
        merged = replace(
            known,
            audiences=tuple(dict.fromkeys((*known.audiences, *issuer.audiences))),
            rules=(*known.rules, *(rule for rule in issuer.rules if rule not in known.rules)),
            keys=issuer.keys,
            confirmed=issuer.confirmed,
        )
    if known is not None and (merged.audiences, merged.rules) == (known.audiences, known.rules):
        return apply_keys(document, issuer.issuer, issuer.keys, now=now, by=by)
    others = tuple(other for other in document.issuers if other.issuer != issuer.issuer)
    detail = "; ".join(
        f"{', '.join(f'{name}={pattern}' for name, pattern in rule.claims.items())}: {format_scope(rule.scope)}"
        for rule in issuer.rules
    )
    change = Change(at=now, by=by, action=Action.ISSUER_ADDED, subject=issuer.issuer, detail=detail)
    return _record(replace(document, issuers=(*others, merged)), change)


def apply_issuer_removed(document: AccessDocument, issuer: str, *, now: int, by: str) -> AccessDocument:
    """Stop trusting an issuer.

    Raises:
        UsageError: the issuer is not trusted.
    """
    others = tuple(known for known in document.issuers if known.issuer != issuer)
    if len(others) == len(document.issuers):
        raise UsageError(f"no issuer {issuer!r}", hint="see 'fairway issuer list'")
    change = Change(at=now, by=by, action=Action.ISSUER_REMOVED, subject=issuer)
    return _record(replace(document, issuers=others), change)


def apply_keys(
    document: AccessDocument, issuer: str, keys: Iterable[SigningKey], *, now: int, by: str
) -> AccessDocument:
    """Replace an issuer's keys by those that it publishes now; an unknown issuer is ignored."""
    wanted = tuple(sorted(keys, key=lambda key: key.kid))
    known = next((known for known in document.issuers if known.issuer == issuer), None)
    if known is None:
        return document
    issuers = tuple(
        replace(other, keys=wanted, confirmed=now) if other.issuer == issuer else other for other in document.issuers
    )
    changed = replace(document, issuers=issuers)
    if known.keys == wanted:
        return changed
    detail = ", ".join(key.kid for key in wanted)
    return _record(changed, Change(at=now, by=by, action=Action.ISSUER_KEYS_CHANGED, subject=issuer, detail=detail))


def apply_pruning(document: AccessDocument, *, now: int) -> AccessDocument:
    """Drop tokens that expired or were revoked long ago; the history still has them."""
    tokens = tuple(token for token in document.tokens if token.ended is None or now - token.ended < KEPT_SECONDS)
    return document if len(tokens) == len(document.tokens) else replace(document, tokens=tokens)


def split_history(document: AccessDocument) -> tuple[AccessDocument, tuple[Change, ...]]:
    """Split off the older half of a full history; return the document without it, and the split-off entries."""
    if len(document.history) <= MAX_HISTORY:
        return document, ()
    kept = MAX_HISTORY // 2
    return replace(document, history=document.history[-kept:]), document.history[:-kept]


def format_scope(scope: Scope) -> str:
    """Format a scope in a few words."""
    channels = " ".join(scope.channels)
    return channels if scope.packages is None else f"{channels} (only {' '.join(scope.packages)})"


def _record(document: AccessDocument, change: Change) -> AccessDocument:
    return replace(document, history=(*document.history, change))


def _format_expiry(expires: int | None) -> str:
    return "never" if expires is None else format_time(expires)
