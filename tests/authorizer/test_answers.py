import copy
import json
from typing import Any

import pytest

from lambdas.access.decisions import compile_rules
from lambdas.access.document import Visibility
from lambdas.authorizer.answers import answer_request
from lambdas.channel.layout import IndexFiles
from tests.access_documents import (
    NOW,
    format_basic,
    make_claims,
    make_document,
    make_identity,
    make_issuer,
    make_request,
    make_secret,
    make_token,
)

SECRET = make_secret(1)
NARROW = make_secret(2)
EXPIRED = make_secret(3)
IDENTITY = make_identity(make_claims())
RULES = compile_rules(
    make_document(
        make_token(SECRET, "team"),
        make_token(NARROW, "team", packages=["foo"], name="narrow"),
        make_token(EXPIRED, "team", expires=NOW, name="expired"),
        issuers=[make_issuer("team")],
        tools=Visibility.PUBLIC,
    ),
    public_globs=("pub-*",),
    index_files=IndexFiles(
        channel=frozenset({"channeldata.json", "index.html"}), subdir=frozenset({"repodata.json", "index.html"})
    ),
)
FILE = "team/noarch/repodata.json"


def answer(uri: str, *, method: str = "GET", query: str = "", authorization: str | None = None) -> dict[str, Any]:
    return answer_request(make_request(uri, method=method, query=query, authorization=authorization), RULES, now=NOW)


def status(uri: str, *, method: str = "GET", authorization: str | None = None) -> str:
    """Return the status of a response, or the key that S3 is asked for."""
    answered = answer(uri, method=method, authorization=authorization)
    return str(answered.get("status") or answered["uri"])


@pytest.mark.parametrize(
    "credentials",
    [
        {"uri": f"/t/{SECRET}/{FILE}"},
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": format_basic("user", SECRET)},
        {"authorization": format_basic("", SECRET)},
        {"authorization": format_basic(SECRET, "")},
        {"authorization": format_basic(SECRET, "x-oauth-basic")},
        {"authorization": f"Bearer {IDENTITY}"},
        {"authorization": format_basic("oidc", IDENTITY)},
        {"authorization": format_basic("zoë@例え.jp", SECRET)},
        {"authorization": format_basic("user", f" {SECRET}\r\n")},
        {"authorization": format_basic(f"{SECRET}\n", "")},
        {"uri": f"/t/*****/{FILE}", "authorization": f"Bearer {SECRET}"},
        {"uri": f"/t/*****/{FILE}", "authorization": format_basic("token", SECRET)},  # mamba: masked, with netrc
        {"uri": f"/t/{SECRET}/{FILE}", "authorization": format_basic("netrc", "of another service")},
    ],
)
def test_answer_request__every_form_of_credential(credentials: dict[str, str]) -> None:
    answered = answer(credentials.get("uri", f"/{FILE}"), authorization=credentials.get("authorization"))
    assert answered["uri"] == f"/{FILE}"
    assert SECRET not in json.dumps(answered)
    assert IDENTITY not in json.dumps(answered)
    assert "authorization" not in answered["headers"]


@pytest.mark.parametrize(
    ("uri", "authorization", "expected"),
    [
        (f"/{FILE}", None, "401"),
        (f"/{FILE}", "Bearer *****", "401"),
        (f"/{FILE}", format_basic("*****", "*****"), "401"),
        (f"/t/*****/{FILE}", None, "401"),
        (f"/t/<TOKEN>/{FILE}", None, "401"),
        (f"/t//{FILE}", None, "401"),
        (f"/{FILE}", f"Bearer {EXPIRED}", "401"),
        ("/other/noarch/repodata.json", None, "401"),
        ("/other/noarch/repodata.json", f"Bearer {SECRET}", "403"),
        ("/other", None, "401"),
        ("/other/", f"Bearer {SECRET}", "403"),
        ("/team/noarch/foo-1-0.conda", f"Bearer {NARROW}", "/team/noarch/foo-1-0.conda"),
        ("/team/noarch/bar-1-0.conda", f"Bearer {NARROW}", "403"),
        ("/team/noarch/bar-1-0.conda.sigs", f"Bearer {NARROW}", "403"),
        ("/team/noarch/repodata.json", f"Bearer {NARROW}", "/team/noarch/repodata.json"),
        ("/team/noarch/shards/00.msgpack.zst", f"Bearer {NARROW}", "/team/noarch/shards/00.msgpack.zst"),
        ("/team", f"Bearer {SECRET}", "302"),
        ("/team/", f"Bearer {SECRET}", "/team/index.html"),
        ("/tools/noarch/x", None, "/tools/noarch/x"),
        ("/tools/noarch/x", "Bearer *****", "/tools/noarch/x"),
        ("/t/*****/tools/noarch/x", None, "/tools/noarch/x"),
        ("/pub-x/noarch/x", None, "/pub-x/noarch/x"),
        ("/", None, "404"),
        ("/", f"Bearer {SECRET}", "404"),
        ("/index.html", None, "404"),
        ("/.fairway/access.json", None, "401"),
        ("/.fairway/access.json", f"Bearer {SECRET}", "403"),
        ("/team/../other/x", f"Bearer {SECRET}", "400"),
        ("/tools/../team/x", None, "400"),
    ],
)
def test_answer_request__matrix(uri: str, authorization: str | None, expected: str) -> None:
    assert status(uri, authorization=authorization) == expected


def test_answer_request__private_keys_are_never_readable() -> None:
    rules = compile_rules(make_document(make_token(SECRET, "*")), public_globs=("*",))
    for uri in ("/.fairway/access.json", f"/t/{SECRET}/.fairway/access.json", "/.fairway/", "/.fairway"):
        assert answer_request(make_request(uri), rules, now=NOW)["status"] == "404"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "TRACE", ""])
def test_answer_request__other_methods(method: str) -> None:
    answered = answer(f"/t/{SECRET}/{FILE}", method=method)
    assert answered["status"] == "405"
    assert answered["headers"]["allow"] == [{"key": "Allow", "value": "GET, HEAD"}]


def test_answer_request__head_is_like_get() -> None:
    assert status(f"/t/{SECRET}/{FILE}", method="HEAD") == f"/{FILE}"
    assert status(f"/{FILE}", method="HEAD") == "401"


def test_answer_request__plus_is_escaped_for_s3() -> None:
    assert (
        status("/tools/noarch/x-1+a-0.conda")
        == status("/tools/noarch/x-1%2Ba-0.conda")
        == ("/tools/noarch/x-1%2Ba-0.conda")
    )


@pytest.mark.parametrize("query", ["list-type=2&prefix=", "versionId=1", "acl", "x=/../y", "X-Amz-Signature=1"])
def test_answer_request__attack_query_string(query: str) -> None:
    assert answer("/tools/noarch/x", query=query)["querystring"] == ""


@pytest.mark.parametrize("rules_missing_uri", [f"/t/{SECRET}/{FILE}", f"/{FILE}", "/tools/x", "/pub-x/x", "/"])
def test_answer_request__attack_no_rules_deny_access(rules_missing_uri: str) -> None:
    answered = answer_request(make_request(rules_missing_uri), None, now=NOW)
    assert answered["status"] == "503"
    assert int(answered["headers"]["retry-after"][0]["value"]) > 0


def test_answer_request__attack_existence_oracle() -> None:
    # Nothing but the status depends on who asks, and nothing at all on what was asked for.
    for authorization in (None, "Bearer *****", f"Bearer {SECRET}"):
        answers = [
            answer(uri, authorization=authorization) for uri in ("/other/noarch/x", "/ghost/noarch/x", "/ghost/")
        ]
        assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("uri", "authorization"),
    [
        (f"/t/{SECRET}/other/noarch/x", None),
        (f"/t/{EXPIRED}/{FILE}", None),
        (f"/t/{SECRET}/../x", None),
        (f"/t/{SECRET}/team", None),
        (f"/t/{SECRET}/", None),
        (f"/t/{SECRET}/{FILE}", None),
        ("/other/x", f"Bearer {SECRET}"),
        ("/other/x", format_basic(SECRET, SECRET)),
        (f"/{FILE}", format_basic("oidc", SECRET)),
        (f"/{FILE}", f"Digest {SECRET}"),
    ],
)
def test_answer_request__attack_token_leaves_in_no_answer(uri: str, authorization: str | None) -> None:
    answered = json.dumps(answer(uri, authorization=authorization))
    assert SECRET not in answered
    assert EXPIRED not in answered
    assert format_basic(SECRET, SECRET)[6:] not in answered


def test_answer_request__attack_token_leaves_in_a_referer_or_cookie() -> None:
    request = make_request("/tools/noarch/x")
    request["headers"]["referer"] = [{"key": "Referer", "value": f"https://conda.example.com/t/{SECRET}/team/"}]
    request["headers"]["cookie"] = [{"key": "Cookie", "value": SECRET}]
    assert SECRET not in json.dumps(answer_request(request, RULES, now=NOW))


def test_answer_request__attack_header_injection_by_redirect() -> None:
    assert status("/team%0d%0aSet-Cookie:x", authorization=f"Bearer {SECRET}") == "400"
    location = answer("/team", authorization=f"Bearer {SECRET}")["headers"]["location"]
    assert location == [{"key": "Location", "value": "./team/"}]


def test_answer_request__attack_open_redirect() -> None:
    for uri in ("//evil.example.com", "/\\evil.example.com", "/t/x//evil.example.com", "/https:", "/tools/%2f%2fevil"):
        assert status(uri) == "400"


def test_answer_request__rejections_are_not_cached() -> None:
    for uri in ("/team/x", "/team/../x", "/", "/other/x"):
        assert answer(uri)["headers"]["cache-control"] == [{"key": "Cache-Control", "value": "no-store"}]


def test_answer_request__asks_a_browser_for_a_password_on_401_alone() -> None:
    assert "www-authenticate" in answer(f"/{FILE}")["headers"]
    assert "www-authenticate" not in answer("/other/x", authorization=f"Bearer {SECRET}")["headers"]


def test_answer_request__leaves_the_event_alone() -> None:
    request = make_request(f"/t/{SECRET}/{FILE}", query="a=b", authorization="Bearer x")
    before = copy.deepcopy(request)
    answer_request(request, RULES, now=NOW)
    assert request == before


def test_answer_request__other_headers_stay() -> None:
    request = make_request("/tools/x")
    request["headers"]["range"] = [{"key": "Range", "value": "bytes=0-9"}]
    answered = answer_request(request, RULES, now=NOW)
    assert answered["headers"] == request["headers"]


def test_answer_request__generated_body_fits_the_edge() -> None:
    for uri in ("/team/x", "/team/../x", "/", "/other/x"):
        assert len(json.dumps(answer(uri))) < 40_000
