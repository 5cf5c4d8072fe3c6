"""What CloudFront does to a viewer's request before the origin sees it.

Pure: which cache behaviour a path belongs to, the event that a viewer-request function gets, what
it may return, and the pages that CloudFront answers with when something is wrong. Moves no bytes:
that is the edge's.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

MAX_URL_BYTES = 8192
MAX_GENERATED_BYTES = 40 * 1024  # of a response made at viewer-request: headers and body

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FORBIDDEN_IN_GENERATED = HOP_BY_HOP | {"content-length", "via", "expect", "x-cache", "x-forwarded-proto"}
_UNRESERVED = re.compile(r"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|5[Ff]|6[1-9A-Fa-f]|7[0-9Aa]|7[Ee])")


class InvalidResultError(Exception):
    """The function returned what CloudFront would not take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """One cache behaviour of the distribution."""

    pattern: re.Pattern[str]
    methods: frozenset[str]
    function_arn: str | None  # the version that runs at viewer-request


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerRequest:
    """A request as it came in, or as the function left it."""

    method: str
    uri: str  # undecoded, without the query string
    querystring: str
    headers: tuple[tuple[str, str], ...]
    client_ip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedResponse:
    """A response that never saw the origin."""

    status: int
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def parse_behaviours(config: Mapping[str, Any]) -> tuple[Behaviour, ...]:
    """Return the behaviours of a ``DistributionConfig`` in the order in which CloudFront tries them."""
    ordered = config.get("CacheBehaviors", {}).get("Items", [])
    return tuple(
        Behaviour(
            pattern=_compile_pattern(item.get("PathPattern", "*")),
            methods=frozenset(item.get("AllowedMethods", {}).get("Items", ["GET", "HEAD"])),
            function_arn=next(
                (
                    association["LambdaFunctionARN"]
                    for association in item.get("LambdaFunctionAssociations", {}).get("Items", [])
                    if association["EventType"] == "viewer-request"
                ),
                None,
            ),
        )
        for item in [*ordered, config["DefaultCacheBehavior"]]
    )


def find_behaviour(behaviours: Sequence[Behaviour], uri: str) -> Behaviour:
    """Return the first behaviour whose pattern matches; the last one, the default, always does.

    CloudFront matches the path as RFC 3986 normalises it, and passes it on as it came.
    """
    decoded = _UNRESERVED.sub(lambda match: unquote(match[0]), uri)
    kept: list[str] = []
    parts = decoded.split("/")[1:]
    for index, part in enumerate(parts):
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
        if part in {".", ".."} and index == len(parts) - 1:
            kept.append("")
    path = "/" + "/".join(kept)
    return next(behaviour for behaviour in behaviours if behaviour.pattern.fullmatch(path))


def format_event(request: ViewerRequest, *, distribution_id: str, domain: str, request_id: str) -> dict[str, Any]:
    """Return the event that Lambda@Edge hands to a viewer-request function."""
    headers: dict[str, list[dict[str, str]]] = {}
    for name, value in request.headers:
        if name.lower() != "host":
            headers.setdefault(name.lower(), []).append({"key": name, "value": value})
    headers["host"] = [{"key": "Host", "value": domain}]
    return {
        "Records": [
            {
                "cf": {
                    "config": {
                        "distributionDomainName": domain,
                        "distributionId": distribution_id,
                        "eventType": "viewer-request",
                        "requestId": request_id,
                    },
                    "request": {
                        "clientIp": request.client_ip,
                        "headers": headers,
                        "method": request.method,
                        "querystring": request.querystring,
                        "uri": request.uri,
                    },
                }
            }
        ]
    }


def parse_result(result: object, sent: ViewerRequest) -> ViewerRequest | GeneratedResponse:
    """Understand what the function returned: a request to pass on, or a response.

    Raises:
        InvalidResultError: CloudFront would answer 502 to it.
    """
    if not isinstance(result, dict):
        raise InvalidResultError("the function returned no object")
    try:
        if "status" in result:
            return _parse_response(result)
        return _parse_request(result, sent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidResultError(f"the function returned an object of the wrong shape: {error!r}") from error


def make_error(status: int, explanation: str, cause: str) -> GeneratedResponse:
    """Return one of CloudFront's own error pages."""
    page = f"<h1>{status} ERROR</h1><h2>The request could not be satisfied.</h2><p>{html.escape(explanation)}</p>\n"
    headers = (("Content-Type", "text/html"), ("X-Cache", f"{cause} from cloudfront"))
    return GeneratedResponse(status=status, headers=headers, body=page.encode())


def may_list(policy: Mapping[str, Any], *, bucket: str, distribution_arn: str) -> bool:
    """Say whether a bucket policy lets the distribution list the bucket."""
    return any(
        statement.get("Effect") == "Allow"
        and "s3:ListBucket" in _as_list(statement.get("Action"))
        and f"arn:aws:s3:::{bucket}" in _as_list(statement.get("Resource"))
        and "cloudfront.amazonaws.com" in _as_list(_as_dict(statement.get("Principal")).get("Service"))
        and distribution_arn
        in [
            arn
            for by_key in _as_dict(statement.get("Condition")).values()
            for arn in _as_list(by_key.get("AWS:SourceArn"))
        ]
        for statement in policy.get("Statement", [])
    )


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Translate CloudFront's wildcards: ``*`` for any characters, slashes too, ``?`` for exactly one."""
    path = "/" + pattern.removeprefix("/") if pattern != "*" else "*"
    wildcards = {"*": ".*", "?": "."}
    return re.compile("".join(wildcards.get(character) or re.escape(character) for character in path), re.DOTALL)


def _parse_request(result: Mapping[str, Any], sent: ViewerRequest) -> ViewerRequest:
    uri, querystring = result["uri"], result.get("querystring", "")
    if not isinstance(uri, str) or not uri.startswith("/"):
        raise InvalidResultError("the function returned a URI that doesn't start with '/'")
    if (
        not isinstance(querystring, str)
        or not (uri + querystring).isascii()
        or re.search(r"[\x00-\x20\x7f]", uri + querystring)
    ):
        raise InvalidResultError("the function returned characters that no URI may have")
    if result.get("method", sent.method) != sent.method:
        raise InvalidResultError("the function changed the method")
    headers = _parse_headers(result.get("headers", {}))
    return ViewerRequest(
        method=sent.method, uri=uri, querystring=querystring, headers=headers, client_ip=sent.client_ip
    )


def _parse_response(result: Mapping[str, Any]) -> GeneratedResponse:
    status = int(result["status"])
    if not 200 <= status <= 599:  # noqa: PLR2004 - the status codes that CloudFront takes
        raise InvalidResultError(f"the function returned the status {status}")
    headers = _parse_headers(result.get("headers", {}))
    forbidden = {name.lower() for name, _ in headers} & _FORBIDDEN_IN_GENERATED
    if forbidden:
        raise InvalidResultError(f"the function set headers that it may not: {sorted(forbidden)}")
    text = result.get("body", "")
    body = base64.b64decode(text, validate=True) if result.get("bodyEncoding") == "base64" else text.encode()
    size = len(text) + sum(len(name) + len(value) for name, value in headers)
    if size > MAX_GENERATED_BYTES:
        raise InvalidResultError(f"the function generated {size} bytes; {MAX_GENERATED_BYTES} are allowed")
    headers = (*headers, ("X-Cache", "LambdaGeneratedResponse from cloudfront"))
    return GeneratedResponse(status=status, reason=result.get("statusDescription"), headers=headers, body=body)


def _parse_headers(headers: Mapping[str, Iterable[Mapping[str, str]]]) -> tuple[tuple[str, str], ...]:
    """Flatten ``{lower-case name: [{key, value}]}``."""
    flat = []
    for name, values in headers.items():
        for header in values:
            key, value = header.get("key", name), header["value"]
            if name != name.lower() or key.lower() != name or re.search(r"[\r\n\x00]", value):
                raise InvalidResultError(f"the function returned a malformed header {name!r}")
            flat.append((key, value))
    return tuple(flat)


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
