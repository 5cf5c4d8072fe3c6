"""A plain HTTP client of the edge: sends paths unchanged, follows no redirects, decodes no bodies."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 60.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response of the edge. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """A client of one edge, with a token or without."""

    url: str
    token: str | None = None

    def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] = _NO_HEADERS) -> Answer:
        """Send one request for a path, with the token as Basic credentials."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in ({**make_basic(self.token), **headers} if self.token else headers).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                body=answer.read(),
            )
        finally:
            connection.close()

    def channel_url(self, channel: str) -> str:
        """Return the URL of a channel for clients, with the token in its path."""
        return f"{self.url}/t/{self.token}/{channel}" if self.token else f"{self.url}/{channel}"


def make_basic(token: str, user: str = "token") -> dict[str, str]:
    """Return the header of HTTP Basic authentication, with the token as password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}
