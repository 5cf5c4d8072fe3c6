"""The origin-response function: sets the headers of artifacts, shards and attestations, whatever their upload said.

Runs when S3 has answered, before the response enters the cache. Artifacts and shards are cached for a
year; attestations, which may be replaced at any time, are revalidated with each request. 404s are never
cached, because the upload may come a moment later (invariant 12). The content type follows from the
extension, and what else an upload can set is removed: with Content-Encoding, for instance, clients would
decode the archive, and fail. Decides nothing about access.

The function does not see the body, and passes on all other headers unchanged: CloudFront answers 502 if
a read-only one, Transfer-Encoding or Via, is missing. None of those that it removes is read-only in
origin responses; CloudFront hides a few of S3's, and those are not there to be removed.

Source: Lambda@Edge, updating HTTP responses in origin response triggers; restrictions on all edge functions.
S3 user guide, "Working with object metadata": what an upload can set.
"""

from __future__ import annotations

from typing import Any, Final

from lambdas.authorizer.log import report
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.caching import IMMUTABLE, METADATA, NO_CACHE, NO_STORE
from lambdas.channel.layout import ATTESTATIONS_SUFFIX, is_shard_path

_WITH_BODY: Final = frozenset({"200", "206"})
_SERVED: Final = _WITH_BODY | {"304"}
_REMOVED: Final = frozenset(
    {
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
        "x-amz-missing-meta",
        "x-amz-tagging-count",
        "x-amz-website-redirect-location",
    }
)
_REMOVED_PREFIX: Final = "x-amz-meta-"

Headers = dict[str, list[dict[str, str]]]


def handle_origin_response(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return S3's response with the right headers: the entry point.

    If anything fails, S3's response is passed on unchanged: better for a reader than 502.

    Source: Lambda@Edge event structure, origin response.
    """
    record = event["Records"][0]["cf"]
    response: dict[str, Any] = record["response"]
    try:
        return apply_headers(response, uri=record["request"]["uri"])
    except Exception as error:  # noqa: BLE001 - see the docstring
        report("origin-response-failed", type(error).__name__)
        return response


def apply_headers(response: dict[str, Any], *, uri: str) -> dict[str, Any]:
    """Return the response to a request for that URI with the right headers; pure."""
    return {**response, "headers": decide_headers(response["headers"], status=str(response["status"]), uri=uri)}


def decide_headers(headers: Headers, *, status: str, uri: str) -> Headers:
    """Return the headers for a response of S3.

    ``uri`` is that of the request to S3. CloudFront matches its patterns with the end of the viewer's URI,
    so that other files named like a shard come through here, too: they keep the Cache-Control that they
    have, and get that of metadata if they have none.
    """
    if status not in _SERVED:
        return {**headers, **_header("Cache-Control", NO_STORE)}
    if kind_of(uri.removesuffix(ATTESTATIONS_SUFFIX)) is not None and uri.endswith(ATTESTATIONS_SUFFIX):
        return _replace(headers, status=status, cache_control=NO_CACHE, content_type="application/json")
    kind = kind_of(uri)
    if kind is None and not is_shard_path(uri):
        kept = {name: values for name, values in headers.items() if name != "expires"}
        return kept if "cache-control" in headers else {**kept, **_header("Cache-Control", METADATA)}
    if kind is None:
        return {**headers, **_header("Cache-Control", IMMUTABLE)}
    return _replace(headers, status=status, cache_control=IMMUTABLE, content_type=kind.content_type)


def _replace(headers: Headers, *, status: str, cache_control: str, content_type: str) -> Headers:
    """Return the headers without those that an upload can set, and with these."""
    kept = {name: values for name, values in headers.items() if not _is_removed(name)}
    fixed = _header("Cache-Control", cache_control)
    return kept | fixed | (_header("Content-Type", content_type) if status in _WITH_BODY else {})


def _is_removed(name: str) -> bool:
    return name in _REMOVED or name.startswith(_REMOVED_PREFIX)


def _header(name: str, value: str) -> Headers:
    return {name.lower(): [{"key": name, "value": value}]}
