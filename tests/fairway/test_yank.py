"""``fairway yank`` and ``unyank``."""

import json
import time

import pytest

from scripts.fairway.specs import parse_name_glob, parse_spec
from scripts.fairway.yank import add_yanked, remove_yanked, yanked_notes
from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


def test_yank__and_unyank(bucket: Bucket, run_fairway: Run) -> None:
    key, kept = bucket.publish("team", conda_package(), conda_package(version="2.0"))
    before = bucket.storage.snapshot()
    assert run_fairway("yank", "team", "foo=1.0", "--reason", "it burns").code == 0
    bucket.index("team/noarch/patch_instructions.json")
    repodata = json.loads(bucket.storage.body("team/noarch/repodata.json"))
    assert set(repodata["packages.conda"]) == {"foo-2.0-0.conda"}
    assert repodata["removed"] == ["foo-1.0-0.conda"]
    assert key in bucket.storage.list_keys()
    assert run_fairway("status", "--json", key).document["state"] == "yanked"
    assert run_fairway("status", kept).code == 0
    assert run_fairway("verify", "--deep", "team").code == 0
    assert run_fairway("reconcile", "--json", "team").document["indexed"] == 0

    assert run_fairway("unyank", "team", "foo").code == 0
    bucket.index("team/noarch/patch_instructions.json")
    after = bucket.storage.snapshot()
    same = ("repodata.json", "repodata.json.zst", "run_exports.json", "index.html")
    assert {name: after[f"team/noarch/{name}"] for name in same} == {
        name: before[f"team/noarch/{name}"] for name in same
    }


def test_yank__waits_for_the_artifact_despite_a_later_rejected_upload(
    bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("there is nothing to wait for"))
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.clock_ms += 5000
    bucket.publish("team", conda_package(depends=["other"]))
    bucket.storage.clock_ms += 5000
    run_fairway("yank", "team", "foo", "--reason", "it burns")
    bucket.index("team/noarch/patch_instructions.json")
    assert run_fairway("yank", "--wait", "team", "foo", "--reason", "it burns").code == 0
    assert run_fairway("status", "--json", key).document["state"] == "rejected"


def test_yank__keeps_the_reason(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    run_fairway("yank", "team/noarch", "foo-1.0-0.conda", "--reason", "it burns")
    document = json.loads(bucket.storage.body("team/noarch/patch_instructions.json"))
    note = document["fairway"]["yanked"]["foo-1.0-0.conda"]
    assert note["reason"] == "it burns"
    assert note["by"].endswith("/ada")


def test_yank__keeps_other_instructions(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package(), conda_package(name="bar"))
    instructions = {"patch_instructions_version": 1, "packages.conda": {"bar-1.0-0.conda": {"depends": ["x"]}}}
    bucket.storage.upload("team/noarch/patch_instructions.json", json.dumps(instructions).encode())
    run_fairway("yank", "team", "foo", "--reason", "it burns")
    bucket.index("team/noarch/patch_instructions.json")
    repodata = json.loads(bucket.storage.body("team/noarch/repodata.json"))
    assert repodata["packages.conda"]["bar-1.0-0.conda"]["depends"] == ["x"]
    assert "foo-1.0-0.conda" not in repodata["packages.conda"]


def test_yank__nothing_matches(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    result = run_fairway("yank", "team", "bar", "--reason", "it burns")
    assert result.code == 2
    assert "no artifact in team matches 'bar'" in result.err


def test_unyank__keeps_artifacts_that_others_removed() -> None:
    before = {"remove": ["a-1-0.conda"]}
    after = add_yanked(before, ["b-1-0.conda"], {"reason": "x"})
    assert after["remove"] == ["a-1-0.conda", "b-1-0.conda"]
    assert list(yanked_notes(after)) == ["b-1-0.conda"]
    assert remove_yanked(after, ["b-1-0.conda"])["remove"] == ["a-1-0.conda"]


@pytest.mark.parametrize(
    ("spec", "matching"),
    [
        ("foo", {"foo-1.0-0.conda", "foo-2.0-py_1.tar.bz2"}),
        ("foo=1.0", {"foo-1.0-0.conda"}),
        ("foo=*=py*", {"foo-2.0-py_1.tar.bz2"}),
        ("foo-1.0-0.conda", {"foo-1.0-0.conda"}),
        ("fo?", {"foo-1.0-0.conda", "foo-2.0-py_1.tar.bz2"}),
        ("*", {"foo-1.0-0.conda", "foo-2.0-py_1.tar.bz2", "bar-1.0-0.conda"}),
    ],
)
def test_parse_spec__matches(spec: str, matching: set[str]) -> None:
    filenames = ["foo-1.0-0.conda", "foo-2.0-py_1.tar.bz2", "bar-1.0-0.conda", "odd.conda"]
    matches = parse_spec(spec)
    assert {filename for filename in filenames if matches(filename)} - {"odd.conda"} == matching


@pytest.mark.parametrize(
    ("spec", "glob"),
    [("hello=1.*=py*", "hello"), ("py*", "py*"), ("hello-1.0-0.conda", "hello"), ("h*-1.0-0.conda", "*")],
)
def test_parse_name_glob__of_a_spec(spec: str, glob: str) -> None:
    assert parse_name_glob(spec) == glob
