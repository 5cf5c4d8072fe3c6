"""``fairway status`` of channels."""

from dataclasses import replace

import pytest

from lambdas.indexer.settings import fetch_settings, publish_settings
from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@pytest.fixture
def two_channels(bucket: Bucket) -> Bucket:
    for subdir in ("linux-64", "osx-64"):
        bucket.publish("team", conda_package(subdir=subdir), subdir=subdir)
    bucket.publish("other", conda_package())
    return bucket


def limit(bucket: Bucket, max_subdirs: int) -> None:
    settings = fetch_settings(bucket.storage, bucket="bucket")
    publish_settings(bucket.storage, replace(settings, policy=replace(settings.policy, max_subdirs=max_subdirs)))


@pytest.mark.parametrize("arguments", [(), ("team",), ("team/", "other")])
def test_status__names_the_subdirs_that_exceed_the_limit(
    two_channels: Bucket, run_fairway: Run, arguments: tuple[str, ...]
) -> None:
    limit(two_channels, 2)
    result = run_fairway("status", *arguments)
    assert result.code == 1
    assert "team: too many subdirs: 3 subdirs, 1 more than 2: osx-64" in result.out
    (found,) = [one for one in run_fairway("status", "--json", *arguments).document if one["channel"] == "team"]
    assert (found["subdirs"], found["max_subdirs"]) == (3, 2)
    assert "osx-64" in found["excess"]


def test_status__channels_within_the_limit(two_channels: Bucket, run_fairway: Run) -> None:
    limit(two_channels, 3)
    result = run_fairway("status", "--json")
    assert result.code == 0
    assert [(one["channel"], one["subdirs"], one["excess"]) for one in result.document] == [
        ("other", 1, None),
        ("team", 3, None),
    ]


def test_status__channel_that_does_not_exist(two_channels: Bucket, run_fairway: Run) -> None:
    result = run_fairway("status", "missing")
    assert result.code == 2
    assert "'missing' does not exist" in result.err


@pytest.mark.parametrize("key", ["top-1.0-0.conda", "patch_instructions.json"])
def test_status__rejected_upload_outside_any_channel(bucket: Bucket, run_fairway: Run, key: str) -> None:
    bucket.storage.upload(key, b"anything")
    bucket.index(key)
    assert run_fairway("status", "--json", key).document["state"] == "rejected"
