"""CloudFront's rules for a viewer's request and for the origin's response. Pure.

Owns: the cache behaviour of a path, the events of viewer-request and origin-response functions, the
results that such functions may return, and CloudFront's error pages. The edge does the I/O.
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
MAX_REQUEST_BYTES = 32 * 1024  # the request line and all headers
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
# Headers of the origin's response that a function cannot see or add, and that it can only read.
_HIDDEN = frozenset({"connection", "expect", "keep-alive", "trailer", "upgrade", "x-cache", "x-forwarded-proto"})
_HIDDEN_PREFIXES = ("proxy-", "x-accel-", "x-amz-cf-", "x-amzn-", "x-edge-")
_READ_ONLY = frozenset({"transfer-encoding", "via"})
_FORBIDDEN_IN_GENERATED = HOP_BY_HOP | {"content-length", "via", "expect", "x-cache", "x-forwarded-proto"}
_UNRESERVED = re.compile(r"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|5[Ff]|6[1-9A-Fa-f]|7[0-9Aa]|7[Ee])")


class InvalidResultError(Exception):
    """The function returned a result that CloudFront rejects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """One cache behaviour of the distribution."""

    pattern: re.Pattern[str]
    methods: frozenset[str]
    functions: Mapping[str, str]  # {event type: ARN of the function version}


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerRequest:
    """A request as it was received, or as the function returned it."""

    method: str
    uri: str  # undecoded, without the query string
    querystring: str
    headers: tuple[tuple[str, str], ...]
    client_ip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginResponse:
    """The response of the origin without its body, or as the function returned it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedResponse:
    """A response that was made without the origin."""

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
            functions={
                association["EventType"]: association["LambdaFunctionARN"]
                for association in item.get("LambdaFunctionAssociations", {}).get("Items", [])
            },
        )
        for item in [*ordered, config["DefaultCacheBehavior"]]
    )


def find_behaviour(behaviours: Sequence[Behaviour], uri: str) -> Behaviour:
    """Return the first behaviour whose pattern matches; the last one, the default, always does.

    CloudFront matches the path after normalising it (RFC 3986), and forwards the original path.
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
    """Return the event that Lambda@Edge passes to a viewer-request function."""
    config = {"distributionDomainName": domain, "distributionId": distribution_id, "requestId": request_id}
    return _format_record({**config, "eventType": "viewer-request"}, request=_format_request(request, host=domain))


def format_response_event(
    response: OriginResponse,
    request: ViewerRequest,
    *,
    origin: str,
    distribution_id: str,
    domain: str,
    request_id: str,
) -> dict[str, Any]:
    """Return the event that Lambda@Edge passes to an origin-response function.

    ``request`` is the request to the origin, whose host name is ``origin``.
    """
    config = {"distributionDomainName": domain, "distributionId": distribution_id, "requestId": request_id}
    return _format_record(
        {**config, "eventType": "origin-response"},
        request=_format_request(request, host=origin),
        response={
            "headers": _format_headers([header for header in response.headers if not _is_hidden(header[0])]),
            "status": str(response.status),
            "statusDescription": response.reason,
        },
    )


def parse_result(result: object, sent: ViewerRequest) -> ViewerRequest | GeneratedResponse:
    """Parse the result of a viewer-request function: a request to forward, or a response.

    Raises:
        InvalidResultError: CloudFront would answer 502.
    """
    if not isinstance(result, dict):
        raise InvalidResultError("the function returned no object")
    try:
        if "status" in result:
            return _parse_response(result)
        return _parse_request(result, sent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidResultError(f"the function returned an object of the wrong shape: {error!r}") from error


def parse_response_result(result: object, sent: OriginResponse) -> OriginResponse:
    """Parse the result of an origin-response function: the response with other headers.

    Raises:
        InvalidResultError: CloudFront would answer 502; or the result replaces the status or the body,
            which CloudFront supports and this edge does not.
    """
    if not isinstance(result, dict):
        raise InvalidResultError("the function returned no object")
    try:
        headers = _parse_headers(result.get("headers", {}))
        if int(result["status"]) != sent.status or "body" in result:
            raise InvalidResultError("the function replaced the status or the body")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidResultError(f"the function returned an object of the wrong shape: {error!r}") from error
    if _read_only_headers(headers) != _read_only_headers(sent.headers):
        raise InvalidResultError("the function added, deleted or changed a read-only header")
    hidden = sorted({name.lower() for name, _ in headers if _is_hidden(name)})
    if hidden:
        raise InvalidResultError(f"the function set forbidden headers: {hidden}")
    kept = [header for header in sent.headers if _is_hidden(header[0])]
    return OriginResponse(status=sent.status, reason=sent.reason, headers=(*headers, *kept))


def make_error(status: int, explanation: str, cause: str) -> GeneratedResponse:
    """Return one of CloudFront's own error pages."""
    page = f"<h1>{status} ERROR</h1><h2>The request could not be satisfied.</h2><p>{html.escape(explanation)}</p>\n"
    headers = (("Content-Type", "text/html"), ("X-Cache", f"{cause} from cloudfront"))
    return GeneratedResponse(status=status, headers=headers, body=page.encode())


def may_list(policy: Mapping[str, Any], *, bucket: str, distribution_arn: str) -> bool:
    """Tell whether a bucket policy lets the distribution list the bucket."""
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
    """Translate CloudFront's wildcards: ``*`` for any characters including slashes, ``?`` for exactly one."""
    path = "/" + pattern.removeprefix("/") if pattern != "*" else "*"
    wildcards = {"*": ".*", "?": "."}
    return re.compile("".join(wildcards.get(character) or re.escape(character) for character in path), re.DOTALL)


def _format_record(config: Mapping[str, str], **parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"Records": [{"cf": {"config": dict(config), **parts}}]}


def _format_request(request: ViewerRequest, *, host: str) -> dict[str, Any]:
    headers = _format_headers([header for header in request.headers if header[0].lower() != "host"])
    return {
        "clientIp": request.client_ip,
        "headers": {**headers, "host": [{"key": "Host", "value": host}]},
        "method": request.method,
        "querystring": request.querystring,
        "uri": request.uri,
    }


def _format_headers(headers: Iterable[tuple[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Group headers as ``{lower-case name: [{key, value}]}``."""
    grouped: dict[str, list[dict[str, str]]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append({"key": name, "value": value})
    return grouped


def _is_hidden(name: str) -> bool:
    return name.lower() in _HIDDEN or name.lower().startswith(_HIDDEN_PREFIXES)


def _read_only_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in headers if name.lower() in _READ_ONLY)


def _parse_request(result: Mapping[str, Any], sent: ViewerRequest) -> ViewerRequest:
    uri, querystring = result["uri"], result.get("querystring", "")
    if not isinstance(uri, str) or not uri.startswith("/"):
        raise InvalidResultError("the function returned a URI that doesn't start with '/'")
    if (
        not isinstance(querystring, str)
        or not (uri + querystring).isascii()
        or re.search(r"[\x00-\x20\x7f]", uri + querystring)
    ):
        raise InvalidResultError("the function returned characters that are invalid in a URI")
    if result.get("method", sent.method) != sent.method:
        raise InvalidResultError("the function changed the method")
    headers = _parse_headers(result.get("headers", {}))
    return ViewerRequest(
        method=sent.method, uri=uri, querystring=querystring, headers=headers, client_ip=sent.client_ip
    )


def _parse_response(result: Mapping[str, Any]) -> GeneratedResponse:
    status = int(result["status"])
    if not 200 <= status <= 599:  # noqa: PLR2004 - the status codes that CloudFront accepts
        raise InvalidResultError(f"the function returned the status {status}")
    headers = _parse_headers(result.get("headers", {}))
    forbidden = {name.lower() for name, _ in headers} & _FORBIDDEN_IN_GENERATED
    if forbidden:
        raise InvalidResultError(f"the function set forbidden headers: {sorted(forbidden)}")
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
