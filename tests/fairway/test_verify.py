"""``fairway verify``: finds each kind of damage."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import DAY_MS, Bucket
from tests.fairway.conftest import Result, Run
from tests.memory import MemoryStorage

FOO = conda_package()[1]


def test_verify__clean(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package(), tar_bz2_package())
    bucket.publish("team", conda_package(subdir="linux-64"), subdir="linux-64")
    for depth in ([], ["--deep"]):
        result = run_fairway("verify", "--json", "team", *depth)
        assert result.code == 0, result.out
        assert result.document["clean"]
    assert set(result.document["subdirs"]) == {"team/noarch", "team/linux-64"}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda one: one.upload("team/noarch/new-1.0-0.conda", b"x"), "artifact-without-record"),
        (lambda one: one.remove("team/noarch/foo-1.0-0.conda"), "record-without-artifact"),
        (lambda one: one.upload("team/noarch/foo-1.0-0.conda", b"x"), "hash-mismatch"),
        (lambda one: one.archive("team/noarch/foo-1.0-0.conda", "GLACIER"), "artifact-unreadable"),
        (lambda one: one.upload("team/noarch/foo-1.0-0.conda", FOO, is_encrypted=True), "artifact-unreadable"),
        (lambda one: one.upload("team/noarch/foo-1.0-0.conda", b"x", is_encrypted=True), "artifact-unreadable"),
        (lambda one: one.remove("team/noarch/repodata.json.zst"), "output-missing"),
        (lambda one: one.upload("team/noarch/repodata.json", b"{}"), "output-behind"),
        (lambda one: one.remove(_first(one, "team/noarch/shards/")), "shard-missing"),
        (lambda one: one.upload(_first(one, "team/noarch/shards/"), b"x"), "shard-broken"),
        (lambda one: one.remove(_first(one, ".fairway/cards/")), "cards-missing"),
        (lambda one: one.remove("team/noarch/repodata_shards.msgpack.zst"), "index-missing"),
        (lambda one: one.remove("team/channeldata.json"), "output-missing"),
        (lambda one: one.remove("team/noarch/index.html"), "output-missing"),
        (lambda one: one.upload("team/noarch/index.html", b"x"), "output-behind"),
        (lambda one: one.upload("team/channeldata.json", b"x"), "output-behind"),
        (lambda one: one.upload("team/rss.xml", b"x"), "output-behind"),
        (lambda one: one.upload("team/index.html", b"x"), "output-behind"),
        (lambda one: one.upload("team/noarch/foo-1.0-0.conda.sigs", b"[]"), "attestations-without-record"),
        (lambda one: one.upload("team/noarch/patch_instructions.json", b"{}"), "patches-not-in-force"),
        (lambda one: one.upload("team/noarch/Foo-1.0-0.CONDA", b"x"), "artifact-without-record"),
    ],
)
def test_verify__finds_each_damage(
    bucket: Bucket, run_fairway: Run, damage: Callable[[MemoryStorage], object], problem: str
) -> None:
    bucket.publish("team", conda_package())
    damage(bucket.storage)
    result = run_fairway("verify", "--json", "team")
    assert result.code == 1
    assert problem in {one["problem"] for one in result.document["findings"]}
    assert run_fairway("verify", "team").code == 1


def test_verify__wrong_content_under_the_right_commit(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    versions = bucket.storage.versions["team/noarch/run_exports.json"]
    body = versions[-1].body
    assert body is not None
    versions[-1] = replace(versions[-1], body=body.replace(b"foo-1.0-0", b"bar-1.0-0"))
    problems = {one["problem"] for one in run_fairway("verify", "--json", "team").document["findings"]}
    assert {"output-wrong", "encodings-disagree"} <= problems


@pytest.mark.parametrize("key", ["team/noarch/index.html", "team/channeldata.json", "team/rss.xml", "team/index.html"])
@pytest.mark.parametrize("change", [lambda body: body.replace(b"foo", b"bar"), lambda _: b"\xff"])
def test_verify__wrong_content_of_an_output_with_one_encoding(
    bucket: Bucket, run_fairway: Run, key: str, change: Callable[[bytes], bytes]
) -> None:
    bucket.publish("team", conda_package())
    bucket.publish("team", conda_package(subdir="linux-64", about={"summary": "ü"}), subdir="linux-64")
    before = bucket.storage.snapshot()
    versions = bucket.storage.versions[key]
    versions[-1] = replace(versions[-1], body=change(versions[-1].body or b""))
    findings = run_fairway("verify", "--json", "team").document["findings"]
    assert [(one["problem"], one["key"]) for one in findings] == [("output-wrong", key)]
    assert run_fairway("rebuild", "team").code == 0
    assert run_fairway("verify", "team").code == 0
    assert bucket.storage.snapshot() == before


def test_verify__channel_outputs_are_not_checked_if_a_shard_is_unreadable(bucket: Bucket, run_fairway: Run) -> None:
    """Their expected content is unknown; the commit that they show is known."""
    bucket.publish("team", conda_package(), conda_package(name="bar"))
    bucket.storage.upload(bucket.list_keys("team/noarch/shards/")[0], b"x")
    keys = {one["key"] for one in run_fairway("verify", "--json", "team").document["findings"]}
    assert not keys & {"team/channeldata.json", "team/rss.xml", "team/index.html", "team/noarch/index.html"}


def test_verify__attestations(bucket: Bucket, run_fairway: Run) -> None:
    keys = bucket.publish("team", *(conda_package(name=name) for name in ("good", "other", "gone", "copy", "yanked")))
    for key in keys:
        bucket.storage.upload(f"{key}.sigs", b"[{}]")
    bucket.index(*(f"{key}.sigs" for key in keys))
    run_fairway("yank", "team", "yanked", "--reason", "it burns")
    bucket.index("team/noarch/patch_instructions.json")
    for depth in ([], ["--deep"]):
        assert run_fairway("verify", "team", *depth).code == 0
    bucket.storage.upload(f"{keys[1]}.sigs", b"[{} ]")
    bucket.storage.remove(f"{keys[2]}.sigs")
    copy = f"{keys[3]}.sigs.{hashlib.sha256(b'[{}]').hexdigest()}"
    versions = bucket.storage.versions[copy]
    versions[-1] = replace(versions[-1], body=b"[[]]")
    bucket.storage.upload("team/noarch/never-1.0-0.conda.sigs", b"[]")
    wrong = sorted((f"{key}.sigs", "attestations-mismatch") for key in keys[1:3])
    assert _problems(run_fairway("verify", "--json", "team")) == wrong
    assert _problems(run_fairway("verify", "--json", "--deep", "team")) == sorted([*wrong, (copy, "hash-mismatch")])
    bucket.storage.remove(copy)
    assert _problems(run_fairway("verify", "--json", "team")) == sorted([*wrong, (copy, "attestations-mismatch")])
    assert run_fairway("rebuild", "team").code == 0
    assert _problems(run_fairway("verify", "--json", "--deep", "team")) == []


def test_verify__unreadable_patches(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    bucket.storage.upload("team/noarch/patch_instructions.json", b"{}", is_encrypted=True)
    assert _problems(run_fairway("verify", "--json", "team")) == [
        ("team/noarch/patch_instructions.json", "patches-not-in-force")
    ]
    assert run_fairway("reconcile", "team").code == 0
    assert run_fairway("verify", "team").code == 0


def test_verify__deleted_patches(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    bucket.storage.upload("team/noarch/patch_instructions.json", b"{}")
    bucket.index("team/noarch/patch_instructions.json")
    assert run_fairway("verify", "team").code == 0
    bucket.storage.remove("team/noarch/patch_instructions.json")
    assert _problems(run_fairway("verify", "--json", "team")) == [
        ("team/noarch/patch_instructions.json", "patches-not-in-force")
    ]
    assert run_fairway("reconcile", "team").code == 0
    assert run_fairway("verify", "team").code == 0


def test_verify__deep_reads_the_bytes(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    versions = bucket.storage.versions[key]
    body = versions[-1].body
    assert body is not None
    versions[-1] = replace(versions[-1], body=bytes([body[0] ^ 1]) + body[1:])
    assert run_fairway("verify", "team").code == 0
    assert run_fairway("verify", "--deep", "team").code == 1


def test_verify__changed_without_notice_is_read(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.upload(key, bytes([FOO[0] ^ 1]) + FOO[1:])
    assert _problems(run_fairway("verify", "--json", "team")) == [(key, "hash-mismatch")]


def test_verify__yanked_artifact_that_is_unreadable(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    run_fairway("yank", "team", "foo", "--reason", "it burns")
    bucket.index("team/noarch/patch_instructions.json")
    assert run_fairway("verify", "--deep", "team").code == 0
    bucket.storage.archive(key, "GLACIER")
    assert _problems(run_fairway("verify", "--json", "team")) == [(key, "artifact-unreadable")]


def test_verify__attack_same_md5(bucket: Bucket, run_fairway: Run) -> None:
    """Neither size nor ETag tells."""
    (key,) = bucket.publish("team", conda_package())
    first = bucket.storage.head(key)
    assert first is not None
    twin = bucket.storage.upload(key, bytes([FOO[0] ^ 1]) + FOO[1:])
    versions = bucket.storage.versions[key]
    versions[-1] = replace(versions[-1], info=replace(twin, etag=first.etag, md5=first.md5))
    assert _problems(run_fairway("verify", "--json", "team")) == [(key, "hash-mismatch")]


def test_verify__deep_goes_on_after_an_unreadable_artifact(bucket: Bucket, run_fairway: Run) -> None:
    foo, bar = bucket.publish("team", conda_package(), conda_package(name="bar"))
    for storage_class, unreadable in (("STANDARD_IA", []), ("DEEP_ARCHIVE", [foo])):
        bucket.storage.archive(foo, storage_class)
        findings = _problems(run_fairway("verify", "--json", "--deep", "team"))
        assert findings == [(key, "artifact-unreadable") for key in unreadable]
    bucket.storage.archive(bar, "GLACIER")
    findings = _problems(run_fairway("verify", "--json", "--deep", "team"))
    assert findings == [(bar, "artifact-unreadable"), (foo, "artifact-unreadable")]


def test_verify__unreferenced_shards_are_harmless_within_the_grace_period(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    bucket.publish("team", conda_package(build="1"))
    result = run_fairway("verify", "--json", "team/noarch")
    assert result.code == 0
    assert [one["problem"] for one in result.document["findings"]] == ["unreferenced-shard"]
    bucket.storage.clock_ms += 60 * DAY_MS
    assert run_fairway("verify", "team/noarch").code == 1


def test_verify__no_such_channel(bucket: Bucket, run_fairway: Run) -> None:
    result = run_fairway("verify", "nowhere")
    assert result.code == 2
    assert "channel 'nowhere' does not exist" in result.err


def _problems(result: Result) -> list[tuple[str, str]]:
    """Return ``(key, problem)`` of the findings that are not harmless."""
    return sorted((one["key"], one["problem"]) for one in result.document["findings"] if not one["harmless"])


def _first(storage: MemoryStorage, prefix: str) -> str:
    return next(key for key in storage.list_keys() if key.startswith(prefix))
