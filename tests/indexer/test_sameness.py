"""Whether an object under a published artifact's key has the same bytes: by version or SHA-256, never by ETag."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from lambdas.channel.errors import DeadlineError, RejectedError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.model import Report, SubdirKeys
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.queue.index_keys import index_batch
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.subdir import Subdir, open_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from tests.indexer.world import NOARCH, World, package

FOO = f"{NOARCH}/foo-1.0-0.conda"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def subdir(world: World) -> Subdir:
    return open_subdir(world.storage, NOARCH)


def upload_twin(world: World) -> None:
    """Upload other bytes with the size and MD5 of the first ones, at the same time."""
    first = world.storage.head(FOO)
    assert first is not None
    info = world.storage.upload(FOO, package(depends=["evil"])[1], last_modified_ms=first.last_modified_ms)
    versions = world.storage.versions[FOO]
    versions[-1] = replace(versions[-1], info=replace(info, etag=first.etag, md5=first.md5, size=first.size))


def list_codes(world: World) -> list[str]:
    return [rejection.code for rejection in list_rejections(world.storage)]


@pytest.mark.parametrize("has_version", [True, False])
def test_reconcile__attack_same_md5_without_an_event(
    world: World, subdir: Subdir, monkeypatch: pytest.MonkeyPatch, *, has_version: bool
) -> None:
    """Only the version tells. Cards of 0.1.0 have none: they were made of the oldest version with their ETag."""
    with monkeypatch.context() as patched:
        if not has_version:
            patched.setattr("lambdas.indexer.change.decide.Card", lambda **fields: Card(**{**fields, "version": None}))
        world.publish(NOARCH, package())
    assert not list_differences(subdir, subdir.fetch_commit()).artifacts
    upload_twin(world)
    (report,) = reconcile(subdir, world.indexer())
    assert report.failures == {}
    assert list_codes(world) == ["filename-taken"]
    assert world.storage.body(FOO) == package()[1]


def test_reconcile__same_bytes_again_are_hashed_once(world: World, subdir: Subdir) -> None:
    world.publish(NOARCH, package())
    before = world.storage.snapshot()
    world.upload(NOARCH, package())
    for expected in (1, 0, 0):
        world.storage.log.clear()
        (report,) = reconcile(subdir, world.indexer())
        assert [outcome.status for outcome in report.outcomes if outcome.key == FOO] == ["unchanged"] * expected
        world.index(FOO)
        assert world.storage.log.count(("get", FOO)) == expected
    assert world.storage.snapshot() == before


def test_index__unknown_version_with_a_known_etag_waits_to_be_hashed(world: World) -> None:
    """The record stays meanwhile, and the queue sends the key again."""
    world.publish(NOARCH, package())
    before = world.storage.snapshot()
    upload_twin(world)
    waiting = world.storage.snapshot()
    report = index_batch(world.indexer(), [FOO], rules=ReadingRules(deadline=-math.inf))
    assert isinstance(report.failures[FOO], DeadlineError)
    assert world.storage.snapshot() == waiting
    world.index(FOO)
    assert list_codes(world) == ["filename-taken"]
    assert world.storage.snapshot() == before


def lose_everything_but_artifacts(world: World) -> None:
    for key in list(world.storage.versions):
        if not key.endswith(".conda"):
            del world.storage.versions[key]


def upload_others(world: World) -> None:
    for number in range(2):
        world.upload(NOARCH, package(depends=[f"evil{number}"]))


def rebuild_all(world: World, *keys: ArtifactKey) -> Report:
    artifacts = frozenset({parse_artifact_key(FOO)})
    return world.indexer().rebuild(NOARCH, SubdirKeys(artifacts=artifacts), replaceable=frozenset(keys))


def test_rebuild__attack_other_bytes_after_the_index_was_lost(world: World) -> None:
    """Only the versions of the artifact tell its first bytes."""
    world.publish(NOARCH, package())
    record = world.record(NOARCH, "foo-1.0-0.conda")
    lose_everything_but_artifacts(world)
    upload_others(world)
    assert rebuild_all(world).failures == {}
    assert list_codes(world) == ["filename-taken", "filename-taken"]
    assert world.storage.body(FOO) == package()[1]
    assert world.record(NOARCH, "foo-1.0-0.conda") == record


def test_heal__attack_other_bytes_after_the_index_was_lost(world: World, subdir: Subdir) -> None:
    world.publish(NOARCH, package())
    lose_everything_but_artifacts(world)
    upload_others(world)
    world.storage.upload(subdir.layout.shard_index, b"of another tool")
    world.index(FOO)
    assert list_codes(world) == ["filename-taken", "filename-taken"]
    assert world.storage.body(FOO) == package()[1]
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_rebuild__accepts_other_bytes_after_the_index_was_lost(world: World) -> None:
    world.publish(NOARCH, package())
    lose_everything_but_artifacts(world)
    upload_others(world)
    assert rebuild_all(world, parse_artifact_key(FOO)).failures == {}
    assert list_codes(world) == []
    assert world.record(NOARCH, "foo-1.0-0.conda")["depends"] == ["evil1"]


@pytest.mark.parametrize("first", [b"no archive", None, b"archived"])
def test_rebuild__first_version_that_was_no_artifact(world: World, first: bytes | None) -> None:
    """Bytes that can't be an artifact, or were deleted, hold no name."""
    if first == b"archived":
        world.storage.upload(FOO, package()[1], storage_class="GLACIER")
    else:
        world.storage.upload(FOO, first or package()[1])
        if first is None:
            world.storage.remove(FOO)
    second = package(depends=["bar"])
    world.upload(NOARCH, second)
    assert rebuild_all(world).failures == {}
    assert list_codes(world) == []
    assert world.storage.body(FOO) == second[1]
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_reconcile__attestations_hidden_by_a_version_that_brings_nothing(world: World, subdir: Subdir) -> None:
    """All events were lost, and the newest version equals what was accepted."""
    world.publish(NOARCH, package())
    sigs = f"{FOO}.sigs"
    world.storage.upload(sigs, b'[{"a": 1}]')
    world.index(sigs)
    world.storage.upload(sigs, b'[{"b": 2}]')
    world.storage.upload(sigs, b'[{"a": 1}]')
    (report,) = reconcile(subdir, world.indexer())
    assert report.failures == {}
    assert json.loads(world.storage.body(sigs)) == [{"a": 1}, {"b": 2}]
    assert not list_differences(subdir, subdir.fetch_commit()).attestations


def test_reconcile__copy_of_attestations_that_was_corrected_meanwhile(world: World, subdir: Subdir) -> None:
    """It was read while it was wrong: by now it is what its name says."""
    world.publish(NOARCH, package())
    body = b'[{"a": 1}]'
    copy = f"{FOO}.sigs.{hashlib.sha256(body).hexdigest()}"
    wrong = world.storage.upload(copy, b"[]")
    indexer = world.indexer()
    real = indexer.reject

    def reject(keys: Mapping[str, RejectedError], **etags: Mapping[str, str]) -> Report:
        if copy in keys:
            world.storage.delete(wrong)
            world.storage.upload(copy, body)
        return real(keys, **etags)

    indexer.reject = reject  # type: ignore[method-assign, assignment]
    for report in reconcile(subdir, indexer):
        assert not report.failures
    assert list_codes(world) == []
    assert world.storage.body(copy) == body
