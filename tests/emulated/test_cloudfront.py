import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.emulated.cloudfront import (
    MAX_GENERATED_BYTES,
    GeneratedResponse,
    InvalidResultError,
    OriginResponse,
    ViewerRequest,
    find_behaviour,
    format_event,
    format_response_event,
    make_error,
    may_list,
    parse_behaviours,
    parse_response_result,
    parse_result,
)

DISTRIBUTION = "arn:aws:cloudfront::000000000000:distribution/E1"


def function(version: str) -> dict[str, Any]:
    return {
        "Quantity": 2,
        "Items": [
            {"LambdaFunctionARN": "arn:other:9", "EventType": "origin-request"},
            {"LambdaFunctionARN": f"arn:{version}", "EventType": "viewer-request"},
        ],
    }


CONFIG: dict[str, Any] = {
    "CacheBehaviors": {
        "Quantity": 3,
        "Items": [
            {"PathPattern": "*.conda", "LambdaFunctionAssociations": function("artifacts:1")},
            {
                "PathPattern": "/*/shards/*",
                "LambdaFunctionAssociations": function("shards:2"),
                "AllowedMethods": {"Items": ["HEAD", "GET", "OPTIONS"]},
            },
            {"PathPattern": "img?.png"},
        ],
    },
    "DefaultCacheBehavior": {"LambdaFunctionAssociations": function("default:3")},
}


def request(uri: str = "/team/noarch/repodata.json", **changes: object) -> ViewerRequest:
    values: dict[str, Any] = {"method": "GET", "querystring": "", "headers": (), "client_ip": "127.0.0.1"}
    return ViewerRequest(uri=uri, **(values | changes))


@pytest.mark.parametrize(
    ("uri", "arn"),
    [
        ("/team/noarch/a-1-0.conda", "arn:artifacts:1"),
        ("/.conda", "arn:artifacts:1"),
        ("/team/noarch/a-1-0.CONDA", "arn:default:3"),  # patterns are case-sensitive
        ("/team/noarch/a-1-0.conda/", "arn:default:3"),
        ("/team/noarch/a-1-0%2Econda", "arn:artifacts:1"),  # %2E is a dot (RFC 3986)
        ("/team/shards/x", "arn:shards:2"),
        ("/team/noarch/shards/x.msgpack.zst", "arn:shards:2"),
        ("/shards/x", "arn:default:3"),
        ("/team/shards/../x", "arn:default:3"),
        ("/team/x/%2e%2e/shards/x", "arn:shards:2"),
        ("/team/shards/a.conda", "arn:artifacts:1"),  # the first one wins
        ("/img1.png", None),
        ("/img12.png", "arn:default:3"),
        ("/", "arn:default:3"),
        ("//", "arn:default:3"),
        ("/..", "arn:default:3"),
        ("/line%0Abreak.conda", "arn:artifacts:1"),
    ],
)
def test_find_behaviour__by_path_pattern(uri: str, arn: str | None) -> None:
    assert find_behaviour(parse_behaviours(CONFIG), uri).functions.get("viewer-request") == arn


@given(st.text().map(lambda text: "/" + text))
def test_find_behaviour__default_matches_everything(uri: str) -> None:
    assert find_behaviour(parse_behaviours(CONFIG), uri) in parse_behaviours(CONFIG)


def test_parse_behaviours__methods() -> None:
    artifacts, shards, *_ = parse_behaviours(CONFIG)
    assert artifacts.methods == {"GET", "HEAD"}
    assert shards.methods == {"GET", "HEAD", "OPTIONS"}


def test_format_event__shape() -> None:
    sent = request(
        "/t/token/team/a%2Bb+c",
        querystring="a=%20&b",
        headers=(("Host", "127.0.0.1:8080"), ("X-Two", "one"), ("x-two", "two"), ("Authorization", "Basic eDp5")),
    )
    event = format_event(sent, distribution_id="E1", domain="d1.cloudfront.net", request_id="r1")
    assert event == {
        "Records": [
            {
                "cf": {
                    "config": {
                        "distributionDomainName": "d1.cloudfront.net",
                        "distributionId": "E1",
                        "eventType": "viewer-request",
                        "requestId": "r1",
                    },
                    "request": {
                        "clientIp": "127.0.0.1",
                        "headers": {
                            "authorization": [{"key": "Authorization", "value": "Basic eDp5"}],
                            "host": [{"key": "Host", "value": "d1.cloudfront.net"}],
                            "x-two": [{"key": "X-Two", "value": "one"}, {"key": "x-two", "value": "two"}],
                        },
                        "method": "GET",
                        "querystring": "a=%20&b",
                        "uri": "/t/token/team/a%2Bb+c",
                    },
                }
            }
        ]
    }


def test_parse_result__request_unchanged() -> None:
    sent = request("/a%2Bb", querystring="q=1", headers=(("Host", "d1"), ("Range", "bytes=-5"), ("X", "1"), ("X", "2")))
    event = format_event(sent, distribution_id="E1", domain="d1", request_id="r")
    back = parse_result(event["Records"][0]["cf"]["request"], sent)
    assert isinstance(back, ViewerRequest)
    assert (back.uri, back.querystring, sorted(back.headers)) == (sent.uri, sent.querystring, sorted(sent.headers))


def test_parse_result__request_changed() -> None:
    changed = {"uri": "/b%2B", "querystring": "", "method": "GET", "headers": {"range": [{"value": "bytes=0-"}]}}
    back = parse_result(changed, request(querystring="list-type=2", headers=(("Authorization", "Basic eDp5"),)))
    assert back == request("/b%2B", headers=(("range", "bytes=0-"),))


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "text",
        {},
        {"uri": "no-slash", "headers": {}},
        {"uri": None, "headers": {}},
        {"uri": "/a b", "headers": {}},
        {"uri": "/\u00e9", "headers": {}},
        {"uri": "/a\r\nX: y", "headers": {}},
        {"uri": "/a", "querystring": None},
        {"uri": "/a", "querystring": "a b"},
        {"uri": "/a", "method": "PUT"},
        {"uri": "/a", "headers": {"X-Upper": [{"key": "X-Upper", "value": "1"}]}},
        {"uri": "/a", "headers": {"x-a": [{"key": "X-B", "value": "1"}]}},
        {"uri": "/a", "headers": {"x-a": [{"key": "X-A"}]}},
        {"uri": "/a", "headers": {"x-a": [{"key": "X-A", "value": "1\r\nY: 2"}]}},
        {"uri": "/a", "headers": {"x-a": "1"}},
        {"status": "999"},
        {"status": "100"},
        {"status": "many"},
        {"status": None},
        {"status": "200", "body": None},
        {"status": "200", "body": "%%%", "bodyEncoding": "base64"},
        {"status": "200", "headers": {"transfer-encoding": [{"value": "chunked"}]}},
        {"status": "200", "headers": {"content-length": [{"value": "5"}]}},
    ],
)
def test_parse_result__rejected_by_cloudfront(result: object) -> None:
    with pytest.raises(InvalidResultError):
        parse_result(result, request())


def test_parse_result__generated_response() -> None:
    headers = {"www-authenticate": [{"key": "WWW-Authenticate", "value": "Basic"}]}
    generated = parse_result(
        {"status": "401", "statusDescription": "Unauthorized", "headers": headers, "body": "no\n"}, request()
    )
    assert isinstance(generated, GeneratedResponse)
    assert (generated.status, generated.reason, generated.body) == (401, "Unauthorized", b"no\n")
    assert ("WWW-Authenticate", "Basic") in generated.headers


def test_parse_result__generated_body_in_base64() -> None:
    generated = parse_result(
        {"status": 200, "body": base64.b64encode(b"\x00\xff").decode(), "bodyEncoding": "base64"}, request()
    )
    assert isinstance(generated, GeneratedResponse)
    assert generated.body == b"\x00\xff"


def test_parse_result__generated_response_at_most_40_kb() -> None:
    assert isinstance(parse_result({"status": "200", "body": "x" * MAX_GENERATED_BYTES}, request()), GeneratedResponse)
    with pytest.raises(InvalidResultError, match="40960 are allowed"):
        parse_result({"status": "200", "body": "x" * (MAX_GENERATED_BYTES + 1)}, request())


SENT = OriginResponse(
    status=200,
    reason="OK",
    headers=(
        ("ETag", '"1"'),
        ("Via", "1.1 x"),
        ("X-Two", "one"),
        ("x-two", "two"),
        ("X-Cache", "Miss from cloudfront"),
    ),
)


def response_event() -> dict[str, Any]:
    asked = request("/a%2Bb", headers=(("Host", "127.0.0.1:8080"), ("Range", "bytes=0-")))
    return format_response_event(
        SENT, asked, origin="b.s3.amazonaws.com", distribution_id="E1", domain="d1.cloudfront.net", request_id="r1"
    )


def test_format_response_event__shape() -> None:
    assert response_event() == {
        "Records": [
            {
                "cf": {
                    "config": {
                        "distributionDomainName": "d1.cloudfront.net",
                        "distributionId": "E1",
                        "eventType": "origin-response",
                        "requestId": "r1",
                    },
                    "request": {
                        "clientIp": "127.0.0.1",
                        "headers": {
                            "host": [{"key": "Host", "value": "b.s3.amazonaws.com"}],
                            "range": [{"key": "Range", "value": "bytes=0-"}],
                        },
                        "method": "GET",
                        "querystring": "",
                        "uri": "/a%2Bb",
                    },
                    "response": {
                        "headers": {
                            "etag": [{"key": "ETag", "value": '"1"'}],
                            "via": [{"key": "Via", "value": "1.1 x"}],
                            "x-two": [{"key": "X-Two", "value": "one"}, {"key": "x-two", "value": "two"}],
                        },
                        "status": "200",
                        "statusDescription": "OK",
                    },
                }
            }
        ]
    }


def test_parse_response_result__unchanged() -> None:
    back = parse_response_result(response_event()["Records"][0]["cf"]["response"], SENT)
    assert (back.status, back.reason, sorted(back.headers)) == (SENT.status, SENT.reason, sorted(SENT.headers))


def test_parse_response_result__headers_set_and_deleted() -> None:
    headers = {"via": [{"key": "Via", "value": "1.1 x"}], "cache-control": [{"value": "no-store"}]}
    back = parse_response_result({"status": "200", "headers": headers}, SENT)
    assert back.headers == (
        ("Via", "1.1 x"),
        ("cache-control", "no-store"),
        ("X-Cache", "Miss from cloudfront"),  # hidden from the function
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {}},  # Via was deleted
        {"headers": {"via": [{"value": "1.1 y"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "transfer-encoding": [{"value": "chunked"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "x-cache": [{"value": "Hit"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "x-amz-cf-id": [{"value": "1"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "X-Upper": [{"value": "1"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "x-a": [{"value": "1\r\nY: 2"}]}},
        {"headers": {"via": [{"value": "1.1 x"}], "x-a": "1"}},
        {"headers": None},
        {"status": "999"},
        {"status": "404"},
        {"status": None},
        {"body": ""},
    ],
)
def test_parse_response_result__rejected_by_the_edge(changes: dict[str, Any]) -> None:
    result = {"status": "200", "headers": {"via": [{"value": "1.1 x"}]}}
    assert isinstance(parse_response_result(result, SENT), OriginResponse)
    with pytest.raises(InvalidResultError):
        parse_response_result(result | changes, SENT)


@pytest.mark.parametrize("result", [None, [], "text", {}, {"headers": {"via": [{"value": "1.1 x"}]}}])
def test_parse_response_result__wrong_shape(result: object) -> None:
    with pytest.raises(InvalidResultError):
        parse_response_result(result, SENT)


def test_make_error__escapes() -> None:
    assert b"&lt;script&gt;" in make_error(503, "<script>", "LambdaExecutionError").body


def policy(**changes: object) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "cloudfront.amazonaws.com"},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"],
        "Condition": {"StringEquals": {"AWS:SourceArn": DISTRIBUTION}},
    }
    return {"Statement": [statement | changes]}


def test_may_list__granted() -> None:
    assert may_list(policy(), bucket="bucket", distribution_arn=DISTRIBUTION)
    assert may_list(policy(Action="s3:ListBucket"), bucket="bucket", distribution_arn=DISTRIBUTION)


@pytest.mark.parametrize(
    "changes",
    [
        {"Effect": "Deny"},
        {"Principal": "*"},
        {"Principal": {"AWS": "arn:aws:iam::000000000000:root"}},
        {"Action": "s3:GetObject"},
        {"Resource": "arn:aws:s3:::bucket/*"},
        {"Condition": {}},
        {"Condition": {"StringEquals": {"AWS:SourceArn": DISTRIBUTION + "2"}}},
    ],
)
def test_may_list__not_granted(changes: dict[str, Any]) -> None:
    assert not may_list(policy(**changes), bucket="bucket", distribution_arn=DISTRIBUTION)
    assert not may_list({"Statement": []}, bucket="bucket", distribution_arn=DISTRIBUTION)
