import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.access.document import (
    MAX_DOCUMENT_BYTES,
    AccessDocument,
    Action,
    Change,
    ClaimRule,
    Token,
    Visibility,
    encode_access,
    encode_history,
    format_time,
    parse_access,
    parse_claims,
    parse_history,
    parse_issuer_url,
    parse_scope,
    parse_token_name,
)
from lambdas.channel.errors import InvalidDocumentError, InvalidNameError, UsageError
from tests.access_documents import NOW, make_document, make_issuer, make_secret, make_token

GLOBS = st.lists(st.text("abc*?-.", min_size=1, max_size=8), min_size=1, max_size=3)
EXTRA = st.dictionaries(st.sampled_from(["note", "owner", "limits"]), st.one_of(st.none(), st.integers(), st.text()))
TIMES = st.integers(min_value=0, max_value=4_000_000_000)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    return replace(
        make_token(
            make_secret(draw(st.integers(0, 10**6))),
            *draw(GLOBS),
            packages=draw(st.none() | GLOBS),
            created=draw(TIMES),
            expires=draw(st.none() | TIMES),
            revoked=draw(st.none() | TIMES),
        ),
        extra=draw(EXTRA),
    )


@st.composite
def changes(draw: st.DrawFn) -> Change:
    return Change(
        at=draw(TIMES),
        by=draw(st.text(max_size=20)),
        action=draw(st.sampled_from([*Action, "token-blessed"])),
        subject=draw(st.text(max_size=20)),
        detail=draw(st.text(max_size=20)),
        extra=draw(EXTRA),
    )


@st.composite
def documents(draw: st.DrawFn) -> AccessDocument:
    channel_names = draw(st.lists(st.sampled_from(["alpha", "beta", "gamma_1"]), unique=True))
    issuer = make_issuer(*draw(GLOBS), packages=draw(st.none() | GLOBS))
    issuer = replace(issuer, rules=(*issuer.rules, ClaimRule(claims={"sub": "x*"}, scope=parse_scope(["a"], None))))
    document = make_document(
        *draw(st.lists(tokens(), max_size=4, unique_by=lambda token: token.sha256)),
        issuers=[replace(issuer, extra=draw(EXTRA))] if draw(st.booleans()) else [],
        **{name: draw(st.sampled_from(Visibility)) for name in channel_names},
    )
    return replace(document, history=tuple(draw(st.lists(changes(), max_size=3))), extra=draw(EXTRA))


@given(document=documents())
def test_parse_access__of_the_encoded_document_is_the_document(document: AccessDocument) -> None:
    assert parse_access(encode_access(document)) == document


@given(history=st.lists(changes(), max_size=4))
def test_parse_history__of_the_encoded_history_is_the_history(history: list[Change]) -> None:
    assert parse_history(encode_history(history)) == tuple(history)


def test_encode_access__keeps_unknown_keys() -> None:
    raw = json.loads(encode_access(make_document(make_token(make_secret(1), "team"), team=Visibility.PUBLIC)))
    raw["motd"] = "hello"
    raw["tokens"][0]["ticket"] = 42
    raw["channels"]["team"]["colour"] = "green"
    again = json.loads(encode_access(parse_access(json.dumps(raw).encode())))
    assert again == raw


def test_encode_access__holds_no_token() -> None:
    secret = make_secret(1)
    body = encode_access(make_document(make_token(secret, "team")))
    assert secret.encode() not in body
    assert secret[3:20].encode() not in body


def spoil(**changes: object) -> bytes:
    """Return a document whose one token is changed; ``...`` takes a key away."""
    raw = json.loads(encode_access(make_document(make_token(make_secret(1), "team"))))
    for key, value in changes.items():
        if value is ...:
            del raw["tokens"][0][key]
        else:
            raw["tokens"][0][key] = value
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "abc"},
        {"sha256": "A" * 64},
        {"sha256": 7},
        {"id": "another"},
        {"name": None},
        {"channels": "team"},
        {"channels": []},
        {"channels": ["TEAM"]},
        {"channels": [1]},
        {"packages": "foo"},
        {"packages": ["a/b"]},
        {"packages": ...},  # a misspelt limit is no limit
        {"expires": ...},
        {"expires": "tomorrow"},
        {"expires": "2026-02-31T00:00:00Z"},
        {"expires": "2026-01-31T00:00:00+01:00"},
        {"expires": 1790000000},
        {"revoked": ...},
        {"revoked": False},
        {"created": None},
        {"creator": ...},
    ],
)
def test_parse_access__malformed_token(changes: dict[str, Any]) -> None:
    parse_access(spoil())
    with pytest.raises(InvalidDocumentError):
        parse_access(spoil(**changes))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"version": 2}',
        b'{"version": "1"}',
        b'{"version": true}',
        b'{"version": 1, "channels": []}',
        b'{"version": 1, "channels": {"T": {"visibility": "public"}}}',
        b'{"version": 1, "channels": {"t": {"visibility": "public"}}}',
        b'{"version": 1, "channels": {"team": {"visibility": "open"}}}',
        b'{"version": 1, "channels": {"team": {}}}',
        b'{"version": 1, "tokens": {}}',
        b'{"version": 1, "tokens": [7]}',
        b'{"version": 1, "channels": {"team": {"visibility": ["public"]}}}',
        b'{"version": 1, "channels": {"team": null}}',
        b'{"version": 1, "channels": null}',
        b'{"version": 1, "issuers": [{}]}',
        b'{"version": 1, "history": [{}]}',
        b"[" * 100_000,
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
)
def test_parse_access__malformed_document(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_access(body)


def test_parse_access__same_hash_twice() -> None:
    token = make_token(make_secret(1), "team")
    with pytest.raises(InvalidDocumentError):
        parse_access(encode_access(make_document(token, replace(token, name="other"))))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("issuer", "http://issuer.example.com"),
        ("audiences", []),
        ("audiences", [""]),
        ("rules", [{"claims": {}, "channels": ["a"], "packages": None}]),
        ("rules", [{"claims": {"sub": "*"}, "channels": ["a"], "packages": None}]),
        ("rules", [{"claims": {"sub": 1}, "channels": ["a"], "packages": None}]),
        ("jwks", {"keys": [{"kid": "k", "n": "+/", "e": "AQAB"}]}),
        ("jwks", {"keys": [{"n": "AQAB", "e": "AQAB"}]}),
        ("jwks", {"keys": None}),
        ("jwks", None),
        ("audiences", [7]),
        ("rules", [{"claims": {"sub": "x"}, "channels": [1], "packages": None}]),
        ("rules", [{"claims": {"sub": "x"}, "channels": ["a"]}]),
    ],
)
def test_parse_access__malformed_issuer(key: str, value: object) -> None:
    raw = json.loads(encode_access(make_document(issuers=[make_issuer("team")])))
    parse_access(json.dumps(raw).encode())
    raw["issuers"][0][key] = value
    with pytest.raises(InvalidDocumentError):
        parse_access(json.dumps(raw).encode())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "access document: not an object"),
        ({"version": 2}, "access document: version 2, this Fairway reads 1"),
        ({"version": 1, "tokens": ["a"]}, "access document: token 0: not an object"),
        ({"version": 1, "channels": {"a": 1}}, "access document: channel 'a': not an object"),
        ({"version": 1, "history": [{"at": 1}]}, "access document: history 0: at is not of type str"),
        (
            {
                "version": 1,
                "issuers": [
                    {"issuer": "https://a", "audiences": ["a"], "confirmed": None, "rules": [{"claims": {"a": "b"}}]}
                ],
            },
            "access document: issuer 0: rule 0: channels is not of type list",
        ),
    ],
)
def test_parse_access__error_says_where(raw: object, message: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_access(json.dumps(raw).encode())
    assert str(caught.value) == message


def test_parse_access__without_history() -> None:
    document = replace(make_document(), history=(Change(at=NOW, by="ada", action="a", subject="b"),))
    body = encode_access(document)
    assert parse_access(body).history == document.history
    assert parse_access(body, with_history=False).history == ()


def test_parse_access__error_contains_no_hash() -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_access(spoil(name=7))
    assert make_token(make_secret(1), "team").sha256 not in str(caught.value)


def test_encode_access__too_large_for_the_edge() -> None:
    with pytest.raises(InvalidDocumentError):
        encode_access(AccessDocument(extra={"padding": "x" * MAX_DOCUMENT_BYTES}))


def test_parse_scope__no_channel_given() -> None:
    with pytest.raises(UsageError):
        parse_scope([], None)


@pytest.mark.parametrize("text", ["", "a b", "-x", "a" * 65, "a\n", "ü"])
def test_parse_token_name__illegal(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_token_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://issuer.example.com",
        "https://",
        "https://user@issuer.example.com",
        "https://issuer.example.com:8443",
        "https://issuer.example.com/?x=1",
        "https://issuer.example.com/../x",
        "https://issuer.example.com/#x",
        "https://[::1]",
        "https://" + "a" * 300,
    ],
)
def test_parse_issuer_url__illegal(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_issuer_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://token.actions.githubusercontent.com",
        "https://gitlab.com",
        "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
        "https://accounts.example.com/",
    ],
)
def test_parse_issuer_url__legal(text: str) -> None:
    assert parse_issuer_url(text) == text


@pytest.mark.parametrize("claims", [{}, {"sub": "*"}, {"sub": "**", "ref": "?"}, {"": "x"}, {"sub": "x" * 257}])
def test_parse_claims__match_every_identity_token(claims: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        parse_claims(claims)


def test_token_is_valid__ends_at_the_second_it_expires() -> None:
    token = make_token(make_secret(1), "team", expires=NOW)
    assert token.is_valid(NOW - 1)
    assert not token.is_valid(NOW)
    assert not replace(token, expires=None, revoked=NOW).is_valid(NOW - 1)


def test_format_time__is_rfc_3339() -> None:
    assert format_time(0) == "1970-01-01T00:00:00Z"
