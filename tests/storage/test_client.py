"""What the client does otherwise than boto3's default, and that it parses timestamps as botocore does."""

from io import BytesIO
from typing import Any

import botocore.utils
import pytest
from botocore.awsrequest import AWSResponse
from urllib3 import HTTPResponse

from lambdas.storage.client import EXPECT_ABOVE_BYTES, make_s3_client, parse_timestamp


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 25 Nov 2026 21:46:13 GMT",
        "2026-11-25T21:46:13.000Z",
        "2026-11-25T21:46:13Z",
        "2026-11-25T21:46:13.123456+00:00",
        "20261125T214613Z",
        "Wednesday, 25-Nov-26 21:46:13 GMT",
        "1795643173",
        1795643173,
        1795643173.5,
    ],
)
def test_parse_timestamp__as_botocore(text: Any) -> None:  # noqa: ANN401 - parsers find strings and numbers
    assert parse_timestamp(text) == botocore.utils.parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "tomorrow", "Wed, 99 Nov 2026 21:46:13 GMT"])
def test_parse_timestamp__invalid(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("size", "is_expected"), [(0, False), (EXPECT_ABOVE_BYTES, False), (EXPECT_ABOVE_BYTES + 1, True)]
)
def test_make_s3_client__large_body_alone_waits_for_the_answer(
    size: int, is_expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = capture_put(bytes(size), monkeypatch)

    assert ("Expect" in request.headers) == is_expected


def test_make_s3_client__user_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    request = capture_put(b"", monkeypatch)

    assert request.headers["User-Agent"].startswith(b"fairway Boto3/")


def capture_put(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - the stubs take headers for text
    """Return the request of a PutObject, which is answered without a network."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = make_s3_client()
    sent = []

    def answer(request: Any, **_: object) -> Any:  # noqa: ANN401 - as above
        sent.append(request)
        headers: Any = {"ETag": '"0"'}
        return AWSResponse(request.url, 200, headers, HTTPResponse(BytesIO(), preload_content=False))

    events: Any = client.meta.events
    events.register("before-send.s3.PutObject", answer)
    client.put_object(Bucket="bucket", Key="team/noarch/a", Body=body)
    (request,) = sent
    return request
