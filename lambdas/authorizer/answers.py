"""What is answered: the request rewritten for S3, or a response made here. Pure.

Invariant 8: 400 and 405 by the form of the request alone; then 401 and 403, alike for channels that exist
and those that don't; only who may read learns that there is nothing. Invariant 9: no answer repeats
anything that the viewer sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from lambdas.access.decisions import AccessRules, Decision, decide
from lambdas.authorizer.request import (
    MalformedRequestError,
    ViewerRequest,
    find_key,
    find_redirect,
    format_uri,
    parse_request,
)
from lambdas.channel.caching import NO_STORE

METHODS: Final = ("GET", "HEAD")
RETRY_AFTER_SECONDS: Final = 5

# Referer: a browser on a page under /t/TOKEN/ repeats that URL in it.
_DROPPED: Final = frozenset({"authorization", "cookie", "referer"})
_REFUSALS: Final = {
    Decision.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Decision.FORBIDDEN: HTTPStatus.FORBIDDEN,
}
# Browsers ask for a password when they see this; conda, mamba and rattler don't mind it.
_CHALLENGES: Final = {HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Basic realm="Fairway", charset="UTF-8"'}}
_TEXTS: Final = {
    HTTPStatus.BAD_REQUEST: "this URL is not one of a conda channel",
    HTTPStatus.UNAUTHORIZED: "a valid token is needed here",
    HTTPStatus.FORBIDDEN: "this token does not open what was asked for",
    HTTPStatus.NOT_FOUND: "there is nothing here; a channel is at /CHANNEL/",
    HTTPStatus.METHOD_NOT_ALLOWED: "this is for reading; packages are published through S3",
    HTTPStatus.SERVICE_UNAVAILABLE: "access rules can't be read at the moment; try again",
    HTTPStatus.FOUND: "a folder's URL ends with a slash",
}


def answer_request(request: dict[str, Any], rules: AccessRules | None, *, now: int) -> dict[str, Any]:
    """Return the request as the origin may see it, or a response.

    ``rules`` is None where none can be relied on: nobody is let in.
    """
    if request["method"] not in METHODS:
        return respond(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(METHODS)})
    try:
        viewer = parse_request(request)
    except MalformedRequestError:
        return respond(HTTPStatus.BAD_REQUEST)
    if rules is None:
        return respond(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    rejection = _refuse(viewer, rules, now)
    return respond(rejection, headers=_CHALLENGES.get(rejection)) if rejection else _answer_reader(request, viewer)


def _refuse(viewer: ViewerRequest, rules: AccessRules, now: int) -> HTTPStatus | None:
    if not viewer.segments:
        return HTTPStatus.NOT_FOUND  # the root: there is no list of channels
    decision = decide(rules, channel=viewer.channel, filename=viewer.filename, credentials=viewer.credentials, now=now)
    return _REFUSALS.get(decision)


def _answer_reader(request: dict[str, Any], viewer: ViewerRequest) -> dict[str, Any]:
    key = find_key(viewer)
    if key is None:
        return respond(HTTPStatus.NOT_FOUND)
    redirect = find_redirect(viewer)
    if redirect is not None:
        return respond(HTTPStatus.FOUND, headers={"Location": redirect})
    headers = {name: values for name, values in request["headers"].items() if name not in _DROPPED}
    return {**request, "uri": format_uri(key), "querystring": "", "headers": headers}


def respond(status: HTTPStatus, *, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Make a response: the same for everybody who gets this status.

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
