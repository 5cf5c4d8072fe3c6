"""A subdir with large flat files: in segments, they have the same contents as whole ones.

The sizes are scaled down, so that a handful of packages fills segments and parts.
"""

import contextlib
import json
import random
from dataclasses import replace

import pytest

from lambdas.channel.errors import UnavailableError
from lambdas.channel.layout import SHARD_INDEX
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.spliced import files
from lambdas.indexer.spliced.sizes import SIZES
from lambdas.indexer.tree.encoding import decompress
from tests.builders import tar_bz2_package
from tests.indexer.world import NOARCH, SMALL, World, build_from_nothing, package

FLAT = ("repodata.json", "run_exports.json")


def fill(world: World, count: int, *, start: int = 0) -> list[str]:
    keys = [
        world.upload(NOARCH, package(f"pkg{number:04}", run_exports={"weak": [f"pkg{number:04}"]}))
        for number in range(start, start + count)
    ]
    world.index(*keys)
    return keys


def is_large(world: World, name: str = "repodata.json") -> bool:
    info = world.storage.head(f"{NOARCH}/{name}")
    assert info is not None
    return files.TABLES in info.metadata


def check(world: World) -> None:
    """Compare with documents that are made at once, as a whole."""
    limits = replace(world.limits, sizes=SIZES)
    fresh = build_from_nothing(world.storage, world.policy, limits)
    commit = {info.metadata.get(COMMIT) for name in FLAT if (info := world.storage.head(f"{NOARCH}/{name}"))}
    assert len(commit) == 1
    for name in FLAT:
        plain = world.storage.body(f"{NOARCH}/{name}")
        assert decompress(world.storage.body(f"{NOARCH}/{name}.zst"), what=name) == plain
        assert json.loads(plain) == json.loads(fresh.body(f"{NOARCH}/{name}"))
    assert world.storage.body(f"{NOARCH}/index.html") == fresh.body(f"{NOARCH}/index.html")


def test_update__grows_large() -> None:
    world = World(limits=SMALL)
    fill(world, 3)
    assert not is_large(world)
    fill(world, 20, start=3)
    assert is_large(world)
    check(world)


def test_update__shrinks_again() -> None:
    world = World(limits=SMALL)
    keys = fill(world, 30)
    for key in keys[2:]:
        world.storage.remove(key)
    world.index(*keys)
    assert not is_large(world)
    check(world)


def test_update__one_publish_splices() -> None:
    world = World(limits=SMALL)
    fill(world, 60)
    before = len(world.storage.log)
    world.publish(NOARCH, package("pkg0030", "2.0"))
    log = world.storage.log[before:]
    assert [key for kind, key in log if kind == "splice"] == [
        *(f"{NOARCH}/{name}{suffix}" for name in FLAT for suffix in (".zst", "")),
        "team/channeldata.json",
    ]
    assert ("get", f"{NOARCH}/repodata.json") not in log  # the plain file is made without reading it
    check(world)


@pytest.mark.parametrize("seed", range(4))
def test_update__any_publishes_and_removals(seed: int) -> None:
    world = World(limits=SMALL)
    keys = fill(world, 15)
    chance = random.Random(seed)  # noqa: S311 - no secret hangs on it
    for _ in range(25):
        batch = []
        for _ in range(chance.choice([1, 1, 1, 5])):
            if keys and chance.random() < 0.4:
                batch.append(keys.pop(chance.randrange(len(keys))))
                world.storage.remove(batch[-1])
            else:
                name = f"pkg{chance.randrange(40):04}{chance.choice(['', '-dev', '.x', '_y'])}"
                version = f"{chance.randrange(4)}.{chance.randrange(4)}"
                run_exports = {"strong": [name]} if chance.random() < 0.5 else None
                more = {"schema_version": 3, "flags": ["a"]} if chance.random() < 0.2 else {}
                build = tar_bz2_package if chance.random() < 0.3 else None
                made = (
                    build(name=name, version=version, run_exports=run_exports, index_extra=more)
                    if build
                    else package(name, version, run_exports=run_exports, index_extra=more)
                )
                if f"{NOARCH}/{made[0]}" in keys:
                    continue
                batch.append(world.upload(NOARCH, made))
                keys.append(batch[-1])
        world.index(*batch)
    check(world)


def test_update__duplicate_event_writes_nothing() -> None:
    world = World(limits=SMALL)
    keys = fill(world, 30)
    before = world.storage.requests.copy()
    world.index(*keys)
    written = world.storage.requests - before
    assert (written["put"], written["splice"]) == (0, 0)


@pytest.mark.parametrize("forget", ["current", "all"])
def test_update__lost_tables(forget: str) -> None:
    world = World(limits=SMALL)
    fill(world, 40)
    (key,) = [key for key in world.storage.list_keys() if "/tables/" in f"/{key}" and key.startswith(".fairway/")]
    if forget == "current":
        world.storage.upload(key, b"another writer's, who lost afterwards")
    else:
        world.storage.versions.pop(key)
    before = len(world.storage.log)
    world.publish(NOARCH, package("pkg0020", "2.0"))
    shards_read = [key for kind, key in world.storage.log[before:] if kind == "get" and "/shards/" in key]
    assert len(shards_read) <= 1  # the channel's files need one; the others are made again from the file
    check(world)


@pytest.mark.parametrize("name", ["repodata.json.zst", "repodata.json", "run_exports.json.zst", "run_exports.json"])
def test_update__foreign_file_under_an_output_s_name(name: str) -> None:
    world = World(limits=SMALL)
    fill(world, 40)
    world.storage.upload(f"{NOARCH}/{name}", b"{}")
    world.publish(NOARCH, package("pkg0020", "2.0"))
    check(world)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_update__stopped_at_any_request(moment: str) -> None:
    """Wherever the indexer stopped, the next run ends like an undisturbed one."""
    step = 0
    while True:
        world = World(limits=SMALL)
        fill(world, 25)
        key = world.upload(NOARCH, package("pkg0012", "2.0"))
        left = step

        def fault(kind: str, _: str, when: str) -> None:
            nonlocal left
            if when == moment and kind in {"put", "splice"}:
                left -= 1
                if left == -1:
                    raise Stop

        world.storage.fault = fault
        with contextlib.suppress(Stop):
            world.index(key)
        stopped = left < 0
        world.storage.fault = None
        world.index(key)
        check(world)
        if not stopped:
            break
        step += 1
    assert step > 8


class Stop(BaseException):
    """The process ends here."""


def test_update__catches_up_over_many_commits() -> None:
    world = World(limits=SMALL)
    fill(world, 25)

    def fault(kind: str, key: str, when: str) -> None:
        if kind in {"put", "splice"} and when == "before" and "repodata.json" in key:
            raise UnavailableError("S3 answered 503 SlowDown")

    for number in range(5):
        world.storage.fault = fault
        key = world.upload(NOARCH, package(f"pkg{number * 5:04}", "2.0"))
        with pytest.raises(UnavailableError):
            world.index(key)
    world.storage.fault = None
    world.index(key)
    check(world)


def test_update__shown_commit_has_expired() -> None:
    world = World(limits=SMALL)
    fill(world, 25)
    versions = world.storage.versions[f"{NOARCH}/{SHARD_INDEX}"]
    del versions[:]
    fill(world, 26)
    check(world)


def test_update__optional_outputs() -> None:
    world = World(limits=SMALL, policy=Policy(outputs=Outputs(current_repodata=True, bz2=True)))
    fill(world, 25)
    world.publish(NOARCH, package("pkg0012", "2.0"))
    check(world)
    import bz2

    assert bz2.decompress(world.storage.body(f"{NOARCH}/repodata.json.bz2")) == world.storage.body(
        f"{NOARCH}/repodata.json"
    )
    current = json.loads(world.storage.body(f"{NOARCH}/current_repodata.json"))["packages.conda"]
    assert "pkg0012-2.0-0.conda" in current
    assert "pkg0012-1.0-0.conda" not in current


def test_update__patches() -> None:
    world = World(limits=SMALL)
    fill(world, 25)
    plain = json.loads(world.storage.body(f"{NOARCH}/repodata.json"))
    instructions = {
        "patch_instructions_version": 1,
        "packages": {},
        "packages.conda": {"pkg0003-1.0-0.conda": {"depends": ["patched"]}},
        "remove": ["pkg0005-1.0-0.conda"],
        "revoke": [],
    }
    key = f"{NOARCH}/patch_instructions.json"
    world.storage.upload(key, json.dumps(instructions).encode())
    world.index(key)
    document = json.loads(world.storage.body(f"{NOARCH}/repodata.json"))
    assert document["packages.conda"]["pkg0003-1.0-0.conda"]["depends"] == ["patched"]
    assert document["removed"] == ["pkg0005-1.0-0.conda"]
    assert json.loads(world.storage.body(f"{NOARCH}/repodata_from_packages.json")) == plain
    world.publish(NOARCH, package("pkg0007", "2.0"))
    from_packages = world.storage.body(f"{NOARCH}/repodata_from_packages.json")
    assert len(json.loads(from_packages)["packages.conda"]) == 26
    assert decompress(world.storage.body(f"{NOARCH}/repodata_from_packages.json.zst"), what="") == from_packages
    world.storage.remove(key)
    world.index(key)
    assert f"{NOARCH}/repodata_from_packages.json" not in world.storage.list_keys()
    check(world)


def test_update__page_of_the_newest() -> None:
    world = World(limits=replace(SMALL, max_rows=5))
    keys = []
    for number in range(30):
        world.storage.clock_ms += 1000
        keys.append(world.upload(NOARCH, package(f"pkg{number * 7 % 30:04}")))
        world.index(keys[-1])
        check(world)
    assert is_large(world)
    for key in reversed(keys[5:]):
        world.storage.remove(key)
        world.index(key)
        check(world)
