"""The origin-response function: sets Cache-Control of responses for artifacts and shards.

Runs when S3 has answered, before the response enters the cache. Artifacts and shards are cached for a
year, whatever their publisher set at upload. 404s for them are never cached, because the upload may come
a moment later (invariant 12). Decides nothing about access.

The function does not see the body, and passes on all other headers unchanged: CloudFront answers 502 if
a read-only one, Transfer-Encoding or Via, is missing.

Source: Lambda@Edge, updating HTTP responses in origin response triggers; restrictions on all edge functions.
"""

from __future__ import annotations

from typing import Any, Final

from lambdas.authorizer.log import report
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.caching import IMMUTABLE, NO_STORE
from lambdas.channel.layout import SHARDS_FOLDER

_SERVED: Final = frozenset({"200", "206", "304"})


def handle_origin_response(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return S3's response with the right Cache-Control: the entry point.

    If anything fails, S3's response is passed on unchanged: better for a reader than 502.

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
    """Return the response to a request for that URI with the right Cache-Control; pure."""
    value = decide_cache_control(str(response["status"]), uri=uri)
    if value is None:
        return response
    headers = {**response["headers"], "cache-control": [{"key": "Cache-Control", "value": value}]}
    return {**response, "headers": headers}


def decide_cache_control(status: str, *, uri: str) -> str | None:
    """Return the Cache-Control for a status of S3; None to keep the one that the object has.

    ``uri`` is that of the request to S3. CloudFront matches its patterns with the viewer's URI, so that
    ``/t/TOKEN/shards/noarch/repodata.json``, in a channel named "shards", comes through here, too.
    """
    if status not in _SERVED:
        return NO_STORE
    return IMMUTABLE if _is_immutable(uri) else None


def _is_immutable(uri: str) -> bool:
    """Tell whether this is the URI of an artifact, or ``/CHANNEL/SUBDIR/shards/NAME``."""
    return kind_of(uri) is not None or uri.split("/")[3:-1] == [SHARDS_FOLDER.rstrip("/")]
