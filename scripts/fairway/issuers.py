"""``fairway issuer``: add, list, refresh, check and remove trusted issuers of identity tokens (OIDC)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from lambdas.access.changes import apply_issuer_added, apply_issuer_removed, apply_keys, format_scope
from lambdas.access.document import (
    ClaimRule,
    Issuer,
    SigningKey,
    format_time,
    parse_claims,
    parse_issuer_url,
    parse_scope,
)
from lambdas.access.identity import InvalidIdentityError, verify_identity
from lambdas.access.owners import binds_owner
from lambdas.channel.errors import UsageError
from lambdas.key_refresher.jwks import fetch_keys, parse_jwks
from lambdas.key_refresher.store import change_access, fetch_access
from scripts.fairway.session import Session, with_session
from scripts.fairway.terminal import format_table

_GITHUB: Final = "https://token.actions.githubusercontent.com"


@click.group(
    epilog="""\b
Example:
  fairway issuer list
"""
)
def issuer() -> None:
    """Manage trusted issuers of identity tokens (OIDC).

    CI jobs and other workloads can read with their identity tokens instead of a stored secret.
    An identity token is accepted, as Bearer token or as the password of Basic authentication, if
    its issuer is trusted, one of its audiences is configured, and its claims match a rule.
    """


@issuer.command(
    epilog=f"""\b
Examples:
  fairway issuer add {_GITHUB} --audience https://conda.example.com \\
      --claim repository=acme/app --channel team
  fairway issuer add https://gitlab.com --audience https://conda.example.com \\
      --claim 'project_path=acme/*' --claim ref_protected=true --channel 'team-*'
"""
)
@click.argument("issuer_url", metavar="ISSUER")
@click.option(
    "--audience", "audiences", multiple=True, required=True, metavar="AUD", help="Accepted 'aud'; repeatable."
)
@click.option(
    "--claim", "claims", multiple=True, required=True, metavar="NAME=GLOB", help="Required claim; repeatable."
)
@click.option(
    "--channel", "channels", multiple=True, required=True, metavar="GLOB", help="Channels to read; repeatable."
)
@click.option(
    "--package", "packages", multiple=True, metavar="GLOB", help="Restrict to artifacts of these packages; repeatable."
)
@click.option(
    "--jwks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the issuer's keys from a JWKS file.",
)
@with_session
def add(
    session: Session,
    *,
    issuer_url: str,
    audiences: tuple[str, ...],
    claims: tuple[str, ...],
    channels: tuple[str, ...],
    packages: tuple[str, ...],
    jwks: Path | None,
) -> None:
    """Trust an issuer, or add a rule to a trusted issuer.

    The claims must bind an owner: a repository, group or account whose jobs may read. A rule that everybody
    with an account at the issuer could match is an error.
    """
    now, caller = session.now, session.caller
    rule = ClaimRule(claims=_parse_rule(claims), scope=parse_scope(channels, packages or None))
    name = parse_issuer_url(issuer_url)
    added = Issuer(issuer=name, audiences=audiences, rules=(rule,), keys=_read_keys(name, jwks), confirmed=now)
    change_access(session.storage, lambda document: apply_issuer_added(document, added, now=now, by=caller), now=now)
    session.show(
        describe_issuer(added), f"trusted {name} for {format_scope(rule.scope)}; this takes effect within 60 seconds"
    )


@issuer.command(
    name="list",
    epilog="""\b
Examples:
  fairway issuer list
  fairway issuer list --json
""",
)
@with_session
def list_issuers(session: Session) -> None:
    """List trusted issuers and their rules."""
    issuers = fetch_access(session.storage).issuers
    rows = [
        (
            entry.issuer,
            " ".join(entry.audiences),
            " ".join(f"{name}={pattern}" for name, pattern in rule.claims.items()),
            format_scope(rule.scope),
            str(len(entry.keys)),
            "never" if entry.confirmed is None else format_time(entry.confirmed),
        )
        for entry in issuers
        for rule in entry.rules
    ]
    table = format_table(("ISSUER", "AUDIENCES", "CLAIMS", "CHANNELS", "KEYS", "CONFIRMED"), rows)
    session.show([describe_issuer(entry) for entry in issuers], table if rows else "no issuers")


@issuer.command(
    epilog=f"""\b
Examples:
  fairway issuer remove {_GITHUB}
"""
)
@click.argument("issuer_url", metavar="ISSUER")
@with_session
def remove(session: Session, issuer_url: str) -> None:
    """Remove a trusted issuer and all its rules."""
    now, caller = session.now, session.caller
    change_access(
        session.storage, lambda document: apply_issuer_removed(document, issuer_url, now=now, by=caller), now=now
    )
    session.show({"removed": issuer_url}, f"removed {issuer_url}; its identity tokens stop working within 60 seconds")


@issuer.command(
    epilog=f"""\b
Examples:
  fairway issuer refresh
  fairway issuer refresh https://gitlab.internal --jwks keys.json
  fairway issuer refresh {_GITHUB}
"""
)
@click.argument("issuer_url", metavar="[ISSUER]", required=False)
@click.option(
    "--jwks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the issuer's keys from a JWKS file.",
)
@with_session
def refresh(session: Session, issuer_url: str | None, jwks: Path | None) -> None:
    """Fetch the keys of one issuer or of all issuers.

    The deployment does this every hour.
    """
    trusted = [entry.issuer for entry in fetch_access(session.storage).issuers]
    if issuer_url is not None and issuer_url not in trusted:
        raise UsageError(f"unknown issuer {issuer_url!r}", hint="see 'fairway issuer list'")
    if jwks is not None and issuer_url is None:
        raise UsageError("--jwks without an issuer", hint="give the issuer of these keys")
    now, caller = session.now, session.caller
    fetched = {name: _read_keys(name, jwks) for name in ([issuer_url] if issuer_url else trusted)}
    for name, keys in fetched.items():
        change_access(
            session.storage,
            lambda document, name=name, keys=keys: apply_keys(  # type: ignore[misc]  # bound in the loop
                document, name, keys, now=now, by=caller
            ),
            now=now,
        )
    session.show(
        {name: [key.kid for key in keys] for name, keys in fetched.items()},
        [f"{name}: {len(keys)} keys" for name, keys in fetched.items()] or "no issuers",
    )


@issuer.command(
    epilog="""\b
Examples:
  fairway issuer check identity-token.txt
  echo "$ID_TOKEN" | fairway issuer check -

Exit code 0 if it is valid, even if no rule matches; 1 if it is invalid; 2 for a usage error.
"""
)
@click.argument("file", type=click.File())
@with_session
def check(session: Session, file: Any) -> None:  # noqa: ANN401 - click's own type
    """Show what an identity token may read, or why it is invalid."""
    issuers = {entry.issuer: entry for entry in fetch_access(session.storage).issuers}
    try:
        identity = verify_identity(file.read().strip(), issuers, now=session.now)
    except InvalidIdentityError as error:
        error.hint = f"readers get status 401 ({error.code})"
        raise
    scopes = [format_scope(scope) for scope in identity.scopes]
    end = format_time(identity.expires)
    session.show(
        {"issuer": identity.issuer, "expires": end, "scopes": scopes},
        f"valid until {end}; may read {'; '.join(scopes) or 'nothing, because no rule matches (status 403)'}",
    )


def describe_issuer(entry: Issuer) -> dict[str, Any]:
    """Return the fields of an issuer."""
    return {
        "issuer": entry.issuer,
        "audiences": list(entry.audiences),
        "rules": [
            {
                "claims": dict(rule.claims),
                "channels": list(rule.scope.channels),
                "packages": None if rule.scope.packages is None else list(rule.scope.packages),
            }
            for rule in entry.rules
        ],
        "keys": [key.kid for key in entry.keys],
        "confirmed": None if entry.confirmed is None else format_time(entry.confirmed),
    }


def _parse_rule(texts: tuple[str, ...]) -> Mapping[str, str]:
    """Parse claims that bind an owner.

    Raises:
        UsageError: they are malformed, or everybody with an account at the issuer could match them.
    """
    claims = parse_claims(_parse_pairs(texts))
    if not binds_owner(claims):
        raise UsageError(
            f"{', '.join(texts)}: everybody with an account at the issuer could have such an identity token",
            hint="name an owner: --claim repository=OWNER/REPOSITORY, --claim 'repository=OWNER/*', "
            "--claim 'project_path=GROUP/*' or --claim 'sub=repo:OWNER/*'; 'aud', 'iss' and 'ref' bind none",
        )
    return claims


def _parse_pairs(claims: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in claims:
        name, separator, pattern = text.partition("=")
        if not separator or not name or name in pairs:
            raise UsageError(f"invalid claim {text!r}", hint="give NAME=GLOB, each name once")
        pairs[name] = pattern
    return pairs


def _read_keys(name: str, jwks: Path | None) -> tuple[SigningKey, ...]:
    return fetch_keys(name) if jwks is None else parse_jwks(jwks.read_bytes())
