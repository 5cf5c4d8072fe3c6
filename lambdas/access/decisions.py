"""Decides whether a credential may read a file, by the compiled access document. Pure.

Denies by default. A decision depends on the channel's name, the filename, the credentials and the time,
never on the bucket's contents: the answer is the same whether a channel exists or not (invariant 8). A token
is looked up by its SHA-256, so that the duration of the look-up reveals nothing about other tokens:
approaching a stored hash step by step would require inverting SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from lambdas.access.document import AccessDocument, Issuer, Scope, Token, Visibility
from lambdas.access.globs import glob_matches, matches_any
from lambdas.access.identity import InvalidIdentityError, looks_like_identity, verify_identity
from lambdas.access.tokens import hash_token, is_token
from lambdas.channel.artifact_kinds import guess_package
from lambdas.channel.layout import IndexFiles, is_index_path

NO_INDEX_FILES: Final = IndexFiles()
MAX_REMEMBERED_IDENTITIES: Final = 1024


class Decision(Enum):
    """The outcome of an access check."""

    ALLOWED = "allowed"
    UNAUTHENTICATED = "unauthenticated"
    """No valid credential: 401."""
    FORBIDDEN = "forbidden"
    """A valid credential, but not for this file: 403."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessRules:
    """The access document, compiled for fast decisions."""

    public: frozenset[str]
    private: frozenset[str]
    public_globs: tuple[str, ...]
    """Channels that the deployment makes public, unless the document overrides it."""
    tokens: Mapping[str, Token]
    """By SHA-256 in hex, without revoked tokens."""
    issuers: Mapping[str, Issuer]
    index_files: IndexFiles = NO_INDEX_FILES
    remembered: dict[bytes, tuple[int, tuple[Scope, ...]]] = field(default_factory=dict)
    """Identity tokens verified under these rules: SHA-256 → (expiry, scopes)."""


def compile_rules(
    document: AccessDocument, *, public_globs: Iterable[str], index_files: IndexFiles = NO_INDEX_FILES
) -> AccessRules:
    """Compile the document and the deployment's public channels."""
    by_visibility = {
        visibility: frozenset(name for name, rule in document.channels.items() if rule.visibility is visibility)
        for visibility in Visibility
    }
    return AccessRules(
        public=by_visibility[Visibility.PUBLIC],
        private=by_visibility[Visibility.PRIVATE],
        public_globs=tuple(public_globs),
        tokens={token.sha256: token for token in document.tokens if token.revoked is None},
        issuers={issuer.issuer: issuer for issuer in document.issuers},
        index_files=index_files,
    )


def is_public(rules: AccessRules, channel: str) -> bool:
    """Tell whether the channel is readable without credentials; the document overrides the deployment."""
    if channel in rules.private:
        return False
    return channel in rules.public or matches_any(rules.public_globs, channel)


def decide(rules: AccessRules, *, channel: str, path: str, credentials: Iterable[str], now: int) -> Decision:
    """Decide whether one of the credentials gives access to a file of a channel; ``path`` is below the channel.

    Credentials are tokens or identity tokens as sent by the client. For a public channel they are not
    checked, so that a client with masked or expired ones can still read it.
    """
    if is_public(rules, channel):
        return Decision.ALLOWED
    decision = Decision.UNAUTHENTICATED
    for credential in credentials:
        scopes = find_scopes(rules, credential, now=now)
        if scopes is None:
            continue
        if any(_covers(scope, channel, path, rules.index_files) for scope in scopes):
            return Decision.ALLOWED
        decision = Decision.FORBIDDEN
    return decision


def find_scopes(rules: AccessRules, credential: str, *, now: int) -> tuple[Scope, ...] | None:
    """Return what a credential may read; None if it is invalid."""
    if is_token(credential):
        token = rules.tokens.get(hash_token(credential))
        return (token.scope,) if token is not None and token.is_valid(now) else None
    if rules.issuers and looks_like_identity(credential):
        return _find_identity_scopes(rules, credential, now)
    return None


def _find_identity_scopes(rules: AccessRules, credential: str, now: int) -> tuple[Scope, ...] | None:
    digest = hashlib.sha256(credential.encode()).digest()
    expires, scopes = rules.remembered.get(digest, (0, ()))
    if now < expires:
        return scopes
    try:
        identity = verify_identity(credential, rules.issuers, now=now)
    except InvalidIdentityError:
        return None
    if len(rules.remembered) >= MAX_REMEMBERED_IDENTITIES:
        rules.remembered.clear()
    rules.remembered[digest] = (identity.expires, identity.scopes)
    return identity.scopes


def _covers(scope: Scope, channel: str, path: str, index_files: IndexFiles) -> bool:
    if not any(glob_matches(pattern, channel) for pattern in scope.channels):
        return False
    if scope.packages is None:
        return True
    name = guess_package(path)
    if name is None:
        return is_index_path(path, index_files)  # an unknown file may be of any package
    return matches_any(scope.packages, name)
