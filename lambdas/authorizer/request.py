"""Parses a viewer request: CloudFront's event → path segments and credentials. Pure.

A path is decoded once. The result must consist of the characters of conda's names between single
slashes; any other path is malformed, for every viewer and whether the file exists or not. The URI for
S3 is built from the decoded segments, so that access is decided for the same path that is fetched.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.errors import InvalidNameError, PermanentError
from lambdas.channel.layout import is_immutable_filename
from lambdas.channel.names import parse_channel, parse_subdir

MAX_URI_CHARS: Final = 2048
MAX_HEADER_CHARS: Final = 16 * 1024
INDEX_PAGE: Final = "index.html"

_TOKEN_MARK: Final = "t"  # noqa: S105 - /t/TOKEN/…, as conda has it
_SEGMENT = re.compile(r"[A-Za-z0-9._~!+-]+\Z")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


class MalformedRequestError(PermanentError):
    """A request that is answered 400, before access is checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerRequest:
    """A parsed request."""

    method: str
    segments: tuple[str, ...]
    """The decoded path without the token; empty for the root."""
    is_directory: bool
    """Whether the path ends with a slash."""
    credentials: tuple[str, ...]
    """As sent by the viewer, in the order in which they are tried."""

    @property
    def channel(self) -> str:
        """The first segment; not checked yet."""
        return self.segments[0] if self.segments else ""

    @property
    def path(self) -> str:
        """The path below the channel; it ends with a slash, or is empty, if it is a directory."""
        return "/".join((*self.segments[1:], "") if self.is_directory else self.segments[1:])


def parse_request(request: Mapping[str, Any]) -> ViewerRequest:
    """Parse a viewer request.

    Raises:
        MalformedRequestError: the path has other characters or empty segments, escapes an artifact's
            extension, or there is more than one Authorization header.

    Source: Lambda@Edge event structure; the URI is as the viewer sent it.
    """
    uri = request["uri"]
    if len(uri) > MAX_URI_CHARS:
        raise MalformedRequestError("URL too long")
    if not uri.startswith("/"):
        raise MalformedRequestError("URL is not a path")
    parts = uri[1:].split("/")
    credentials: tuple[str, ...] = ()
    if _decode(parts[0]) == _TOKEN_MARK:
        # Anything that the client put there (a mask, an empty string) is a credential, perhaps an invalid one.
        credentials = tuple(parts[1:2])
        parts = parts[2:] or [""]
    credentials += parse_authorization(request.get("headers", {}).get("authorization", ()))
    is_directory = parts[-1] == ""
    segments = tuple(_parse_segment(name) for name in (parts[:-1] if is_directory else parts))
    if not is_directory and is_immutable_filename(parts[-1]) != is_immutable_filename(segments[-1]):
        # CloudFront has chosen the cache behaviour by the URL already, perhaps without decoding it.
        raise MalformedRequestError("path escapes the end of a filename")
    if segments == (INDEX_PAGE,) and not is_directory:
        segments = ()  # CloudFront may rewrite "/" to this
    return ViewerRequest(
        method=request["method"], segments=segments, is_directory=is_directory, credentials=credentials
    )


def parse_authorization(headers: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the credentials of an Authorization header; they may be invalid.

    Basic credentials may have any user name, in UTF-8 or, from older clients, Latin-1: only what comes
    before the first colon is the user. White space around a token is not part of it.

    Raises:
        MalformedRequestError: there is more than one such header, or it is too long.

    Source: RFC 7617 (Basic), RFC 6750 (Bearer).
    """
    if not headers:
        return ()
    value = headers[0]["value"].strip()
    if len(headers) > 1 or len(value) > MAX_HEADER_CHARS:
        raise MalformedRequestError("more than one Authorization header, or it is too long")
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return (rest,)
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (ValueError, binascii.Error):
            return ("",)
        # The user comes second, for "TOKEN:" and "TOKEN:x", which people enter where a user name is required.
        return (_decode_credential(password), _decode_credential(user))
    return ("",)


def _decode_credential(text: bytes) -> str:
    """Decode one part of Basic credentials; bytes that are not UTF-8 are in no token, so any character will do."""
    return text.decode(errors="replace").strip()


def object_key(request: ViewerRequest) -> str | None:
    """Return the key of the requested object; None if the channel's name is invalid."""
    try:
        parse_channel(request.channel)
    except InvalidNameError:
        return None
    names = (*request.segments, INDEX_PAGE) if request.is_directory else request.segments
    return "/".join(names)


def redirect_location(request: ViewerRequest) -> str | None:
    """Return the redirect of ``/CHANNEL`` and ``/CHANNEL/SUBDIR`` to the same with a slash; None for other paths.

    It is relative to the requested URL, so that a token in the URL is not repeated.
    """
    if request.is_directory or len(request.segments) not in {1, 2}:
        return None
    if len(request.segments) == 2:  # noqa: PLR2004 - channel, subdir
        try:
            parse_subdir(request.segments[1])
        except InvalidNameError:
            return None
    return f"./{request.segments[-1]}/"


def format_uri(key: str) -> str:
    """Format the URI for exactly this key.

    S3 reads ``+`` in a path as a space. Every other character of a key is sent unchanged.
    """
    return "/" + key.replace("+", "%2B")


def _parse_segment(text: str) -> str:
    name = _decode(text)
    if not _SEGMENT.match(name) or name in {".", ".."}:
        raise MalformedRequestError("path has an invalid segment")
    return name


def _decode(text: str) -> str:
    """Decode percent escapes once. A percent sign that starts no escape stays, and is rejected later."""
    if "%" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
