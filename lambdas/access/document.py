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

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from lambdas.access.globs import Glob, parse_channel_glob, parse_package_glob
from lambdas.access.tokens import Sha256Hex, token_id
from lambdas.channel.errors import FairwayError, InvalidDocumentError, InvalidNameError, UsageError
from lambdas.channel.names import parse_channel

DOCUMENT_VERSION: Final = 1
MAX_DOCUMENT_BYTES: Final = 3 * 512 * 1024
"""What the authorizer parses in a second with a fourteenth of a core, which it has at 128 MB."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a credential may read: channels, and all their artifacts or those of some packages."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """An issuer's public RSA key: modulus and exponent in base64url, as in its JWKS."""

    kid: str
    n: str
    e: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimRule:
    """A rule: identity tokens whose claims match every pattern have the scope."""

    claims: Mapping[str, str]
    scope: Scope
    extra: _Extra = field(default_factory=dict)


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


def parse_access(body: bytes) -> AccessDocument:
    """Parse the document.

    Raises:
        InvalidDocumentError: it is malformed; the message says where, and contains no hash.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(f"access document has {len(body)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"access document is not JSON: {type(error).__name__}") from error
    top = _Reader("access document", raw)
    version = top.take("version", int)
    if version != DOCUMENT_VERSION:
        raise InvalidDocumentError(
            f"access document has version {version!r}, this Fairway reads {DOCUMENT_VERSION}",
            hint="another version of Fairway wrote it: upgrade this one",
        )
    channels = {name: _parse_channel_rule(name, rule) for name, rule in top.take("channels", dict, default={}).items()}
    tokens = tuple(_parse_token(index, item) for index, item in enumerate(top.take("tokens", list, default=[])))
    issuers = tuple(_parse_issuer(index, item) for index, item in enumerate(top.take("issuers", list, default=[])))
    history = tuple(_parse_change(index, item) for index, item in enumerate(top.take("history", list, default=[])))
    if len({token.sha256 for token in tokens}) != len(tokens):
        raise InvalidDocumentError("access document: two tokens have the same hash")
    if len({issuer.issuer for issuer in issuers}) != len(issuers):
        raise InvalidDocumentError("access document: duplicate issuer")
    return AccessDocument(channels=channels, tokens=tokens, issuers=issuers, history=history, extra=top.rest())


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
        channels=tuple(parse_channel_glob(pattern) for pattern in channels),
        packages=None if packages is None else tuple(parse_package_glob(pattern) for pattern in packages),
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
    if not any(pattern.strip("*?") for pattern in claims.values()):
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
        return tuple(_parse_change(index, json.loads(line)) for index, line in enumerate(body.splitlines()))
    except ValueError as error:
        raise InvalidDocumentError("archived history is not JSON") from error


class _Reader:
    """Reads typed values of a JSON object, and returns the unknown ones in the end."""

    __slots__ = ("_known", "_place", "_raw")

    def __init__(self, place: str, raw: object) -> None:
        if not isinstance(raw, dict):
            raise InvalidDocumentError(f"{place} is not an object")
        self._place = place
        self._raw: dict[str, Any] = raw
        self._known: set[str] = set()

    def take(self, key: str, kind: type, *, default: Any = None, optional: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Return a value. Optional keys must be present but may be null, so that a misspelt restriction is an error."""
        self._known.add(key)
        value = self._raw.get(key, default)
        if value is None and optional and key in self._raw:
            return None
        if type(value) is not kind:
            raise self.error(f"{key} is not of type {kind.__name__}")
        return value

    def strings(self, key: str) -> list[str]:
        values: list[Any] = self.take(key, list)
        if not all(type(value) is str for value in values):
            raise self.error(f"{key} is not a list of strings")
        return values

    def time(self, key: str, *, optional: bool = False) -> int | None:
        text = self.take(key, str, optional=optional)
        if text is None:
            return None
        if not _TIME.match(text):
            raise self.error(f"{key} is not a time like 2026-01-31T12:00:00Z")
        try:
            return int(datetime.fromisoformat(text).timestamp())
        except ValueError as error:
            raise self.error(f"{key} is not a valid time") from error

    def scope(self) -> Scope:
        packages = None if self.take("packages", list, optional=True) is None else self.strings("packages")
        try:
            return parse_scope(self.strings("channels"), packages)
        except FairwayError as error:
            raise self.error(str(error)) from error

    def error(self, text: str) -> InvalidDocumentError:
        return InvalidDocumentError(f"{self._place}: {text}")

    def rest(self) -> _Extra:
        if len(self._raw) == len(self._known & self._raw.keys()):
            return _NOTHING
        return {key: value for key, value in self._raw.items() if key not in self._known}


_NOTHING: Final[_Extra] = {}


def _parse_channel_rule(name: str, raw: object) -> ChannelRule:
    reader = _Reader(f"channel {name!r}", raw)
    try:
        parse_channel(name)
        visibility = Visibility(reader.take("visibility", str))
    except (InvalidNameError, ValueError) as error:
        raise reader.error(str(error)) from error
    return ChannelRule(visibility=visibility, extra=reader.rest())


def _parse_token(index: int, raw: object) -> Token:
    reader = _Reader(f"token {index}", raw)
    sha256 = reader.take("sha256", str)
    if not _SHA256.match(sha256):
        raise reader.error("sha256 is not 64 hex digits")
    identifier = reader.take("id", str)
    if identifier != token_id(sha256):
        raise reader.error("id does not match sha256")
    return Token(
        id=identifier,
        name=reader.take("name", str),
        sha256=Sha256Hex(sha256),
        scope=reader.scope(),
        created=reader.time("created") or 0,
        expires=reader.time("expires", optional=True),
        creator=reader.take("creator", str),
        revoked=reader.time("revoked", optional=True),
        extra=reader.rest(),
    )


def _parse_issuer(index: int, raw: object) -> Issuer:
    reader = _Reader(f"issuer {index}", raw)
    try:
        issuer = parse_issuer_url(reader.take("issuer", str))
    except InvalidNameError as error:
        raise reader.error(str(error)) from error
    audiences = tuple(reader.strings("audiences"))
    if not audiences or not all(audiences):
        raise reader.error("no audience")
    jwks = _Reader(f"issuer {index}: jwks", reader.take("jwks", dict, default={}))
    return Issuer(
        issuer=issuer,
        audiences=audiences,
        rules=tuple(
            _parse_rule(f"issuer {index}: rule {at}", rule) for at, rule in enumerate(reader.take("rules", list))
        ),
        keys=tuple(
            _parse_key(f"issuer {index}: key {at}", key) for at, key in enumerate(jwks.take("keys", list, default=[]))
        ),
        confirmed=reader.time("confirmed", optional=True),
        extra=reader.rest(),
    )


def _parse_rule(place: str, raw: object) -> ClaimRule:
    reader = _Reader(place, raw)
    claims = reader.take("claims", dict)
    if not all(type(pattern) is str for pattern in claims.values()):
        raise reader.error("claims are not strings")
    try:
        parse_claims(claims)
    except UsageError as error:
        raise reader.error(str(error)) from error
    return ClaimRule(claims=claims, scope=reader.scope(), extra=reader.rest())


def _parse_key(place: str, raw: object) -> SigningKey:
    reader = _Reader(place, raw)
    key = SigningKey(kid=reader.take("kid", str), n=reader.take("n", str), e=reader.take("e", str))
    if not _BASE64URL.match(key.n) or not _BASE64URL.match(key.e):
        raise reader.error("n or e is not base64url")
    return key


def _parse_change(index: int, raw: object) -> Change:
    reader = _Reader(f"history {index}", raw)
    action: Action | str = reader.take("action", str)
    with contextlib.suppress(ValueError):  # an action of another version of Fairway
        action = Action(action)
    return Change(
        at=reader.time("at") or 0,
        by=reader.take("by", str),
        action=action,
        subject=reader.take("subject", str),
        detail=reader.take("detail", str, default=""),
        extra=reader.rest(),
    )


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
