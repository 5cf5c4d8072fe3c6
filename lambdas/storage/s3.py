"""Object storage over one S3 bucket: every call to S3, and every translation of its errors.

Nothing else calls boto3 for objects.

Source: the S3 API reference; https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64
import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from itertools import groupby, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    FairwayError,
    UnavailableError,
    UnreadableError,
    VanishedError,
)
from lambdas.storage.protocol import (
    CHUNK_BYTES,
    Condition,
    ContentHeaders,
    CopyRange,
    FetchedObject,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectVersion,
    Part,
    StoredObject,
    check_parts,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

MAX_SINGLE_COPY_BYTES: Final = 5 * 1024**3  # CopyObject's limit
COPIED_PART_BYTES: Final = 512 * 1024**2  # of a copy in parts: several at once, none of them long
PARTS_AT_ONCE: Final = 4  # of one multipart upload: bounds memory, and hides the time that long copies take
PART_CHECKSUM: Final = "CRC32"
"""Named at the creation of a multipart upload. S3 then answers it for copied parts, too, and completes the
upload only if every part has it; named for some parts alone, it is an error."""
_MD5_HEX_CHARS: Final = 32
_STANDARD: Final = "STANDARD"
_CUSTOMER_KEY_MESSAGE: Final = re.compile(r"server[ -]side encryption", re.IGNORECASE)
_KMS_MESSAGE: Final = re.compile(r"((?!resource).)*\bkms:Decrypt\b|The ciphertext refers to a customer master key\b")
"""Before the resource, because a key may have any characters; ``kms:Decrypt`` is no part of a principal."""
_KMS_CODES: Final = frozenset(
    {"KMS.DisabledException", "KMS.InvalidStateException", "KMS.KMSInvalidStateException", "KMS.NotFoundException"}
)
"""Of a key that is gone or disabled; errors of KMS itself are not among them."""
_MOST_REMEMBERED: Final = 6
_WORTH_REMEMBERING_BYTES: Final = 64 * 1024
_MOST_REMEMBERED_BYTES: Final = 4 * 1024 * 1024


class S3Storage:
    """One S3 bucket, versioned, with SSE-S3."""

    def __init__(self, bucket: str, client: "S3Client") -> None:
        self.bucket = bucket
        self._client = client
        self._remembered: OrderedDict[tuple[str, str], StoredObject] = OrderedDict()
        self._lock = threading.Lock()

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Inspect an object: one HeadObject, or two requests if it is denied: only the answer to GET says why."""
        with _translated(key, reading=True):
            try:
                answer = self._client.head_object(
                    Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **_version_argument(version)
                )
            except ClientError as error:
                if _is_missing(error):
                    return None
                self._raise_if_unreadable(error, key, version)
                raise
        return _object_info(key, answer, size=answer["ContentLength"])

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Read an object: one GetObject, or none for a version that was read just before.

        A version never changes. An update of outputs reads the commit that they show, which is usually
        the one that the swap started from.
        """
        if version is not None and (remembered := self._recall(key, version)) is not None:
            return remembered
        with _translated(key, reading=True):
            try:
                answer = self._client.get_object(
                    Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **_version_argument(version)
                )
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            body = answer["Body"].read()
        stored = StoredObject(info=_object_info(key, answer, size=len(body)), body=body)
        self._remember(stored)
        return stored

    def fetch(self, key: str, *, max_bytes: int) -> FetchedObject | None:
        """Inspect and read an object: one GetObject, closed unread if the body is longer."""
        with _translated(key, reading=True):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            size = answer["ContentLength"]
            info = _object_info(key, answer, size=size)
            if size > max_bytes:
                answer["Body"].close()
                return FetchedObject(info=info, body=None)
            body = answer["Body"].read()
        return FetchedObject(info=info, body=body)

    def _recall(self, key: str, version: str) -> StoredObject | None:
        with self._lock:
            return self._remembered.get((key, version))

    def _remember(self, stored: StoredObject) -> None:
        version = stored.info.version
        if version is None or not _WORTH_REMEMBERING_BYTES <= len(stored.body) <= _MOST_REMEMBERED_BYTES:
            return
        with self._lock:
            self._remembered[stored.info.key, version] = stored
            self._remembered.move_to_end((stored.info.key, version))
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    def read_range(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """Read a range: one GetObject with Range and If-Match."""
        if start >= stop:
            return b""
        with _translated(info.key, reading=True):
            answer = self._client.get_object(
                Bucket=self.bucket,
                Key=info.key,
                Range=f"bytes={start}-{stop - 1}",
                IfMatch=f'"{info.etag}"',
                **_version_argument(info.version),
            )
            # A server may ignore Range (RFC 9110, 14.2) and answer with everything.
            body = answer["Body"].read()
            partial = answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
            return body if partial else body[start:stop]

    def stream(self, info: ObjectInfo) -> Iterator[bytes]:
        """Read the object in chunks: one GetObject with If-Match."""
        with _translated(info.key, reading=True):
            answer = self._client.get_object(
                Bucket=self.bucket, Key=info.key, IfMatch=f'"{info.etag}"', **_version_argument(info.version)
            )
            yield from answer["Body"].iter_chunks(CHUNK_BYTES)

    def check_readable(self, info: ObjectInfo) -> None:
        """Read a byte: one GetObject with Range."""
        with _translated(info.key, reading=True):
            try:
                self._read_first_byte(info.key, info.version)
            except ClientError as error:
                if _status(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it is empty
                    raise

    def _raise_if_unreadable(self, denial: ClientError, key: str, version: str | None) -> None:
        """Raise if S3 says, when asked by GET, what keeps everybody from reading an object that it denied to HEAD.

        Raises:
            UnreadableError: S3 says so.
        """
        if _status(denial) not in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
            return
        try:
            self._read_first_byte(key, version)
        except ClientError as error:
            if (reason := _unreadable_reason(error)) is not None:
                raise UnreadableError(f"{key!r} can't be read: {reason}") from error
        except BotoCoreError:
            return

    def _read_first_byte(self, key: str, version: str | None) -> None:
        answer = self._client.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-0", **_version_argument(version))
        answer["Body"].close()

    def put(
        self,
        key: str,
        body: bytes,
        *,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Write an object: one PutObject."""
        conditions: dict[str, Any] = {}
        if isinstance(condition, IfMatch):
            conditions["IfMatch"] = f'"{condition.etag}"'
        elif isinstance(condition, IfAbsent):
            conditions["IfNoneMatch"] = "*"
        with _translated(key):
            answer = self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType=headers.content_type,
                CacheControl=headers.cache_control,
                Metadata=dict(metadata or {}),
                **conditions,
            )
        return ObjectInfo(
            key=key,
            size=len(body),
            etag=answer["ETag"].strip('"'),
            last_modified_ms=0,
            version=answer.get("VersionId"),
            metadata=dict(metadata or {}),
        )

    def splice(
        self,
        key: str,
        parts: Iterable[Part],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Replace an object by a multipart upload: one request for each part, and two around them."""
        served = {"ContentType": headers.content_type, "CacheControl": headers.cache_control}
        with _translated(key), self._multipart_upload(key, Metadata=dict(metadata or {}), **served) as upload:
            size, done = self._put_parts(key, upload, parts, base)
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if base is None else {"IfMatch": f'"{base.etag}"'}
            answer = self._client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}, **condition
            )
        return ObjectInfo(
            key=key,
            size=size,
            etag=answer["ETag"].strip('"'),
            last_modified_ms=0,
            version=answer.get("VersionId"),
            metadata=dict(metadata or {}),
        )

    @contextlib.contextmanager
    def _multipart_upload(self, key: str, **arguments: Any) -> Iterator[str]:  # noqa: ANN401 - of boto3's names
        """Begin a multipart upload, and abort it if the block fails."""
        answer = self._client.create_multipart_upload(
            Bucket=self.bucket, Key=key, ChecksumAlgorithm=PART_CHECKSUM, **arguments
        )
        upload = answer["UploadId"]
        try:
            yield upload
        except BaseException:
            # What is left if we stop here costs money until the bucket's lifecycle clears it away.
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            raise

    def _put_parts(
        self, key: str, upload: str, parts: Iterable[Part], base: ObjectInfo | None
    ) -> "tuple[int, list[CompletedPartTypeDef]]":
        """Copy and upload, several parts at once; return the size of all, and what S3 answered."""
        size = 0
        under_way: list[Future[CompletedPartTypeDef]] = []
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            for number, part in enumerate(check_parts(parts, base=base), start=1):
                size += part.size if isinstance(part, CopyRange) else len(part)
                under_way.append(pool.submit(self._put_part, key, upload, number, part, base))
                if len(under_way) >= PARTS_AT_ONCE:
                    under_way[-PARTS_AT_ONCE].result()
        return size, [one.result() for one in under_way]

    def _put_part(
        self, key: str, upload: str, number: int, part: Part, base: ObjectInfo | None
    ) -> "CompletedPartTypeDef":
        answer: Any
        if isinstance(part, CopyRange):
            if base is None:
                raise ValueError("a part copies, and there is nothing to copy from")
            source: CopySourceTypeDef = {"Bucket": self.bucket, "Key": base.key}
            if base.version is not None:
                source["VersionId"] = base.version
            # S3 rejects a range of a small source, even if it is the whole: see can_copy_ranges.
            is_whole = part.start == 0 and part.stop == base.size
            span: Any = {} if is_whole else {"CopySourceRange": f"bytes={part.start}-{part.stop - 1}"}
            answer = self._client.upload_part_copy(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                CopySource=source,
                CopySourceIfMatch=f'"{base.etag}"',
                **span,
            )["CopyPartResult"]
        else:
            answer = self._client.upload_part(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=part,
                ChecksumAlgorithm=PART_CHECKSUM,
            )
        done: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumCRC32" in answer:  # always in S3's answers
            done["ChecksumCRC32"] = answer["ChecksumCRC32"]
        return done

    def copy(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str], condition: IfAbsent | None = None
    ) -> None:
        """Copy on the server: CopyObject, or a multipart copy above 5 GiB or under a condition."""
        if condition is not None:
            self._copy_where_absent(source, key, metadata)
            return
        copy_source: CopySourceTypeDef = {"Bucket": self.bucket, "Key": source.key}
        if source.version is not None:
            copy_source["VersionId"] = source.version
        with _translated(source.key, reading=True):
            if source.size < MAX_SINGLE_COPY_BYTES:
                self._client.copy_object(
                    Bucket=self.bucket,
                    Key=key,
                    CopySource=copy_source,
                    CopySourceIfMatch=source.etag,
                    Metadata=dict(metadata),
                    MetadataDirective="REPLACE",
                )
            else:  # a multipart copy, in parts, by boto3
                self._client.copy(copy_source, self.bucket, key, ExtraArgs={"Metadata": dict(metadata)})

    def _copy_where_absent(self, source: ObjectInfo, key: str, metadata: Mapping[str, str]) -> None:
        """Copy in parts: their completion takes If-None-Match, also where a policy demands it.

        Of CopyObject AWS says so in one place, and in another that it answers 501.
        Tags are not copied, so that none of their permissions is needed.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
        """
        starts = range(0, source.size, COPIED_PART_BYTES)
        parts = [CopyRange(start=start, stop=min(start + COPIED_PART_BYTES, source.size)) for start in starts]
        with _translated(key):
            if not parts:  # a part has a byte at least
                self._client.put_object(Bucket=self.bucket, Key=key, Body=b"", Metadata=dict(metadata), IfNoneMatch="*")
                return
            with self._multipart_upload(key, Metadata=dict(metadata)) as upload:
                with _translated(source.key, reading=True):
                    _, done = self._put_parts(key, upload, parts, source)
                self._client.complete_multipart_upload(
                    Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}, IfNoneMatch="*"
                )

    def delete(self, info: ObjectInfo) -> None:
        """Delete: one DeleteObject."""
        with _translated(info.key):
            self._client.delete_object(Bucket=self.bucket, Key=info.key, **_version_argument(info.version))

    def hide(self, info: ObjectInfo) -> None:
        """Put a delete marker: one DeleteObject with If-Match.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html
        """
        with _translated(info.key, reading=True):
            self._client.delete_object(Bucket=self.bucket, Key=info.key, IfMatch=f'"{info.etag}"')

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List: one ListObjectsV2 per 1,000 keys."""
        with _translated(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from (_listed_info(entry) for entry in page.get("Contents", []))

    def has_history(self, key: str) -> bool:
        """Tell whether there is an object, or was one that a delete marker hides: one HeadObject.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
        """
        with _translated(key):
            try:
                self._client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _is_missing(error):
                    return "x-amz-delete-marker" in error.response["ResponseMetadata"]["HTTPHeaders"]
                try:
                    self._raise_if_unreadable(error, key, None)
                except UnreadableError:
                    return True
                raise
        return True

    def list_versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """List versions and delete markers: one ListObjectVersions per 1,000."""
        with _translated(prefix):
            paginator = self._client.get_paginator("list_object_versions")
            marker: Any = {"KeyMarker": after} if after else {}
            for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix, **marker):
                versions, deletions = _by_key(page.get("Versions", [])), _by_key(page.get("DeleteMarkers", []))
                for key in sorted(versions.keys() | deletions.keys(), key=str.encode):
                    yield from _merge_versions(versions.get(key, []), deletions.get(key, []))

    def list_history(self, key: str) -> Iterator[ObjectVersion]:
        """List versions and delete markers: one ListObjectVersions per 1,000, of keys with this prefix."""
        # A key comes before every longer one that begins with it.
        return takewhile(lambda one: one.info.key == key, self.list_versions(key))

    def list_folders(self, prefix: str) -> Iterator[str]:
        """List common prefixes: one ListObjectsV2 per 1,000."""
        with _translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", []):
                    yield entry["Prefix"][len(prefix) :].rstrip("/")

    def list_files(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the direct children: one ListObjectsV2 per 1,000 files and folders."""
        with _translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                yield from (_listed_info(entry) for entry in page.get("Contents", []))


def _version_argument(version: str | None) -> dict[str, Any]:
    return {} if version is None else {"VersionId": version}


def _object_info(key: str, answer: Any, *, size: int) -> ObjectInfo:  # noqa: ANN401 - two answers of one shape
    etag = answer["ETag"].strip('"')
    # The ETag is the md5 of a single-part upload with SSE-S3 alone; the SHA-256 covers the whole object
    # unless it is a checksum of checksums ("-N", COMPOSITE).
    plain = answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer
    checksum = answer.get("ChecksumSHA256", "")
    whole = bool(checksum) and "-" not in checksum and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return ObjectInfo(
        key=key,
        size=size,
        etag=etag,
        last_modified_ms=int(answer["LastModified"].timestamp() * 1000),
        version=answer.get("VersionId"),
        metadata=answer.get("Metadata", {}),
        md5=etag if plain and "-" not in etag and len(etag) == _MD5_HEX_CHARS else None,
        sha256=base64.b64decode(checksum).hex() if whole else None,
        storage_class=_storage_class(answer),
    )


def _by_key(entries: Iterable[Any]) -> dict[str, list[Any]]:
    return {key: list(some) for key, some in groupby(entries, key=itemgetter("Key"))}


def _merge_versions(versions: list[Any], deletions: list[Any]) -> Iterator[ObjectVersion]:
    """Merge the two lists of one answer about one key, each of which has the newest first.

    The answer says of the newest entry of all that it is; the order of others is known to the second.
    In the same second, a version counts as newer than a deletion.
    """
    waiting = list(reversed(deletions))
    for entry in versions:
        while waiting and (waiting[-1]["IsLatest"] or waiting[-1]["LastModified"] > entry["LastModified"]):
            yield _listed_deletion(waiting.pop())
        info = replace(_listed_info(entry), version=entry["VersionId"])
        yield ObjectVersion(info=info, is_deletion=False)
    yield from (_listed_deletion(entry) for entry in reversed(waiting))


def _listed_deletion(entry: Any) -> ObjectVersion:  # noqa: ANN401 - one of boto3's dictionaries
    info = ObjectInfo(
        key=entry["Key"],
        size=0,
        etag="",
        last_modified_ms=int(entry["LastModified"].timestamp() * 1000),
        version=entry["VersionId"],
    )
    return ObjectVersion(info=info, is_deletion=True)


def _listed_info(entry: Any) -> ObjectInfo:  # noqa: ANN401 - one of boto3's dictionaries
    return ObjectInfo(
        key=entry["Key"],
        size=entry["Size"],
        etag=entry["ETag"].strip('"'),
        last_modified_ms=int(entry["LastModified"].timestamp() * 1000),
        storage_class=_storage_class(entry),
    )


def _storage_class(answer: Any) -> str | None:  # noqa: ANN401 - one of boto3's dictionaries
    found = answer.get("StorageClass", _STANDARD)  # HEAD and GET leave the standard class out
    return None if found == _STANDARD else str(found)


def _is_missing(error: ClientError) -> bool:
    # 405: the version asked for is a delete marker. NoSuchBucket is a 404 too, but no answer about the key.
    return _code(error) != "NoSuchBucket" and _status(error) in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _unreadable_reason(error: ClientError) -> str | None:
    """Return what keeps everybody from reading an object, if S3 names it; a plain 400 or 403 names nothing.

    An archived object and a KMS key that can't be used have codes of their own. An object with SSE-C has the
    code of any invalid request, and a KMS key that may not be used that of any denial: only the message tells
    them apart from a missing permission on the object.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    code = _code(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code == "InvalidObjectState":
        return "it is archived, and has to be restored before it can be read"
    if code == "InvalidRequest" and _CUSTOMER_KEY_MESSAGE.search(message):
        return "it is encrypted with a key that only its publisher has (SSE-C)"
    if code in _KMS_CODES or (code == "AccessDenied" and _KMS_MESSAGE.match(message)):
        return "it is encrypted with a KMS key that can't be used"
    return None


@contextlib.contextmanager
def _translated(key: str, *, reading: bool = False) -> Iterator[None]:
    """Turn botocore's errors into ours, by status and code (invariant 6)."""
    try:
        yield
    except ClientError as error:
        raise _translate_client_error(error, key, reading=reading) from error
    except BotoCoreError as error:  # no answer: timeouts, broken connections
        raise UnavailableError(f"no answer from S3 for {key!r}: {type(error).__name__}") from error


def _translate_client_error(error: ClientError, key: str, *, reading: bool) -> FairwayError:
    status, code = _status(error), _code(error)
    # The answer to HEAD has no body: its code is the status again.
    message = f"S3 answered {status if code in {'', str(status)} else f'{status} {code}'} for {key!r}"
    if code == "NoSuchBucket":
        return AccessDeniedError("the bucket does not exist", hint="check --bucket or FAIRWAY_BUCKET")
    if reading and (reason := _unreadable_reason(error)) is not None:
        return UnreadableError(f"{key!r} can't be read: {reason}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS or code == "RequestTimeout":
        return UnavailableError(message)
    if status in {
        HTTPStatus.NOT_FOUND,  # If-Match on a key that is gone
        HTTPStatus.CONFLICT,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    }:
        return VanishedError(message) if reading else ConflictError(message)
    return AccessDeniedError(message, hint="may you do this? 'aws sts get-caller-identity' says as whom AWS knows you")
