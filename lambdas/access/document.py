"""The access document: who may read which channels. Its values, parser and encoder. Pure.

One JSON object, ``.fairway/access.json``, contains the visibility of channels, tokens (only their SHA-256),
trusted issuers of identity tokens with their public keys, and the history of changes:

    {"version": 1,
     "channels": {"tools": {"visibility": "public"}},
     "tokens": [{"id": "…", "name": "ci", "sha256": "…", "channels": ["team-*"], "packages": null,
                 "created": "2026-01-31T12:00:00Z", "expires": null, "creator": "…", "revoked": null}],
     "issuers": [{"issuer": "https://…", "audiences": ["…"], "jwks": {"keys": […]}, "confirmed": "…",
                  "rules": [{"claims": {"repository": "org/*"}, "channels": ["team-*"], "packages": null}]}],
     "history": [{"at": "…", "by": "…", "action": "token-created", "subject": "ci", "detail": "…"}]}

Unknown keys are kept when the document is written again. A restriction that an older version of Fairway
must not ignore therefore needs a new ``version``. Changes are in ``changes.py``, decisions in
``decisions.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from lambdas.access.globs import Glob, parse_channel_globs, parse_package_globs
from lambdas.access.shapes import NULL, Shape
from lambdas.access.tokens import Sha256Hex, token_id
from lambdas.channel.errors import FairwayError, InvalidDocumentError, InvalidNameError, UsageError
from lambdas.channel.names import parse_channel

DOCUMENT_VERSION: Final = 1
MAX_DOCUMENT_BYTES: Final = 3 * 512 * 1024
"""What the authorizer parses in a second with a fourteenth of a core, which it has at 128 MB.

One written by hand without white space takes at most two."""
NEARLY_FULL_BYTES: Final = MAX_DOCUMENT_BYTES * 3 // 4
"""Above this, ``fairway token create`` says how much is left."""
MAX_CLAIM_CHARS: Final = 256
MAX_ISSUER_CHARS: Final = 256

_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
_ISSUER = re.compile(r"https://[A-Za-z0-9.-]+(?:/[A-Za-z0-9._~-]+)*/?\Z")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")

_Extra = Mapping[str, Any]


class Visibility(Enum):
    """Whether a channel is readable without credentials."""

    PUBLIC = "public"
    PRIVATE = "private"


class Action(Enum):
    """The kind of a change in the history."""

    TOKEN_CREATED = "token-created"  # noqa: S105 - the name of an action
    TOKEN_ROTATED = "token-rotated"  # noqa: S105 - likewise
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - likewise
    CHANNEL_PUBLIC = "channel-public"
    CHANNEL_PRIVATE = "channel-private"
    ISSUER_ADDED = "issuer-added"
    ISSUER_REMOVED = "issuer-removed"
    ISSUER_KEYS_CHANGED = "issuer-keys-changed"


class Scope(NamedTuple):
    """What a credential may read: channels, and all their artifacts or those of some packages.

    A document may have tens of thousands of scopes, rules and keys; named tuples are made in a third of the
    time that frozen dataclasses take.
    """

    channels: tuple[Glob, ...]
    packages: tuple[Glob, ...] | None = None
    """None for all artifacts. Index files are readable in any case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A stored token. Times are seconds since 1970."""

    id: str
    name: str
    sha256: Sha256Hex
    scope: Scope
    created: int
    expires: int | None
    creator: str
    revoked: int | None = None
    extra: _Extra = field(default_factory=dict)

    def is_valid(self, now: int) -> bool:
        """Tell whether the token is valid at this time."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    @property
    def ended(self) -> int | None:
        """When the token stops being valid; None for never."""
        ends = [end for end in (self.revoked, self.expires) if end is not None]
        return min(ends, default=None)


class SigningKey(NamedTuple):
    """An issuer's public RSA key: modulus and exponent in base64url, as in its JWKS."""

    kid: str
    n: str
    e: str


class ClaimRule(NamedTuple):
    """A rule: identity tokens whose claims match every pattern have the scope."""

    claims: Mapping[str, str]
    scope: Scope
    extra: _Extra = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """A trusted issuer of identity tokens."""

    issuer: str
    audiences: tuple[str, ...]
    rules: tuple[ClaimRule, ...]
    keys: tuple[SigningKey, ...] = ()
    confirmed: int | None = None
    """When the issuer was last seen publishing these keys."""
    extra: _Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One entry of the history: who changed what, and when."""

    at: int
    by: str
    action: Action | str
    """A string if another version of Fairway wrote an action that is unknown here."""
    subject: str
    detail: str = ""
    extra: _Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelRule:
    """The settings of one channel."""

    visibility: Visibility
    extra: _Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessDocument:
    """The whole document."""

    channels: Mapping[str, ChannelRule] = field(default_factory=dict)
    tokens: tuple[Token, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    history: tuple[Change, ...] = ()
    extra: _Extra = field(default_factory=dict)


def parse_access(body: bytes, *, with_history: bool = True) -> AccessDocument:
    """Parse the document; without its history if only decisions depend on it.

    Raises:
        InvalidDocumentError: it is malformed; the message says where, and contains no hash.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(f"access document has {len(body)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"access document is not JSON: {type(error).__name__}") from error
    try:
        return _parse_document(raw, with_history=with_history)
    except InvalidDocumentError as error:
        raise InvalidDocumentError(f"access document: {error}", hint=error.hint) from error


def encode_access(document: AccessDocument) -> bytes:
    """Encode the document; ``parse_access`` is the inverse.

    Raises:
        InvalidDocumentError: it is larger than the authorizer accepts.
    """
    raw = {
        **document.extra,
        "version": DOCUMENT_VERSION,
        "channels": {
            name: {**rule.extra, "visibility": rule.visibility.value}
            for name, rule in sorted(document.channels.items())
        },
        "tokens": [_format_token_entry(token) for token in document.tokens],
        "issuers": [_format_issuer(issuer) for issuer in document.issuers],
        "history": [_format_change(change) for change in document.history],
    }
    body = json.dumps(raw, indent=1).encode() + b"\n"
    if len(body) > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(
            f"access document would have {len(body)} bytes, more than {MAX_DOCUMENT_BYTES}",
            hint="revoke unused tokens, or use one token for several machines",
        )
    return body


def parse_scope(channels: Iterable[str], packages: Iterable[str] | None) -> Scope:
    """Check patterns of channels and packages.

    Raises:
        InvalidNameError: a pattern is invalid.
        UsageError: no channel is given.
    """
    scope = Scope(
        channels=parse_channel_globs(channels),
        packages=None if packages is None else parse_package_globs(packages),
    )
    if not scope.channels:
        raise UsageError("no channel given", hint="give at least one: --channel team, or --channel 'team-*'")
    return scope


def parse_token_name(text: str) -> str:
    """Check the name of a token.

    Raises:
        InvalidNameError: it is too long or has other characters.
    """
    if not _TOKEN_NAME.match(text):
        raise InvalidNameError(
            f"invalid token name {text!r}", hint="use letters, digits, '.', '_', '@' and '-', at most 64 characters"
        )
    return text


def parse_issuer_url(text: str) -> str:
    """Check the URL of an issuer: https, a host name, no port, no query.

    Raises:
        InvalidNameError: it is any other string.
    """
    if len(text) > MAX_ISSUER_CHARS or not _ISSUER.match(text) or "/." in text:
        raise InvalidNameError(
            f"invalid issuer {text!r}",
            hint="an issuer is an https URL, such as https://token.actions.githubusercontent.com",
        )
    return text


def parse_claims(claims: Mapping[str, str]) -> Mapping[str, str]:
    """Check patterns of claims.

    Raises:
        UsageError: all are wildcards, so that every identity token of the issuer would match.
    """
    if not "".join(claims.values()).strip("*?"):
        raise UsageError(
            "the claims match every identity token of the issuer",
            hint="restrict a claim: --claim repository=ORGANIZATION/REPOSITORY, or --claim 'repository=ORGANIZATION/*'",
        )
    for name, pattern in claims.items():
        if not name or len(name) > MAX_CLAIM_CHARS or len(pattern) > MAX_CLAIM_CHARS:
            raise UsageError(f"invalid claim {name!r}", hint=f"at most {MAX_CLAIM_CHARS} characters each")
    return claims


def format_time(seconds: int) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_history(history: Iterable[Change]) -> bytes:
    """Encode entries of the history, one JSON document per line."""
    return b"".join(json.dumps(_format_change(change)).encode() + b"\n" for change in history)


def parse_history(body: bytes) -> tuple[Change, ...]:
    """Parse the output of ``encode_history``.

    Raises:
        InvalidDocumentError: it is malformed.
    """
    try:
        return _parse_all("line", _parse_change, [json.loads(line) for line in body.splitlines()])
    except ValueError as error:
        raise InvalidDocumentError("archived history is not JSON") from error


_DOCUMENT_SHAPE: Final = Shape(
    {"version": (int,), "channels": (dict,), "tokens": (list,), "issuers": (list,), "history": (list,)},
    channels={},
    tokens=[],
    issuers=[],
    history=[],
)
_TOKEN_SHAPE: Final = Shape(
    {
        "sha256": (str,),
        "id": (str,),
        "name": (str,),
        "channels": (list,),
        "packages": (list, NULL),
        "created": (str,),
        "expires": (str, NULL),
        "creator": (str,),
        "revoked": (str, NULL),
    }
)
_ISSUER_SHAPE: Final = Shape(
    {"issuer": (str,), "audiences": (list,), "jwks": (dict,), "rules": (list,), "confirmed": (str, NULL)}, jwks={}
)
_RULE_SHAPE: Final = Shape({"claims": (dict,), "channels": (list,), "packages": (list, NULL)})
_KEY_SHAPE: Final = Shape({"kid": (str,), "n": (str,), "e": (str,)})
_CHANGE_SHAPE: Final = Shape(
    {"at": (str,), "by": (str,), "action": (str,), "subject": (str,), "detail": (str,)}, detail=""
)
_ACTIONS: Final = {action.value: action for action in Action}
_CHANNEL_RULES: Final = {visibility.value: ChannelRule(visibility=visibility) for visibility in Visibility}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)

_Parsed = TypeVar("_Parsed")


def _parse_document(raw: Any, *, with_history: bool) -> AccessDocument:  # noqa: ANN401 - JSON
    version, channels, tokens, issuers, history = _DOCUMENT_SHAPE.read(raw)
    if version != DOCUMENT_VERSION:
        raise InvalidDocumentError(
            f"version {version!r}, this Fairway reads {DOCUMENT_VERSION}",
            hint="another version of Fairway wrote it: upgrade this one",
        )
    document = AccessDocument(
        channels=_parse_channels(channels),
        tokens=_parse_all("token", _parse_token, tokens),
        issuers=_parse_all("issuer", _parse_issuer, issuers),
        history=_parse_all("history", _parse_change, history) if with_history else (),
        extra=_DOCUMENT_SHAPE.rest(raw),
    )
    if len({token.sha256 for token in document.tokens}) != len(tokens):
        raise InvalidDocumentError("two tokens have the same hash")
    if len({issuer.issuer for issuer in document.issuers}) != len(issuers):
        raise InvalidDocumentError("duplicate issuer")
    return document


def _parse_all(what: str, parse: Callable[[Any], _Parsed], items: list[Any]) -> tuple[_Parsed, ...]:
    """Parse each; an error says at which index."""
    parsed: list[_Parsed] = []
    try:
        for item in items:
            parsed.append(parse(item))  # noqa: PERF401 - its length is the index of the error
    except FairwayError as error:
        raise InvalidDocumentError(f"{what} {len(parsed)}: {error}") from error
    return tuple(parsed)


def _parse_channels(raw: dict[str, Any]) -> dict[str, ChannelRule]:
    rules: dict[str, ChannelRule] = {}
    name = ""
    try:
        for name, rule in raw.items():
            rules[parse_channel(name)] = _parse_channel_rule(rule)
    except FairwayError as error:
        raise InvalidDocumentError(f"channel {name!r}: {error}") from error
    return rules


def _parse_channel_rule(raw: object) -> ChannelRule:
    if type(raw) is not dict:
        raise InvalidDocumentError("not an object")
    visibility = raw.get("visibility")
    rule = _CHANNEL_RULES.get(visibility) if type(visibility) is str else None
    if rule is None:
        raise InvalidDocumentError(f"visibility is not one of {', '.join(_CHANNEL_RULES)}")
    if len(raw) == 1:
        return rule
    extra = {key: value for key, value in raw.items() if key != "visibility"}
    return ChannelRule(visibility=rule.visibility, extra=extra)


def _parse_token(raw: Any) -> Token:  # noqa: ANN401 - JSON
    sha256, identifier, name, channels, packages, created, expires, creator, revoked = _TOKEN_SHAPE.read(raw)
    if not _SHA256.match(sha256):
        raise InvalidDocumentError("sha256 is not 64 hex digits")
    if identifier != token_id(sha256):
        raise InvalidDocumentError("id does not match sha256")
    return Token(
        id=identifier,
        name=name,
        sha256=sha256,
        scope=_parse_scope(channels, packages),
        created=_parse_time("created", created),
        expires=None if expires is None else _parse_time("expires", expires),
        creator=creator,
        revoked=None if revoked is None else _parse_time("revoked", revoked),
        extra=_TOKEN_SHAPE.rest(raw),
    )


def _parse_issuer(raw: Any) -> Issuer:  # noqa: ANN401 - JSON
    issuer, audiences, jwks, rules, confirmed = _ISSUER_SHAPE.read(raw)
    if not audiences or not all(type(audience) is str and audience for audience in audiences):
        raise InvalidDocumentError("no audience, or one is not a string or empty")
    keys = jwks.get("keys", [])
    if type(keys) is not list:
        raise InvalidDocumentError("jwks: keys is not of type list")
    return Issuer(
        issuer=parse_issuer_url(issuer),
        audiences=tuple(audiences),
        rules=_parse_all("rule", _parse_rule, rules),
        keys=_parse_all("key", _parse_key, keys),
        confirmed=None if confirmed is None else _parse_time("confirmed", confirmed),
        extra=_ISSUER_SHAPE.rest(raw),
    )


def _parse_rule(raw: Any) -> ClaimRule:  # noqa: ANN401 - JSON
    claims, channels, packages = _RULE_SHAPE.read(raw)
    try:
        parse_claims(claims)
    except TypeError as error:
        raise InvalidDocumentError("claims are not strings") from error
    return ClaimRule(claims=claims, scope=_parse_scope(channels, packages), extra=_RULE_SHAPE.rest(raw))


def _parse_scope(channels: list[Any], packages: list[Any] | None) -> Scope:
    try:
        return parse_scope(channels, packages)
    except TypeError as error:
        raise InvalidDocumentError("channels or packages are not lists of strings") from error


def _parse_key(raw: object) -> SigningKey:
    kid, n, e = _KEY_SHAPE.read(raw)
    if not _BASE64URL.match(n) or not _BASE64URL.match(e):
        raise InvalidDocumentError("n or e is not base64url")
    return SigningKey(kid=kid, n=n, e=e)


def _parse_change(raw: Any) -> Change:  # noqa: ANN401 - JSON
    at, by, action, subject, detail = _CHANGE_SHAPE.read(raw)
    return Change(
        at=_parse_time("at", at),
        by=by,
        action=_ACTIONS.get(action, action),  # one of another version of Fairway stays a string
        subject=subject,
        detail=detail,
        extra=_CHANGE_SHAPE.rest(raw),
    )


def _parse_time(key: str, text: str) -> int:
    if not _TIME.match(text):
        raise InvalidDocumentError(f"{key} is not a time like 2026-01-31T12:00:00Z")
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // _SECOND
    except ValueError as error:
        raise InvalidDocumentError(f"{key} is not a valid time") from error


def _format_scope_fields(scope: Scope) -> dict[str, Any]:
    return {
        "channels": list(scope.channels),
        "packages": None if scope.packages is None else list(scope.packages),
    }


def _format_optional_time(seconds: int | None) -> str | None:
    return None if seconds is None else format_time(seconds)


def _format_token_entry(token: Token) -> dict[str, Any]:
    return {
        **token.extra,
        "id": token.id,
        "name": token.name,
        "sha256": token.sha256,
        **_format_scope_fields(token.scope),
        "created": format_time(token.created),
        "expires": _format_optional_time(token.expires),
        "creator": token.creator,
        "revoked": _format_optional_time(token.revoked),
    }


def _format_issuer(issuer: Issuer) -> dict[str, Any]:
    return {
        **issuer.extra,
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        "rules": [
            {**rule.extra, "claims": dict(rule.claims), **_format_scope_fields(rule.scope)} for rule in issuer.rules
        ],
        "jwks": {
            "keys": [
                {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": key.kid, "n": key.n, "e": key.e}
                for key in issuer.keys
            ]
        },
        "confirmed": _format_optional_time(issuer.confirmed),
    }


def _format_change(change: Change) -> dict[str, Any]:
    action = change.action.value if isinstance(change.action, Action) else change.action
    return {
        **change.extra,
        "at": format_time(change.at),
        "by": change.by,
        "action": action,
        "subject": change.subject,
        "detail": change.detail,
    }
