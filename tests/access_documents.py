"""What tests of access build: tokens, documents, signed identity tokens, viewer requests."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lambdas.access.document import (
    AccessDocument,
    ChannelRule,
    ClaimRule,
    Issuer,
    SigningKey,
    Token,
    Visibility,
    parse_scope,
)
from lambdas.access.tokens import format_token, hash_token, token_id

NOW = 1_790_000_000
ISSUER = "https://issuer.example.com"
AUDIENCE = "https://conda.example.com"

# The RSA key of RFC 7515, appendix A.2.
RFC_N = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pC"
    "gNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6"
    "65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRW"
    "yuXpoQ"
)
RFC_E = "AQAB"
RFC_D = (
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pW"
    "J1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2Qv"
    "Xt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRu"
    "OopznQ"
)
KEY = SigningKey(kid="k1", n=RFC_N, e=RFC_E)
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def make_secret(number: int) -> str:
    """Return a token that depends on the number alone."""
    return format_token(int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:19], "big"))


def make_token(
    secret: str,
    *channels: str,
    packages: Sequence[str] | None = None,
    name: str = "ci",
    created: int = NOW - 1000,
    expires: int | None = None,
    revoked: int | None = None,
) -> Token:
    sha256 = hash_token(secret)
    return Token(
        id=token_id(sha256),
        name=name,
        sha256=sha256,
        scope=parse_scope(channels, packages),
        created=created,
        expires=expires,
        creator="arn:aws:iam::123456789012:user/ada",
        revoked=revoked,
    )


def make_issuer(
    *channels: str, claims: Mapping[str, str] | None = None, packages: Sequence[str] | None = None
) -> Issuer:
    return Issuer(
        issuer=ISSUER,
        audiences=(AUDIENCE,),
        rules=(ClaimRule(claims=claims or {"repository": "acme/*"}, scope=parse_scope(channels, packages)),),
        keys=(KEY,),
        confirmed=NOW,
    )


def make_document(*tokens: Token, issuers: Sequence[Issuer] = (), **visibility: Visibility) -> AccessDocument:
    return AccessDocument(
        channels={name: ChannelRule(visibility=value) for name, value in visibility.items()},
        tokens=tokens,
        issuers=tuple(issuers),
    )


def encode_base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign_bytes(encoded: bytes) -> bytes:
    """Apply the RFC's private key to a block that is encoded already."""
    n, d = (int.from_bytes(decode_base64url(part), "big") for part in (RFC_N, RFC_D))
    return pow(int.from_bytes(encoded, "big"), d, n).to_bytes(256, "big")


def encode_block(message: bytes) -> bytes:
    """Pad a message's SHA-256 as EMSA-PKCS1-v1_5 does."""
    digest_info = DIGEST_INFO + hashlib.sha256(message).digest()
    return b"\x00\x01" + b"\xff" * (256 - 3 - len(digest_info)) + b"\x00" + digest_info


def make_claims(**changes: object) -> dict[str, Any]:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "repo:acme/app:ref:refs/heads/main",
        "repository": "acme/app",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 300,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def make_identity(claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | bytes | None = None) -> str:
    """Sign an identity token with the RFC's key, whatever it says."""
    raw_header = header if isinstance(header, bytes) else json.dumps(header or {"alg": "RS256", "kid": "k1"}).encode()
    raw_claims = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{encode_base64url(raw_header)}.{encode_base64url(raw_claims)}"
    return f"{signed}.{encode_base64url(sign_bytes(encode_block(signed.encode())))}"


def format_basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def make_request(
    uri: str, *, method: str = "GET", query: str = "", authorization: str | Sequence[str] | None = None
) -> dict[str, Any]:
    """Return a viewer request as CloudFront gives it to the function."""
    headers: dict[str, list[dict[str, str]]] = {
        "host": [{"key": "Host", "value": "d111111abcdef8.cloudfront.net"}],
        "user-agent": [{"key": "User-Agent", "value": "conda/26.7.1"}],
    }
    if authorization is not None:
        values = [authorization] if isinstance(authorization, str) else authorization
        headers["authorization"] = [{"key": "Authorization", "value": value} for value in values]
    return {
        "clientIp": "203.0.113.178",
        "headers": headers,
        "method": method,
        "querystring": query,
        "uri": uri,
    }


def make_event(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "cf": {
                    "config": {
                        "distributionDomainName": "d111111abcdef8.cloudfront.net",
                        "distributionId": "EDFDVBD6EXAMPLE",
                        "eventType": "viewer-request",
                        "requestId": "4TyzHTaYWb1GX1qTfsHhEqV6HUDd_BzoBZnwfnvQc_1oF26ClkoUSEQ==",
                    },
                    "request": dict(request),
                }
            }
        ]
    }
