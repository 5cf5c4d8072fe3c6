"""``fairway rejected``: list, show and retry."""

from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


def test_rejected__list_show_release(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.clock_ms += 5000
    other = conda_package(depends=["other"])
    bucket.upload("team", other)
    bucket.index(key)
    listed = run_fairway("rejected", "list", "--json").document
    assert [one["key"] for one in listed] == [key]
    shown = run_fairway("rejected", "show", "--json", key).document
    assert bucket.storage.body(shown["object_key"]) == other[1]
    assert run_fairway("rejected", "show", key).code == 0

    bucket.storage.remove(key)
    bucket.index(key)
    assert run_fairway("rejected", "release", key).code == 0
    bucket.index(key)
    assert run_fairway("status", "--json", key).document["record"]["depends"] == ["other"]
    assert run_fairway("rejected", "list").out.strip() == "no rejected uploads"


def test_rejected__release_overwrites_nothing(bucket: Bucket, run_fairway: Run) -> None:
    first = conda_package()
    (key,) = bucket.publish("team", first)
    bucket.storage.clock_ms += 5000
    bucket.upload("team", conda_package(depends=["other"]))
    bucket.index(key)
    result = run_fairway("rejected", "release", key)
    assert result.code != 0
    assert f"error: another object is stored under {key!r}" in result.err
    assert "hint: remove it first: aws s3 rm s3://" in result.err
    assert bucket.storage.body(key) == first[1]
    assert len(run_fairway("rejected", "list", "--json").document) == 1


def test_rejected__upload_that_could_not_be_read(bucket: Bucket, run_fairway: Run) -> None:
    key = "team/noarch/foo-1.0-0.conda"
    bucket.storage.upload(key, conda_package()[1], storage_class="GLACIER")
    bucket.index(key)
    assert run_fairway("status", "--json", key).document["state"] == "rejected"
    assert "there is no copy" in run_fairway("rejected", "show", key).out
    assert run_fairway("rejected", "show", "--json", key).document["object_key"] is None
    result = run_fairway("rejected", "release", key)
    assert result.code == 2
    assert "there is no copy" in result.err
    assert "hint: upload it again" in result.err


def test_rejected__no_rejection(bucket: Bucket, run_fairway: Run) -> None:
    result = run_fairway("rejected", "show", "team/noarch/hello-1.0-0.conda")
    assert result.code == 2
    assert "hint: see 'fairway rejected list'" in result.err


def test_rejected__upload_to_an_invalid_key(bucket: Bucket, run_fairway: Run) -> None:
    bucket.storage.upload("hello-1.0-0.conda", b"")
    bucket.index("hello-1.0-0.conda")
    (one,) = run_fairway("rejected", "list", "--json").document
    assert (one["key"], one["code"]) == ("hello-1.0-0.conda", "invalid-key")
    assert "hello-1.0-0.conda" not in bucket.storage.list_keys()


def test_rejected__long_key_is_stored_under_its_hash(bucket: Bucket, run_fairway: Run) -> None:
    key = f"team/noarch/{'x' * 950}.conda"
    bucket.storage.upload(key, b"anything")
    bucket.storage.upload("team/noarch/Upper-1.0-0.conda", b"anything")
    bucket.index(key, "team/noarch/Upper-1.0-0.conda")
    for prefix, number in (("", 2), ("team/noarch/", 2), ("team/noarch/xx", 1), (key, 1), ("other/", 0)):
        assert len(run_fairway("rejected", "list", "--json", prefix).document) == number, prefix
    digest = run_fairway("rejected", "show", "--json", key).document["object_key"].split("/")[2]
    assert run_fairway("rejected", "list", "--json", digest[0]).document == [], "a hash is not a key"
    assert run_fairway("rejected", "release", key).code == 0
    assert bucket.storage.body(key) == b"anything"
    assert run_fairway("rejected", "show", key).code == 2
