"""AWS prices, and the price of a publish.

List prices of us-east-1, read on 2026-11-20 (https://aws.amazon.com/s3/pricing/,
https://aws.amazon.com/lambda/pricing/): check them before you rely on them.
"""

from collections.abc import Mapping
from typing import Final

from scripts.benchmarks.meter import WRITES

DATED: Final = "2026-11-20"
WRITE_DOLLARS: Final = 0.005 / 1000  # PUT, COPY, POST, LIST, and each part of a multipart upload
READ_DOLLARS: Final = 0.0004 / 1000  # GET, HEAD; DELETE is free
LAMBDA_GB_SECOND_DOLLARS: Final = 0.0000133334  # arm64
FUNCTION_GB: Final = 1769 / 1024

_LISTS: Final = frozenset({"ListObjectsV2"})
_FREE: Final = frozenset({"DeleteObject", "AbortMultipartUpload"})


def price_publish(requests: Mapping[str, float], *, seconds: float) -> float:
    """Return the price of one publish in US dollars: requests and Lambda time."""
    writes = sum(count for kind, count in requests.items() if kind in WRITES | _LISTS)
    reads = sum(count for kind, count in requests.items() if kind not in WRITES | _LISTS | _FREE)
    return writes * WRITE_DOLLARS + reads * READ_DOLLARS + seconds * FUNCTION_GB * LAMBDA_GB_SECOND_DOLLARS
