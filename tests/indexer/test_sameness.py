"""Whether an object under a published artifact's key has the same bytes: by version or SHA-256, never by ETag."""

import math
from dataclasses import replace

import pytest

from lambdas.channel.errors import DeadlineError
from lambdas.indexer.batch import index_batch
from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.quarantine import list_rejections
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
