"""Verifies identity tokens (OpenID Connect), and finds what their bearers may read. Pure.

Verifies RS256 with the standard library: one modular exponentiation, and an exact comparison of the whole
padded message, so that the padding is never parsed. No other algorithm is implemented, so that none can be
confused with RS256. Keys come from the access document; nothing is fetched.

Source: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8017 section 9.2 (EMSA-PKCS1-v1_5), RFC 8725 (best practice).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.access.document import Issuer, Scope, SigningKey
from lambdas.access.globs import glob_matches
from lambdas.channel.errors import PermanentError

MAX_IDENTITY_BYTES: Final = 8 * 1024
MIN_KEY_BITS: Final = 2048
MAX_KEY_BITS: Final = 4096
MAX_EXPONENT_BITS: Final = 32
LEEWAY_SECONDS: Final = 30
"""How far an issuer's clock may be ahead."""
MAX_CONFIRMED_AGE_SECONDS: Final = 7 * 24 * 3600
"""How long keys are trusted after the issuer was last seen publishing them."""

# DigestInfo of SHA-256. Source: RFC 8017, section 9.2, note 1.
_SHA256_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_MIN_PADDING_BYTES: Final = 8


class InvalidIdentityError(PermanentError):
    """An invalid identity token. The code is for operators, never for the client."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code apart from the message."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The contents of a valid identity token."""

    issuer: str
    claims: Mapping[str, Any]
    expires: int
    scopes: tuple[Scope, ...]
    """Empty if no rule matches: authenticated, but without access."""


def looks_like_identity(text: str) -> bool:
    """Tell whether a credential has the form of an identity token."""
    return len(text) <= MAX_IDENTITY_BYTES and text.isascii() and text.startswith("ey") and text.count(".") == 2  # noqa: PLR2004 - header, claims, signature


def parse_public_key(key: SigningKey) -> tuple[int, int] | None:
    """Return modulus and exponent; None if the key is weak or implausible."""
    modulus = int.from_bytes(_decode_base64url(key.n), "big")
    exponent = int.from_bytes(_decode_base64url(key.e), "big")
    if not MIN_KEY_BITS <= modulus.bit_length() <= MAX_KEY_BITS or modulus % 2 == 0:
        return None
    if exponent.bit_length() > MAX_EXPONENT_BITS or exponent < 3 or exponent % 2 == 0:  # noqa: PLR2004 - RFC 8017, 3.1
        return None
    return modulus, exponent


def verify_identity(text: str, issuers: Mapping[str, Issuer], *, now: int) -> Identity:
    """Verify an identity token and return the scopes that its claims give.

    Raises:
        InvalidIdentityError: it is malformed, for another audience, expired or not yet valid, or not signed by
            a trusted issuer.
    """
    if len(text) > MAX_IDENTITY_BYTES:
        raise InvalidIdentityError("too-long", f"identity token longer than {MAX_IDENTITY_BYTES} bytes")
    if not text.isascii():
        raise InvalidIdentityError("malformed", "identity token is not ASCII")
    parts = text.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        raise InvalidIdentityError("malformed", "identity token does not have three parts")
    header = _parse_part(parts[0], "header")
    claims = _parse_part(parts[1], "claims")
    if header.get("alg") != "RS256":
        raise InvalidIdentityError("wrong-algorithm", "identity token is not signed with RS256")
    if "crit" in header:
        raise InvalidIdentityError("critical-extension", "identity token has a critical extension")
    issuer = _find_issuer(claims, issuers)
    _check_audience(claims, issuer)
    expires = _check_times(claims, now)
    key = _find_key(header, issuer, now)
    signature = _decode_base64url(parts[2])
    if not _is_signed(f"{parts[0]}.{parts[1]}".encode(), signature, key):
        raise InvalidIdentityError("wrong-signature", "identity token is not signed by its issuer's key")
    return Identity(
        issuer=issuer.issuer,
        claims=claims,
        expires=expires,
        scopes=tuple(rule.scope for rule in issuer.rules if _claims_match(rule.claims, claims)),
    )


def _find_issuer(claims: Mapping[str, Any], issuers: Mapping[str, Issuer]) -> Issuer:
    name = claims.get("iss")
    issuer = issuers.get(name) if isinstance(name, str) else None
    if issuer is None:
        raise InvalidIdentityError("unknown-issuer", "identity token is from an untrusted issuer")
    return issuer


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audience = claims.get("aud")
    audiences: Sequence[Any] = (
        [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    )
    if not any(isinstance(name, str) and name in issuer.audiences for name in audiences):
        raise InvalidIdentityError("wrong-audience", "identity token is for another audience")


def _check_times(claims: Mapping[str, Any], now: int) -> int:
    expires = claims.get("exp")
    if expires is None or not _is_number(expires):
        raise InvalidIdentityError("no-expiry", "identity token has no valid expiry")
    if now >= expires:
        raise InvalidIdentityError("expired", "identity token has expired")
    for name in ("nbf", "iat"):
        start = claims.get(name)
        if start is not None and (not _is_number(start) or now + LEEWAY_SECONDS < start):
            raise InvalidIdentityError("not-yet-valid", "identity token is not valid yet")
    return int(expires)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - JSON
    return type(value) in {int, float} and abs(value) < 2**53  # neither NaN nor infinite


def _find_key(header: Mapping[str, Any], issuer: Issuer, now: int) -> tuple[int, int]:
    if issuer.confirmed is None or now - issuer.confirmed > MAX_CONFIRMED_AGE_SECONDS:
        raise InvalidIdentityError("stale-keys", "the issuer's keys have not been confirmed for too long")
    kid = header.get("kid")
    key = next((key for key in issuer.keys if key.kid == kid), None)
    public = parse_public_key(key) if key is not None else None
    if public is None:
        raise InvalidIdentityError(
            "unknown-key", "identity token is signed with a key that the issuer does not publish"
        )
    return public


def _is_signed(message: bytes, signature: bytes, key: tuple[int, int]) -> bool:
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus:
        return False
    encoded = pow(number, exponent, modulus).to_bytes(size, "big")
    digest_info = _SHA256_DIGEST_INFO + hashlib.sha256(message).digest()
    padding = b"\xff" * (size - len(digest_info) - 3)
    return len(padding) >= _MIN_PADDING_BYTES and hmac.compare_digest(
        encoded, b"\x00\x01" + padding + b"\x00" + digest_info
    )


def _claims_match(patterns: Mapping[str, str], claims: Mapping[str, Any]) -> bool:
    return all(_claim_matches(pattern, claims.get(name)) for name, pattern in patterns.items())


def _claim_matches(pattern: str, value: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int):
        value = str(value)
    return isinstance(value, str) and glob_matches(pattern, value)


def _parse_part(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode_base64url(text), object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidIdentityError("malformed", f"identity token's {what} is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidIdentityError("malformed", f"identity token's {what} is not an object")
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _decode_base64url(text: str) -> bytes:
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidIdentityError("malformed", "identity token is not base64url") from error
    if base64.urlsafe_b64encode(value).rstrip(b"=").decode() != text:  # only one text for each value
        raise InvalidIdentityError("malformed", "identity token is not canonical base64url")
    return value
