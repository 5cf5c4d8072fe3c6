"""S3's responses, and what the storage makes of them: responses as on the wire, without a network."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    UnavailableError,
    UnreadableError,
    VanishedError,
)
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectInfo
from lambdas.storage.s3 import MAX_SINGLE_COPY_BYTES, S3Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HEADERS = ContentHeaders(content_type="application/json", cache_control="no-store")
INFO = ObjectInfo(key="k/a", size=10, etag="e" * 32, last_modified_ms=0, version="v1")
MODIFIED = {"Last-Modified": "Tue, 01 Sep 2026 12:00:00 GMT", "ETag": f'"{"e" * 32}"'}


class Raw(io.BytesIO):
    """The body of a response as urllib3 returns it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield from iter(lambda: self.read(65536), b"")


class Wire:
    """Answers requests with prepared responses, and records them."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[AWSPreparedRequest] = []
        self.raw = Raw

    def answer(
        self,
        status: int,
        code: str = "",
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = MODIFIED,
        message: str = "as S3 says",
    ) -> None:
        if code:
            body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>".encode()
        self.answers.append((status, body, {"Content-Length": str(len(body)), **headers}))

    def fail(self, error: Exception) -> None:
        self.answers.append(error)

    def send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        self.requests.append(request)
        # The last response answers every further request: botocore may send several.
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body, headers = answer
        return AWSResponse(request.url, status, headers, self.raw(b"" if request.method == "HEAD" else body))

    def header(self, name: str) -> str | None:
        value: Any = self.requests[-1].headers.get(name)
        return None if value is None else value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture(scope="module")
def client() -> "S3Client":
    return boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard", "total_max_attempts": 1}),
    )


@pytest.fixture
def storage(client: "S3Client", wire: Wire) -> Iterator[S3Storage]:
    events: Any = client.meta.events
    events.register("before-send.s3", wire.send, unique_id="wire")
    yield S3Storage("bucket", client)
    events.unregister("before-send.s3", wire.send, unique_id="wire")


READS: list[Callable[[S3Storage], object]] = [
    lambda storage: storage.read_range(INFO, 0, 5),
    lambda storage: list(storage.stream(INFO)),
]
WRITES: list[Callable[[S3Storage], object]] = [
    lambda storage: storage.put("k/a", b"", headers=HEADERS),
    lambda storage: storage.put("k/a", b"", headers=HEADERS, condition=IfAbsent()),
    lambda storage: storage.put("k/a", b"", headers=HEADERS, condition=IfMatch(etag="x")),
]
INSPECTIONS: list[Callable[[S3Storage], object]] = [
    lambda storage: storage.head("k/a"),
    lambda storage: storage.get("k/a"),
]
OTHERS: list[Callable[[S3Storage], object]] = [
    lambda storage: storage.copy(INFO, "k/b", metadata={}),
    lambda storage: storage.delete(INFO),
    lambda storage: list(storage.list_objects("k/")),
    lambda storage: list(storage.list_folders("k/")),
    lambda storage: list(storage.list_files("k/")),
]
EVERYTHING = [*INSPECTIONS, *READS, *WRITES, *OTHERS]
WITH_BODIES = [*INSPECTIONS[1:], *READS, *WRITES, *OTHERS]  # the response to HEAD has no body, hence no code


# Missing


@pytest.mark.parametrize("inspect", INSPECTIONS)
def test_head_and_get__404_is_missing(storage: S3Storage, wire: Wire, inspect: Callable[[S3Storage], object]) -> None:
    wire.answer(404, "NoSuchKey")
    assert inspect(storage) is None


@pytest.mark.parametrize("inspect", INSPECTIONS)
def test_head_and_get__405_is_a_deletion(
    storage: S3Storage, wire: Wire, inspect: Callable[[S3Storage], object]
) -> None:
    wire.answer(405, "MethodNotAllowed")
    assert inspect(storage) is None


def test_get__version_that_is_gone(storage: S3Storage, wire: Wire) -> None:
    wire.answer(404, "NoSuchVersion")
    assert storage.get("k/a", version="v0") is None
    assert wire.requests[-1].url.endswith("?versionId=v0")


@pytest.mark.parametrize("call", WITH_BODIES)
def test_any__missing_bucket_is_never_a_missing_object(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object]
) -> None:
    wire.answer(404, "NoSuchBucket")
    with pytest.raises(AccessDeniedError, match="bucket"):
        call(storage)


# Denied


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("call", EVERYTHING)
def test_any__denied_is_never_missing(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object], status: int
) -> None:
    wire.answer(status, "AccessDenied")
    with pytest.raises(AccessDeniedError):
        call(storage)


def test_head__denied_message_has_the_status_once(storage: S3Storage, wire: Wire) -> None:
    wire.answer(403)
    with pytest.raises(AccessDeniedError) as caught:
        storage.head("k/a")
    assert str(caught.value) == "S3 answered 403 for 'k/a'"
    assert "get-caller-identity" in (caught.value.hint or "")


def test_get__object_in_a_cold_storage_class(storage: S3Storage, wire: Wire) -> None:
    wire.answer(403, "InvalidObjectState")
    with pytest.raises(AccessDeniedError):
        storage.get("k/a")


# Unreadable

ROLE = "arn:aws:sts::000000000000:assumed-role/indexer/indexer"
CUSTOMER_KEY = (
    "The object was stored using a form of Server Side Encryption. "
    "The correct parameters must be provided to retrieve the object."
)
Denial = tuple[int, str, str]
"""Status, code, message."""

EVIDENCE: list[Denial] = [
    (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    (400, "InvalidRequest", CUSTOMER_KEY),
    (
        403,
        "AccessDenied",
        f"User: {ROLE} is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-east-1:0:key/k",
    ),
    (
        403,
        "AccessDenied",
        "The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.",
    ),
    (400, "KMS.DisabledException", "arn:aws:kms:us-east-1:0:key/k is disabled."),
    (400, "KMS.NotFoundException", "Key 'arn:aws:kms:us-east-1:0:key/k' does not exist"),
    (400, "KMS.KMSInvalidStateException", "arn:aws:kms:us-east-1:0:key/k is pending deletion."),
]
"""What S3 answers to GET for an unreadable object."""

NO_EVIDENCE: list[Denial] = [
    (403, "AccessDenied", "Access Denied"),
    (
        403,
        "AccessDenied",
        f'User: {ROLE} is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::b/k/kms:Decrypt"',
    ),
    (400, "InvalidRequest", "The authorization mechanism you have provided is not supported."),
    (400, "KMS.InternalException", "try again"),
    (400, "ThrottlingException", "Rate exceeded"),
    (400, "BadRequest", "Bad Request"),
    (403, "", ""),
    (400, "", ""),
]
READS_OF_OBJECTS: list[Callable[[S3Storage], object]] = [
    *INSPECTIONS,
    *READS,
    OTHERS[0],
    lambda storage: storage.fetch("k/a", max_bytes=10),
    lambda storage: storage.check_readable(INFO),
]


@pytest.mark.parametrize("denial", EVIDENCE)
@pytest.mark.parametrize("read", READS_OF_OBJECTS)
def test_read__s3_says_why_nobody_can(
    storage: S3Storage, wire: Wire, read: Callable[[S3Storage], object], denial: Denial
) -> None:
    status, code, message = denial
    wire.answer(status, code, message=message)
    with pytest.raises(UnreadableError):
        read(storage)


@pytest.mark.parametrize("denial", NO_EVIDENCE)
@pytest.mark.parametrize("call", [*READS_OF_OBJECTS, *EVERYTHING])
def test_any__attack_plain_denial_is_no_evidence(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object], denial: Denial
) -> None:
    status, code, message = denial
    wire.answer(status, code, message=message)
    with pytest.raises(AccessDeniedError) as caught:
        call(storage)
    assert not isinstance(caught.value, UnreadableError)


@pytest.mark.parametrize("denial", EVIDENCE)
@pytest.mark.parametrize("call", [*WRITES, *OTHERS[1:]])
def test_write__unreadable_is_said_of_reads_alone(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object], denial: Denial
) -> None:
    status, code, message = denial
    wire.answer(status, code, message=message)
    with pytest.raises(AccessDeniedError) as caught:
        call(storage)
    assert not isinstance(caught.value, UnreadableError)


def test_head__denied_and_then_readable(storage: S3Storage, wire: Wire) -> None:
    wire.answer(403)
    wire.answer(206, body=b"x")
    with pytest.raises(AccessDeniedError, match="S3 answered 403"):
        storage.head("k/a")


def test_head__denied_and_then_no_answer(storage: S3Storage, wire: Wire) -> None:
    wire.answer(403)
    wire.fail(ReadTimeoutError(endpoint_url="https://s3"))
    with pytest.raises(AccessDeniedError, match="S3 answered 403"):
        storage.head("k/a")


def test_check_readable__exactly_this_version(storage: S3Storage, wire: Wire) -> None:
    wire.answer(206, body=b"x")
    storage.check_readable(INFO)
    assert wire.requests[-1].url.endswith("/k/a?versionId=v1")
    assert wire.header("Range") == "bytes=0-0"


def test_check_readable__empty_object(storage: S3Storage, wire: Wire) -> None:
    wire.answer(416, "InvalidRange")
    storage.check_readable(INFO)


def test_hide__only_the_current_object(storage: S3Storage, wire: Wire) -> None:
    wire.answer(204)
    storage.hide(INFO)
    assert wire.requests[-1].url.endswith("/k/a")
    assert wire.header("If-Match") == f'"{INFO.etag}"'
    wire.answers[:] = []
    wire.answer(412, "PreconditionFailed")
    with pytest.raises(VanishedError):
        storage.hide(INFO)


@pytest.mark.parametrize(("storage_class", "expected"), [(None, None), ("STANDARD", None), ("GLACIER", "GLACIER")])
def test_head__storage_class(storage: S3Storage, wire: Wire, storage_class: str | None, expected: str | None) -> None:
    wire.answer(200, headers=MODIFIED if storage_class is None else {**MODIFIED, "x-amz-storage-class": storage_class})
    info = storage.head("k/a")
    assert info is not None
    assert info.storage_class == expected


# Conflicts


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (412, "PreconditionFailed"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (404, "NoSuchKey"),  # If-Match on a missing key
    ],
)
@pytest.mark.parametrize("write", WRITES)
def test_put__lost(
    storage: S3Storage, wire: Wire, write: Callable[[S3Storage], object], status: int, code: str
) -> None:
    wire.answer(status, code)
    with pytest.raises(ConflictError):
        write(storage)


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "NoSuchKey"), (404, "NoSuchVersion"), (405, "MethodNotAllowed"), (412, "PreconditionFailed")],
)
@pytest.mark.parametrize("read", [*READS, OTHERS[0]])
def test_read__replaced_or_gone(
    storage: S3Storage, wire: Wire, read: Callable[[S3Storage], object], status: int, code: str
) -> None:
    wire.answer(status, code)
    with pytest.raises(VanishedError):
        read(storage)


def test_read_range__replaced_by_a_shorter_one(storage: S3Storage, wire: Wire) -> None:
    wire.answer(416, "InvalidRange")
    with pytest.raises(VanishedError):
        storage.read_range(INFO, 5, 9)


# Unavailable


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (502, "BadGateway"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (504, "GatewayTimeout"),
        (429, "TooManyRequests"),
    ],
)
@pytest.mark.parametrize("call", EVERYTHING)
def test_any__unavailable(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object], status: int, code: str
) -> None:
    wire.answer(status, code)
    with pytest.raises(UnavailableError):
        call(storage)


def test_put__upload_that_took_too_long(storage: S3Storage, wire: Wire) -> None:
    wire.answer(400, "RequestTimeout")
    with pytest.raises(UnavailableError):
        storage.put("k/a", b"", headers=HEADERS)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="https://s3"),
        ReadTimeoutError(endpoint_url="https://s3"),
        EndpointConnectionError(endpoint_url="https://s3", error="rejected"),
        ConnectionClosedError(endpoint_url="https://s3"),
        HTTPClientError(error="broken"),
    ],
)
@pytest.mark.parametrize("call", EVERYTHING)
def test_any__no_answer(
    storage: S3Storage, wire: Wire, call: Callable[[S3Storage], object], error: HTTPClientError
) -> None:
    wire.fail(error)
    with pytest.raises(UnavailableError):
        call(storage)


class Broken(Raw):
    """A body whose connection breaks after a few bytes."""

    def read(self, _size: int | None = None) -> bytes:
        raise ReadTimeoutError(endpoint_url="https://s3")

    def stream(self, **_: object) -> Iterator[bytes]:
        yield b"a few"
        raise ReadTimeoutError(endpoint_url="https://s3")


@pytest.mark.parametrize("read", [INSPECTIONS[1], *READS])
def test_read__connection_breaks_in_the_body(
    storage: S3Storage, wire: Wire, read: Callable[[S3Storage], object]
) -> None:
    wire.raw = Broken
    wire.answer(200, body=b"0123456789")
    with pytest.raises(UnavailableError):
        read(storage)


def test_any__type_is_decided_by_status_not_text(storage: S3Storage, wire: Wire) -> None:
    wire.answer(503, "NoSuchKey")
    with pytest.raises(UnavailableError):
        storage.get("k/a")


# Requests


def test_put__if_absent(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200)
    storage.put("k/a", b"body", headers=HEADERS, condition=IfAbsent())
    assert (wire.header("If-None-Match"), wire.header("If-Match")) == ("*", None)


def test_put__if_match(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200)
    storage.put("k/a", b"body", headers=HEADERS, condition=IfMatch(etag="abc"))
    assert (wire.header("If-None-Match"), wire.header("If-Match")) == (None, '"abc"')


def test_put__headers(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200)
    storage.put("k/a", b"body", headers=HEADERS, metadata={"fairway-commit": "c"})
    assert wire.header("Content-Type") == "application/json"
    assert wire.header("Cache-Control") == "no-store"
    assert wire.header("Content-Encoding") in {None, "aws-chunked"}
    assert wire.header("x-amz-meta-fairway-commit") == "c"


def test_read_range__sends_one_range(storage: S3Storage, wire: Wire) -> None:
    wire.answer(206, body=b"345", headers={**MODIFIED, "Content-Range": "bytes 3-5/10"})
    assert storage.read_range(INFO, 3, 6) == b"345"
    assert wire.header("Range") == "bytes=3-5"
    assert wire.header("If-Match") == f'"{"e" * 32}"'
    assert wire.requests[-1].url.endswith("?versionId=v1")


def test_read_range__server_that_ignores_range(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200, body=b"0123456789")
    assert storage.read_range(INFO, 3, 6) == b"345"


def test_read_range__empty_range_needs_no_request(storage: S3Storage, wire: Wire) -> None:
    assert storage.read_range(INFO, 3, 3) == b""
    assert wire.requests == []


def test_copy__exactly_this_version(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200, body=b"<CopyObjectResult/>")
    storage.copy(INFO, "k/b", metadata={"reason": "r"})
    assert wire.header("x-amz-copy-source") == "bucket/k/a?versionId=v1"
    assert wire.header("x-amz-copy-source-if-match") == "e" * 32
    assert wire.header("x-amz-metadata-directive") == "REPLACE"


def test_copy__200_with_an_error_inside(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200, "InternalError")  # CopyObject may fail after its 200
    with pytest.raises(UnavailableError):
        storage.copy(INFO, "k/b", metadata={})


def test_copy__larger_than_one_request_may_copy(storage: S3Storage, wire: Wire) -> None:
    info = ObjectInfo(key="k/a", size=MAX_SINGLE_COPY_BYTES + 1, etag="e", last_modified_ms=0, version="v1")
    wire.answer(200, headers={**MODIFIED, "Content-Length": str(info.size)})
    wire.answer(403, "AccessDenied")
    with pytest.raises(AccessDeniedError):
        storage.copy(info, "k/b", metadata={})
    assert [request.method for request in wire.requests] == ["HEAD", "POST"]  # CreateMultipartUpload, no CopyObject


def test_copy__to_a_free_key_is_conditional(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200, body=b"<R><UploadId>u</UploadId></R>")
    wire.answer(200, body=b"<R><ETag>p</ETag></R>")
    wire.answer(200, body=b"<R><ETag>e</ETag></R>")
    storage.copy(INFO, "k/b", metadata={}, condition=IfAbsent())
    assert [request.method for request in wire.requests] == ["POST", "PUT", "POST"]  # no CopyObject
    assert wire.header("If-None-Match") == "*"


def test_delete__exactly_this_version(storage: S3Storage, wire: Wire) -> None:
    wire.answer(204)
    storage.delete(INFO)
    assert wire.requests[-1].url.endswith("/k/a?versionId=v1")


def test_delete__what_was_listed(storage: S3Storage, wire: Wire) -> None:
    wire.answer(204)
    storage.delete(ObjectInfo(key="k/a", size=1, etag="e", last_modified_ms=0))
    assert wire.requests[-1].url.endswith("/k/a")


def list_answer(*entries: tuple[str, str, str, int], rest: str = "") -> bytes:
    """Answer ListObjectVersions with ``(element, key, version, second)``."""
    items = "".join(
        f"<{element}><Key>{key}</Key><VersionId>{version}</VersionId><IsLatest>{str(second == 9).lower()}</IsLatest>"
        f"<LastModified>2026-09-01T12:00:0{second}.000Z</LastModified><ETag>e</ETag><Size>1</Size></{element}>"
        for element, key, version, second in entries
    )
    return f"<ListVersionsResult>{rest}{items}</ListVersionsResult>".encode()


def test_list_versions__key_on_two_pages(storage: S3Storage, wire: Wire) -> None:
    more = (
        "<IsTruncated>true</IsTruncated><NextKeyMarker>k/b</NextKeyMarker><NextVersionIdMarker>b2</NextVersionIdMarker>"
    )
    first = [("Version", "k/a", "a1", 9), ("Version", "k/b", "b3", 8), ("Version", "k/b", "b2", 7)]
    marker = ("DeleteMarker", "k/b", "b4", 9)
    wire.answer(200, body=list_answer(*first, marker, rest=more), headers={})
    wire.answer(200, body=list_answer(("Version", "k/b", "b1", 1), ("Version", "k/c", "c1", 9)), headers={})
    found = [(one.info.key, one.info.version, one.is_deletion) for one in storage.list_versions("k/")]
    assert found == [
        ("k/a", "a1", False),
        ("k/b", "b4", True),
        ("k/b", "b3", False),
        ("k/b", "b2", False),
        ("k/b", "b1", False),
        ("k/c", "c1", False),
    ]
    assert "version-id-marker=b2" in wire.requests[-1].url


def test_list_history__asks_for_no_page_of_longer_keys(storage: S3Storage, wire: Wire) -> None:
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>k/a.sigs</NextKeyMarker>"
    answer = list_answer(("Version", "k/a", "a1", 9), ("Version", "k/a.sigs", "s1", 9), rest=more)
    wire.answer(200, body=answer, headers={})
    assert [one.info.version for one in storage.list_history("k/a")] == ["a1"]
    assert len(wire.requests) == 1


# Checksums from S3

SHA256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # of b"hello"
SHA256_HEX = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.mark.parametrize(
    ("headers", "md5", "sha256"),
    [
        ({}, "e" * 32, None),
        ({"x-amz-server-side-encryption": "AES256"}, "e" * 32, None),
        ({"x-amz-server-side-encryption": "aws:kms"}, None, None),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, None, None),
        ({"ETag": f'"{"e" * 32}-2"'}, None, None),
        ({"x-amz-checksum-sha256": SHA256}, "e" * 32, SHA256_HEX),
        ({"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "FULL_OBJECT"}, "e" * 32, SHA256_HEX),
        ({"x-amz-checksum-sha256": f"{SHA256}-2", "x-amz-checksum-type": "COMPOSITE"}, "e" * 32, None),
        ({"x-amz-checksum-sha256": f"{SHA256}-2"}, "e" * 32, None),
        ({"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "COMPOSITE"}, "e" * 32, None),
    ],
)
def test_head__checksums_of_whole_objects_only(
    storage: S3Storage, wire: Wire, headers: dict[str, str], md5: str | None, sha256: str | None
) -> None:
    wire.answer(200, headers={**MODIFIED, **headers})
    info = storage.head("k/a")
    assert info is not None
    assert (info.md5, info.sha256) == (md5, sha256)
    assert wire.header("x-amz-checksum-mode") == "ENABLED"


def test_head__fields(storage: S3Storage, wire: Wire) -> None:
    wire.answer(200, headers={**MODIFIED, "x-amz-version-id": "v7", "x-amz-meta-fairway-commit": "c"})
    assert storage.head("k/a") == ObjectInfo(
        key="k/a",
        size=0,
        etag="e" * 32,
        last_modified_ms=1_788_264_000_000,
        version="v7",
        metadata={"fairway-commit": "c"},
        md5="e" * 32,
    )
