import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from lambdas.access.document import ClaimRule, Issuer, SigningKey, parse_scope
from lambdas.access.identity import (
    LEEWAY_SECONDS,
    MAX_CONFIRMED_AGE_SECONDS,
    MAX_IDENTITY_BYTES,
    InvalidIdentityError,
    _is_signed,
    looks_like_identity,
    parse_public_key,
    verify_identity,
)
from tests.access_documents import (
    AUDIENCE,
    DIGEST_INFO,
    ISSUER,
    KEY,
    NOW,
    RFC_E,
    RFC_N,
    decode_base64url,
    encode_base64url,
    encode_block,
    make_claims,
    make_identity,
    make_issuer,
    sign_bytes,
)

ISSUERS = {ISSUER: make_issuer("team")}

# RFC 7515, appendix A.2.
RFC_TOKEN = (
    "eyJhbGciOiJSUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7"
    "t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12"
    "jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUP"
    "QGe77Rw"
)


def reject(text: str, *, now: int = NOW, issuers: Mapping[str, Issuer] | None = None) -> str:
    """Return the code that the identity token is rejected with."""
    with pytest.raises(InvalidIdentityError) as caught:
        verify_identity(text, issuers or ISSUERS, now=now)
    return caught.value.code


def test_verify_identity__signature_of_the_rfc() -> None:
    # The RFC's example names no key and no audience; its signature is what we are after.
    header, claims, signature = RFC_TOKEN.split(".")
    signed = f"{header}.{claims}".encode()
    public = parse_public_key(KEY)
    assert public is not None
    assert _is_signed(signed, decode_base64url(signature), public)
    assert not _is_signed(signed + b" ", decode_base64url(signature), public)


def test_verify_identity__valid() -> None:
    identity = verify_identity(make_identity(make_claims()), ISSUERS, now=NOW)
    assert identity.issuer == ISSUER
    assert identity.expires == NOW + 300
    assert identity.scopes == (parse_scope(["team"], None),)


def test_verify_identity__audience_among_others() -> None:
    assert verify_identity(make_identity(make_claims(aud=["x", AUDIENCE])), ISSUERS, now=NOW).scopes


def test_verify_identity__no_rule_matches() -> None:
    assert verify_identity(make_identity(make_claims(repository="evil/app")), ISSUERS, now=NOW).scopes == ()


def test_verify_identity__rule_needs_every_claim() -> None:
    issuer = make_issuer("team", claims={"repository": "acme/*", "ref": "refs/heads/main", "protected": "true"})
    for claims, expected in (
        (make_claims(ref="refs/heads/main", protected=True), 1),
        (make_claims(ref="refs/heads/main", protected="true"), 1),
        (make_claims(ref="refs/heads/main", protected=1), 0),
        (make_claims(ref="refs/heads/main"), 0),
        (make_claims(ref="refs/heads/mainline", protected=True), 0),
        (make_claims(ref=["refs/heads/main"], protected=True), 0),
    ):
        assert len(verify_identity(make_identity(claims), {ISSUER: issuer}, now=NOW).scopes) == expected


def test_verify_identity__rules_add_up() -> None:
    issuer = make_issuer("team")
    second = ClaimRule(claims={"run": "7"}, scope=parse_scope(["tools"], ["foo"]))
    issuer = replace(issuer, rules=(*issuer.rules, second))
    identity = verify_identity(make_identity(make_claims(run=7)), {ISSUER: issuer}, now=NOW)
    assert identity.scopes == (parse_scope(["team"], None), parse_scope(["tools"], ["foo"]))


# Attacks, each by its name in docs/security.md.


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, "HS256", "HS512", "RS512", "PS256", "ES256"])
def test_verify_identity__attack_algorithm_confusion(algorithm: str | None) -> None:
    assert reject(make_identity(make_claims(), {"alg": algorithm, "kid": "k1"})) == "wrong-algorithm"


def test_verify_identity__attack_algorithm_confusion_without_signature() -> None:
    header = encode_base64url(json.dumps({"alg": "none", "kid": "k1"}).encode())
    claims = encode_base64url(json.dumps(make_claims()).encode())
    assert reject(f"{header}.{claims}.") == "wrong-algorithm"


def test_verify_identity__attack_stripped_signature() -> None:
    text = make_identity(make_claims())
    assert reject(text[: text.rindex(".") + 1]) == "wrong-signature"


def test_verify_identity__attack_key_in_the_token() -> None:
    # jwk, jku and x5u would let a token bring its own key: they are not looked at.
    header = {"alg": "RS256", "kid": "mine", "jwk": {"kty": "RSA", "n": RFC_N, "e": RFC_E, "kid": "mine"}}
    assert reject(make_identity(make_claims(), header)) == "unknown-key"


def test_verify_identity__attack_changed_claims() -> None:
    header, _, signature = make_identity(make_claims()).split(".")
    claims = encode_base64url(json.dumps(make_claims(repository="acme/other")).encode())
    assert reject(f"{header}.{claims}.{signature}") == "wrong-signature"


def test_verify_identity__attack_every_bit_of_the_signature_counts() -> None:
    header, claims, _ = make_identity(make_claims()).split(".")
    good = sign_bytes(encode_block(f"{header}.{claims}".encode()))
    for bit in range(0, 2048, 61):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        assert reject(f"{header}.{claims}.{encode_base64url(bytes(bad))}") == "wrong-signature"


def make_forged_block(kind: str, message: bytes) -> bytes:
    """Return a block that a verifier which parses its padding might take."""
    digest_info = DIGEST_INFO + hashlib.sha256(message).digest()
    fill = 256 - 3 - len(digest_info)
    return {
        "garbage after the hash": b"\x00\x01" + b"\xff" * 8 + b"\x00" + digest_info + b"\x42" * (fill - 8),
        "garbage in the padding": b"\x00\x01" + b"\xff" * (fill - 1) + b"\xfe" + b"\x00" + digest_info,
        "short padding, leading zeros": b"\x00" * 11 + b"\x01" + b"\xff" * (fill - 10) + b"\x00" + digest_info,
        "type 0": b"\x00\x00" + b"\x00" * fill + b"\x00" + digest_info,
        "type 2": b"\x00\x02" + b"\xff" * fill + b"\x00" + digest_info,
        "no digest info": b"\x00\x01" + b"\xff" * (256 - 3 - 32) + b"\x00" + digest_info[-32:],
        "no null parameter": (
            b"\x00\x01" + b"\xff" * (fill + 2) + b"\x00"
            + bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest_info[-32:]
        ),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        "garbage after the hash",
        "garbage in the padding",
        "short padding, leading zeros",
        "type 0",
        "type 2",
        "no digest info",
        "no null parameter",
    ],
)
def test_verify_identity__attack_padding_oracle_and_forgery(kind: str) -> None:
    header, claims, _ = make_identity(make_claims()).split(".")
    block = make_forged_block(kind, f"{header}.{claims}".encode())
    assert len(block) == 256
    assert reject(f"{header}.{claims}.{encode_base64url(sign_bytes(block))}") == "wrong-signature"


@pytest.mark.parametrize("size", [0, 1, 255, 257, 512])
def test_verify_identity__attack_signature_of_another_length(size: int) -> None:
    header, claims, _ = make_identity(make_claims()).split(".")
    assert reject(f"{header}.{claims}.{encode_base64url(bytes(size))}") == "wrong-signature"


def test_verify_identity__attack_signature_plus_modulus() -> None:
    # The same number modulo n, so it verifies where the range is not checked.
    header, claims, _ = make_identity(make_claims()).split(".")
    modulus = int.from_bytes(decode_base64url(RFC_N), "big")
    number = int.from_bytes(sign_bytes(encode_block(f"{header}.{claims}".encode())), "big") + modulus
    size = 256 if number < 2**2048 else 257
    assert reject(f"{header}.{claims}.{encode_base64url(number.to_bytes(size, 'big'))}") == "wrong-signature"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://evil.example.com"}, "unknown-issuer"),
        ({"iss": ISSUER + "/"}, "unknown-issuer"),
        ({"iss": [ISSUER]}, "unknown-issuer"),
        ({"iss": ...}, "unknown-issuer"),
        ({"aud": "https://other.example.com"}, "wrong-audience"),
        ({"aud": AUDIENCE + "/x"}, "wrong-audience"),
        ({"aud": {AUDIENCE: 1}}, "wrong-audience"),
        ({"aud": [[AUDIENCE]]}, "wrong-audience"),
        ({"aud": []}, "wrong-audience"),
        ({"aud": ...}, "wrong-audience"),
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": ...}, "no-expiry"),
        ({"exp": None}, "no-expiry"),
        ({"exp": str(NOW + 300)}, "no-expiry"),
        ({"exp": True}, "no-expiry"),
        ({"exp": 2**60}, "no-expiry"),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, "not-yet-valid"),
        ({"nbf": "now"}, "not-yet-valid"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, "not-yet-valid"),
    ],
)
def test_verify_identity__attack_foreign_or_expired_claims(changes: dict[str, object], code: str) -> None:
    assert reject(make_identity(make_claims(**changes))) == code


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"1e999"])
def test_verify_identity__attack_endless_expiry(literal: bytes) -> None:
    claims = json.dumps(make_claims()).encode().replace(str(NOW + 300).encode(), literal)
    assert reject(make_identity(claims)) == "no-expiry"


def test_verify_identity__clock_of_the_issuer_is_a_little_ahead() -> None:
    text = make_identity(make_claims(nbf=NOW + LEEWAY_SECONDS, iat=NOW + LEEWAY_SECONDS))
    assert verify_identity(text, ISSUERS, now=NOW).scopes


@pytest.mark.parametrize("kid", ["k2", "", None, 1, ["k1"]])
def test_verify_identity__attack_unknown_key(kid: object) -> None:
    assert reject(make_identity(make_claims(), {"alg": "RS256", "kid": kid})) == "unknown-key"


def test_verify_identity__attack_duplicate_claims() -> None:
    claims = json.dumps(make_claims()).encode()[:-1] + b', "repository": "acme/other"}'
    assert reject(make_identity(claims)) == "malformed"


def test_verify_identity__attack_duplicate_algorithm() -> None:
    assert reject(make_identity(make_claims(), b'{"alg": "none", "kid": "k1", "alg": "RS256"}')) == "malformed"


def test_verify_identity__attack_critical_extension() -> None:
    header = {"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": False}
    assert reject(make_identity(make_claims(), header)) == "critical-extension"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "....",
        "e30.e30.e30",
        "é.e30.e30",
        "e3 0.e30.e30",
        "e30=.e30.e30",
        encode_base64url(b"[" * 5000) + ".e30.e30",
        encode_base64url(b"\xff") + ".e30.e30",
        encode_base64url(b"[]") + ".e30.e30",
        encode_base64url(b"null") + ".e30.e30",
    ],
)
def test_verify_identity__attack_malformed(text: str) -> None:
    assert reject(text) in {"malformed", "wrong-algorithm"}


def test_verify_identity__attack_two_texts_for_one_token() -> None:
    # The last character of a base64 text has bits that mean nothing; only one way to write them is taken.
    text = make_identity(make_claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert reject(other) == "malformed"
    assert reject(text + "=") == "malformed"


def test_verify_identity__attack_very_long() -> None:
    text = make_identity(make_claims(padding="x" * MAX_IDENTITY_BYTES))
    assert reject(text) == "too-long"
    assert not looks_like_identity(text)


def test_verify_identity__attack_withdrawn_keys() -> None:
    stale = {ISSUER: replace(make_issuer("team"), confirmed=NOW - MAX_CONFIRMED_AGE_SECONDS - 1)}
    assert reject(make_identity(make_claims()), issuers=stale) == "stale-keys"
    never = {ISSUER: replace(make_issuer("team"), confirmed=None)}
    assert reject(make_identity(make_claims()), issuers=never) == "stale-keys"


@pytest.mark.parametrize(
    ("n", "e"),
    [
        (encode_base64url(b"\xff" * 128), RFC_E),  # 1024 bits
        (encode_base64url(b"\x7f" + b"\xff" * 255), RFC_E),  # 2047 bits
        (encode_base64url(b"\xff" * 513), RFC_E),  # more than 4096 bits
        (encode_base64url(b"\xff" * 255 + b"\xfe"), RFC_E),  # even
        (RFC_N, "AQ"),  # 1
        (RFC_N, "Ag"),  # 2
        (RFC_N, encode_base64url(b"\xff" * 5)),  # 40 bits
    ],
)
def test_parse_public_key__attack_weak_key(n: str, e: str) -> None:
    weak = SigningKey(kid="k1", n=n, e=e)
    assert parse_public_key(KEY) is not None
    assert parse_public_key(weak) is None
    assert reject(make_identity(make_claims()), issuers={ISSUER: replace(make_issuer("a"), keys=(weak,))}) == (
        "unknown-key"
    )


def test_verify_identity__rejection_repeats_nothing_of_the_token() -> None:
    text = make_identity(make_claims(iss="https://evil.example.com", repository="acme/secret"))
    with pytest.raises(InvalidIdentityError) as caught:
        verify_identity(text, ISSUERS, now=NOW)
    assert "evil" not in str(caught.value)
    assert "secret" not in str(caught.value)
