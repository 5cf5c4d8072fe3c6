"""The commands for the index, run as people run them, over a bucket in memory."""

import base64
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.channel.names import parse_artifact_key
from lambdas.indexer.events import make_invalid_key_rejection, plan_work
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, Report
from lambdas.indexer.tree.shards import Shard
from scripts.fairway import rebuild, reconcile
from scripts.fairway.index import detect_channel
from scripts.fairway.session import Session
from scripts.fairway.status import State, decide_status, fetch_status
from scripts.fairway.yank import add_yanked, parse_spec, remove_yanked, yanked_notes
from tests.builders import conda_package, tar_bz2_package
from tests.fairway.conftest import Result, Run
from tests.memory import MemoryStorage, RecordingNotifier

DAY_MS = 86_400_000
MTIME = 1_780_000_000


@dataclass
class Bucket:
    """A bucket with an indexer that hears of what is uploaded when ``settle`` is called."""

    storage: MemoryStorage
    notifier: RecordingNotifier
    indexer: Indexer

    def upload(self, channel: str, *packages: tuple[str, bytes], subdir: str = "noarch") -> list[str]:
        keys = [f"{channel}/{subdir}/{filename}" for filename, _ in packages]
        for key, (_, body) in zip(keys, packages, strict=True):
            self.storage.upload(key, body)
        return keys

    def settle(self, *keys: str) -> list[Report]:
        work = plan_work(keys)
        for key, error in work.invalid_keys.items():
            self.indexer.refuse(key, make_invalid_key_rejection(error))
        return [self.indexer.index(path, touched) for path, touched in work.subdirs.items()]

    def publish(self, channel: str, *packages: tuple[str, bytes], subdir: str = "noarch") -> list[str]:
        keys = self.upload(channel, *packages, subdir=subdir)
        self.settle(*keys)
        return keys


@dataclass
class Uploader:
    """Stands for boto3: takes what the command uploads, and has the indexer hear of it."""

    bucket: Bucket
    region_name: str = "us-east-1"

    def client(self, service: str, **_: object) -> "Uploader":
        assert service == "s3"
        return self

    def put_object(self, *, Key: str, Body: Any, ChecksumSHA256: str, **said: str) -> None:  # noqa: ANN401, N803 - boto3's
        body = Body.read()
        assert hashlib.sha256(body).digest() == base64.b64decode(ChecksumSHA256)
        if said.get("IfNoneMatch") == "*" and self.bucket.storage.head(Key) is not None:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.bucket.storage.upload(Key, body)
        self.bucket.settle(Key)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    storage, notifier = MemoryStorage(), RecordingNotifier()
    bucket = Bucket(storage, notifier, Indexer(storage, notifier, Policy(), sleep=lambda _: None))
    monkeypatch.setattr(Session, "storage", storage)
    monkeypatch.setattr(Session, "aws", Uploader(bucket))
    monkeypatch.setattr(Session, "caller", "arn:aws:iam::123456789012:user/ada")
    monkeypatch.setattr(Session, "now", property(lambda _: storage.clock_ms // 1000))
    for module in (rebuild, reconcile):
        monkeypatch.setattr(module, "connect_indexer", lambda _: (bucket.indexer, _settings()))
    monkeypatch.setenv("FAIRWAY_BUCKET", "bucket")
    return bucket


def _settings() -> Any:  # noqa: ANN401 - Settings
    from lambdas.indexer.settings import parse_settings

    return parse_settings({"FAIRWAY_BUCKET": "bucket"})


@pytest.fixture
def run(run_fairway: Run) -> Run:
    return run_fairway


class TestStatus:
    def test_status__indexed(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package(name="hello"))
        result = run("status", "--json", key)
        assert result.code == 0
        assert result.document["state"] == "indexed"
        assert result.document["record"]["name"] == "hello"

    def test_status__s3_address(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        assert run("status", f"s3://bucket/{key}").code == 0
        assert run("status", f"s3://other/{key}").code == 2

    def test_status__uploaded_and_not_yet_indexed(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.upload("team", conda_package())
        result = run("status", "--json", key)
        assert (result.code, result.document["state"]) == (1, "waiting")

    def test_status__sharded_and_not_yet_flat(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        flat = bucket.storage.versions["team/noarch/repodata.json"]
        flat[-1] = replace(flat[-1], info=replace(flat[-1].info, metadata={}))
        assert run("status", "--json", key).document["state"] == "waiting"

    def test_status__large_subdir_whose_plain_file_comes_later(self, bucket: Bucket, run: Run) -> None:
        """Clients read the compressed file: nobody is to wait for the other."""
        (key,) = bucket.publish("team", conda_package())
        for name, metadata in (("repodata.json.zst", {"fairway-tables": "0"}), ("repodata.json", {})):
            versions = bucket.storage.versions[f"team/noarch/{name}"]
            shown = versions[-1].info.metadata if name.endswith(".zst") else {}
            versions[-1] = replace(versions[-1], info=replace(versions[-1].info, metadata={**shown, **metadata}))
        assert run("status", "--json", key).document["state"] == "indexed"

    def test_status__refused(self, bucket: Bucket, run: Run) -> None:
        key = "team/noarch/broken-1.0-0.conda"
        bucket.storage.upload(key, b"not an archive")
        bucket.settle(key)
        result = run("status", key)
        assert result.code == 1
        assert "rejected" in result.out
        assert "hint" in result.out
        assert run("status", "--json", key).document["rejection"]["key"] == key

    def test_status__refused_overwrite_of_an_indexed_artifact(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        bucket.storage.clock_ms += 5000
        bucket.upload("team", conda_package(depends=["other"]))
        bucket.settle(key)
        result = run("status", "--json", key)
        assert result.document["state"] == "rejected"
        assert result.document["rejection"]["code"] == "filename-taken"
        assert result.document["record"]["depends"] == []

    def test_status__refused_overwrite_of_long_ago_is_told_beside(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        bucket.storage.clock_ms += 5000
        bucket.upload("team", conda_package(depends=["other"]))
        bucket.settle(key)
        bucket.storage.clock_ms += 3_599_000
        assert run("status", "--wait", "--timeout", "0", key).code == 1
        bucket.storage.clock_ms += 2000
        result = run("status", "--json", key)
        assert (result.code, result.document["state"]) == (0, "indexed")
        assert result.document["rejection"]["code"] == "filename-taken"
        said = run("status", key).out
        assert "a later upload, 2026" in said
        assert "was rejected: " in said

    def test_status__refused_and_nothing_else_there(self, bucket: Bucket, run: Run) -> None:
        key = "team/noarch/broken-1.0-0.conda"
        bucket.storage.upload(key, b"not an archive")
        bucket.settle(key)
        bucket.storage.clock_ms += 30 * DAY_MS
        assert run("status", "--json", key).document["state"] == "rejected"

    def test_status__removed_and_unknown(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        bucket.storage.remove(key)
        assert run("status", "--json", key).document["state"] == "removed"
        assert run("status", "--json", "team/noarch/never-1.0-0.conda").document["state"] == "unknown"

    def test_status__not_a_key(self, bucket: Bucket, run: Run) -> None:
        result = run("status", "hello-1.0-0.conda")
        assert result.code == 2
        assert result.err.startswith("error: key is not CHANNEL/SUBDIR/FILENAME")

    @pytest.mark.parametrize(
        ("key", "code"),
        [
            ("hello-1.0-0.conda", "invalid-key"),
            ("team/noarch/Upper-1.0-0.conda", "invalid-key"),
            ("team/deep/er/hello-1.0-0.conda", "invalid-key"),
            ("team/noarch/hello-1.0-0.conda.sigs", "signatures-not-json"),
            ("team/noarch/patch_instructions.json", "patches-not-json"),
        ],
    )
    def test_status__refused_under_a_key_of_no_artifact(self, bucket: Bucket, run: Run, key: str, code: str) -> None:
        (good,) = bucket.publish("team", conda_package(name="hello"))
        bucket.storage.upload(key, b"anything")
        if code == "invalid-key":
            assert run("status", "--json", key).document["state"] == "waiting"
        bucket.settle(key)
        result = run("status", "--json", "--wait", good, key)
        assert result.code == 1
        states = [(one["key"], one["state"], (one["rejection"] or {}).get("code")) for one in result.document]
        assert states == [(good, "indexed", None), (key, "rejected", code)]

    def test_status__not_a_key_beside_good_ones(self, bucket: Bucket, run: Run) -> None:
        (good,) = bucket.publish("team", conda_package(name="hello"))
        result = run("status", "--json", "hello-1.0-0.conda", good)
        assert result.code == 2
        assert [(one["key"], one["state"]) for one in result.document] == [(good, "indexed")]
        assert result.err.startswith("error: key is not CHANNEL/SUBDIR/FILENAME: 'hello-1.0-0.conda'")

    def test_decide_status__yanked(self, bucket: Bucket) -> None:
        (key,) = bucket.publish("team", conda_package())
        info = bucket.storage.head(key)
        assert info is not None
        from lambdas.indexer.tree.cards import Card

        card = Card(record={"sha256": ""}, run_exports={}, facts={}, etag=info.etag)
        parsed = parse_artifact_key(key)
        assert decide_status(parsed, info, card, Shard(), None, is_flat=True).state == State.YANKED

    def test_fetch_status__other_bytes_took_its_place(self, bucket: Bucket) -> None:
        (key,) = bucket.publish("team", conda_package())
        status = fetch_status(bucket.storage, parse_artifact_key(key), since_ms=0, sha256="0" * 64)
        assert (status.state, status.record) == (State.REPLACED, None)

    def test_status__wait_ends_with_time(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.upload("team", conda_package())
        assert run("status", "--wait", "--timeout", "0", key).code == 1


class TestRejected:
    def test_rejected__list_show_release(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        bucket.storage.clock_ms += 5000
        other = conda_package(depends=["other"])
        bucket.upload("team", other)
        bucket.settle(key)
        listed = run("rejected", "list", "--json").document
        assert [one["key"] for one in listed] == [key]
        shown = run("rejected", "show", "--json", key).document
        assert bucket.storage.body(shown["object_key"]) == other[1]
        assert run("rejected", "show", key).code == 0

        bucket.storage.remove(key)
        bucket.settle(key)
        assert run("rejected", "release", key).code == 0
        bucket.settle(key)
        assert run("status", "--json", key).document["record"]["depends"] == ["other"]
        assert run("rejected", "list").out.strip() == "no rejected uploads"

    def test_rejected__release_overwrites_nothing(self, bucket: Bucket, run: Run) -> None:
        first = conda_package()
        (key,) = bucket.publish("team", first)
        bucket.storage.clock_ms += 5000
        bucket.upload("team", conda_package(depends=["other"]))
        bucket.settle(key)
        result = run("rejected", "release", key)
        assert result.code != 0
        assert f"error: another object is stored under {key!r}" in result.err
        assert "hint: remove it first: aws s3 rm s3://" in result.err
        assert bucket.storage.body(key) == first[1]
        assert len(run("rejected", "list", "--json").document) == 1

    def test_rejected__nothing_there(self, bucket: Bucket, run: Run) -> None:
        result = run("rejected", "show", "team/noarch/hello-1.0-0.conda")
        assert result.code == 2
        assert "hint: see 'fairway rejected list'" in result.err

    def test_rejected__misplaced_upload(self, bucket: Bucket, run: Run) -> None:
        bucket.storage.upload("hello-1.0-0.conda", b"")
        bucket.settle("hello-1.0-0.conda")
        (one,) = run("rejected", "list", "--json").document
        assert (one["key"], one["code"]) == ("hello-1.0-0.conda", "invalid-key")
        assert "hello-1.0-0.conda" not in bucket.storage.list_keys()

    def test_rejected__key_that_lies_under_its_hash(self, bucket: Bucket, run: Run) -> None:
        key = f"team/noarch/{'x' * 950}.conda"
        bucket.storage.upload(key, b"anything")
        bucket.storage.upload("team/noarch/Upper-1.0-0.conda", b"anything")
        bucket.settle(key, "team/noarch/Upper-1.0-0.conda")
        for prefix, number in (("", 2), ("team/noarch/", 2), ("team/noarch/xx", 1), (key, 1), ("other/", 0)):
            assert len(run("rejected", "list", "--json", prefix).document) == number, prefix
        digest = run("rejected", "show", "--json", key).document["object_key"].split("/")[2]
        assert run("rejected", "list", "--json", digest[0]).document == [], "a hash is no key"
        assert run("rejected", "release", key).code == 0
        assert bucket.storage.body(key) == b"anything"
        assert run("rejected", "show", key).code == 2


class TestVerify:
    def test_verify__clean(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package(), tar_bz2_package())
        bucket.publish("team", conda_package(subdir="linux-64"), subdir="linux-64")
        for depth in ([], ["--deep"]):
            result = run("verify", "--json", "team", *depth)
            assert result.code == 0, result.out
            assert result.document["clean"]
        assert set(result.document["subdirs"]) == {"team/noarch", "team/linux-64"}

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (lambda one: one.upload("team/noarch/new-1.0-0.conda", b"x"), "artifact-without-record"),
            (lambda one: one.remove("team/noarch/foo-1.0-0.conda"), "record-without-artifact"),
            (lambda one: one.upload("team/noarch/foo-1.0-0.conda", b"x"), "hash-mismatch"),
            (lambda one: one.remove("team/noarch/repodata.json.zst"), "projection-missing"),
            (lambda one: one.upload("team/noarch/repodata.json", b"{}"), "projection-behind"),
            (lambda one: one.remove(_first(one, "team/noarch/shards/")), "shard-missing"),
            (lambda one: one.upload(_first(one, "team/noarch/shards/"), b"x"), "shard-broken"),
            (lambda one: one.remove(_first(one, ".fairway/cards/")), "cards-missing"),
            (lambda one: one.remove("team/noarch/repodata_shards.msgpack.zst"), "index-missing"),
            (lambda one: one.remove("team/channeldata.json"), "projection-missing"),
            (lambda one: one.remove("team/noarch/index.html"), "projection-missing"),
            (lambda one: one.upload("team/noarch/index.html", b"x"), "projection-behind"),
            (lambda one: one.upload("team/channeldata.json", b"x"), "projection-behind"),
            (lambda one: one.upload("team/rss.xml", b"x"), "projection-behind"),
            (lambda one: one.upload("team/index.html", b"x"), "projection-behind"),
            (lambda one: one.upload("team/noarch/foo-1.0-0.conda.sigs", b"[]"), "signatures-without-record"),
            (lambda one: one.upload("team/noarch/patch_instructions.json", b"{}"), "patches-not-in-force"),
            (lambda one: one.upload("team/noarch/Foo-1.0-0.CONDA", b"x"), "artifact-without-record"),
        ],
    )
    def test_verify__finds_each_damage(
        self, bucket: Bucket, run: Run, damage: Callable[[MemoryStorage], object], problem: str
    ) -> None:
        bucket.publish("team", conda_package())
        damage(bucket.storage)
        result = run("verify", "--json", "team")
        assert result.code == 1
        assert problem in {one["problem"] for one in result.document["findings"]}
        assert run("verify", "team").code == 1

    def test_verify__wrong_content_under_the_right_commit(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        versions = bucket.storage.versions["team/noarch/run_exports.json"]
        body = versions[-1].body
        assert body is not None
        versions[-1] = replace(versions[-1], body=body.replace(b"foo-1.0-0", b"bar-1.0-0"))
        problems = {one["problem"] for one in run("verify", "--json", "team").document["findings"]}
        assert {"projection-wrong", "encodings-disagree"} <= problems

    @pytest.mark.parametrize(
        "key", ["team/noarch/index.html", "team/channeldata.json", "team/rss.xml", "team/index.html"]
    )
    @pytest.mark.parametrize("change", [lambda body: body.replace(b"foo", b"bar"), lambda _: b"\xff"])
    def test_verify__wrong_content_of_what_is_kept_in_one_encoding(
        self, bucket: Bucket, run: Run, key: str, change: Callable[[bytes], bytes]
    ) -> None:
        bucket.publish("team", conda_package())
        bucket.publish("team", conda_package(subdir="linux-64", about={"summary": "ü"}), subdir="linux-64")
        before = bucket.storage.snapshot()
        versions = bucket.storage.versions[key]
        versions[-1] = replace(versions[-1], body=change(versions[-1].body or b""))
        findings = run("verify", "--json", "team").document["findings"]
        assert [(one["problem"], one["key"]) for one in findings] == [("projection-wrong", key)]
        assert run("rebuild", "team").code == 0
        assert run("verify", "team").code == 0
        assert bucket.storage.snapshot() == before

    def test_verify__files_of_a_channel_with_a_broken_shard(self, bucket: Bucket, run: Run) -> None:
        """What they should say is not known; what they show is."""
        bucket.publish("team", conda_package(), conda_package(name="bar"))
        bucket.storage.upload(_first(bucket.storage, "team/noarch/shards/"), b"x")
        keys = {one["key"] for one in run("verify", "--json", "team").document["findings"]}
        assert not keys & {"team/channeldata.json", "team/rss.xml", "team/index.html", "team/noarch/index.html"}

    def test_verify__signatures(self, bucket: Bucket, run: Run) -> None:
        keys = bucket.publish(
            "team", *(conda_package(name=name) for name in ("good", "other", "gone", "copy", "yanked"))
        )
        for key in keys:
            bucket.storage.upload(f"{key}.sigs", b"[{}]")
        bucket.settle(*(f"{key}.sigs" for key in keys))
        run("yank", "team", "yanked", "--reason", "it burns")
        bucket.settle("team/noarch/patch_instructions.json")
        for depth in ([], ["--deep"]):
            assert run("verify", "team", *depth).code == 0
        bucket.storage.upload(f"{keys[1]}.sigs", b"[{} ]")
        bucket.storage.remove(f"{keys[2]}.sigs")
        copy = f"{keys[3]}.sigs.{hashlib.sha256(b'[{}]').hexdigest()}"
        versions = bucket.storage.versions[copy]
        versions[-1] = replace(versions[-1], body=b"[[]]")
        bucket.storage.upload("team/noarch/never-1.0-0.conda.sigs", b"[]")
        wrong = sorted((f"{key}.sigs", "signatures-mismatch") for key in keys[1:3])
        assert _problems(run("verify", "--json", "team")) == wrong
        assert _problems(run("verify", "--json", "--deep", "team")) == sorted([*wrong, (copy, "hash-mismatch")])
        bucket.storage.remove(copy)
        assert _problems(run("verify", "--json", "team")) == sorted([*wrong, (copy, "signatures-mismatch")])
        assert run("rebuild", "team").code == 0
        assert _problems(run("verify", "--json", "--deep", "team")) == []

    def test_verify__patches_that_are_gone(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        bucket.storage.upload("team/noarch/patch_instructions.json", b"{}")
        bucket.settle("team/noarch/patch_instructions.json")
        assert run("verify", "team").code == 0
        bucket.storage.remove("team/noarch/patch_instructions.json")
        assert _problems(run("verify", "--json", "team")) == [
            ("team/noarch/patch_instructions.json", "patches-not-in-force")
        ]
        assert run("reconcile", "team").code == 0
        assert run("verify", "team").code == 0

    def test_verify__deep_reads_the_bytes(self, bucket: Bucket, run: Run) -> None:
        (key,) = bucket.publish("team", conda_package())
        versions = bucket.storage.versions[key]
        body = versions[-1].body
        assert body is not None
        versions[-1] = replace(versions[-1], body=bytes([body[0] ^ 1]) + body[1:])
        assert run("verify", "team").code == 0
        assert run("verify", "--deep", "team").code == 1

    def test_verify__orphans_are_harmless_while_young(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        bucket.publish("team", conda_package(build="1"))
        result = run("verify", "--json", "team/noarch")
        assert result.code == 0
        assert [one["problem"] for one in result.document["findings"]] == ["orphan-shard"]
        bucket.storage.clock_ms += 60 * DAY_MS
        assert run("verify", "team/noarch").code == 1

    def test_verify__no_such_channel(self, bucket: Bucket, run: Run) -> None:
        result = run("verify", "nowhere")
        assert result.code == 2
        assert "channel 'nowhere' does not exist" in result.err


class TestReconcile:
    def test_reconcile__events_were_lost(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package(name="old"))
        bucket.storage.remove("team/noarch/old-1.0-0.conda")
        bucket.upload("team", conda_package(name="new"), tar_bz2_package(name="new"))
        bucket.upload("team", conda_package(name="more", subdir="osx-arm64"), subdir="osx-arm64")
        result = run("reconcile", "--json", "team")
        assert (result.code, result.document["indexed"], result.document["removed"]) == (0, 3, 1)
        assert run("verify", "--deep", "team").code == 0

    def test_reconcile__downloads_nothing_that_is_known(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", *(conda_package(name=f"p{number}") for number in range(20)))
        bucket.storage.log.clear()
        assert run("reconcile", "team").code == 0
        touched = [key for kind, key in bucket.storage.log if key.endswith(".conda") and kind != "list"]
        writes = [key for kind, key in bucket.storage.log if kind in {"put", "copy", "delete"}]
        assert (touched, writes) == ([], [])

    def test_reconcile__misplaced_uploads_are_reported(self, bucket: Bucket, run: Run) -> None:
        keys = [f"team/noarch/{name}" for name in ("Upper-1.0-0.conda", "nodash.conda", "Foo-1.0-0.CONDA")]
        for key in [*keys, "team/noarch/foo-1.0-0.Conda", "team/noarch/Upper-1.0-0.conda.sigs"]:
            bucket.storage.upload(key, b"anything")
        bucket.upload("team", conda_package())
        result = run("reconcile", "--json", "team/noarch")
        assert (result.code, result.document["indexed"], result.document["rejected"]) == (0, 1, 5)
        assert {one["code"] for one in result.document["rejections"]} == {"invalid-key"}
        assert set(keys) <= {one["key"] for one in result.document["rejections"]}
        assert [key for key in bucket.storage.list_keys() if key in keys] == []
        assert run("reconcile", "--json", "team").document["rejected"] == 0
        assert run("status", "--json", keys[2]).document["state"] == "rejected"

    def test_reconcile__uploads_to_places_where_nothing_is_indexed(self, bucket: Bucket, run: Run) -> None:
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
        ]
        kept = ["top.txt", "team/x/notes.txt", "team/notices.json", "other/x/y-1.0-0.conda"]
        for key in (*invalid_keys, *kept):
            bucket.storage.upload(key, b"anything")
        before = bucket.storage.snapshot()
        bucket.storage.log.clear()
        document = run("reconcile", "--json", "team").document
        assert sorted(one["key"] for one in document["rejections"]) == sorted(invalid_keys)
        assert bucket.storage.snapshot() == {key: body for key, body in before.items() if key not in invalid_keys}
        bucket.storage.log.clear()
        assert run("reconcile", "--json", "team").document["rejected"] == 0
        shards = [key for kind, key in bucket.storage.log if kind == "list" and "team/noarch/".startswith(key)]
        assert shards.count("team/noarch/") == 1, "the subdir is listed once"

    def test_reconcile__one_misplaced_upload_can_not_be_set_aside(self, bucket: Bucket, run: Run) -> None:
        for name in ("A", "B", "C"):
            bucket.storage.upload(f"team/noarch/{name}-1.0-0.conda", b"anything")
        bucket.upload("team", conda_package())

        def fault(kind: str, key: str, moment: str) -> None:
            if (kind, moment) == ("copy", "before") and "/B-" in key:
                raise ZeroDivisionError("a bug")

        bucket.storage.fault = fault
        result = run("reconcile", "--json", "team")
        assert (result.code, result.document["rejected"], result.document["indexed"]) == (1, 2, 1)
        assert list(result.document["failures"]) == ["team/noarch/B-1.0-0.conda"]
        assert run("reconcile", "team").code == 1
        bucket.storage.fault = None
        assert run("reconcile", "--json", "team").document["rejected"] == 1

    @pytest.mark.parametrize("hashed", [True, False], ids=["ETags are hashes", "ETags are none"])
    def test_reconcile__signatures_whose_event_was_lost(self, bucket: Bucket, run: Run, *, hashed: bool) -> None:
        keys = bucket.publish(
            "team", *(conda_package(name=name) for name in ("same", "other", "longer", "gone", "new"))
        )
        for key in keys[:4]:
            bucket.storage.upload(f"{key}.sigs", b'[{"a": 1}]')
        bucket.settle(*(f"{key}.sigs" for key in keys[:4]))
        bucket.storage.upload(f"{keys[1]}.sigs", b'[{"a": 2}]')
        bucket.storage.upload(f"{keys[2]}.sigs", b'[{"a": 1}, {}]')
        bucket.storage.remove(f"{keys[3]}.sigs")
        bucket.storage.upload(f"{keys[4]}.sigs", b"[]")
        if not hashed:
            for key in keys:
                versions = bucket.storage.versions[f"{key}.sigs"]
                versions[-1] = replace(versions[-1], info=replace(versions[-1].info, etag=f"{key}-1"))
        bucket.storage.log.clear()
        document = run("reconcile", "--json", "team/noarch").document
        assert (document["indexed"], document["unchanged"]) == (4, 0)
        assert (("get", f"{keys[0]}.sigs") in bucket.storage.log) is not hashed
        records = json.loads(bucket.storage.body("team/noarch/repodata.json"))["packages.conda"]
        for key in keys:
            name = f"{key}.sigs"
            there = name in bucket.storage.list_keys()
            wanted = hashlib.sha256(bucket.storage.body(name)).hexdigest() if there else None
            assert records[key.rpartition("/")[2]].get("attestations_sha256") == wanted, key
        again = run("reconcile", "--json", "team/noarch").document
        assert (again["indexed"], again["rejected"]) == (0, 0)

    def test_rebuild__misplaced_uploads_are_reported(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        bucket.storage.upload("team/noarch/Upper-1.0-0.conda", b"anything")
        result = run("rebuild", "--json", "team")
        assert (result.code, result.document["rejected"]) == (0, 1)
        assert "foo-1.0-0.conda" in bucket.storage.body("team/noarch/repodata.json").decode()

    def test_reconcile__sweeps_after_the_grace_and_never_sooner(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        (first,) = _all(bucket.storage, "team/noarch/shards/")
        bucket.publish("team", conda_package(build="1"))
        for days in (0, 13, 0.5):
            bucket.storage.clock_ms += int(days * DAY_MS)
            assert run("reconcile", "--collect-garbage", "--json", "team").document["deleted_shards"] == 0
        assert first in bucket.storage.list_keys()
        bucket.storage.clock_ms += DAY_MS
        assert run("reconcile", "--collect-garbage", "--json", "team").document["deleted_shards"] == 1
        assert first not in bucket.storage.list_keys()
        assert run("verify", "--deep", "team").code == 0

    def test_reconcile__shard_named_again_before_the_grace_ends(self, bucket: Bucket, run: Run) -> None:
        one, other = conda_package(), conda_package(build="1")
        (key,) = bucket.publish("team", one)
        (first,) = _all(bucket.storage, "team/noarch/shards/")
        (second,) = bucket.publish("team", other)
        run("reconcile", "--collect-garbage", "team")
        bucket.storage.clock_ms += 14 * DAY_MS
        bucket.storage.remove(second)
        bucket.settle(second)
        bucket.publish("team", other)
        bucket.storage.clock_ms += DAY_MS
        run("reconcile", "--collect-garbage", "team")
        assert first in bucket.storage.list_keys(), key

    def test_rebuild__heals_everything_byte_for_byte(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package(run_exports={"weak": ["foo"]}), tar_bz2_package(name="bar"))
        bucket.storage.clock_ms += 5000
        bucket.publish("team", conda_package(name="later"))
        before = bucket.storage.snapshot()
        for key in (
            "team/noarch/repodata.json",
            "team/noarch/run_exports.json.zst",
            _first(bucket.storage, ".fairway/cards/"),
        ):
            versions = bucket.storage.versions[key]
            versions[-1] = replace(versions[-1], body=b"damaged")
        bucket.storage.clock_ms += 5000
        assert run("rebuild", "team").code == 0
        assert {key: body for key, body in bucket.storage.snapshot().items() if key in before} == before
        assert run("verify", "--deep", "team").code == 0


class TestYank:
    def test_yank__and_back(self, bucket: Bucket, run: Run) -> None:
        key, kept = bucket.publish("team", conda_package(), conda_package(version="2.0"))
        before = bucket.storage.snapshot()
        assert run("yank", "team", "foo=1.0", "--reason", "it burns").code == 0
        bucket.settle("team/noarch/patch_instructions.json")
        repodata = json.loads(bucket.storage.body("team/noarch/repodata.json"))
        assert set(repodata["packages.conda"]) == {"foo-2.0-0.conda"}
        assert repodata["removed"] == ["foo-1.0-0.conda"]
        assert key in bucket.storage.list_keys()
        assert run("status", "--json", key).document["state"] == "yanked"
        assert run("status", kept).code == 0
        assert run("verify", "--deep", "team").code == 0
        assert run("reconcile", "--json", "team").document["indexed"] == 0

        assert run("unyank", "team", "foo").code == 0
        bucket.settle("team/noarch/patch_instructions.json")
        after = bucket.storage.snapshot()
        same = ("repodata.json", "repodata.json.zst", "run_exports.json", "index.html")
        assert {name: after[f"team/noarch/{name}"] for name in same} == {
            name: before[f"team/noarch/{name}"] for name in same
        }

    def test_yank__waits_for_the_artifact_whatever_was_refused_later(
        self, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("there is nothing to wait for"))
        (key,) = bucket.publish("team", conda_package())
        bucket.storage.clock_ms += 5000
        bucket.publish("team", conda_package(depends=["other"]))
        bucket.storage.clock_ms += 5000
        run("yank", "team", "foo", "--reason", "it burns")
        bucket.settle("team/noarch/patch_instructions.json")
        assert run("yank", "--wait", "team", "foo", "--reason", "it burns").code == 0
        assert run("status", "--json", key).document["state"] == "rejected"

    def test_yank__keeps_the_reason(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        run("yank", "team/noarch", "foo-1.0-0.conda", "--reason", "it burns")
        document = json.loads(bucket.storage.body("team/noarch/patch_instructions.json"))
        note = document["fairway"]["yanked"]["foo-1.0-0.conda"]
        assert note["reason"] == "it burns"
        assert note["by"].endswith("/ada")

    def test_yank__keeps_other_instructions(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package(), conda_package(name="bar"))
        instructions = {"patch_instructions_version": 1, "packages.conda": {"bar-1.0-0.conda": {"depends": ["x"]}}}
        bucket.storage.upload("team/noarch/patch_instructions.json", json.dumps(instructions).encode())
        run("yank", "team", "foo", "--reason", "it burns")
        bucket.settle("team/noarch/patch_instructions.json")
        repodata = json.loads(bucket.storage.body("team/noarch/repodata.json"))
        assert repodata["packages.conda"]["bar-1.0-0.conda"]["depends"] == ["x"]
        assert "foo-1.0-0.conda" not in repodata["packages.conda"]

    def test_yank__nothing_matches(self, bucket: Bucket, run: Run) -> None:
        bucket.publish("team", conda_package())
        result = run("yank", "team", "bar", "--reason", "it burns")
        assert result.code == 2
        assert "no artifact in team matches 'bar'" in result.err

    def test_unyank__leaves_what_others_removed(self) -> None:
        theirs = {"remove": ["a-1-0.conda"]}
        ours = add_yanked(theirs, ["b-1-0.conda"], {"reason": "x"})
        assert ours["remove"] == ["a-1-0.conda", "b-1-0.conda"]
        assert list(yanked_notes(ours)) == ["b-1-0.conda"]
        assert remove_yanked(ours, ["b-1-0.conda"])["remove"] == ["a-1-0.conda"]

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
    def test_parse_spec__matches(self, spec: str, matching: set[str]) -> None:
        filenames = ["foo-1.0-0.conda", "foo-2.0-py_1.tar.bz2", "bar-1.0-0.conda", "odd.conda"]
        matches = parse_spec(spec)
        assert {filename for filename in filenames if matches(filename)} - {"odd.conda"} == matching


class TestIndex:
    def test_index__equals_the_bucket_byte_for_byte(self, bucket: Bucket, run: Run, tmp_path: Path) -> None:
        directory = tmp_path / "team"
        packages = {
            "noarch": [
                conda_package(run_exports=["foo"]),
                tar_bz2_package(),
                conda_package(name="bär".replace("ä", "a")),
            ],
            "linux-64": [
                conda_package(subdir="linux-64", about={"summary": "ü <b>"}),
                tar_bz2_package(name="z", subdir="linux-64"),
            ],
        }
        bucket.storage.clock_ms = MTIME * 1000
        for subdir, several in packages.items():
            (directory / subdir).mkdir(parents=True)
            bucket.publish("team", *several, subdir=subdir)
            for filename, body in several:
                file = directory / subdir / filename
                file.write_bytes(body)
                os.utime(file, (MTIME, MTIME))
        result = run("index", "--json", str(directory))
        assert (result.code, result.document["indexed"]) == (0, 5), result.out
        ours = {
            f"team/{file.relative_to(directory)}": file.read_bytes()
            for file in directory.rglob("*")
            if file.is_file() and ".fairway" not in file.parts
        }
        assert ours == bucket.storage.snapshot()
        again = run("index", "--json", str(directory))
        assert again.document["indexed"] == 0

    def test_index__several_channels(self, run: Run, tmp_path: Path) -> None:
        for channel in ("one", "two"):
            (tmp_path / channel / "noarch").mkdir(parents=True)
            filename, body = conda_package(name=channel)
            (tmp_path / channel / "noarch" / filename).write_bytes(body)
        assert run("index", "--json", str(tmp_path)).document["indexed"] == 2
        for channel in ("one", "two"):
            assert channel in (tmp_path / channel / "noarch/repodata.json").read_text()

    def test_index__sets_bad_artifacts_aside(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "team/noarch").mkdir(parents=True)
        (tmp_path / "team/noarch/broken-1.0-0.conda").write_bytes(b"broken")
        filename, body = conda_package()
        (tmp_path / "team/noarch" / filename).write_bytes(body)
        result = run("index", "--json", str(tmp_path / "team"))
        assert (result.code, result.document["indexed"], result.document["rejected"]) == (0, 1, 1)
        assert not (tmp_path / "team/noarch/broken-1.0-0.conda").exists()
        assert list((tmp_path / "team/.fairway/rejected").rglob("reason.json"))

    @pytest.mark.parametrize("more", [[], ["--rebuild"]], ids=["", "rebuild"])
    def test_index__filename_that_is_not_utf_8(self, run: Run, tmp_path: Path, more: list[str]) -> None:
        folder = tmp_path / "team/noarch"
        folder.mkdir(parents=True)
        filename, body = conda_package()
        (folder / filename).write_bytes(body)
        odd = os.fsdecode(b"bad\xff-1.0-0.conda")
        for name in (odd, f"{odd}.sigs", "Upper-1.0-0.conda"):
            (folder / name).write_bytes(b"anything")
        shutil.copytree(tmp_path / "team", tmp_path / "again/team")
        document = run("index", "--json", str(tmp_path / "team"), *more).document
        assert (document["indexed"], document["rejected"], document["failures"]) == (1, 3, {})
        assert odd in {one["key"].rpartition("/")[2] for one in document["rejections"]}
        assert filename in (folder / "repodata.json").read_text()
        assert not (folder / odd).exists()
        assert list((tmp_path / "team/.fairway/rejected/team/noarch" / odd).rglob("object"))
        assert run("index", "--json", str(tmp_path / "team"), *more).document["rejected"] == 0
        result = run("index", str(tmp_path / "again/team"), *more)
        assert result.code == 0
        assert "rejected team/noarch/bad\\udcff-1.0-0.conda: " in result.out

    def test_index__folders_of_a_directory_are_their_owners(self, run: Run, tmp_path: Path) -> None:
        files = [tmp_path / "team" / name for name in ("noarch/old/foo-1.0-0.conda", "x/foo-1.0-0.conda")]
        for file in files:
            file.parent.mkdir(parents=True)
            file.write_bytes(b"anything")
        assert run("index", "--json", str(tmp_path / "team")).document["rejected"] == 0
        assert all(file.exists() for file in files)

    def test_index__replaced_file_is_read_again(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "team/noarch/foo-1.0-0.conda"
        file.parent.mkdir(parents=True)
        file.write_bytes(conda_package()[1])
        run("index", str(tmp_path / "team"))
        file.write_bytes(conda_package(depends=["other"])[1])
        os.utime(file, (MTIME, MTIME))
        assert run("index", "--json", str(tmp_path / "team")).document["indexed"] == 1
        repodata = json.loads((file.parent / "repodata.json").read_text())
        assert repodata["packages.conda"]["foo-1.0-0.conda"]["depends"] == ["other"]

    def test_index__empty_directory_is_no_channel(self, run: Run, tmp_path: Path) -> None:
        assert detect_channel(tmp_path) is None
        assert run("index", str(tmp_path / "missing")).code == 2

    def test_index__name_that_is_none(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "My Channel/noarch").mkdir(parents=True)
        result = run("index", str(tmp_path / "My Channel"))
        assert result.code == 2
        assert "--channel NAME" in result.err
        assert run("index", "--channel", "mine", str(tmp_path / "My Channel")).code == 0

    def test_index__optional_outputs(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "team/noarch").mkdir(parents=True)
        filename, body = conda_package()
        (tmp_path / "team/noarch" / filename).write_bytes(body)
        run("index", "--current-repodata", "--bz2", str(tmp_path / "team"))
        written = {file.name for file in (tmp_path / "team/noarch").iterdir()}
        assert {"current_repodata.json", "current_repodata.json.bz2", "repodata.json.bz2"} <= written


class TestPublish:
    def test_publish__dry_run_shows_the_record(self, run: Run, tmp_path: Path) -> None:
        filename, body = conda_package(depends=["bar"])
        (tmp_path / filename).write_bytes(body)
        result = run("publish", "--dry-run", "--json", str(tmp_path / filename), "team")
        assert result.code == 0
        assert result.document["key"] == f"team/noarch/{filename}"
        assert result.document["record"]["depends"] == ["bar"]
        assert '"depends": [\n    "bar"\n  ]' in run("publish", "--dry-run", str(tmp_path / filename), "team").out

    def test_publish__bad_file_stops_all(self, run: Run, tmp_path: Path) -> None:
        filename, body = conda_package()
        (tmp_path / filename).write_bytes(body)
        (tmp_path / "broken-1.0-0.conda").write_bytes(body[:100])
        result = run("publish", str(tmp_path / filename), str(tmp_path / "broken-1.0-0.conda"), "team")
        assert result.code == 1
        assert "broken-1.0-0.conda" in result.out

    def test_publish__json_of_what_is_refused_has_the_hint(self, run: Run, tmp_path: Path) -> None:
        files = {"broken-1.0-0.conda": b"no archive", "Upper-1.0-0.conda": conda_package()[1], "notes.txt": b""}
        for name, body in files.items():
            (tmp_path / name).write_bytes(body)
        result = run("publish", "--json", *(str(tmp_path / name) for name in files), "team")
        assert result.code == 1
        refused = {Path(one["file"]).name: one for one in result.document["rejected"]}
        assert refused.keys() == files.keys()
        assert all(one["hint"] for one in refused.values())
        assert refused["broken-1.0-0.conda"]["code"] == "archive-wrong-format"
        assert {refused[name]["code"] for name in ("Upper-1.0-0.conda", "notes.txt")} == {"invalid-name"}

    def test_publish__what_cannot_be_converted_is_no_wrong_usage(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "broken-1.0-0.tar.bz2").write_bytes(b"no archive")
        result = run("publish", "--as-conda", str(tmp_path / "broken-1.0-0.tar.bz2"), "team")
        assert result.code == 1
        assert result.err.splitlines()[-1].startswith("hint: ")

    def test_publish__wait(self, bucket: Bucket, run: Run, tmp_path: Path) -> None:
        filename, body = conda_package(depends=["bar"])
        (tmp_path / filename).write_bytes(body)
        for _ in range(2):  # the second time it is there already
            result = run("publish", "--wait", "--json", str(tmp_path / filename), "team")
            assert (result.code, result.document["state"]) == (0, "indexed"), result.out
            assert result.document["record"]["depends"] == ["bar"]

    def test_publish__wait_for_the_first_bytes_after_others_were_refused(
        self, bucket: Bucket, run: Run, tmp_path: Path
    ) -> None:
        filename, body = conda_package()
        (tmp_path / filename).write_bytes(body)
        (key,) = bucket.publish("team", (filename, body))
        bucket.storage.clock_ms += 5000
        bucket.publish("team", conda_package(depends=["other"]))
        assert run("status", "--json", key).document["state"] == "rejected"
        result = run("publish", "--wait", "--json", str(tmp_path / filename), "team")
        assert result.code == 0
        assert result.document["state"] == "indexed"
        assert result.document["record"]["sha256"] == hashlib.sha256(body).hexdigest()
        assert result.document["rejection"] is None

    def test_publish__refused_bytes_are_not_shown_the_record_of_others(
        self, bucket: Bucket, run: Run, tmp_path: Path
    ) -> None:
        bucket.publish("team", conda_package(depends=["published"]))
        bucket.storage.clock_ms += 5000
        filename, body = conda_package(depends=["other"])
        (tmp_path / filename).write_bytes(body)
        arguments = ["publish", "--wait", "--replace", str(tmp_path / filename), "team"]
        result = run(*arguments, "--json")
        assert (result.code, result.document["state"], result.document["record"]) == (1, "rejected", None)
        bucket.storage.clock_ms += 30 * DAY_MS
        said = run(*arguments)
        assert said.code == 1
        assert "filename-taken" in said.out
        assert '"depends"' not in said.out

    def test_publish__as_conda(self, run: Run, tmp_path: Path) -> None:
        filename, body = tar_bz2_package()
        (tmp_path / filename).write_bytes(body)
        result = run("publish", "--dry-run", "--json", "--as-conda", str(tmp_path / filename), "team")
        assert result.document["key"] == "team/noarch/foo-1.0-0.conda"

    def test_publish__not_a_channel(self, run: Run, tmp_path: Path) -> None:
        filename, body = conda_package()
        (tmp_path / filename).write_bytes(body)
        assert run("publish", "--dry-run", str(tmp_path / filename), "Team").code == 2
        (tmp_path / filename).write_bytes(body[:100])
        result = run("publish", str(tmp_path / filename), "Team")  # whatever the package is
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("error: invalid channel name 'Team'\nhint: ")

    @pytest.mark.parametrize("command", ["verify", "reconcile", "rebuild", "unyank"])
    def test_any__not_a_channel(self, bucket: Bucket, run: Run, command: str) -> None:
        more = ["foo"] if command == "unyank" else []
        assert run(command, "Team", *more).code == 2
        assert run(command, "team/Noarch", *more).code == 2


@pytest.mark.parametrize(
    "command",
    ["status", "rejected list", "rejected show", "rejected release", "verify", "reconcile", "rebuild", "yank", "unyank",
     "index", "publish"],
)  # fmt: skip
def test_help__has_examples(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.code == 0
    assert "Examples:" in result.out
    assert f"fairway {command}" in result.out


def test_policy__is_what_the_deployment_runs_under() -> None:
    from lambdas.indexer.policy import fetch_settings, publish_settings
    from lambdas.indexer.settings import parse_settings

    storage = MemoryStorage()
    environment = {
        "FAIRWAY_BUCKET": "bucket",
        "FAIRWAY_MUTABLE_CHANNELS": "dev-*, scratch",
        "FAIRWAY_OPTIONAL_OUTPUTS": "bz2",
        "FAIRWAY_CHANNEL_URL": "https://conda.example.com/",
        "FAIRWAY_SHARD_GRACE_DAYS": "3",
    }
    settings = parse_settings(environment)
    assert settings.policy.outputs == Outputs(bz2=True, url="https://conda.example.com")
    publish_settings(storage, settings)
    publish_settings(storage, settings)
    assert storage.requests["put"] == 1
    assert fetch_settings(storage, bucket="bucket") == settings


def _problems(result: Result) -> list[tuple[str, str]]:
    """The keys of what is wrong, and what is."""
    return sorted((one["key"], one["problem"]) for one in result.document["findings"] if not one["harmless"])


def _all(storage: MemoryStorage, prefix: str) -> list[str]:
    return [key for key in storage.list_keys() if key.startswith(prefix)]


def _first(storage: MemoryStorage, prefix: str) -> str:
    return _all(storage, prefix)[0]
