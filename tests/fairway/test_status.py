"""``fairway status``: the state of uploads."""

import json
from dataclasses import replace

import pytest

from lambdas.channel.layout import parse_artifact_key
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.shards import Shard
from scripts.fairway.status import State, decide_status, fetch_status
from tests.builders import conda_package
from tests.fairway.buckets import DAY_MS, Bucket
from tests.fairway.conftest import Run


def test_status__indexed(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package(name="hello"))
    result = run_fairway("status", "--json", key)
    assert result.code == 0
    assert result.document["state"] == "indexed"
    assert result.document["record"]["name"] == "hello"


def test_status__s3_url(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    assert run_fairway("status", f"s3://bucket/{key}").code == 0
    assert run_fairway("status", f"s3://other/{key}").code == 2


def test_status__uploaded_and_not_yet_indexed(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.upload("team", conda_package())
    result = run_fairway("status", "--json", key)
    assert (result.code, result.document["state"]) == (1, "waiting")


def test_status__in_the_shards_but_not_in_repodata_json(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    flat = bucket.storage.versions["team/noarch/repodata.json"]
    flat[-1] = replace(flat[-1], info=replace(flat[-1].info, metadata={}))
    assert run_fairway("status", "--json", key).document["state"] == "waiting"


def test_status__large_subdir_with_deferred_repodata_json(bucket: Bucket, run_fairway: Run) -> None:
    """Clients read the compressed file."""
    (key,) = bucket.publish("team", conda_package())
    for name, metadata in (("repodata.json.zst", {"fairway-tables": "0"}), ("repodata.json", {})):
        versions = bucket.storage.versions[f"team/noarch/{name}"]
        shown = versions[-1].info.metadata if name.endswith(".zst") else {}
        versions[-1] = replace(versions[-1], info=replace(versions[-1].info, metadata={**shown, **metadata}))
    assert run_fairway("status", "--json", key).document["state"] == "indexed"


def test_status__rejected(bucket: Bucket, run_fairway: Run) -> None:
    key = "team/noarch/broken-1.0-0.conda"
    bucket.storage.upload(key, b"not an archive")
    bucket.index(key)
    result = run_fairway("status", key)
    assert result.code == 1
    assert "rejected" in result.out
    assert "hint" in result.out
    assert run_fairway("status", "--json", key).document["rejection"]["key"] == key


def test_status__rejected_overwrite_of_an_indexed_artifact(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.clock_ms += 5000
    bucket.upload("team", conda_package(depends=["other"]))
    bucket.index(key)
    result = run_fairway("status", "--json", key)
    assert result.document["state"] == "rejected"
    assert result.document["rejection"]["code"] == "filename-taken"
    assert result.document["record"]["depends"] == []


def test_status__older_rejected_overwrite_is_shown_beside_the_state(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.clock_ms += 5000
    bucket.upload("team", conda_package(depends=["other"]))
    bucket.index(key)
    bucket.storage.clock_ms += 3_599_000
    assert run_fairway("status", "--wait", "--timeout", "0", key).code == 1
    bucket.storage.clock_ms += 2000
    result = run_fairway("status", "--json", key)
    assert (result.code, result.document["state"]) == (0, "indexed")
    assert result.document["rejection"]["code"] == "filename-taken"
    shown = run_fairway("status", key).out
    assert "a later upload, 2026" in shown
    assert "was rejected: " in shown


def test_status__rejected_without_another_artifact(bucket: Bucket, run_fairway: Run) -> None:
    key = "team/noarch/broken-1.0-0.conda"
    bucket.storage.upload(key, b"not an archive")
    bucket.index(key)
    bucket.storage.clock_ms += 30 * DAY_MS
    assert run_fairway("status", "--json", key).document["state"] == "rejected"


def test_status__removed_and_unknown(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.publish("team", conda_package())
    bucket.storage.remove(key)
    assert run_fairway("status", "--json", key).document["state"] == "removed"
    assert run_fairway("status", "--json", "team/noarch/never-1.0-0.conda").document["state"] == "unknown"


def test_status__invalid_key(bucket: Bucket, run_fairway: Run) -> None:
    result = run_fairway("status", "hello-1.0-0.conda")
    assert result.code == 2
    assert result.err.startswith("error: key is not CHANNEL/SUBDIR/FILENAME")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("hello-1.0-0.conda", "invalid-key"),
        ("team/noarch/Upper-1.0-0.conda", "invalid-key"),
        ("team/deep/er/hello-1.0-0.conda", "invalid-key"),
        ("team/noarch/hello-1.0-0.conda.sigs", "attestations-not-json"),
        ("team/noarch/patch_instructions.json", "patches-not-json"),
    ],
)
def test_status__rejected_under_a_key_that_is_not_an_artifact_key(
    bucket: Bucket, run_fairway: Run, key: str, code: str
) -> None:
    (good,) = bucket.publish("team", conda_package(name="hello"))
    bucket.storage.upload(key, b"anything")
    if code == "invalid-key":
        assert run_fairway("status", "--json", key).document["state"] == "waiting"
    bucket.index(key)
    result = run_fairway("status", "--json", "--wait", good, key)
    assert result.code == 1
    states = [(one["key"], one["state"], (one["rejection"] or {}).get("code")) for one in result.document]
    assert states == [(good, "indexed", None), (key, "rejected", code)]


def test_status__invalid_key_among_valid_ones(bucket: Bucket, run_fairway: Run) -> None:
    (good,) = bucket.publish("team", conda_package(name="hello"))
    result = run_fairway("status", "--json", "hello-1.0-0.conda", good)
    assert result.code == 2
    assert [(one["key"], one["state"]) for one in result.document] == [(good, "indexed")]
    error = json.loads(result.err)["error"]
    assert error["message"].startswith("key is not CHANNEL/SUBDIR/FILENAME: 'hello-1.0-0.conda'")


def test_decide_status__yanked(bucket: Bucket) -> None:
    (key,) = bucket.publish("team", conda_package())
    info = bucket.storage.head(key)
    assert info is not None

    card = Card(record={"sha256": ""}, run_exports={}, facts={}, etag=info.etag)
    parsed = parse_artifact_key(key)
    assert decide_status(parsed, info, card, Shard(), None, is_flat=True).state == State.YANKED


def test_fetch_status__replaced_by_other_bytes(bucket: Bucket) -> None:
    (key,) = bucket.publish("team", conda_package())
    status = fetch_status(bucket.storage, parse_artifact_key(key), since_ms=0, sha256="0" * 64)
    assert (status.state, status.record) == (State.REPLACED, None)


def test_status__wait_times_out(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.upload("team", conda_package())
    assert run_fairway("status", "--wait", "--timeout", "0", key).code == 1


def test_status__upload_to_a_folder_without_its_slash(bucket: Bucket, run_fairway: Run) -> None:
    bucket.storage.upload("team/noarch", conda_package()[1])
    result = run_fairway("status", "team/noarch/foo-1.0-0.conda")
    assert result.code == 1
    assert "end the target of 'aws s3 cp' with a slash" in result.out
    assert run_fairway("status", "--json", "team/noarch").document["state"] == "waiting"
    assert run_fairway("reconcile", "team").code == 0
    result = run_fairway("status", "team/noarch")
    assert "invalid-key" in result.out
    assert "s3://BUCKET/team/noarch/" in result.out


def test_status__unreadable_upload_waits_until_it_is_rejected(bucket: Bucket, run_fairway: Run) -> None:
    key = "team/noarch/foo-1.0-0.conda"
    bucket.storage.upload(key, conda_package()[1], is_encrypted=True)
    waiting = run_fairway("status", "--json", key)
    assert (waiting.code, waiting.document["state"]) == (1, "waiting")
    assert waiting.document["hint"].endswith("; the indexer will reject it")
    bucket.index(key)
    rejected = run_fairway("status", "--json", key)
    assert (rejected.code, rejected.document["rejection"]["code"]) == (1, "not-readable")
