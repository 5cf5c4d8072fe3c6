"""Quotas of an account."""

import pytest

from lambdas.channel.errors import PermanentError
from scripts.fairway.doctor.quotas import check_concurrency, check_policies


@pytest.mark.parametrize(("limit", "max_concurrency"), [(10, 6), (1000, 10), (6, 2)])
def test_check_concurrency__enough(limit: int, max_concurrency: int) -> None:
    summary = check_concurrency(
        region="eu-central-1", limit=limit, max_concurrency=max_concurrency, edge_limits={"us-east-1": 2}
    )
    assert f"{limit} concurrent executions in eu-central-1" in summary


def test_check_concurrency__new_account() -> None:
    with pytest.raises(PermanentError, match=r"10 functions may run at once in us-east-1, but .* needs 14") as caught:
        check_concurrency(region="us-east-1", limit=10, max_concurrency=10, edge_limits={})
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("set indexer_max_concurrency to 6, or request an increase: aws service-quotas")
    assert caught.value.hint.endswith("--region us-east-1")


def test_check_concurrency__no_setting_is_low_enough() -> None:
    with pytest.raises(PermanentError) as caught:
        check_concurrency(region="us-east-1", limit=5, max_concurrency=2, edge_limits={})
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("request an increase")


def test_check_concurrency__none_at_the_edge() -> None:
    with pytest.raises(PermanentError, match="1 functions may run at once in us-east-1, but functions at the edge"):
        check_concurrency(region="eu-central-1", limit=100, max_concurrency=5, edge_limits={"us-east-1": 1})


def test_check_policies__room_for_one_more_deployment() -> None:
    counts = {"cache policies": 18, "response headers policies": 19}
    summary = check_policies(counts, managed_cache_policies=False)
    assert summary == "18 of 20 cache policies, 19 of 20 response headers policies"


@pytest.mark.parametrize(
    "counts",
    [
        {"cache policies": 19, "response headers policies": 0},
        {"cache policies": 0, "response headers policies": 20},
    ],
)
def test_check_policies__no_room(counts: dict[str, int]) -> None:
    with pytest.raises(PermanentError, match="of 20"):
        check_policies(counts, managed_cache_policies=False)


def test_check_policies__managed_cache_policies() -> None:
    """A deployment with CloudFront's own policies creates none, but has headers."""
    check_policies({"cache policies": 20, "response headers policies": 19}, managed_cache_policies=True)
    with pytest.raises(PermanentError, match="20 of 20 response headers policies"):
        check_policies({"cache policies": 0, "response headers policies": 20}, managed_cache_policies=True)
