import contextlib
import io
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber

from lambdas.access.document import AccessDocument, encode_access
from lambdas.authorizer.rules import FetchedDocument, RulesKeeper
from lambdas.channel.errors import AccessDeniedError, ConflictError, InvalidDocumentError, UnavailableError
from lambdas.key_refresher.document import S3Document

BODY = encode_access(AccessDocument())
WRITTEN = {
    "Bucket": "bucket",
    "Key": ".fairway/access.json",
    "Body": BODY,
    "ContentType": "application/json",
    "CacheControl": "no-store",
}


Stubbed = tuple[S3Document, Stubber]


@pytest.fixture
def stubbed() -> Iterator[Stubbed]:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with Stubber(client) as stubber:
        yield S3Document("bucket", client), stubber


def test_fetch__reads_document_and_etag(stubbed: Stubbed) -> None:
    document, stubber = stubbed
    body = StreamingBody(io.BytesIO(BODY), len(BODY))
    stubber.add_response("get_object", {"Body": body, "ETag": '"1"'})
    assert document.fetch() == (AccessDocument(), '"1"')


def test_fetch__malformed(stubbed: Stubbed) -> None:
    document, stubber = stubbed
    stubber.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"{"), 1), "ETag": '"1"'})
    with pytest.raises(InvalidDocumentError):
        document.fetch()


@pytest.mark.parametrize(
    ("body", "fit"),
    [
        (BODY, True),
        (b'{"version": 1}', True),
        (b"", False),
        (b"[]", False),
        (b'{"version": 2}', False),
        (b'{"version": 1, "channels": {"team": {"visibility": "open"}}}', False),
        (b'{"version": 1, "tokens": [{"name": "ci"}]}', False),
    ],
)
def test_fetch__understands_what_the_authorizer_does_and_nothing_else(
    stubbed: Stubbed, body: bytes, *, fit: bool
) -> None:
    class Source:
        def fetch(self, etag: str | None) -> FetchedDocument:
            return FetchedDocument(body=body, etag="1")

    reports: list[str] = []
    keeper = RulesKeeper(
        Source(), public_globs=(), refresh_seconds=30, stale_seconds=900, report=lambda code, _: reports.append(code)
    )
    assert (keeper.current(0) is not None) == fit == (not reports)

    document, stubber = stubbed
    stubber.add_response("get_object", {"Body": StreamingBody(io.BytesIO(body), len(body)), "ETag": '"1"'})
    with contextlib.nullcontext() if fit else pytest.raises(InvalidDocumentError):
        assert document.fetch() is not None


@pytest.mark.parametrize("status", [403, 404])
def test_fetch__not_there_or_not_told(stubbed: Stubbed, status: int) -> None:
    document, stubber = stubbed
    stubber.add_client_error("get_object", http_status_code=status)
    assert document.fetch() is None


def test_fetch__attack_outage_is_no_missing_document(stubbed: Stubbed) -> None:
    document, stubber = stubbed
    stubber.add_client_error("get_object", http_status_code=503)
    with pytest.raises(UnavailableError):
        document.fetch()


def test_create__only_where_there_is_none(stubbed: Stubbed) -> None:
    document, stubber = stubbed
    stubber.add_response("put_object", {}, {**WRITTEN, "IfNoneMatch": "*"})
    document.create()


def test_replace__only_what_was_read(stubbed: Stubbed) -> None:
    document, stubber = stubbed
    stubber.add_response("put_object", {}, {**WRITTEN, "IfMatch": '"1"'})
    document.replace(AccessDocument(), '"1"')


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (412, ConflictError),
        (409, ConflictError),
        (404, ConflictError),
        (403, AccessDeniedError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_replace__refused(stubbed: Stubbed, status: int, error: type[Exception]) -> None:
    document, stubber = stubbed
    stubber.add_client_error("put_object", http_status_code=status)
    with pytest.raises(error):
        document.replace(AccessDocument(), '"1"')
