"""Reads the access document from S3: one signed, conditional GET, bounded in time and size.

``http.client`` is imported with the first request: importing it is half of the function's start.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from lambdas.access.document import MAX_DOCUMENT_BYTES
from lambdas.authorizer.rules import FetchedDocument
from lambdas.authorizer.sigv4 import EMPTY_SHA256, AwsCredentials, sign_get
from lambdas.channel.errors import UnavailableError
from lambdas.channel.layout import ACCESS_KEY

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

    from lambdas.authorizer.settings import AuthorizerSettings

TIMEOUT_SECONDS: Final = 1.5
"""For connecting, and for each wait on the connection."""
DEADLINE_SECONDS: Final = 3.0
"""For the whole answer; a viewer request has five."""
_CHUNK_BYTES: Final = 64 * 1024
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = 404


class S3Source:
    """The access document in the bucket, read with the function's own role."""

    def __init__(self, settings: AuthorizerSettings) -> None:
        self._region = settings.region
        if settings.endpoint_url is None:
            self._secure, self._host, self._path = True, settings.origin_domain, f"/{ACCESS_KEY}"
        else:
            scheme, _, host = settings.endpoint_url.rstrip("/").partition("://")
            self._secure, self._host, self._path = scheme == "https", host, f"/{settings.bucket}/{ACCESS_KEY}"

    def fetch(self, etag: str | None) -> FetchedDocument | None:
        """Return the document; None where it still has that ETag.

        A 403 is no "not there" (invariant 7): without a grant, S3 answers so whatever exists.

        Raises:
            UnavailableError: no answer, a late or a long one, or any status but 200, 304 and 404.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        connection = self._connect()
        try:
            connection.request("GET", self._path, headers=self._headers(etag))
            with connection.getresponse() as response:
                return _read_answer(response, etag, deadline)
        except (OSError, ValueError, _http_error()) as error:
            raise UnavailableError(f"no answer from S3: {type(error).__name__}") from error
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - see the module

        return (HTTPSConnection if self._secure else HTTPConnection)(self._host, timeout=TIMEOUT_SECONDS)

    def _headers(self, etag: str | None) -> dict[str, str]:
        headers = {"x-amz-content-sha256": EMPTY_SHA256}
        if etag is not None:
            headers["if-none-match"] = etag
        return sign_get(
            host=self._host,
            path=self._path,
            headers=headers,
            credentials=_find_credentials(),
            region=self._region,
            service="s3",
            timestamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        )


def _read_answer(response: HTTPResponse, etag: str | None, deadline: float) -> FetchedDocument | None:
    if response.status == _NOT_MODIFIED and etag is not None:
        return None
    if response.status == _NOT_FOUND and _is_missing_key(response):
        return FetchedDocument(body=None, etag=None)
    if response.status != _OK:
        raise UnavailableError(f"S3 answered {response.status} for the access document")
    return FetchedDocument(body=_read_body(response, deadline), etag=response.getheader("ETag"))


def _is_missing_key(response: HTTPResponse) -> bool:
    # A bucket that isn't there is a 404 too, but says nothing about rules.
    return b"NoSuchKey" in response.read(_CHUNK_BYTES)


def _read_body(response: HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise UnavailableError(f"the access document has more than {MAX_DOCUMENT_BYTES} bytes")
        if time.monotonic() > deadline:
            raise UnavailableError(f"reading the access document took more than {DEADLINE_SECONDS} s")
    if response.length:  # what Content-Length promised and did not come
        raise UnavailableError("the access document was cut short")
    return bytes(body)


def _find_credentials() -> AwsCredentials:
    # Lambda replaces these with each new environment; they outlive it.
    try:
        return AwsCredentials(
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            session_token=os.environ.get("AWS_SESSION_TOKEN"),
        )
    except KeyError as error:
        raise UnavailableError(f"no credentials: {error} is not set") from error


def _http_error() -> type[Exception]:
    from http.client import HTTPException  # noqa: PLC0415 - see the module

    return HTTPException
