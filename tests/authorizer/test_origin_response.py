import copy
import json
from typing import Any

import pytest

from infra.delivery import immutable_patterns, metadata_patterns
from lambdas.authorizer.origin_response import apply_headers, handle_origin_response
from lambdas.channel.caching import IMMUTABLE, METADATA
from lambdas.channel.layout import is_immutable_filename
from scripts.emulated.cloudfront import OriginResponse, find_behaviour, parse_behaviours, parse_response_result
from tests.access_documents import make_event, make_request

SHARD = f"/team/noarch/shards/{'0' * 64}.msgpack.zst"
IMMUTABLE_URIS = ("/team/noarch/tool-1.0-0.conda", "/team/linux-64/tool-1.0%2Bcu1-0.tar.bz2", SHARD)
# Of channels, folders and files that are named much like shards.
OTHER_URIS = (
    "/shards/noarch/repodata.json",
    "/shards/noarch/repodata_shards.msgpack.zst",
    "/shards/channeldata.json",
    "/shards/index.html",
    "/team/shards/index.html",
    "/team/noarch/shards/index.html/more",
    "/team/noarch/repodata.json",
    "/team/noarch/shards",
    "/shards/noarch/other.msgpack.zst",
    "/team/noarch/other.msgpack.zst",
    "/team/noarch/shards/more/other.msgpack.zst",
    "/",
    "",
)


def make_response(status: str = "200", cache_control: str | None = None, **headers: str) -> dict[str, Any]:
    """Return S3's response as CloudFront gives it to the function."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if cache_control is not None:
        named["Cache-Control"] = cache_control
    return {
        "headers": {name.lower(): [{"key": name, "value": value}] for name, value in named.items()},
        "status": status,
        "statusDescription": "whatever",
    }


def make_response_event(uri: str, response: object) -> dict[str, Any]:
    event = make_event(make_request(uri))
    event["Records"][0]["cf"]["config"]["eventType"] = "origin-response"
    event["Records"][0]["cf"]["response"] = response
    return event


def list_cache_control(response: dict[str, Any]) -> list[str]:
    return [header["value"] for header in response["headers"].get("cache-control", [])]


@pytest.mark.parametrize("uri", IMMUTABLE_URIS)
@pytest.mark.parametrize("status", ["200", "206", "304"])
@pytest.mark.parametrize("published", [None, "no-cache", "private, max-age=60", IMMUTABLE])
def test_handle_origin_response__existing_objects_are_immutable(uri: str, status: str, published: str | None) -> None:
    answered = handle_origin_response(make_response_event(uri, make_response(status, published)), None)
    assert list_cache_control(answered) == [IMMUTABLE]
    assert answered["status"] == status


@pytest.mark.parametrize("uri", [*IMMUTABLE_URIS, *OTHER_URIS])
@pytest.mark.parametrize(
    "status", ["204", "301", "307", "400", "403", "404", "405", "412", "416", "500", "502", "503", "504", ""]
)
def test_handle_origin_response__errors_are_not_cached(uri: str, status: str) -> None:
    for published in (None, IMMUTABLE):
        answered = handle_origin_response(make_response_event(uri, make_response(status, published)), None)
        assert list_cache_control(answered) == ["no-store"]
        assert answered["status"] == status


@pytest.mark.parametrize("uri", OTHER_URIS)
def test_handle_origin_response__mutable_objects_keep_their_cache_control(uri: str) -> None:
    for published in ("public, max-age=30", "no-cache", "public, max-age=600"):
        response = make_response("200", published)
        assert handle_origin_response(make_response_event(uri, response), None) == response


@pytest.mark.parametrize("uri", OTHER_URIS)
@pytest.mark.parametrize("status", ["200", "206", "304"])
def test_handle_origin_response__mutable_objects_without_cache_control_are_kept_briefly(uri: str, status: str) -> None:
    response = make_response(status, Expires="Thu, 01 Jan 2099 00:00:00 GMT", ETag='"1"')
    answered = handle_origin_response(make_response_event(uri, response), None)
    assert list_cache_control(answered) == [METADATA]
    assert set(answered["headers"]) == {"cache-control", "etag"}


# All that an upload can set, and what S3 then answers.
SET_BY_AN_UPLOAD = {
    "Content-Encoding": "gzip",
    "Content-Disposition": 'attachment; filename="other.exe"',
    "Content-Language": "tlh",
    "Expires": "Thu, 01 Jan 1970 00:00:00 GMT",
    "x-amz-website-redirect-location": "https://evil.example/",
    "x-amz-meta-note": "<script>",
    "X-Amz-Meta-": "",
    "x-amz-missing-meta": "1",
    "x-amz-tagging-count": "2",
}
SET_BY_S3 = {
    "Content-Length": "7",
    "ETag": '"1"',
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "Accept-Ranges": "bytes",
    "Via": "1.1 x",
    "Transfer-Encoding": "chunked",
    "x-amz-version-id": "v",
    "x-amz-server-side-encryption": "AES256",
    "Date": "now",
}


@pytest.mark.parametrize(
    ("uri", "content_type"),
    [
        ("/team/noarch/tool.conda", "application/octet-stream"),
        ("/team/linux-64/tool-1.0%2Bcu1-0.tar.bz2", "application/x-bzip2"),
        ("/t/tool.conda", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("status", ["200", "206", "304"])
@pytest.mark.parametrize("published", ["text/html; charset=utf-8", None])
def test_handle_origin_response__attack_headers_of_an_upload(
    uri: str, content_type: str, status: str, published: str | None
) -> None:
    response = make_response(status, "private", **SET_BY_AN_UPLOAD, **SET_BY_S3)
    if published is not None:
        response["headers"]["content-type"] = [{"key": "Content-Type", "value": published}]
    answered = handle_origin_response(make_response_event(uri, response), None)["headers"]
    found = {values[0]["key"]: values[0]["value"] for values in answered.values()}
    assert found.pop("Cache-Control") == IMMUTABLE
    # A 304 has no content; what it says of one would replace what the cache has.
    assert found.pop("Content-Type", None) == (published if status == "304" else content_type)
    assert found == SET_BY_S3
    assert all(len(values) == 1 for values in answered.values())


@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("published", ["public, max-age=31536000, immutable", None])
def test_handle_origin_response__attestations_are_never_used_without_asking(
    extension: str, published: str | None
) -> None:
    response = make_response("200", published, **SET_BY_AN_UPLOAD, **SET_BY_S3)
    answered = handle_origin_response(make_response_event(f"/team/noarch/a-1-0{extension}.sigs", response), None)
    found = {values[0]["key"]: values[0]["value"] for values in answered["headers"].values()}
    assert found == {**SET_BY_S3, "Cache-Control": "no-cache", "Content-Type": "application/json"}


def test_handle_origin_response__attack_repeated_headers() -> None:
    response = make_response("200")
    for name in ("Content-Type", "Content-Encoding", "Cache-Control"):
        response["headers"][name.lower()] = [{"key": name, "value": "a"}, {"key": name, "value": "b"}]
    answered = handle_origin_response(make_response_event(IMMUTABLE_URIS[0], response), None)["headers"]
    assert {name: [each["value"] for each in values] for name, values in answered.items()} == {
        "cache-control": [IMMUTABLE],
        "content-type": ["application/octet-stream"],
    }


def test_handle_origin_response__shards_keep_what_the_indexer_set() -> None:
    response = make_response("200", IMMUTABLE, **{"Content-Type": "application/zstd"})
    assert handle_origin_response(make_response_event(SHARD, response), None) == response


@pytest.mark.parametrize("status", ["403", "404", "503"])
def test_handle_origin_response__errors_keep_their_content_type(status: str) -> None:
    response = make_response(status, **{"Content-Type": "application/xml"})
    answered = handle_origin_response(make_response_event(IMMUTABLE_URIS[0], response), None)
    assert answered["headers"]["content-type"][0]["value"] == "application/xml"


def test_apply_headers__nothing_else_changes() -> None:
    # A read-only header that is changed or missing, or a body, and CloudFront answers 502 or serves that body.
    response = make_response("200", "no-cache", Via="1.1 x", Transfer_Encoding="chunked", ETag='"1"', Date="now")
    before = copy.deepcopy(response)
    changed = apply_headers(response, uri=SHARD)
    assert response == before
    del before["headers"]["cache-control"]
    assert changed.pop("headers") == before.pop("headers") | {
        "cache-control": [{"key": "Cache-Control", "value": IMMUTABLE}]
    }
    assert changed == before


@pytest.mark.parametrize("status", ["200", "404"])
def test_handle_origin_response__cloudfront_accepts_the_response(status: str) -> None:
    response = make_response(status, "no-cache", Via="1.1 x", Transfer_Encoding="chunked")
    sent = OriginResponse(
        status=int(status), reason="", headers=(("Via", "1.1 x"), ("Transfer-Encoding", "chunked"), ("X-Cache", "Miss"))
    )
    taken = parse_response_result(handle_origin_response(make_response_event(SHARD, response), None), sent)
    assert ("Cache-Control", IMMUTABLE if status == "200" else "no-store") in taken.headers


@pytest.mark.parametrize(
    ("response", "request_"),
    [
        ({}, {"uri": SHARD}),
        ({"status": "404"}, {"uri": SHARD}),
        ({"status": "404", "headers": None}, {"uri": SHARD}),
        ({"status": "200", "headers": []}, {"uri": SHARD}),
        (None, {"uri": SHARD}),
        (make_response(), {}),
        (make_response(), None),
        (make_response(), {"uri": None}),
    ],
)
def test_handle_origin_response__failure_leaves_the_response_unchanged(
    response: object, request_: object, capsys: pytest.CaptureFixture[str]
) -> None:
    event = make_response_event(SHARD, response)
    event["Records"][0]["cf"]["request"] = request_
    assert handle_origin_response(copy.deepcopy(event), None) == response
    logged = json.loads(capsys.readouterr().out)
    assert logged["code"] == "origin-response-failed"
    assert "shards" not in logged["message"]  # the kind of the error alone


def test_handle_origin_response__logs_nothing_about_requests(capsys: pytest.CaptureFixture[str]) -> None:
    for status in ("200", "404", "503"):
        handle_origin_response(make_response_event(SHARD, make_response(status)), None)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_apply_headers__agrees_with_the_indexer_about_shards() -> None:
    assert list_cache_control(apply_headers(make_response(), uri=SHARD)) == [IMMUTABLE]


@pytest.mark.parametrize("uri", IMMUTABLE_URIS)
def test_apply_headers__agrees_with_the_behaviours(uri: str) -> None:
    patterns = (*metadata_patterns(), *immutable_patterns())
    config = {"CacheBehaviors": {"Items": [{"PathPattern": pattern} for pattern in patterns]}}
    behaviours = parse_behaviours({**config, "DefaultCacheBehavior": {}})
    for prefix in ("", "/t/fw-token"):
        assert find_behaviour(behaviours, prefix + uri) in behaviours[len(metadata_patterns()) : -1]
    assert is_immutable_filename(uri.rpartition("/")[2])
    assert list_cache_control(apply_headers(make_response(), uri=uri)) == [IMMUTABLE]
