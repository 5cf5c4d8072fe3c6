"""What a viewer asks for: a CloudFront event's request → normal path and credentials. Pure.

A path is decoded once, and what comes out must be plain: the characters of conda's names between
single slashes. All else is malformed, whoever asks and whatever exists. What S3 will be asked for
is written anew from the decoded parts, so that the path decided on and the path fetched can't differ.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.errors import InvalidNameError, PermanentError
from lambdas.channel.names import parse_channel, parse_subdir

MAX_URI_CHARS: Final = 2048
MAX_HEADER_CHARS: Final = 16 * 1024
INDEX_PAGE: Final = "index.html"

_TOKEN_MARK: Final = "t"  # noqa: S105 - /t/TOKEN/…, as conda has it
_SEGMENT = re.compile(r"[A-Za-z0-9._~!+-]+\Z")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


class MalformedRequestError(PermanentError):
    """A request that is answered 400 before anybody is asked about access."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerRequest:
    """A request in normal form."""

    method: str
    segments: tuple[str, ...]
    """The decoded path without token and slashes; empty for the root."""
    is_directory: bool
    """The path ended in a slash."""
    credentials: tuple[str, ...]
    """As sent, in the order in which they are tried."""

    @property
    def channel(self) -> str:
        """The part of the path that access is decided by; not checked yet."""
        return self.segments[0] if self.segments else ""

    @property
    def filename(self) -> str:
        """The last part of the path, where that is a file's."""
        return "" if self.is_directory or not self.segments else self.segments[-1]


def parse_request(request: Mapping[str, Any]) -> ViewerRequest:
    """Take a viewer request apart.

    Raises:
        MalformedRequestError: the path is anything but plain, or there is more than one Authorization.

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
        # Whatever the client put there (a mask, nothing at all) is a credential, perhaps a bad one.
        credentials = tuple(parts[1:2])
        parts = parts[2:] or [""]
    credentials += parse_authorization(request.get("headers", {}).get("authorization", ()))
    is_directory = parts[-1] == ""
    segments = tuple(_parse_segment(name) for name in (parts[:-1] if is_directory else parts))
    if segments == (INDEX_PAGE,) and not is_directory:
        segments = ()  # what CloudFront may make of "/" by itself
    return ViewerRequest(
        method=request["method"], segments=segments, is_directory=is_directory, credentials=credentials
    )


def parse_authorization(headers: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the credentials of an Authorization header: what it carries may or may not be valid.

    Raises:
        MalformedRequestError: more than one such header, or an absurdly long one.
    """
    if not headers:
        return ()
    value = headers[0]["value"].strip()
    if len(headers) > 1 or len(value) > MAX_HEADER_CHARS:
        raise MalformedRequestError("more than one Authorization header, or too long a one")
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return (rest,)
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest, validate=True).decode("ascii").partition(":")
        except (ValueError, binascii.Error):
            return ("",)
        # "TOKEN:" and "TOKEN:x" are what people type into a prompt that insists on a user name.
        return (password, user)
    return ("",)


def find_key(request: ViewerRequest) -> str | None:
    """Return the key of the object that is meant; None where no reader may find one."""
    try:
        parse_channel(request.channel)
    except InvalidNameError:
        return None
    names = (*request.segments, INDEX_PAGE) if request.is_directory else request.segments
    return "/".join(names)


def find_redirect(request: ViewerRequest) -> str | None:
    """Return where ``/CHANNEL`` and ``/CHANNEL/SUBDIR`` lead: the same with a slash.

    Relative to the URL that was asked for, so that a token in it is not repeated.
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
    """Write the URI that asks S3 for exactly this key.

    S3 reads ``+`` in a path as a space. Every other character that a key of ours may have stands
    for itself.
    """
    return "/" + key.replace("+", "%2B")


def _parse_segment(text: str) -> str:
    name = _decode(text)
    if not _SEGMENT.match(name) or name in {".", ".."}:
        raise MalformedRequestError("path is not plain")
    return name


def _decode(text: str) -> str:
    """Decode percent escapes once; what is no escape is left and found illegal later."""
    if "%" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
