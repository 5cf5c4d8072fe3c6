"""Answers a viewer request: with the request rewritten for S3, or with a response. Pure.

Invariant 8: 400 and 405 depend on the form of the request alone. 401 and 403 come next, the same whether
the channel exists or not; only permitted readers see 404. Invariant 9: no answer repeats anything that
the viewer sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from lambdas.access.decisions import AccessRules, Decision, decide
from lambdas.authorizer.request import (
    MalformedRequestError,
    ViewerRequest,
    format_uri,
    object_key,
    parse_request,
    redirect_location,
)
from lambdas.channel.caching import NO_STORE

METHODS: Final = ("GET", "HEAD")
RETRY_AFTER_SECONDS: Final = 5

# A browser on a page under /t/TOKEN/ sends that URL in Referer.
_DROPPED: Final = frozenset({"authorization", "cookie", "referer"})
_REJECTIONS: Final = {
    Decision.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Decision.FORBIDDEN: HTTPStatus.FORBIDDEN,
}
# Browsers then ask for a password; conda, mamba and rattler ignore it.
_CHALLENGES: Final = {HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Basic realm="Fairway", charset="UTF-8"'}}
_TEXTS: Final = {
    HTTPStatus.BAD_REQUEST: "not a URL of a conda channel",
    HTTPStatus.UNAUTHORIZED: "a valid token is required",
    HTTPStatus.FORBIDDEN: "this token does not give access to this file",
    HTTPStatus.NOT_FOUND: "nothing here; the URL of a channel is /CHANNEL/",
    HTTPStatus.METHOD_NOT_ALLOWED: "read-only; packages are published through S3",
    HTTPStatus.SERVICE_UNAVAILABLE: "access rules are unavailable; try again",
    HTTPStatus.FOUND: "the URL of a folder ends with a slash",
}


def answer_request(request: dict[str, Any], rules: AccessRules | None, *, now: int) -> dict[str, Any]:
    """Return the request rewritten for the origin, or a response.

    ``rules`` is None if no valid rules are known: then every request is rejected.
    """
    if request["method"] not in METHODS:
        return respond(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(METHODS)})
    try:
        viewer = parse_request(request)
    except MalformedRequestError:
        return respond(HTTPStatus.BAD_REQUEST)
    if rules is None:
        return respond(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    rejection = _check_access(viewer, rules, now)
    if rejection is not None:
        return respond(rejection, headers=_CHALLENGES.get(rejection))
    return _answer_reader(request, viewer)


def _check_access(viewer: ViewerRequest, rules: AccessRules, now: int) -> HTTPStatus | None:
    """Return the status of the rejection; None if the reader has access."""
    if not viewer.segments:
        return HTTPStatus.NOT_FOUND  # the root: there is no list of channels
    decision = decide(rules, channel=viewer.channel, path=viewer.path, credentials=viewer.credentials, now=now)
    return _REJECTIONS.get(decision)


def _answer_reader(request: dict[str, Any], viewer: ViewerRequest) -> dict[str, Any]:
    key = object_key(viewer)
    if key is None:
        return respond(HTTPStatus.NOT_FOUND)
    redirect = redirect_location(viewer)
    if redirect is not None:
        return respond(HTTPStatus.FOUND, headers={"Location": redirect})
    headers = {name: values for name, values in request["headers"].items() if name not in _DROPPED}
    return {**request, "uri": format_uri(key), "querystring": "", "headers": headers}


def respond(status: HTTPStatus, *, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a response, which is the same for every viewer with this status.

    Source: Lambda@Edge, generated responses.
    """
    fields = {
        "Cache-Control": NO_STORE,
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        **(headers or {}),
    }
    return {
        "status": str(int(status)),
        "statusDescription": status.phrase,
        "headers": {name.lower(): [{"key": name, "value": value}] for name, value in fields.items()},
        "body": f"{int(status)} {status.phrase}: {_TEXTS[status]}\n",
    }
