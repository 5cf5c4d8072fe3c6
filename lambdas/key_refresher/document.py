"""The access document in S3, for the key refresher: read, replace by compare-and-swap, create once."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.access.document import AccessDocument, encode_access, parse_access
from lambdas.channel.errors import AccessDeniedError, ConflictError, FairwayError, UnavailableError
from lambdas.channel.layout import ACCESS_KEY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_LOST: Final = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}


class S3Document:
    """The access document of one bucket."""

    def __init__(self, bucket: str, client: S3Client) -> None:
        self._bucket = bucket
        self._client = client

    def fetch(self) -> tuple[AccessDocument, str] | None:
        """Return the document and its ETag; None where there is none, or S3 won't say.

        Without the right to list, S3 answers 403 for what is not there too. It is read as the
        authorizer reads it: what one can't understand, neither can the other.

        Raises:
            UnavailableError: S3 does not answer.
            InvalidDocumentError: it can't be understood.
        """
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=ACCESS_KEY)
            body = answer["Body"].read()
        except ClientError as error:
            if _status(error) in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}:
                return None
            raise _translate(error) from error
        except BotoCoreError as error:
            raise _translate(error) from error
        return parse_access(body), answer["ETag"]

    def create(self) -> None:
        """Write an empty document where there is none: from then on the edge knows that nobody may read.

        Raises:
            ConflictError: there is one.
        """
        self._put(AccessDocument(), IfNoneMatch="*")

    def replace(self, document: AccessDocument, etag: str) -> None:
        """Write the document where the one with that ETag still is.

        Raises:
            ConflictError: it is another one by now.
        """
        self._put(document, IfMatch=etag)

    def _put(self, document: AccessDocument, **condition: str) -> None:
        arguments: dict[str, Any] = {"ContentType": "application/json", "CacheControl": "no-store", **condition}
        try:
            self._client.put_object(Bucket=self._bucket, Key=ACCESS_KEY, Body=encode_access(document), **arguments)
        except (ClientError, BotoCoreError) as error:
            raise _translate(error) from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translate(error: ClientError | BotoCoreError) -> FairwayError:
    if not isinstance(error, ClientError):
        return UnavailableError(f"no answer from S3: {type(error).__name__}")
    status = _status(error)
    message = f"S3 answered {status} for the access document"
    if status in _LOST:
        return ConflictError(message)
    return AccessDeniedError(message) if status == HTTPStatus.FORBIDDEN else UnavailableError(message)
