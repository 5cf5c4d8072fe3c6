"""Whether the quotas of an account suffice for a deployment. Pure.

Source: Lambda quotas (concurrent executions; new accounts often have 10); CloudFront quotas (policies in
an account).
"""

from collections.abc import Mapping
from typing import Final

from lambdas.channel.errors import PermanentError

OTHER_FUNCTIONS: Final = 4
"""Executions beside the indexer's: the reconciler, the key refresher, and two of the functions at the edge."""
EDGE_FUNCTIONS: Final = 2
MAX_POLICIES: Final = 20
"""Of one kind, in an account: the default quota."""
NEEDED_CACHE_POLICIES: Final = 2
"""Of a deployment without ``managed_cache_policies``; with it, none."""
NEEDED_HEADERS_POLICIES: Final = 1


def check_concurrency(*, region: str, limit: int, max_concurrency: int, edge_limits: Mapping[str, int]) -> str:
    """Check the concurrent executions; return a summary.

    Args:
        region: the region of the bucket.
        limit: how many functions may run at once there.
        max_concurrency: the setting ``indexer_max_concurrency``.
        edge_limits: ``{region: limit}`` of other regions, where only functions at the edge run.

    Raises:
        PermanentError: there are too few.
    """
    needed = max_concurrency + OTHER_FUNCTIONS
    if limit < needed:
        raise PermanentError(
            f"{limit} functions may run at once in {region}, but this deployment needs {needed}: "
            f"indexer_max_concurrency is {max_concurrency}, and other functions need {OTHER_FUNCTIONS}",
            hint=_hint(region, limit),
        )
    for other, least in edge_limits.items():
        if least < EDGE_FUNCTIONS:
            raise PermanentError(
                f"{least} functions may run at once in {other}, but functions at the edge need {EDGE_FUNCTIONS}",
                hint=_increase(other),
            )
    return f"{limit} concurrent executions in {region}, of which this deployment needs {needed}"


def check_policies(counts: Mapping[str, int], *, managed_cache_policies: bool) -> str:
    """Check that CloudFront takes the policies of one more deployment; return a summary.

    Raises:
        PermanentError: it doesn't.
    """
    all_needed = {
        "cache policies": 0 if managed_cache_policies else NEEDED_CACHE_POLICIES,
        "response headers policies": NEEDED_HEADERS_POLICIES,
    }
    for kind, needed in all_needed.items():
        if needed and counts[kind] + needed > MAX_POLICIES:
            raise PermanentError(
                f"the account has {counts[kind]} of {MAX_POLICIES} {kind}, and a deployment needs {needed}",
                hint="delete unused policies in CloudFront, or ask AWS to increase the quota",
            )
    return ", ".join(f"{counts[kind]} of {MAX_POLICIES} {kind}" for kind in all_needed)


def _hint(region: str, limit: int) -> str:
    lower = limit - OTHER_FUNCTIONS
    increase = _increase(region)
    return f"set indexer_max_concurrency to {lower}, or {increase}" if lower > 1 else increase


def _increase(region: str) -> str:
    return (
        "request an increase: aws service-quotas request-service-quota-increase --service-code lambda "
        f"--quota-code L-B99A9384 --desired-value 1000 --region {region}"
    )
