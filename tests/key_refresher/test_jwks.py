import email.message
import io
import json
import time
import urllib.error
import urllib.request
import urllib.response
from typing import Any

import pytest

from lambdas.access.document import SigningKey
from lambdas.channel.errors import InvalidDocumentError, UnavailableError
from lambdas.key_refresher import jwks
from lambdas.key_refresher.jwks import (
    MAX_BYTES,
    MAX_KEYS,
    fetch_https,
    fetch_keys,
    parse_discovery,
    parse_jwks,
    read_bounded,
    require_public_https,
)
from tests.access_documents import ISSUER, KEY, RFC_E, RFC_N, encode_base64url

DISCOVERY = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
JWK = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": RFC_N, "e": RFC_E, "x5c": ["…"]}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


class FakeWeb:
    """Serves documents by URL."""

    def __init__(self, **changes: object) -> None:
        self.pages = {
            f"{ISSUER}/.well-known/openid-configuration": encode({**DISCOVERY, **changes}),
            f"{ISSUER}/keys": encode({"keys": [JWK]}),
        }

    def fetch(self, url: str) -> bytes:
        return self.pages[url]


def test_fetch_keys__follows_the_discovery_document() -> None:
    assert fetch_keys(ISSUER, fetch=FakeWeb().fetch) == (KEY,)


def test_fetch_keys__issuer_that_ends_in_a_slash() -> None:
    assert fetch_keys(ISSUER + "/", fetch=FakeWeb(issuer=ISSUER + "/").fetch) == (KEY,)


def test_fetch_keys__attack_discovery_document_of_another_issuer() -> None:
    with pytest.raises(InvalidDocumentError):
        fetch_keys(ISSUER, fetch=FakeWeb(issuer="https://evil.example.com").fetch)


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "http://issuer.example.com/keys",
        "file:///etc/passwd",
        "ftp://issuer.example.com/keys",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/keys",
        "https://[::1]/keys",
        "https://localhost/keys",
        "https://issuer.example.com:9001/keys",
        "https://issuer.example.com:x/keys",
        "https://user:password@issuer.example.com/keys",
        "https:///keys",
    ],
)
def test_parse_discovery__attack_key_set_elsewhere(url: object) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_discovery(encode({**DISCOVERY, "jwks_uri": url}), ISSUER)


def test_require_public_https__usual_port_may_be_written() -> None:
    assert require_public_https("https://issuer.example.com:443/keys")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_parse_discovery__no_document(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_discovery(body, ISSUER)


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "EC"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"kid": None},
        {"kid": ""},
        {"kid": "x" * 300},
        {"n": "!!"},
        {"n": encode_base64url(b"\xff" * 128)},
        {"e": "AQ"},
        {"e": 65537},
    ],
)
def test_parse_jwks__attack_unusable_keys_are_skipped(changes: dict[str, object]) -> None:
    other = {**JWK, "kid": "other", **changes}
    assert parse_jwks(encode({"keys": [other, JWK, 7]})) == (KEY,)
    with pytest.raises(InvalidDocumentError):
        parse_jwks(encode({"keys": [other]}))


def test_parse_jwks__purpose_and_algorithm_may_be_missing() -> None:
    bare = {name: JWK[name] for name in ("kty", "kid", "n", "e")}
    assert parse_jwks(encode({"keys": [bare]})) == (KEY,)


def test_parse_jwks__order_does_not_matter() -> None:
    second = {**JWK, "kid": "k0"}
    assert parse_jwks(encode({"keys": [JWK, second]})) == parse_jwks(encode({"keys": [second, JWK]}))


def test_parse_jwks__attack_endless_key_set() -> None:
    many = [{**JWK, "kid": f"k{number}"} for number in range(10 * MAX_KEYS)]
    assert len(parse_jwks(encode({"keys": many}))) == MAX_KEYS


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": []}, {"keys": None}])
def test_parse_jwks__no_keys(document: object) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_jwks(encode(document))


def test_read_bounded__attack_endless_body() -> None:
    with pytest.raises(UnavailableError):
        read_bounded(io.BytesIO(b" " * (MAX_BYTES + 1)), time.monotonic() + 60)
    assert len(read_bounded(io.BytesIO(b" " * MAX_BYTES), time.monotonic() + 60)) == MAX_BYTES


def test_read_bounded__attack_dripping_body() -> None:
    with pytest.raises(UnavailableError):
        read_bounded(io.BytesIO(b"x"), time.monotonic() - 1)


def test_fetch_https__attack_no_other_scheme() -> None:
    with pytest.raises(InvalidDocumentError):
        fetch_https("file:///etc/passwd")


def test_fetch_https__attack_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Redirecting(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:  # noqa: ANN401 - the base class's
            opened.append(req.full_url)
            headers = email.message.Message()
            headers["Location"] = "https://169.254.169.254/"
            response = urllib.response.addinfourl(io.BytesIO(b"{}"), headers, req.full_url, 302)
            response.msg = "Found"  # type: ignore[attr-defined]  # what http.client's responses have
            return response

    build = urllib.request.build_opener
    monkeypatch.setattr(urllib.request, "build_opener", lambda *handlers: build(Redirecting, *handlers))
    with pytest.raises(UnavailableError, match="302"):
        fetch_https("https://issuer.example.com/keys")
    assert opened == ["https://issuer.example.com/keys"]


def test_fetch_https__connection_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opener:
        def open(self, request: urllib.request.Request, timeout: float) -> object:
            assert timeout == jwks.TIMEOUT_SECONDS
            raise urllib.error.URLError("rejected")

    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: Opener())
    with pytest.raises(UnavailableError):
        fetch_https("https://issuer.example.com/keys")


def test_parse_jwks__keeps_modulus_and_exponent_alone() -> None:
    (key,) = parse_jwks(encode({"keys": [{**JWK, "d": "private", "x5u": "https://x"}]}))
    assert key == SigningKey(kid="k1", n=RFC_N, e=RFC_E)
