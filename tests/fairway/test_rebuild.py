"""``fairway rebuild``: repairs an index from its artifacts."""

from dataclasses import replace
from typing import Final

import pytest

from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

FOO: Final = "team/noarch/foo-1.0-0.conda"


def test_rebuild__uploads_to_invalid_keys_are_rejected(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    bucket.storage.upload("team/noarch/Upper-1.0-0.conda", b"anything")
    result = run_fairway("rebuild", "--json", "team")
    assert (result.code, result.document["rejected"]) == (0, 1)
    assert "foo-1.0-0.conda" in bucket.storage.body("team/noarch/repodata.json").decode()


def test_rebuild__repairs_everything_byte_for_byte(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package(run_exports={"weak": ["foo"]}), tar_bz2_package(name="bar"))
    bucket.storage.clock_ms += 5000
    bucket.publish("team", conda_package(name="later"))
    before = bucket.storage.snapshot()
    for key in (
        "team/noarch/repodata.json",
        "team/noarch/run_exports.json.zst",
        bucket.list_keys(".fairway/cards/")[0],
    ):
        versions = bucket.storage.versions[key]
        versions[-1] = replace(versions[-1], body=b"damaged")
    bucket.storage.clock_ms += 5000
    assert run_fairway("rebuild", "team").code == 0
    assert {key: body for key, body in bucket.storage.snapshot().items() if key in before} == before
    assert run_fairway("verify", "--deep", "team").code == 0


def replace_bytes(bucket: Bucket) -> str:
    """Publish an artifact, replace its bytes behind the indexer's back, and return its key."""
    bucket.publish("team", conda_package(), conda_package(name="bar"))
    bucket.storage.upload(FOO, conda_package(depends=["bar"])[1])
    return bucket.storage.body("team/noarch/repodata.json").decode()


def test_rebuild__other_bytes_are_rejected_and_the_first_stay(bucket: Bucket, run_fairway: Run) -> None:
    before = replace_bytes(bucket)
    result = run_fairway("rebuild", "--json", "team")
    assert (result.code, result.document["rejected"]) == (0, 1)
    assert bucket.storage.body("team/noarch/repodata.json").decode() == before
    assert run_fairway("verify", "--deep", "team").code == 0


def test_rebuild__accepts_other_bytes_of_named_artifacts(bucket: Bucket, run_fairway: Run) -> None:
    before = replace_bytes(bucket)
    result = run_fairway("rebuild", "--json", "team", "--accept-bytes", FOO)
    assert (result.code, result.document["rejected"]) == (0, 0)
    assert bucket.storage.body("team/noarch/repodata.json").decode() != before
    assert run_fairway("verify", "--deep", "team").code == 0


@pytest.mark.parametrize("key", ["team/linux-64/foo-1.0-0.conda", "other/noarch/foo-1.0-0.conda", "foo"])
def test_rebuild__key_outside_the_target(bucket: Bucket, run_fairway: Run, key: str) -> None:
    replace_bytes(bucket)
    assert run_fairway("rebuild", "team/noarch", "--accept-bytes", key).code == 2


def test_rebuild__shows_how_many_artifacts_have_been_read(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", *(conda_package(name=f"foo{number}") for number in range(101)))
    notes = run_fairway("rebuild", "team").err.splitlines()
    assert notes == [
        "team/noarch: reading 101 artifacts",
        "team/noarch: 100 of 101 artifacts read",
        "team/noarch: all artifacts read; writing the index",
    ]
    assert run_fairway("rebuild", "--json", "team").err == ""
