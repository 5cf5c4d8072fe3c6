"""Fetches the access document from S3: one signed, conditional GET, bounded in time and size.

One deadline holds for everything together: resolving the name, connecting, TLS, and the answer, however
slowly it drips. The TLS context is kept, because loading the certificates takes half a second of this
function's share of a core, and so is the connection, as long as S3 keeps it.

``http.client`` is imported at the first request, because importing it takes half of the cold start.
"""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING, Any, Final

from lambdas.access.document import MAX_DOCUMENT_BYTES
from lambdas.authorizer.rules import FetchedDocument
from lambdas.authorizer.sigv4 import EMPTY_SHA256, AwsCredentials, sign_get
from lambdas.channel.errors import UnavailableError
from lambdas.channel.layout import ACCESS_KEY

if TYPE_CHECKING:
    import socket
    import ssl
    from http.client import HTTPConnection, HTTPResponse

    from lambdas.authorizer.settings import AuthorizerSettings

DEADLINE_SECONDS: Final = 2.5
"""Time limit for the whole request; the function has five seconds, and parsing may take two of them."""
KEPT_SECONDS: Final = 1.0
"""Time limit for an answer on a kept connection, which may be dead: the rest is for a new one."""
MAX_ADDRESSES: Final = 2
"""How many of S3's addresses are tried; its DNS answers up to eight."""
_CHUNK_BYTES: Final = 64 * 1024
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = 404


_Address = tuple[Any, Any, int, str, Any]
"""As ``socket.getaddrinfo`` has it."""


class _TimedSocket:
    """A socket, as far as ``http.client`` needs one, whose operations all end at one deadline.

    As a socket does, it stays open until its reader is closed, too: ``http.client`` closes the connection
    before it reads an answer that ends with it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_read = False
        self._is_closed = False
        self.deadline = 0.0

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_time_left(self.deadline))
        self._sock.sendall(data)

    def receive(self, buffer: memoryview) -> int:
        self._sock.settimeout(_time_left(self.deadline))
        return self._sock.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._is_read = True
        return io.BufferedReader(_TimedReader(self))

    def end_reading(self) -> None:
        self._is_read = False
        if self._is_closed:
            self._sock.close()

    def close(self) -> None:
        self._is_closed = True
        if not self._is_read:
            self._sock.close()


class _TimedReader(io.RawIOBase):
    """What is received for one answer."""

    def __init__(self, sock: _TimedSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        return self._sock.receive(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.end_reading()


class S3Source:
    """Fetches the access document with the function's role."""

    def __init__(self, settings: AuthorizerSettings) -> None:
        self._region = settings.region
        if settings.endpoint_url is None:
            self._secure, self._host, self._path = True, settings.origin_domain, f"/{ACCESS_KEY}"
        else:
            scheme, _, host = settings.endpoint_url.rstrip("/").partition("://")
            self._secure, self._host, self._path = scheme == "https", host, f"/{settings.bucket}/{ACCESS_KEY}"
        self._context: ssl.SSLContext | None = None
        self._kept: tuple[HTTPConnection, _TimedSocket] | None = None

    def fetch(self, etag: str | None) -> FetchedDocument | None:
        """Return the document; None if it still has that ETag.

        A 403 does not mean that it is missing (invariant 7): S3 answers so if a permission is missing.

        Raises:
            UnavailableError: there is no answer, it is too late or too large, or its status is not 200, 304 or 404.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        try:
            return self._ask(etag, deadline)
        except TimeoutError as error:
            raise UnavailableError(f"no answer from S3 within {DEADLINE_SECONDS} s") from error
        except (OSError, ValueError, _http_error()) as error:
            raise UnavailableError(f"no answer from S3: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the kept connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].close()

    def _ask(self, etag: str | None, deadline: float) -> FetchedDocument | None:
        """Ask on the kept connection, or on a new one if S3 has closed it or does not answer there."""
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                return self._ask_on(*kept, etag, min(deadline, time.monotonic() + KEPT_SECONDS))
            except (OSError, ValueError, _http_error()):
                pass  # S3 closes idle connections; the answer of a new one counts
        return self._ask_on(*self._connect(deadline), etag, deadline)

    def _ask_on(
        self, connection: HTTPConnection, sock: _TimedSocket, etag: str | None, deadline: float
    ) -> FetchedDocument | None:
        """Ask on a connection, and keep it if the answer was read to its end."""
        sock.deadline = deadline
        is_reusable = False
        try:
            connection.request("GET", self._path, headers=self._headers(etag))
            with connection.getresponse() as response:
                answer = _read_answer(response, etag)
                is_reusable = response.isclosed() and not response.will_close
            return answer
        finally:
            if is_reusable:
                self._kept = connection, sock
            else:
                connection.close()

    def _connect(self, deadline: float) -> tuple[HTTPConnection, _TimedSocket]:
        """Connect to one of S3's first addresses.

        Raises:
            OSError: none of them answers, or the deadline has passed.
        """
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - see the module

        if self._secure:
            connection: HTTPConnection = HTTPSConnection(self._host, context=self._load_context())
        else:
            connection = HTTPConnection(self._host)
        connection.auto_open = 0  # it would connect without our deadline
        addresses = _resolve(connection.host, connection.port, deadline)[:MAX_ADDRESSES]
        for remaining in range(len(addresses), 0, -1):
            # The first must leave time for the second.
            until = deadline if remaining == 1 else (time.monotonic() + deadline) / 2
            try:
                sock = self._open(addresses[-remaining], connection.host, until)
            except OSError:
                if remaining == 1:
                    raise
            else:
                connection.sock = sock
                return connection, sock
        raise OSError("S3's name has no address")

    def _open(self, address: _Address, host: str, deadline: float) -> _TimedSocket:
        import socket  # noqa: PLC0415 - see the module

        family, kind, protocol, _, where = address
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_time_left(deadline))
            plain.connect(where)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._secure:
                return _TimedSocket(plain)
            plain.settimeout(_time_left(deadline))  # for the whole handshake
            return _TimedSocket(self._load_context().wrap_socket(plain, server_hostname=host))
        except BaseException:
            plain.close()
            raise

    def _load_context(self) -> ssl.SSLContext:
        if self._context is None:
            import ssl  # noqa: PLC0415 - see the module

            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

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


def _time_left(deadline: float) -> float:
    """Return how many seconds are left.

    Raises:
        TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _resolve(host: str, port: int, deadline: float) -> list[_Address]:
    """Return the addresses of a host, in the resolver's order.

    The resolver can't be given a time limit, so a thread waits for it, and may be left behind.

    Raises:
        OSError: there are none, or the resolver does not answer before the deadline.
    """
    import socket  # noqa: PLC0415 - see the module
    import threading  # noqa: PLC0415 - see the module

    found: list[list[_Address] | OSError] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_time_left(deadline))
    if not found:
        raise TimeoutError
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _read_answer(response: HTTPResponse, etag: str | None) -> FetchedDocument | None:
    if response.status == _NOT_MODIFIED and etag is not None:
        response.read()  # nothing, after which the connection can be used again
        return None
    if response.status == _NOT_FOUND and _is_missing_key(response):
        return FetchedDocument(body=None, etag=None)
    if response.status != _OK:
        raise UnavailableError(f"S3 answered {response.status} for the access document")
    return FetchedDocument(body=_read_body(response), etag=response.getheader("ETag"))


def _is_missing_key(response: HTTPResponse) -> bool:
    # A missing bucket is a 404, too, but says nothing about the document.
    return b"NoSuchKey" in response.read(_CHUNK_BYTES)


def _read_body(response: HTTPResponse) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise UnavailableError(f"the access document has more than {MAX_DOCUMENT_BYTES} bytes")
    if response.length:  # less than Content-Length
        raise UnavailableError("the answer for the access document was cut short")
    response.read()  # nothing, after which the connection can be used again
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
