"""Asks every trusted issuer for its keys, and says what changes in the access document. No storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lambdas.access.changes import apply_keys
from lambdas.access.document import AccessDocument, SigningKey
from lambdas.channel.errors import FairwayError, UnavailableError

CONFIRM_SECONDS: Final = 20 * 3600
"""Unchanged keys are confirmed in the document so often; the edge believes them for a week."""


class IssuersUnavailableError(UnavailableError):
    """Some issuers' keys could not be had; all else was done."""


FetchKeys = Callable[[str], tuple[SigningKey, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedKeys:
    """What the issuers answered."""

    keys: Mapping[str, tuple[SigningKey, ...]]
    failures: Mapping[str, str]


def fetch_all_keys(document: AccessDocument, fetch: FetchKeys) -> FetchedKeys:
    """Ask all issuers; one that fails is noted, and hinders no other."""
    keys: dict[str, tuple[SigningKey, ...]] = {}
    failures: dict[str, str] = {}
    for issuer in document.issuers:
        try:
            keys[issuer.issuer] = fetch(issuer.issuer)
        except FairwayError as error:
            failures[issuer.issuer] = str(error)
    return FetchedKeys(keys=keys, failures=failures)


def apply_fetched_keys(document: AccessDocument, fetched: FetchedKeys, *, now: int, by: str) -> AccessDocument:
    """Replace keys that changed, confirm those that did not for long; keep those that could not be had."""
    for issuer in document.issuers:
        keys = fetched.keys.get(issuer.issuer)
        if keys is None:
            continue
        if keys == issuer.keys and issuer.confirmed is not None and now - issuer.confirmed < CONFIRM_SECONDS:
            continue
        document = apply_keys(document, issuer.issuer, keys, now=now, by=by)
    return document
