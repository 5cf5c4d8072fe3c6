"""An operator's limit on the size of ``repodata.json``: warned of first, removed, and not written again at once."""

from dataclasses import replace

import pytest

from lambdas.indexer.model import Outputs, Policy, SubdirKeys
from lambdas.indexer.outputs.registry import headers_of
from lambdas.indexer.outputs.size_limit import PLAIN_SIZE, SizeLimit
from lambdas.indexer.tree.encoding import decompress
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.findings import Depth, Finding, Problem
from lambdas.indexer.upkeep.verify import ChannelView, verify_subdir
from lambdas.storage.protocol import ObjectInfo
from tests.indexer.spliced.test_large_documents import fill
from tests.indexer.world import NOARCH, POLICY, SMALL, World, package

PLAIN = f"{NOARCH}/repodata.json"
COMPRESSED = f"{PLAIN}.zst"


@pytest.fixture
def world() -> World:
    """30 packages, whose repodata.json is kept in segments; nothing is deferred."""
    world = World(limits=SMALL)
    fill(world, 30)
    return world


def set_limit(world: World, max_bytes: int) -> None:
    world.policy = replace(POLICY, outputs=replace(POLICY.outputs, max_repodata_bytes=max_bytes))


def plain_size(world: World) -> int:
    return len(decompress(world.storage.body(COMPRESSED), what=COMPRESSED))


def exists(world: World) -> bool:
    return world.storage.head(PLAIN) is not None


def reconcile(world: World) -> None:
    """Do what the daily reconciliation does after its listing."""
    world.indexer().index(NOARCH, SubdirKeys(patches=True, deferred=True))


def list_findings(world: World) -> list[Finding]:
    depth = Depth(now_ms=world.storage.clock_ms, grace_ms=10**12)
    view = ChannelView(outputs=world.policy.outputs, limits=world.limits)
    return [one for one in verify_subdir(open_subdir(world.storage, NOARCH), depth, view) if not one.is_harmless]


def test_verify__near_the_limit(world: World) -> None:
    set_limit(world, plain_size(world) + 1)

    (finding,) = list_findings(world)

    assert (finding.problem, finding.key) == (Problem.OUTPUT_TOO_LARGE, PLAIN)
    assert "removed once it exceeds that" in finding.message
    reconcile(world)
    assert exists(world)


def test_verify__far_below_the_limit(world: World) -> None:
    set_limit(world, 2 * plain_size(world))

    assert list_findings(world) == []


def test_index__publish_above_the_limit_keeps_the_file_and_verify_warns(world: World) -> None:
    set_limit(world, plain_size(world) - 1)

    world.publish(NOARCH, package("another"))

    assert "another-1.0-0.conda" in world.listed(NOARCH)
    (finding,) = list_findings(world)
    assert finding.problem is Problem.OUTPUT_TOO_LARGE
    assert "removed by the reconciliation after a publish" in finding.message


def test_index__reconciliation_removes_the_file_and_its_zst_stays(world: World) -> None:
    set_limit(world, plain_size(world) - 1)
    reconcile(world)
    assert exists(world)  # no publish has stored the size
    world.publish(NOARCH, package("one"))

    reconcile(world)

    assert not exists(world)
    assert list_findings(world) == []
    world.publish(NOARCH, package("another"))
    assert not exists(world)
    assert b"another-1.0-0.conda" in decompress(world.storage.body(COMPRESSED), what=COMPRESSED)
    assert list_findings(world) == []


def test_index__other_outputs_stay_deferred_without_the_file(world: World) -> None:
    set_limit(world, plain_size(world) - 1)
    world.publish(NOARCH, package("one"))
    reconcile(world)
    world.defers = True

    world.publish(NOARCH, package("another"))

    assert world.requeued == [NOARCH]


def test_index__removed_file_comes_back_below_four_fifths_of_the_limit(world: World) -> None:
    limit = plain_size(world) - 1
    set_limit(world, limit)
    world.publish(NOARCH, package("another"))
    reconcile(world)
    assert not exists(world)
    sizes = []

    for number in range(25):
        key = f"{NOARCH}/pkg{number:04}-1.0-0.conda"
        world.storage.remove(key)
        before = plain_size(world)
        world.index(key)
        sizes.append((before, exists(world)))
        if exists(world):
            break

    # The size that decides is the one that readers see before the run.
    assert [is_there for size, is_there in sizes if size > limit * 4 // 5] == [False] * (len(sizes) - 1)
    assert sizes[-1][1]
    assert sizes[-1][0] <= limit * 4 // 5
    assert list_findings(world) == []


def test_index__zst_without_a_known_size_removes_nothing(world: World) -> None:
    set_limit(world, 1)
    info = world.storage.head(PLAIN)
    assert info is not None
    world.storage.remove(PLAIN)

    reconcile(world)

    assert exists(world)


def test_verify__zst_of_a_removed_file_is_wrong(world: World) -> None:
    set_limit(world, plain_size(world) - 1)
    world.publish(NOARCH, package("another"))
    reconcile(world)
    stale = world.storage.body(COMPRESSED)
    world.publish(NOARCH, package("one-more"))
    info = world.storage.head(COMPRESSED)
    assert info is not None
    world.storage.put(COMPRESSED, stale, headers=headers_of("repodata.json.zst"), metadata=info.metadata)

    assert Problem.OUTPUT_WRONG in {finding.problem for finding in list_findings(world)}


@pytest.mark.parametrize(
    ("metadata", "is_kept_away"),
    [({PLAIN_SIZE: "81"}, True), ({PLAIN_SIZE: "80"}, False), ({PLAIN_SIZE: "-81"}, False), ({}, False)],
)
def test_keeps_away__by_the_size_in_the_metadata(metadata: dict[str, str], is_kept_away: bool) -> None:
    info = ObjectInfo(key=COMPRESSED, size=9, etag="e", last_modified_ms=0, metadata=metadata)

    assert SizeLimit(max_bytes=100).keeps_away(info) == is_kept_away


def test_keeps_away__missing_zst() -> None:
    assert not SizeLimit(max_bytes=100).keeps_away(None)


def test_index__without_a_limit_no_size_is_stored() -> None:
    world = World(limits=SMALL, policy=Policy(outputs=Outputs()))
    fill(world, 30)

    info = world.storage.head(COMPRESSED)

    assert info is not None
    assert PLAIN_SIZE not in info.metadata
