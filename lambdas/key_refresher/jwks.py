"""Fetches an issuer's public keys: the discovery document, then the key set. Bounded, https only.

The ``fairway`` command uses it, too.

Source: OpenID Connect Discovery 1.0, section 4; RFC 7517 (JWK).
"""

from __future__ import annotations

import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any, Final
from urllib.parse import urlsplit

from lambdas.access.document import SigningKey
from lambdas.access.identity import InvalidIdentityError, parse_public_key
from lambdas.channel.errors import InvalidDocumentError, UnavailableError

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 32
TIMEOUT_SECONDS: Final = 5.0
DEADLINE_SECONDS: Final = 15.0
_CHUNK_BYTES: Final = 16 * 1024
_MAX_KID_CHARS: Final = 256

Fetch = Callable[[str], bytes]
"""Reads an https URL."""


def fetch_keys(issuer: str, *, fetch: Fetch | None = None) -> tuple[SigningKey, ...]:
    """Return the keys that an issuer publishes now.

    Raises:
        UnavailableError: the issuer does not answer.
        InvalidDocumentError: the answer is malformed, or of another issuer.
    """
    read = fetch or fetch_https
    discovery = read(issuer.rstrip("/") + "/.well-known/openid-configuration")
    return parse_jwks(read(parse_discovery(discovery, issuer)))


def parse_discovery(body: bytes, issuer: str) -> str:
    """Return the URL of the key set.

    Raises:
        InvalidDocumentError: the document is of another issuer, or its key set has no public https URL.
    """
    document = _parse_object(body, "discovery document")
    if document.get("issuer") != issuer:
        raise InvalidDocumentError(
            f"the discovery document is of issuer {document.get('issuer')!r}, not {issuer!r}",
            hint="write the issuer exactly as in 'iss' of its identity tokens",
        )
    return require_public_https(document.get("jwks_uri"))


def parse_jwks(body: bytes) -> tuple[SigningKey, ...]:
    """Return the strong RSA keys for signatures in a key set; skip others.

    Raises:
        InvalidDocumentError: it is malformed, or has no such key.
    """
    items = _parse_object(body, "key set").get("keys")
    if not isinstance(items, list):
        raise InvalidDocumentError("the key set has no keys")
    keys: dict[str, SigningKey] = {}
    for item in items[:MAX_KEYS]:
        key = _parse_key(item)
        if key is not None:
            keys[key.kid] = key
    if not keys:
        raise InvalidDocumentError("the key set has no RSA key for RS256 of at least 2048 bits")
    return tuple(sorted(keys.values(), key=lambda key: key.kid))


def require_public_https(url: object) -> str:
    """Return a URL if it may be fetched: https, a host name, the default port.

    Raises:
        InvalidDocumentError: it is any other URL, such as one of an internal network.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        fine = parts is not None and parts.scheme == "https" and parts.port in {None, 443} and "@" not in parts.netloc
    except ValueError:
        fine = False
    if not isinstance(url, str) or parts is None or not fine or not parts.hostname or _is_address(parts.hostname):
        raise InvalidDocumentError(f"not a public https URL: {url!r}")
    return url


def fetch_https(url: str) -> bytes:
    """Fetch a small document over https, without following redirects.

    Raises:
        UnavailableError: there is no answer, its status is not 200, or it is too large or too late.
    """
    require_public_https(url)
    deadline = time.monotonic() + DEADLINE_SECONDS
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - https, checked above
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            return read_bounded(response, deadline)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        status = f" {error.code}" if isinstance(error, urllib.error.HTTPError) else ""
        raise UnavailableError(f"no answer from {url!r}: {type(error).__name__}{status}") from error


def read_bounded(response: IO[bytes], deadline: float) -> bytes:
    """Read a body to its end, bounded in size and time.

    Raises:
        UnavailableError: it is too large, or takes too long.
    """
    body = bytearray()
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise UnavailableError(f"an issuer's document has more than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise UnavailableError("an issuer's document took too long")
    return bytes(body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - the base class's parameters
        """Follow no redirect: its target is not checked."""


def _parse_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"the issuer's {what} is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidDocumentError(f"the issuer's {what} is not an object")
    return document


def _parse_key(item: object) -> SigningKey | None:
    if not isinstance(item, dict) or item.get("kty") != "RSA":
        return None
    if item.get("use", "sig") != "sig" or item.get("alg", "RS256") != "RS256":
        return None
    kid, n, e = item.get("kid"), item.get("n"), item.get("e")
    if not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_CHARS and isinstance(n, str) and isinstance(e, str)):
        return None
    key = SigningKey(kid=kid, n=n.rstrip("="), e=e.rstrip("="))
    try:
        return key if parse_public_key(key) is not None else None
    except InvalidIdentityError:  # not base64url
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
