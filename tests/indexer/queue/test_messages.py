"""From queue messages to the keys to inspect."""

import json
from typing import get_args
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.model import Mode, SubdirKeys
from lambdas.indexer.queue.messages import format_requeued, parse_message
from lambdas.indexer.queue.work import plan_work

PATCHES = "patch_instructions.json"
BUCKET = "fairway-test"
NOARCH, LINUX = parse_subdir_id("team/noarch"), parse_subdir_id("team/linux-64")


def artifacts(subdir: SubdirId, *filenames: str) -> frozenset[ArtifactKey]:
    return frozenset(parse_artifact_key(f"{subdir}/{filename}") for filename in filenames)


def notification(*keys: str, bucket: str = BUCKET, event: str = "ObjectCreated:Put") -> str:
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": event,
            "s3": {
                "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
                "object": {"key": quote_plus(key), "sequencer": "0055AED6DCD90281E5"},
            },
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


# Messages


def test_parse_message__keys_of_all_records() -> None:
    assert parse_message(notification("a/noarch/x", "b/noarch/y"), bucket=BUCKET).keys == ("a/noarch/x", "b/noarch/y")


@pytest.mark.parametrize(
    "event", ["ObjectCreated:Put", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"]
)
def test_parse_message__every_kind_of_event(event: str) -> None:
    assert parse_message(notification("a/noarch/x", event=event), bucket=BUCKET).keys == ("a/noarch/x",)


@pytest.mark.parametrize("key", ["plus+minus", "with space", "per%cent", "ünï", "日本", "a!b", "%2B", "a&b=c"])
def test_parse_message__keys_are_form_encoded(key: str) -> None:
    assert parse_message(notification(key), bucket=BUCKET).keys == (key,)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_parse_message__any_key_round_trips(key: str) -> None:
    assert parse_message(notification(key), bucket=BUCKET).keys == (key,)


@pytest.mark.parametrize(
    ("identity", "principal"),
    [
        ({"principalId": "AWS:AROAX:ci"}, "AWS:AROAX:ci"),
        ({"principalId": ""}, None),
        ({"principalId": "EXAMPLE"}, None),
        ({"principalId": 1}, None),
        ({}, None),
        (None, None),
        ("AWS:AROAX", None),
    ],
)
def test_parse_message__principal(identity: object, principal: str | None) -> None:
    document = json.loads(notification("a/noarch/x"))
    document["Records"][0]["userIdentity"] = identity
    (event,) = parse_message(json.dumps(document), bucket=BUCKET).events
    assert event.principal == principal


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("ObjectCreated:Put", "created"),
        ("ObjectCreated:CompleteMultipartUpload", "created"),
        ("ObjectRemoved:DeleteMarkerCreated", "removed"),
        ("ObjectRemoved:Delete", "removed"),
        ("LifecycleExpiration:Delete", None),
        ("", None),
    ],
)
def test_parse_message__action(name: str, action: str | None) -> None:
    (event,) = parse_message(notification("a/noarch/x", event=name), bucket=BUCKET).events
    assert (event.action, event.sequencer) == (action, "0055AED6DCD90281E5")


def test_parse_message__plus_is_a_space() -> None:
    body = notification("x").replace('"key": "x"', '"key": "a+b%2Bc"')
    assert parse_message(body, bucket=BUCKET).keys == ("a b+c",)


def test_parse_message__test_event() -> None:
    body = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET, "RequestId": "x"})
    assert parse_message(body, bucket=BUCKET).keys == ()


def test_parse_message__no_records() -> None:
    assert parse_message('{"Records": []}', bucket=BUCKET).keys == ()


def test_parse_message__another_bucket() -> None:
    with pytest.raises(InvalidDocumentError, match="another bucket"):
        parse_message(notification("a/noarch/x", bucket="other"), bucket=BUCKET)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "null",
        "[]",
        "1",
        '"text"',
        "{}",
        '{"Records": null}',
        '{"Records": {}, "x": 1}{',
        '{"Records": [1]}',
        '{"Records": [{}]}',
        '{"Records": [{"s3": {"bucket": {"name": "fairway-test"}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": "fairway-test"}, "object": {"key": 1}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": "fairway-test"}, "object": {"key": null}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": "fairway-test"}, "object": {"key": "%ff"}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": 1}, "object": {"key": "x"}}}]}',
        "[" * 100_000,
    ],
)
def test_parse_message__malformed(body: str) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_message(body, bucket=BUCKET)


@pytest.mark.parametrize("path", [NOARCH, parse_subdir_id("a.b_c/linux-64")])
def test_parse_message__requeued_subdir(path: SubdirId) -> None:
    (key,) = parse_message(format_requeued([f"{path}/"]), bucket=BUCKET).keys
    assert plan_work([key]).subdirs == {path: SubdirKeys(deferred=True)}


@given(st.lists(st.text(max_size=1024)))
def test_parse_message__requeued_keys(keys: list[str]) -> None:
    assert parse_message(format_requeued(keys), bucket=BUCKET).keys == tuple(keys)


@pytest.mark.parametrize("keys", [None, 1, [1], [None], [["a/noarch/"]]])
def test_parse_message__malformed_requeued_keys(keys: object) -> None:
    body = json.dumps(json.loads(format_requeued([])) | {"Keys": keys})
    with pytest.raises(InvalidDocumentError):
        parse_message(body, bucket=BUCKET)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_parse_message__mode(mode: Mode) -> None:
    assert parse_message(format_requeued(["a"], mode), bucket=BUCKET).mode == mode


def test_parse_message__notifications_are_read_together() -> None:
    assert parse_message(notification("a/noarch/x"), bucket=BUCKET).mode == "together"


@pytest.mark.parametrize("mode", [None, "", "slow", ["alone"], 1])
def test_parse_message__unknown_mode(mode: object) -> None:
    body = json.dumps(json.loads(format_requeued([])) | {"Mode": mode})
    with pytest.raises(InvalidDocumentError):
        parse_message(body, bucket=BUCKET)


# Plans


def test_plan_work__groups_by_subdir() -> None:
    work = plan_work(
        [
            "team/noarch/a-1-0.conda",
            "team/linux-64/b-1-0.tar.bz2",
            "team/noarch/c-1-0.tar.bz2",
            "team/noarch/a-1-0.conda.sigs",
            "team/linux-64/patch_instructions.json",
        ]
    )
    assert work.invalid_keys == {}
    assert work.subdirs == {
        NOARCH: SubdirKeys(
            artifacts=artifacts(NOARCH, "a-1-0.conda", "c-1-0.tar.bz2"),
            attestations=artifacts(NOARCH, "a-1-0.conda"),
            patches=False,
        ),
        LINUX: SubdirKeys(artifacts=artifacts(LINUX, "b-1-0.tar.bz2"), patches=True),
    }


@given(
    st.lists(
        st.sampled_from(
            ["team/noarch/a-1-0.conda", "team/noarch/a-1-0.conda.sigs", "x/noarch/b-1-0.conda", "bad.conda", "x/y"]
        )
    ),
    st.randoms(use_true_random=False),
)
def test_plan_work__order_and_duplicates_do_not_matter(keys: list[str], random: st.DataObject) -> None:
    plan = plan_work(keys)
    shuffled = [*keys, *keys[:2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # it is a Random
    again = plan_work(shuffled)
    assert (again.subdirs, dict(again.invalid_keys).keys()) == (plan.subdirs, dict(plan.invalid_keys).keys())
    assert list(again.subdirs) == list(plan.subdirs)


@pytest.mark.parametrize(
    "key",
    [
        "a-1-0.conda",
        "team/a-1-0.conda",
        "team/noarch/deep/a-1-0.conda",
        "/noarch/a-1-0.conda",
        "team//a-1-0.conda",
        "team/noarch//a-1-0.conda",
        "TEAM/noarch/a-1-0.conda",
        "t/noarch/a-1-0.conda",
        "label/noarch/a-1-0.conda",
        "noarch/noarch/a-1-0.conda",
        "team/NOARCH/a-1-0.conda",
        "team/linux/a-1-0.conda",
        "team/noarch/a.conda",
        "team/noarch/A-1-0.conda",
        "team/noarch/__glibc-1-0.conda",
        "team/noarch/.conda",
        "team/noarch/a-1-0 (1).conda",
        "team/../noarch/a-1-0.conda",
        "team/noarch/../a-1-0.conda",
        "team/noarch/a-1-0.conda/.conda",
        "patch_instructions.json",
        "team/patch_instructions.json",
        "team/noarch/x/patch_instructions.json",
        "bad.conda.sigs",
        "fairway/cards/team/noarch/x-1-0.conda",
        "team/noarch/a-1-0.conda\n",
        "team/noarch\n/a-1-0.conda",
        "team/noarch/a-1-0\n.conda",
        "team/noarch/é-1-0.conda",
        f"team/noarch/{'a' * 65}-1-0.conda",
        f"{'a' * 129}/noarch/a-1-0.conda",
    ],
)
def test_plan_work__invalid_keys(key: str) -> None:
    work = plan_work([key, "team/noarch/good-1-0.conda"])
    assert set(work.invalid_keys) <= {key}
    assert work.subdirs == {NOARCH: SubdirKeys(artifacts=artifacts(NOARCH, "good-1-0.conda"))}
    assert bool(work.invalid_keys) is not key.endswith("\n"), "a key without an artifact's suffix is irrelevant"


@pytest.mark.parametrize(
    "key",
    [
        ".fairway/rejected/team/noarch/a-1-0.conda/0/object",
        ".fairway/rejected/a-1-0.conda",
        ".fairway/cards/team/noarch/patch_instructions.json",
        "team/noarch/repodata.json",
        "team/noarch/shards/00.msgpack.zst",
        "team/noarch/a-1-0.conda.sigs.0a0b",
        "team/notices.json",
        "",
        "/",
    ],
)
def test_plan_work__irrelevant_keys(key: str) -> None:
    work = plan_work([key])
    assert (work.subdirs, work.invalid_keys) == ({}, {})


@given(st.text(max_size=40) | st.text("abt./-_0", max_size=30).map(lambda text: f"{text}.conda"))
def test_plan_work__any_key_is_in_one_group(key: str) -> None:
    work = plan_work([key])
    assert len(work.subdirs) + len(work.invalid_keys) <= 1


def test_plan_work__requeued_subdir_and_its_keys() -> None:
    work = plan_work(["team/noarch/", "team/noarch/a-1-0.conda"])
    assert work.subdirs == {NOARCH: SubdirKeys(artifacts=artifacts(NOARCH, "a-1-0.conda"), deferred=True)}


@pytest.mark.parametrize("key", ["team/", "Team Files/", "team/noarch/deeper/", "//"])
def test_plan_work__folder_is_not_a_subdir(key: str) -> None:
    """Consoles create folders as empty objects: nothing is rejected."""
    work = plan_work([key])
    assert (work.subdirs, work.invalid_keys) == ({}, {})


def test_plan_work__keys_of_each_kind() -> None:
    keys = [f"team/noarch/{name}" for name in ("a-1-0.conda", "b-1-0.tar.bz2", "a-1-0.conda.sigs", "", PATCHES)]
    ((subdir, found),) = plan_work(keys).subdirs.items()
    assert subdir == NOARCH
    assert sorted(found.list_keys(subdir)) == sorted(keys)
