"""The indexer over an emulated S3: concurrent publishers produce the same index as a build from nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.reconcile import reconcile, reject_invalid_keys
from lambdas.storage.protocol import ContentHeaders
from lambdas.storage.s3 import S3Storage
from tests.contracts.conftest import make_s3_storage
from tests.indexer.world import (
    LINUX,
    NOARCH,
    PATCHES,
    POLICY,
    assert_same_as_from_nothing,
    check_encodings,
    check_readable,
    index_keys,
    package,
)
from tests.memory import MemoryStorage, RecordingNotifier

pytestmark = pytest.mark.emulator

PLAIN = ContentHeaders(content_type="application/octet-stream", cache_control="no-store")


@pytest.fixture
def storage(emulator_endpoint: str) -> S3Storage:
    return make_s3_storage(emulator_endpoint)


def publish(storage: S3Storage, uploads: dict[str, bytes]) -> RecordingNotifier:
    """Upload and index like one run of the function."""
    notifier = RecordingNotifier()
    for key, body in uploads.items():
        storage.put(key, body, headers=PLAIN)
    for report in index_keys(Indexer(storage, notifier, POLICY), uploads):
        assert not report.failures
    return notifier


def read(storage: S3Storage) -> MemoryStorage:
    """Return the contents of the bucket."""
    copy = MemoryStorage()
    for info in storage.list_objects(""):
        stored = storage.get(info.key)
        assert stored is not None
        copy.upload(info.key, stored.body, last_modified_ms=stored.info.last_modified_ms)
    return copy


def check(storage: S3Storage) -> None:
    copy = read(storage)
    check_readable(copy)
    check_encodings(copy)
    assert_same_as_from_nothing(copy)


def test_index__over_s3(storage: S3Storage) -> None:
    foo = f"{NOARCH}/foo-1.0-0.conda"
    publish(
        storage,
        {
            foo: package(run_exports=["foo"])[1],
            f"{NOARCH}/plus-1.0+cu118-0.conda": package("plus", "1.0+cu118")[1],
            f"{NOARCH}/epoch-1!2.0-0.conda": package("epoch", "1!2.0")[1],
            f"{LINUX}/foo-1.0-0.conda": package(path=LINUX)[1],
            f"{foo}.sigs": b"[{}]",
            f"{NOARCH}/{PATCHES}": b'{"packages.conda": {"foo-1.0-0.conda": {"license": "MIT"}}}',
        },
    )
    check(storage)


def test_index__over_s3_other_bytes_are_rejected(storage: S3Storage) -> None:
    key, first = f"{NOARCH}/foo-1.0-0.conda", package()[1]
    publish(storage, {key: first})
    notifier = publish(storage, {key: package(depends=["x"])[1], f"{NOARCH}/bad-1.0-0.conda": b"bad"})
    assert {rejection.code for rejection in notifier.rejections} >= {"filename-taken"}
    assert len(notifier.rejections) == 2
    copy = read(storage)
    assert copy.body(key) == first
    assert sorted(one.rpartition("/")[2] for one in copy.list_keys() if "/rejected/" in one) == [
        "object", "object", "reason.json", "reason.json",
    ]  # fmt: skip
    check(storage)


def test_index__over_s3_many_publishers(storage: S3Storage) -> None:
    batches = [
        {f"{NOARCH}/{name}": body for name, body in (package(f"p{number % 5}", f"{number}.{one}") for one in range(6))}
        for number in range(16)
    ]
    with ThreadPoolExecutor(8) as pool:
        notifiers = list(pool.map(lambda batch: publish(storage, batch), batches))
    assert not any(notifier.rejections for notifier in notifiers)
    check(storage)
    copy = read(storage)
    assert copy.body(f"{NOARCH}/repodata.json").count(b'"indexed_timestamp"') == 96


def test_reconcile__lost_events_over_s3(storage: S3Storage) -> None:
    """Only the listing shows changed attestations; files that can't be indexed are rejected, wherever they are."""
    signed, other = (f"{NOARCH}/{name}-1.0-0.conda" for name in ("same", "other"))
    uploads = {f"{NOARCH}/{filename}": body for filename, body in (package("same"), package("other"))}
    publish(storage, {**uploads, f"{signed}.sigs": b"[{}]", f"{other}.sigs": b"[{}]"})
    storage.put(f"{other}.sigs", b"[{} ]", headers=PLAIN)
    invalid_keys = ["top-1-0.conda", "team//a-1-0.conda", "team/x/y/z-1-0.conda", f"{NOARCH}/deep/Upper-1-0.CONDA"]
    for key in invalid_keys:
        storage.put(key, b"anything", headers=PLAIN)
    subdir = open_subdir(storage, NOARCH)
    differences = list_differences(subdir, subdir.fetch_commit())
    assert not differences.artifacts
    assert {key.filename for key in differences.attestations} == {"other-1.0-0.conda"}
    assert differences.nested_keys.keys() == {invalid_keys[3]}
    indexer = Indexer(storage, RecordingNotifier(), POLICY)
    reports = [*reconcile(subdir, indexer)]
    for place in (NOARCH.channel, None):
        reports += reject_invalid_keys(storage, indexer, place)
    rejected = {outcome.key for report in reports for outcome in report.outcomes if outcome.status == "rejected"}
    assert rejected == set(invalid_keys)
    assert {rejection.key for rejection in list_rejections(storage)} == set(invalid_keys)
    assert [storage.head(key) for key in invalid_keys] == [None] * len(invalid_keys)
    assert not list_differences(subdir, subdir.fetch_commit()).attestations


@pytest.mark.parametrize(
    "how", [{"StorageClass": "GLACIER"}, {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(32)}]
)
def test_index__attack_unreadable_upload_over_a_published_artifact(storage: S3Storage, how: dict[str, Any]) -> None:
    foo, bar = package(), package(name="bar")
    keys = [f"{NOARCH}/{filename}" for filename, _ in (foo, bar)]
    publish(storage, {keys[0]: foo[1]})
    for key, (_, body) in zip(keys, (foo, bar), strict=True):
        storage._client.put_object(Bucket=storage.bucket, Key=key, Body=body, **how)
    notifier = RecordingNotifier()
    (report,) = index_keys(Indexer(storage, notifier, POLICY), keys)
    assert not report.failures
    assert [rejection.code for rejection in notifier.rejections] == ["not-readable", "not-readable"]
    assert [one.is_deletion for one in storage.list_history(keys[0])] == [False]
    assert [one.is_deletion for one in storage.list_history(keys[1])] == [True, False]
    check(storage)
