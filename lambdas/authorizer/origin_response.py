"""The second Lambda@Edge function: says how long an artifact's or a shard's answer may be kept.

Runs when S3 has answered, before the answer enters the cache. An artifact or a shard that is there
is kept for a year, whatever its publisher set on upload (invariant 12); that it is not there is kept by
nobody, because it may be there in a moment. Decides nothing about access.

It never sees the body, and hands on all other headers as they came: CloudFront answers 502 where
a read-only one, Transfer-Encoding or Via, is missing.

Source: Lambda@Edge, updating HTTP responses in origin response triggers; restrictions on all edge functions.
"""

from __future__ import annotations

from typing import Any, Final

from lambdas.authorizer.log import report
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.caching import IMMUTABLE, NO_STORE

_SERVED: Final = frozenset({"200", "206", "304"})
_SHARDS: Final = "shards"


def handle_origin_response(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return S3's response with the right Cache-Control: the entry point.

    Whatever fails, the response goes on as S3 gave it: a reader is better off with that than with 502.

    Source: Lambda@Edge event structure, origin response.
    """
    record = event["Records"][0]["cf"]
    response: dict[str, Any] = record["response"]
    try:
        return apply_cache_control(response, uri=record["request"]["uri"])
    except Exception as error:  # noqa: BLE001 - see the docstring
        report("origin-response-failed", type(error).__name__)
        return response


def apply_cache_control(response: dict[str, Any], *, uri: str) -> dict[str, Any]:
    """Return the response to a request for that URI, with another Cache-Control where one is due; pure."""
    value = decide_cache_control(str(response["status"]), uri=uri)
    if value is None:
        return response
    headers = {**response["headers"], "cache-control": [{"key": "Cache-Control", "value": value}]}
    return {**response, "headers": headers}


def decide_cache_control(status: str, *, uri: str) -> str | None:
    """Return the Cache-Control for S3's status; None where what S3 says of the object holds.

    ``uri`` is what S3 was asked for, not what the viewer wrote: CloudFront matches its patterns with
    the latter, so that ``/t/TOKEN/shards/noarch/repodata.json``, of a channel called "shards", comes
    by here as well.
    """
    if status not in _SERVED:
        return NO_STORE
    return IMMUTABLE if _is_immutable(uri) else None


def _is_immutable(uri: str) -> bool:
    """Say whether it is an artifact, or ``/CHANNEL/SUBDIR/shards/NAME``."""
    return kind_of(uri) is not None or uri.split("/")[3:-1] == [_SHARDS]
