"""Fetches every trusted issuer's keys, and applies them to the access document. No storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lambdas.access.changes import apply_keys
from lambdas.access.document import AccessDocument, SigningKey
from lambdas.channel.errors import FairwayError, UnavailableError

CONFIRM_SECONDS: Final = 20 * 3600
"""How often unchanged keys are confirmed in the document. The authorizer trusts them for a week."""
ISSUERS_UNAVAILABLE: Final = "issuers-unavailable"
"""The ``code`` in the log that a metric filter counts."""

FetchKeys = Callable[[str], tuple[SigningKey, ...]]
"""Returns the keys that an issuer publishes now."""


class IssuersUnavailableError(UnavailableError):
    """Some issuers' keys could not be fetched; everything else was done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedKeys:
    """The issuers' answers, by issuer."""

    keys: Mapping[str, tuple[SigningKey, ...]]
    failures: Mapping[str, str]


def fetch_all_keys(document: AccessDocument, fetch: FetchKeys) -> FetchedKeys:
    """Ask all issuers. An issuer that fails is noted; the others are asked all the same."""
    keys: dict[str, tuple[SigningKey, ...]] = {}
    failures: dict[str, str] = {}
    for issuer in document.issuers:
        try:
            keys[issuer.issuer] = fetch(issuer.issuer)
        except FairwayError as error:
            failures[issuer.issuer] = str(error)
    return FetchedKeys(keys=keys, failures=failures)


def apply_fetched_keys(document: AccessDocument, fetched: FetchedKeys, *, now: int, by: str) -> AccessDocument:
    """Replace changed keys, confirm unchanged keys once a day, and keep the keys of issuers that failed."""
    for issuer in document.issuers:
        keys = fetched.keys.get(issuer.issuer)
        if keys is None:
            continue
        if keys == issuer.keys and issuer.confirmed is not None and now - issuer.confirmed < CONFIRM_SECONDS:
            continue
        document = apply_keys(document, issuer.issuer, keys, now=now, by=by)
    return document
