"""``fairway rebuild``: repairs an index from its artifacts."""

from dataclasses import replace

from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


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
