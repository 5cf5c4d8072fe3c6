"""Multipart uploads on the wire: against what S3 documents and no emulator enforces in full.

S3 completes an upload that was created with a checksum algorithm only if every part has its checksum, and
rejects part checksums in an upload that was created without one. It rejects a range of a source of at most
5 MiB.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from lambdas.storage.protocol import MIN_PART_BYTES, ContentHeaders, CopyRange, IfAbsent, ObjectInfo, Part
from lambdas.storage.s3 import S3Storage
from tests.contracts.test_s3 import Raw

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HEADERS = ContentHeaders(content_type="application/json", cache_control="no-store")
LARGE = b"a" * (MIN_PART_BYTES + 1)
SMALL = b"a" * MIN_PART_BYTES


class Uploads:
    """S3's multipart uploads of one object, from one source."""

    def __init__(self) -> None:
        self.source = b""
        self.algorithm: str | None = None
        self.parts: dict[int, bytes] = {}
        self.checksums: dict[int, str] = {}
        self.completed: bytes | None = None
        self.named: list[bool] = []  # of each part: whether its completion has the checksum

    def send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        query = parse_qs(urlsplit(request.url).query, keep_blank_values=True)
        if request.method == "POST" and "uploads" in query:
            self.algorithm = self._header(request, "x-amz-checksum-algorithm")
            return self._answer(request, "<R><UploadId>u</UploadId></R>")
        if request.method == "PUT":
            return self._put_part(request, int(query["partNumber"][0]))
        if request.method == "POST":
            return self._complete(request)
        return self._answer(request, "", status=204)  # AbortMultipartUpload

    def _put_part(self, request: AWSPreparedRequest, number: int) -> AWSResponse:
        if self._header(request, "x-amz-copy-source") is None:
            body: Any = request.body
            content = body if isinstance(body, bytes) else body.read()
            if "aws-chunked" in (self._header(request, "Content-Encoding") or ""):
                content = _decode_chunks(content)
            sent = "".join(str(name).lower() for name in request.headers) + (
                self._header(request, "X-Amz-Trailer") or ""
            )
            has_checksum = "x-amz-checksum-crc32" in sent
        else:
            span = self._header(request, "x-amz-copy-source-range")
            if span is not None and len(self.source) <= MIN_PART_BYTES:
                return self._reject(request, "InvalidRequest")
            start, stop = (0, len(self.source)) if span is None else _parse_range(span)
            content, has_checksum = self.source[start:stop], self.algorithm == "CRC32"
        self.parts[number] = content
        checksum = f"<ChecksumCRC32>{_crc32(content)}</ChecksumCRC32>" if has_checksum else ""
        headers = {"ETag": '"part"'}
        if has_checksum:
            self.checksums[number] = headers["x-amz-checksum-crc32"] = _crc32(content)
        return self._answer(request, f"<R><ETag>part</ETag>{checksum}</R>", headers=headers)

    def _complete(self, request: AWSPreparedRequest) -> AWSResponse:
        body: Any = request.body
        document = ET.fromstring(body)  # noqa: S314 - our own
        named: dict[int, str | None] = {}
        for part in document:
            fields = {child.tag.rpartition("}")[2]: child.text for child in part}
            named[int(fields["PartNumber"] or 0)] = fields.get("ChecksumCRC32")
        self.named = [checksum is not None for checksum in named.values()]
        expected = self.checksums if self.algorithm == "CRC32" else {}
        if named != {number: expected.get(number) for number in self.parts} or set(self.named) != {bool(expected)}:
            return self._reject(request, "InvalidPart")
        self.completed = b"".join(self.parts[number] for number in sorted(self.parts))
        return self._answer(request, "<R><ETag>whole-2</ETag></R>")

    def _header(self, request: AWSPreparedRequest, name: str) -> str | None:
        value: Any = request.headers.get(name)
        return value.decode() if isinstance(value, bytes) else value

    def _reject(self, request: AWSPreparedRequest, code: str) -> AWSResponse:
        return self._answer(request, f"<Error><Code>{code}</Code></Error>", status=400)

    def _answer(
        self, request: AWSPreparedRequest, body: str, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> AWSResponse:
        raw: Any = Raw(body.encode())
        fields: Any = {"Content-Length": str(len(body)), **(headers or {})}
        return AWSResponse(request.url, status, fields, raw)


def _crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def _parse_range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", text)
    assert found is not None
    return int(found[1]), int(found[2]) + 1


def _decode_chunks(body: bytes) -> bytes:
    content = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return content
        content, body = content + body[:size], body[size + 2 :]


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest.fixture(params=["when_supported", "when_required"])
def storage(uploads: Uploads, request: pytest.FixtureRequest) -> Iterator[S3Storage]:
    """Both of botocore's settings: the environment or a profile may change its default."""
    client: S3Client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, request_checksum_calculation=request.param),
    )
    events: Any = client.meta.events
    events.register("before-send.s3", uploads.send)
    yield S3Storage("bucket", client)
    client.close()


def info_of(source: bytes) -> ObjectInfo:
    return ObjectInfo(key="k/a", size=len(source), etag="e", last_modified_ms=0, version="v1")


@pytest.mark.parametrize(
    ("parts", "base", "expected"),
    [
        ([CopyRange(start=0, stop=MIN_PART_BYTES), b"new"], LARGE, SMALL + b"new"),
        ([b"b" * MIN_PART_BYTES, CopyRange(start=1, stop=9)], LARGE, b"b" * MIN_PART_BYTES + b"a" * 8),
        ([b"b" * MIN_PART_BYTES, b"new"], LARGE, b"b" * MIN_PART_BYTES + b"new"),
        ([CopyRange(start=0, stop=MIN_PART_BYTES), CopyRange(start=0, stop=1)], LARGE, LARGE),
        ([CopyRange(start=0, stop=len(SMALL)), b"new"], SMALL, SMALL + b"new"),
        ([b"b" * MIN_PART_BYTES, b"new"], None, b"b" * MIN_PART_BYTES + b"new"),
    ],
    ids=["copied-sent", "sent-copied", "sent", "copied", "small-source", "created"],
)
def test_splice__every_part_has_the_declared_checksum(
    storage: S3Storage, uploads: Uploads, parts: Sequence[Part], base: bytes | None, expected: bytes
) -> None:
    uploads.source = base or b""
    storage.splice("k/a", parts, base=None if base is None else info_of(base), headers=HEADERS)
    assert uploads.completed == expected
    assert (uploads.algorithm, uploads.named) == ("CRC32", [True] * len(parts))


@pytest.mark.parametrize("source", [b"x", SMALL, LARGE])
def test_copy__where_absent_needs_no_range_of_a_small_source(
    storage: S3Storage, uploads: Uploads, source: bytes
) -> None:
    uploads.source = source
    storage.copy(info_of(source), "k/b", metadata={}, condition=IfAbsent())
    assert uploads.completed == source
    assert (uploads.algorithm, uploads.named) == ("CRC32", [True])


def test_splice__range_of_a_small_source_is_never_sent(storage: S3Storage, uploads: Uploads) -> None:
    uploads.source = SMALL
    with pytest.raises(ValueError, match="a part of 9 bytes"):
        storage.splice("k/a", [b"b" * MIN_PART_BYTES, CopyRange(start=0, stop=9)], base=info_of(SMALL), headers=HEADERS)
    assert uploads.completed is None


def test_uploads__stub_rejects_what_s3_rejects(uploads: Uploads, storage: S3Storage) -> None:
    """The stub can fail: otherwise the tests above would prove nothing."""
    client: Any = storage._client
    place = {"Bucket": "bucket", "Key": "k/a"}
    client.create_multipart_upload(**place)
    part = client.upload_part(**place, UploadId="u", PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC32")
    done = {"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}
    with pytest.raises(client.exceptions.ClientError, match="InvalidPart"):
        client.complete_multipart_upload(**place, UploadId="u", MultipartUpload={"Parts": [done]})
    uploads.source = SMALL
    with pytest.raises(client.exceptions.ClientError, match="InvalidRequest"):
        client.upload_part_copy(
            **place, UploadId="u", PartNumber=1, CopySource="bucket/k/a", CopySourceRange="bytes=0-9"
        )
