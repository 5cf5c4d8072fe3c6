"""The channel's URL as clients see it: plain HTTP with a token, which follows no redirect and decodes no body."""

import base64
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlsplit

from lambdas.channel.errors import UnavailableError, UsageError
from scripts.fairway.doctor.meter import Meter

_TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Reader(Protocol):
    """A reader of the channels."""

    def fetch(self, path: str, *, token: str | None = None) -> Answer:
        """GET a path, which is sent unchanged, with the token as Basic credentials.

        Raises:
            UnavailableError: there is no response.
        """


class HttpReader:
    """A reader over HTTP, with one connection for each request."""

    def __init__(self, url: str, meter: Meter) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"not a URL: {url!r}", hint="give the output ChannelUrl of 'cdk deploy'")
        self._parts = parts
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._meter = meter

    def fetch(self, path: str, *, token: str | None = None) -> Answer:
        """GET a path."""
        connection = self._connect()
        try:
            connection.putrequest("GET", f"{self._parts.path.rstrip('/')}{path}", skip_accept_encoding=True)
            if token is not None:
                connection.putheader("Authorization", f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}")
            connection.putheader("User-Agent", "fairway-doctor")
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"no answer from {self._parts.hostname} for {path}: {type(error).__name__}",
                hint="check --url, the DNS record of your domain, and the network",
            ) from error
        finally:
            connection.close()
        self._meter.count_response(body)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=headers, body=body)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=self._tls)
