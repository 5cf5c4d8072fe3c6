"""AWS prices, and what requests cost. Pure.

List prices of us-east-1, read on 2026-11-20 (https://aws.amazon.com/s3/pricing/,
https://aws.amazon.com/lambda/pricing/, https://aws.amazon.com/cloudfront/pricing/): check them before
you rely on them.
"""

from collections.abc import Mapping
from typing import Final

DATED: Final = "2026-11-20"
WRITE_DOLLARS: Final = 0.005 / 1000  # PUT, COPY, POST, LIST, and each part of a multipart upload
READ_DOLLARS: Final = 0.0004 / 1000  # GET, HEAD; DELETE is free
LAMBDA_GB_SECOND_DOLLARS: Final = 0.0000133334  # arm64
FUNCTION_GB: Final = 1769 / 1024
VIEWER_DOLLARS: Final = 1.00 / 1e6 + 0.60 / 1e6 + 0.002 * 0.125 * 0.00005001  # CloudFront, Lambda@Edge, and its 2 ms
TRANSFER_GB_DOLLARS: Final = 0.085  # from CloudFront; the first TB of a month is free

WRITES: Final = frozenset(
    {
        "CompleteMultipartUpload",
        "CopyObject",
        "CreateMultipartUpload",
        "PutObject",
        "UploadPart",
        "UploadPartCopy",
    }
)
"""Billed as PUT, COPY, POST or LIST."""
_LISTS: Final = frozenset({"ListObjectVersions", "ListObjectsV2"})
_FREE: Final = frozenset({"AbortMultipartUpload", "DeleteObject", "DeleteObjects"})


def price_requests(requests: Mapping[str, float]) -> float:
    """Return the price of requests to S3 (``{operation: count}``) in US dollars."""
    writes = sum(count for kind, count in requests.items() if kind in WRITES | _LISTS)
    reads = sum(count for kind, count in requests.items() if kind not in WRITES | _LISTS | _FREE)
    return writes * WRITE_DOLLARS + reads * READ_DOLLARS


def price_publish(requests: Mapping[str, float], *, seconds: float) -> float:
    """Return the price of one publish in US dollars: requests and Lambda time."""
    return price_requests(requests) + seconds * FUNCTION_GB * LAMBDA_GB_SECOND_DOLLARS


def price_viewers(requests: int, *, sent_bytes: int) -> float:
    """Return the price of viewers' requests and of the bytes sent to them, in US dollars."""
    return requests * VIEWER_DOLLARS + sent_bytes / 1e9 * TRANSFER_GB_DOLLARS
