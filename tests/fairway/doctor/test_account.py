"""Requests to AWS, and to the channel's URL."""

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.channel.errors import UnavailableError, UsageError
from scripts.fairway.doctor.account import AwsAccount
from scripts.fairway.doctor.meter import Meter
from scripts.fairway.doctor.reader import HttpReader

BUCKET = "fairway-my-team-123456789012-eu-central-1"


class StubbedSession:
    """A session whose clients answer what tests say."""

    def __init__(self) -> None:
        self.region_name = "us-east-1"
        self.clients: dict[tuple[str, str], Any] = {}

    def stub(self, service: str, region: str) -> Stubber:
        client: Any = boto3.client(
            service,  # type: ignore[call-overload]  # any service
            region_name=region,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        self.clients[service, region] = client
        stubber = Stubber(client)
        stubber.activate()
        return stubber

    def client(self, service: str, *, region_name: str) -> Any:  # noqa: ANN401 - boto3's
        return self.clients[service, region_name]


@pytest.fixture
def session() -> StubbedSession:
    return StubbedSession()


def make_account(session: StubbedSession, bucket: str | None = BUCKET) -> AwsAccount:
    return AwsAccount(session, bucket, "eu-west-1")  # type: ignore[arg-type]  # a fake


def test_fetch_stack__of_the_bucket(session: StubbedSession) -> None:
    stack = {
        "StackName": "fairway-my-team",
        "CreationTime": datetime.now(tz=UTC),
        "StackStatus": "CREATE_COMPLETE",
        "Outputs": [{"OutputKey": "ChannelUrl", "OutputValue": "https://x"}],
    }
    session.stub("cloudformation", "eu-central-1").add_response(
        "describe_stacks", {"Stacks": [stack]}, {"StackName": "fairway-my-team"}
    )
    found = make_account(session).fetch_stack()
    assert (found.name, found.status, found.outputs) == (
        "fairway-my-team",
        "CREATE_COMPLETE",
        {"ChannelUrl": "https://x"},
    )


@pytest.mark.parametrize("bucket", ["my-bucket", "fairway-conda-12-eu-central-1", "x-fairway-conda-123456789012-a-b-1"])
def test_fetch_stack__bucket_of_no_deployment(session: StubbedSession, bucket: str) -> None:
    with pytest.raises(UsageError, match="is not the bucket of a deployment"):
        make_account(session, bucket).fetch_stack()


def test_region__of_the_bucket_or_else_the_sessions(session: StubbedSession) -> None:
    assert make_account(session).region == "eu-central-1"
    assert make_account(session, None).region == "eu-west-1"


def test_fetch_concurrency__of_each_region(session: StubbedSession) -> None:
    session.stub("lambda", "us-east-1").add_response(
        "get_account_settings", {"AccountLimit": {"ConcurrentExecutions": 10}}
    )
    assert make_account(session).fetch_concurrency("us-east-1") == 10


def test_count_policies__all_pages(session: StubbedSession) -> None:
    policy = {
        "Type": "custom",
        "CachePolicy": {
            "Id": "1",
            "LastModifiedTime": datetime.now(tz=UTC),
            "CachePolicyConfig": {"Name": "a", "MinTTL": 0},
        },
    }
    page = {"MaxItems": 1, "Quantity": 1, "Items": [policy]}
    stubber = session.stub("cloudfront", "eu-central-1")
    stubber.add_response("list_cache_policies", {"CachePolicyList": page | {"NextMarker": "m"}}, {"Type": "custom"})
    stubber.add_response("list_cache_policies", {"CachePolicyList": page}, {"Type": "custom", "Marker": "m"})
    stubber.add_response(
        "list_response_headers_policies",
        {"ResponseHeadersPolicyList": {"MaxItems": 1, "Quantity": 0}},
        {"Type": "custom"},
    )
    assert make_account(session).count_policies() == {"cache policies": 2, "response headers policies": 0}


@pytest.mark.parametrize(("code", "accepted"), [("AccessDenied", False), (None, True)])
def test_try_upload__only_a_denial_is_an_answer(session: StubbedSession, code: str | None, *, accepted: bool) -> None:
    stubber = session.stub("s3", "eu-central-1")
    if code is None:
        stubber.add_response("put_object", {})
    else:
        stubber.add_client_error("put_object", code)
    assert make_account(session).try_upload("fairway-doctor/a", {"StorageClass": "GLACIER"}) is accepted


def test_meter__counts_s3_alone() -> None:
    meter = Meter()
    before = meter.copy()
    for event in ("before-send.s3.PutObject", "before-send.s3.PutObject", "before-send.lambda.GetAccountSettings"):
        meter.count_request(event)
    usage = meter.usage_since(before, seconds=1.0, indexed=2)
    assert usage.requests == {"PutObject": 2}


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Path", self.path)
            self.send_header("X-Authorization", self.headers.get("Authorization", ""))
            self.send_header("X-Encoding", self.headers.get("Accept-Encoding", "none"))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_fetch__path_is_sent_unchanged_with_the_token(server: http.server.HTTPServer) -> None:
    meter = Meter()
    answer = HttpReader(f"http://127.0.0.1:{server.server_port}", meter).fetch("/a/b%2Bc+d", token="secret")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["x-path"] == "/a/b%2Bc+d"
    assert answer.headers["x-authorization"] == "Basic dG9rZW46c2VjcmV0"
    assert answer.headers["x-encoding"] == "none"
    assert (meter.viewer_requests, meter.sent_bytes) == (1, 2)


def test_fetch__no_answer() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    with pytest.raises(UnavailableError, match=r"no answer from 127\.0\.0\.1 for /a: ConnectionRefusedError"):
        HttpReader(f"http://127.0.0.1:{port}", Meter()).fetch("/a")


def test_http_reader__no_url() -> None:
    with pytest.raises(UsageError, match="not a URL: 'd111111abcdef8"):
        HttpReader("d111111abcdef8.cloudfront.net", Meter())
