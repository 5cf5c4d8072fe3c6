"""``fairway reconcile``: lost events, invalid keys, garbage."""

import hashlib
import json
from dataclasses import replace

import pytest

from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import DAY_MS, Bucket
from tests.fairway.conftest import Run


def test_reconcile__lost_events(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package(name="old"))
    bucket.storage.remove("team/noarch/old-1.0-0.conda")
    bucket.upload("team", conda_package(name="new"), tar_bz2_package(name="new"))
    bucket.upload("team", conda_package(name="more", subdir="osx-arm64"), subdir="osx-arm64")
    result = run_fairway("reconcile", "--json", "team")
    assert (result.code, result.document["indexed"], result.document["removed"]) == (0, 3, 1)
    assert run_fairway("verify", "--deep", "team").code == 0


def test_reconcile__downloads_no_indexed_artifact(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", *(conda_package(name=f"p{number}") for number in range(20)))
    bucket.storage.log.clear()
    assert run_fairway("reconcile", "team").code == 0
    downloaded = [key for kind, key in bucket.storage.log if key.endswith(".conda") and kind != "list"]
    writes = [key for kind, key in bucket.storage.log if kind in {"put", "copy", "delete"}]
    assert (downloaded, writes) == ([], [])


def test_reconcile__uploads_to_invalid_keys_are_rejected(bucket: Bucket, run_fairway: Run) -> None:
    keys = [f"team/noarch/{name}" for name in ("Upper-1.0-0.conda", "nodash.conda", "Foo-1.0-0.CONDA")]
    for key in [*keys, "team/noarch/foo-1.0-0.Conda", "team/noarch/Upper-1.0-0.conda.sigs"]:
        bucket.storage.upload(key, b"anything")
    bucket.upload("team", conda_package())
    result = run_fairway("reconcile", "--json", "team/noarch")
    assert (result.code, result.document["indexed"], result.document["rejected"]) == (0, 1, 5)
    assert {one["code"] for one in result.document["rejections"]} == {"invalid-key"}
    assert set(keys) <= {one["key"] for one in result.document["rejections"]}
    assert [key for key in bucket.storage.list_keys() if key in keys] == []
    assert run_fairway("reconcile", "--json", "team").document["rejected"] == 0
    assert run_fairway("status", "--json", keys[2]).document["state"] == "rejected"


def test_reconcile__invalid_keys_outside_of_subdirs_are_rejected(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", *(conda_package(name=f"p{number}") for number in range(5)))
    invalid_keys = [
        "top-1-0.conda",
        "Team/noarch/foo-1-0.conda",
        "team/above-1-0.conda",
        "team//empty-1-0.conda",
        "team/x/y-1.0-0.conda",
        "team/a/b/c-1-0.tar.bz2",
        "team/noarch/deeper/d-1-0.conda",
        "team/noarch/shards/e-1-0.conda",
        "team/linux-64",
    ]
    kept = [
        "top.txt",
        "team/release-notes",
        "linux-64",
        "team/x/notes.txt",
        "team/notices.json",
        "other/x/y-1.0-0.conda",
    ]
    for key in (*invalid_keys, *kept):
        bucket.storage.upload(key, b"anything")
    before = bucket.storage.snapshot()
    bucket.storage.log.clear()
    document = run_fairway("reconcile", "--json", "team").document
    assert sorted(one["key"] for one in document["rejections"]) == sorted(invalid_keys)
    assert bucket.storage.snapshot() == {key: body for key, body in before.items() if key not in invalid_keys}
    bucket.storage.log.clear()
    assert run_fairway("reconcile", "--json", "team").document["rejected"] == 0
    shards = [key for kind, key in bucket.storage.log if kind == "list" and "team/noarch/".startswith(key)]
    assert shards.count("team/noarch/") == 1, "the subdir is listed once"


def test_reconcile__one_upload_that_cannot_be_rejected_stops_no_other(bucket: Bucket, run_fairway: Run) -> None:
    for name in ("A", "B", "C"):
        bucket.storage.upload(f"team/noarch/{name}-1.0-0.conda", b"anything")
    bucket.upload("team", conda_package())

    def fault(kind: str, key: str, moment: str) -> None:
        if (kind, moment) == ("copy", "before") and "/B-" in key:
            raise ZeroDivisionError("a bug")

    bucket.storage.fault = fault
    result = run_fairway("reconcile", "--json", "team")
    assert (result.code, result.document["rejected"], result.document["indexed"]) == (1, 2, 1)
    assert list(result.document["failures"]) == ["team/noarch/B-1.0-0.conda"]
    assert run_fairway("reconcile", "team").code == 1
    bucket.storage.fault = None
    assert run_fairway("reconcile", "--json", "team").document["rejected"] == 1


@pytest.mark.parametrize("hashed", [True, False], ids=["ETags are hashes", "ETags are not hashes"])
def test_reconcile__attestations_whose_event_was_lost(bucket: Bucket, run_fairway: Run, *, hashed: bool) -> None:
    keys = bucket.publish("team", *(conda_package(name=name) for name in ("same", "other", "longer", "gone", "new")))
    for key in keys[:4]:
        bucket.storage.upload(f"{key}.sigs", b'[{"a": 1}]')
    bucket.index(*(f"{key}.sigs" for key in keys[:4]))
    bucket.storage.upload(f"{keys[1]}.sigs", b'[{"a": 2}]')
    bucket.storage.upload(f"{keys[2]}.sigs", b'[{"a": 1}, {}]')
    bucket.storage.remove(f"{keys[3]}.sigs")
    bucket.storage.upload(f"{keys[4]}.sigs", b"[{}]")
    if not hashed:
        for key in keys:
            versions = bucket.storage.versions[f"{key}.sigs"]
            versions[-1] = replace(versions[-1], info=replace(versions[-1].info, etag=f"{key}-1"))
    bucket.storage.log.clear()
    document = run_fairway("reconcile", "--json", "team/noarch").document
    assert (document["indexed"], document["unchanged"]) == (3, 1)  # the deleted ones are back: their record stays
    assert (("get", f"{keys[0]}.sigs") in bucket.storage.log) is not hashed
    records = json.loads(bucket.storage.body("team/noarch/repodata.json"))["packages.conda"]
    for key in keys:
        name = f"{key}.sigs"
        wanted = hashlib.sha256(bucket.storage.body(name)).hexdigest()
        assert records[key.rpartition("/")[2]].get("attestations_sha256") == wanted, key
    assert json.loads(bucket.storage.body(f"{keys[1]}.sigs")) == [{"a": 1}, {"a": 2}]
    assert json.loads(bucket.storage.body(f"{keys[3]}.sigs")) == [{"a": 1}]
    again = run_fairway("reconcile", "--json", "team/noarch").document
    assert (again["indexed"], again["rejected"]) == (0, 0)


def test_reconcile__collects_garbage_only_after_the_grace_period(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    (first,) = bucket.list_keys("team/noarch/shards/")
    bucket.publish("team", conda_package(build="1"))
    for days in (0, 13, 0.5):
        bucket.storage.clock_ms += int(days * DAY_MS)
        assert run_fairway("reconcile", "--collect-garbage", "--json", "team").document["deleted_shards"] == 0
    assert first in bucket.storage.list_keys()
    bucket.storage.clock_ms += DAY_MS
    assert run_fairway("reconcile", "--collect-garbage", "--json", "team").document["deleted_shards"] == 1
    assert first not in bucket.storage.list_keys()
    assert run_fairway("verify", "--deep", "team").code == 0


def test_reconcile__shard_referenced_again_within_the_grace_period(bucket: Bucket, run_fairway: Run) -> None:
    one, other = conda_package(), conda_package(build="1")
    (key,) = bucket.publish("team", one)
    (first,) = bucket.list_keys("team/noarch/shards/")
    (second,) = bucket.publish("team", other)
    run_fairway("reconcile", "--collect-garbage", "team")
    bucket.storage.clock_ms += 14 * DAY_MS
    bucket.storage.remove(second)
    bucket.index(second)
    bucket.publish("team", other)
    bucket.storage.clock_ms += DAY_MS
    run_fairway("reconcile", "--collect-garbage", "team")
    assert first in bucket.storage.list_keys(), key


def test_reconcile__shows_its_progress(bucket: Bucket, run_fairway: Run) -> None:
    bucket.upload("team", conda_package(name="hello"), conda_package(name="world"))
    lines = run_fairway("reconcile", "team").err.splitlines()
    assert lines[:2] == ["team/noarch: listing", "team/noarch: 2 keys inspected"]
    assert lines[-1] == "team: looking for uploads to invalid keys"
    assert run_fairway("reconcile", "team", "--json").err == ""
