"""Fetches the access document from S3: one signed, conditional GET, bounded in time and size.

``http.client`` is imported at the first request, because importing it takes half of the cold start.
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
"""Time limit for connecting, and for each read."""
DEADLINE_SECONDS: Final = 3.0
"""Time limit for the whole answer; the function has five seconds."""
_CHUNK_BYTES: Final = 64 * 1024
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = 404


class S3Source:
    """Fetches the access document with the function's role."""

    def __init__(self, settings: AuthorizerSettings) -> None:
        self._region = settings.region
        if settings.endpoint_url is None:
            self._secure, self._host, self._path = True, settings.origin_domain, f"/{ACCESS_KEY}"
        else:
            scheme, _, host = settings.endpoint_url.rstrip("/").partition("://")
            self._secure, self._host, self._path = scheme == "https", host, f"/{settings.bucket}/{ACCESS_KEY}"

    def fetch(self, etag: str | None) -> FetchedDocument | None:
        """Return the document; None if it still has that ETag.

        A 403 does not mean that it is missing (invariant 7): S3 answers so if a permission is missing.

        Raises:
            UnavailableError: there is no answer, it is too late or too large, or its status is not 200, 304 or 404.
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
            credentials=_read_credentials(),
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
    # A missing bucket is a 404, too, but says nothing about the document.
    return b"NoSuchKey" in response.read(_CHUNK_BYTES)


def _read_body(response: HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise UnavailableError(f"the access document has more than {MAX_DOCUMENT_BYTES} bytes")
        if time.monotonic() > deadline:
            raise UnavailableError(f"reading the access document took more than {DEADLINE_SECONDS} s")
    if response.length:  # less than Content-Length
        raise UnavailableError("the answer for the access document was cut short")
    return bytes(body)


def _read_credentials() -> AwsCredentials:
    # Lambda sets these when it creates an execution environment; they are valid for its lifetime.
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
