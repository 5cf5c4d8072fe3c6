"""Effects of uploads: every invariant, from outside, over a storage in memory."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.channel import caching
from lambdas.channel.errors import (
    AccessDeniedError,
    FairwayError,
    RejectedError,
    UnavailableError,
    VanishedError,
)
from lambdas.channel.layout import parse_artifact_key, rejected_object_key, rejection_key
from lambdas.channel.names import SubdirName, parse_subdir_id
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import LIMITS, Outputs, Policy, SubdirKeys
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.tree.cards import Card, decode_cards
from lambdas.indexer.tree.shard_index import decode_index
from lambdas.indexer.tree.shards import decode_shard
from lambdas.storage.protocol import (
    ContentHeaders,
)
from tests.builders import conda_package, tar_bz2_package
from tests.indexer.world import (
    LINUX,
    NOARCH,
    PATCHES,
    URL,
    World,
    assert_same_as_from_nothing,
    check_encodings,
    check_readable,
    package,
    public_view,
    shards_of,
)

FOO = "foo-1.0-0.conda"
FOO_KEY = f"{NOARCH}/{FOO}"
ATTESTATIONS = b'[{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}]'
MUTABLE = Policy(mutable_channels=("team",), outputs=Outputs(url=URL))
EVERYTHING = Policy(outputs=Outputs(current_repodata=True, bz2=True, url=URL))
FILES = ("repodata.json", "repodata.json.zst", "run_exports.json", "run_exports.json.zst", "index.html")
CHANNEL_FILES = ("team/channeldata.json", "team/rss.xml", "team/index.html")
FROM_PACKAGES = ("repodata_from_packages.json", "repodata_from_packages.json.zst")


@pytest.fixture
def world() -> World:
    return World()


def statuses(world: World, *keys: str) -> dict[str, str]:
    return {outcome.key: outcome.status for report in world.index(*keys) for outcome in report.outcomes}


def rejected(world: World) -> dict[str, str]:
    """``{key: code}`` of what was rejected."""
    return {rejection.key: rejection.code for rejection in list_rejections(world.storage)}


def private_keys(world: World) -> list[str]:
    return [key for key in world.storage.list_keys() if key.startswith(".fairway/")]


def patch(world: World, path: Any = NOARCH, **document: Any) -> str:  # noqa: ANN401 - JSON
    key: str = f"{path}/{PATCHES}"
    world.storage.upload(key, json.dumps(document).encode())
    return key


# Invariants 1 and 13: what appears, and in which order


def test_index__first_upload(world: World) -> None:
    world.publish(NOARCH, package())
    assert world.listed(NOARCH) == {FOO}
    check_readable(world.storage)
    check_encodings(world.storage)
    assert {f"{NOARCH}/{name}" for name in FILES} | {*CHANNEL_FILES} <= set(world.storage.list_keys())


def test_index__first_upload_to_another_subdir_makes_noarch_too(world: World) -> None:
    world.publish(LINUX, package(path=LINUX))
    assert world.listed(NOARCH) == set()
    assert {f"{NOARCH}/{name}" for name in (*FILES, "repodata_shards.msgpack.zst")} <= set(world.storage.list_keys())
    assert decode_index(world.storage.body(f"{NOARCH}/repodata_shards.msgpack.zst")).shards == {}
    assert json.loads(world.storage.body("team/channeldata.json"))["subdirs"] == ["linux-64", "noarch"]


def test_index__rejected_first_upload_makes_noarch_too(world: World) -> None:
    world.publish(LINUX, (FOO, b"no archive"))
    assert world.listed(NOARCH) == set()
    assert not any("linux-64" in key for key in world.storage.list_keys() if not key.startswith(".fairway/"))


DECLARED = Policy(
    outputs=Outputs(url=URL),
    subdirs={
        "team": [SubdirName("win-64")],
        "te*": [SubdirName("linux-64"), NOARCH.name],
        "other": [SubdirName("osx-64")],
    },
)


def test_index__first_upload_makes_the_declared_subdirs() -> None:
    """A client that asks for shards before the first upload to a subdir then finds an empty index, not a 404."""
    world = World(policy=DECLARED)
    world.publish(NOARCH, package())
    for name in ("linux-64", "win-64"):
        subdir = parse_subdir_id(f"team/{name}")
        assert world.listed(subdir) == set()
        files = {f"{subdir}/{file}" for file in (*FILES, "repodata_shards.msgpack.zst")}
        assert files <= set(world.storage.list_keys())
        assert decode_index(world.storage.body(f"{subdir}/repodata_shards.msgpack.zst")).shards == {}
    assert not any("osx-64" in key for key in world.storage.list_keys())
    channeldata = json.loads(world.storage.body("team/channeldata.json"))
    assert channeldata["subdirs"] == ["linux-64", "noarch", "win-64"]
    check_encodings(world.storage)


def test_index__declared_subdir_takes_uploads() -> None:
    world = World(policy=DECLARED)
    world.publish(NOARCH, package())
    world.publish(LINUX, package(path=LINUX))
    assert world.listed(LINUX) == {FOO}
    world.storage.remove(f"{LINUX}/{FOO}")
    world.index(f"{LINUX}/{FOO}")
    assert world.listed(LINUX) == set()
    assert_same_as_from_nothing(world.storage, policy=DECLARED, times=False)


def test_index__readers_never_meet_a_missing_shard_or_artifact(world: World) -> None:
    """Invariant 1, at every single request."""
    for one in (package(), package(name="bar"), package(version="2.0")):
        world.upload(NOARCH, one)
    world.storage.fault = lambda kind, key, moment: check_readable(replace(world.storage, fault=None))
    world.index(f"{NOARCH}/{FOO}", f"{NOARCH}/bar-1.0-0.conda")
    world.index(f"{NOARCH}/foo-2.0-0.conda")
    assert world.listed(NOARCH) == {FOO, "bar-1.0-0.conda", "foo-2.0-0.conda"}


def test_index__order_of_writes(world: World) -> None:
    world.publish(NOARCH, package())
    world.upload(NOARCH, package(version="2.0"))
    world.storage.log.clear()
    world.index(f"{NOARCH}/foo-2.0-0.conda")
    written = [key for kind, key in world.storage.log if kind == "put"]
    ranks = [rank_of(key) for key in written]
    assert ranks == sorted(ranks), written


def rank_of(key: str) -> int:
    """Invariant 1: shards, then the shard index, then repodata.json.zst, then repodata.json, then the other outputs."""
    if "/cards/" in key or "/shards/" in key:
        return 0
    for rank, name in enumerate(("repodata_shards.msgpack.zst", "repodata.json.zst", "repodata.json"), start=1):
        if key.endswith(f"/{name}"):
            return rank
    return 4 if key.count("/") > 1 else 5


# Costs


def count(world: World, *keys: str) -> Counter[str]:
    world.storage.requests.clear()
    world.index(*keys)
    return Counter(world.storage.requests)


def test_index__writes_of_one_publish(world: World) -> None:
    world.publish(NOARCH, package(), package(name="bar"))
    key = world.upload(NOARCH, package(version="2.0"))
    world.storage.log.clear()
    requests = count(world, key)
    assert sorted(shorten(key) for kind, key in world.storage.log if kind == "put") == [
        ".fairway/cards/team/noarch/HASH.json.zst",
        ".fairway/channeldata/team/state.json.zst",
        "team/channeldata.json",
        "team/index.html",
        "team/noarch/index.html",
        "team/noarch/repodata.json",
        "team/noarch/repodata.json.zst",
        "team/noarch/repodata_shards.msgpack.zst",
        "team/noarch/run_exports.json",
        "team/noarch/run_exports.json.zst",
        "team/noarch/shards/HASH.msgpack.zst",
        "team/rss.xml",
    ]
    assert (requests["put"], requests["list"]) == (12, 0)  # neither subdirs nor attestations that never were are listed


def shorten(key: str) -> str:
    folder, _, name = key.rpartition("/")
    return f"{folder}/HASH{name[64:]}" if len(name) > 64 else key


def test_index__a_batch_costs_one_commit(world: World) -> None:
    keys = [world.upload(NOARCH, package(name=f"p{number}")) for number in range(10)]
    (report,) = world.index(*keys)
    assert report.commits == 1
    assert sum(kind == "put" and key == f"{NOARCH}/repodata.json" for kind, key in world.storage.log) == 1


def test_index__requests_do_not_grow_with_the_channel(world: World) -> None:
    world.publish(NOARCH, *(package(name=f"p{number}") for number in range(5)))
    few = count(world, world.upload(NOARCH, package(version="2.0")))
    world.publish(NOARCH, *(package(name=f"q{number}") for number in range(40)))
    many = count(world, world.upload(NOARCH, package(name="p1", version="3.0")))
    few.subtract(many)
    assert min(few.values()) >= -3, few
    assert max(few.values()) <= 0, few


def test_index__artifact_is_read_once(world: World) -> None:
    key = world.upload(NOARCH, package())
    world.index(key)
    assert world.storage.log.count(("get", key)) == 1


def test_index__duplicate_event_writes_nothing(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    patch(world, packages={"foo-1.0-0.tar.bz2": {"license": "MIT"}})
    keys = [FOO_KEY, f"{FOO_KEY}.sigs", f"{NOARCH}/{PATCHES}"]
    world.index(*keys)
    before = world.storage.snapshot(private=True)
    requests = count(world, *keys, *keys)
    assert requests["put"] + requests["copy"] + requests["delete"] == 0
    assert world.storage.snapshot(private=True) == before
    assert set(statuses(world, *keys).values()) == {"unchanged"}


def test_index__duplicate_event_does_not_read_the_artifact(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.log.clear()
    world.index(FOO_KEY)
    assert ("get", FOO_KEY) not in world.storage.log


def test_index__unchanged_subdir_is_not_written(world: World) -> None:
    world.publish(NOARCH, package())
    world.publish(LINUX, package(path=LINUX))
    world.storage.log.clear()
    world.publish(LINUX, package(version="2.0", path=LINUX))
    written = [key for kind, key in world.storage.log if kind in {"put", "copy", "delete"}]
    assert not [key for key in written if key.startswith("team/noarch/")]


def test_index__other_channels_are_not_written(world: World) -> None:
    other = parse_subdir_id("other/noarch")
    world.publish(NOARCH, package())
    before = world.storage.snapshot(private=True)
    world.storage.log.clear()
    world.publish(other, package())
    assert not [key for _, key in world.storage.log if "team" in key]
    assert {key: body for key, body in world.storage.snapshot(private=True).items() if "other/" not in key} == before


# Invariant 2: bytes never change under a name


def test_index__same_bytes_again(world: World) -> None:
    world.publish(NOARCH, package())
    before = world.storage.snapshot()
    world.storage.clock_ms += 3_600_000
    assert statuses(world, world.upload(NOARCH, package())) == {FOO_KEY: "unchanged"}
    assert world.storage.snapshot() == before


def test_index__other_bytes_are_rejected_and_the_first_stay(world: World) -> None:
    first = package()
    world.publish(NOARCH, first)
    before = public_view(world.storage)
    report = world.publish(NOARCH, package(depends=["evil"]))
    assert [(outcome.key, outcome.status) for outcome in report.outcomes] == [(FOO_KEY, "rejected")]
    assert rejected(world) == {FOO_KEY: "filename-taken"}
    assert world.storage.body(FOO_KEY) == first[1]
    assert public_view(world.storage) == before
    assert set(world.notifier.dropped) == {FOO_KEY}
    assert [rejection.code for rejection in world.notifier.rejections] == ["filename-taken"]


def upload_with_known_etag(world: World) -> None:
    """Upload other bytes over an artifact, as if they had the MD5 of the first ones, and index them."""
    first = world.storage.head(FOO_KEY)
    assert first is not None
    world.upload(NOARCH, package(depends=["evil"]))
    versions = world.storage.versions[FOO_KEY]
    versions[-1] = replace(versions[-1], info=replace(versions[-1].info, etag=first.etag, md5=first.md5))
    world.index(FOO_KEY)


def test_index__attack_other_bytes_with_the_same_md5(world: World) -> None:
    world.publish(NOARCH, package())
    before = public_view(world.storage)
    upload_with_known_etag(world)
    assert rejected(world) == {FOO_KEY: "filename-taken"}
    assert public_view(world.storage) == before
    assert world.storage.body(FOO_KEY) == package()[1]


def test_index__attack_same_md5_as_an_artifact_that_0_1_0_indexed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card names no version: the oldest one with its ETag was read."""
    with monkeypatch.context() as patched:
        patched.setattr("lambdas.indexer.change.decide.Card", lambda **fields: Card(**{**fields, "version": None}))
        world.publish(NOARCH, package())
    before = public_view(world.storage)
    world.storage.log.clear()
    world.index(FOO_KEY)
    assert ("get", FOO_KEY) not in world.storage.log
    upload_with_known_etag(world)
    assert rejected(world) == {FOO_KEY: "filename-taken"}
    assert public_view(world.storage) == before


def test_index__several_other_bytes_before_the_first_event(world: World) -> None:
    first = package()
    world.publish(NOARCH, first)
    for number in range(3):
        world.upload(NOARCH, package(depends=[f"evil{number}"]))
    world.index(FOO_KEY)
    assert world.storage.body(FOO_KEY) == first[1]
    assert len(list(list_rejections(world.storage))) == 3
    check_readable(world.storage)


def test_index__deleted_and_other_bytes(world: World) -> None:
    """A deleted artifact frees its filename."""
    world.publish(NOARCH, package())
    world.storage.remove(FOO_KEY)
    world.index(FOO_KEY)
    world.publish(NOARCH, package(depends=["bar"]))
    assert world.record(NOARCH, FOO)["depends"] == ["bar"]
    assert rejected(world) == {}


def test_index__mutable_channel(world: World) -> None:
    world = World(policy=MUTABLE)
    world.publish(NOARCH, package())
    second = package(depends=["bar"])
    report = world.publish(NOARCH, second)
    assert [outcome.status for outcome in report.outcomes] == ["indexed"]
    assert world.record(NOARCH, FOO)["depends"] == ["bar"]
    assert rejected(world) == {}
    assert world.notifier.dropped == [FOO_KEY]
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage, MUTABLE)


def test_index__mutable_channel_with_a_bad_replacement(world: World) -> None:
    world = World(policy=MUTABLE)
    first = package()
    world.publish(NOARCH, first)
    world.publish(NOARCH, (FOO, b"no archive"))
    assert world.storage.body(FOO_KEY) == first[1]
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage, MUTABLE)


# Invariant 3: a bad artifact harms no other

BAD = [
    (FOO, b""),
    (FOO, b"no archive"),
    (FOO, conda_package(name="bar")[1]),
    (FOO, conda_package(version="2.0")[1]),
    (FOO, conda_package(subdir="linux-64")[1]),
    (FOO, conda_package()[1][:-30]),
    (FOO, conda_package(index_extra={"sha256": "0" * 64})[1]),
    (FOO, conda_package(index_extra={"depends": "bar"})[1]),
    ("foo-1.0-0.tar.bz2", tar_bz2_package(name="bar")[1]),
    ("foo-1.0-0.tar.bz2", b"BZh9"),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_index__bad_artifact_among_good_ones(world: World, bad: tuple[str, bytes]) -> None:
    report = world.publish(NOARCH, package(name="a"), bad, package(name="z"))
    assert world.listed(NOARCH) == {"a-1.0-0.conda", "z-1.0-0.conda"}
    assert {outcome.status for outcome in report.outcomes} == {"indexed", "rejected"}
    assert not report.failures
    key = f"{NOARCH}/{bad[0]}"
    assert key not in world.storage.list_keys()
    (rejection,) = list_rejections(world.storage)
    assert rejection.key == key
    assert rejection.message
    assert world.storage.body(rejected_object_key(rejection.key, rejection.id)) == bad[1]
    assert world.notifier.rejections == [rejection]
    assert set(world.notifier.dropped) == {key}
    assert_same_as_from_nothing(world.storage)


def test_index__bad_ones_of_every_kind_in_one_batch(world: World) -> None:
    names = [f"bad{number}-1.0-0.conda" for number in range(5)]
    world.publish(NOARCH, package(), *((name, b"no archive") for name in names))
    assert world.listed(NOARCH) == {FOO}
    assert set(rejected(world)) == {f"{NOARCH}/{name}" for name in names}


def test_index__same_bad_bytes_twice_have_one_rejection(world: World) -> None:
    world.publish(NOARCH, (FOO, b"no archive"))
    world.publish(NOARCH, (FOO, b"no archive"))
    world.publish(NOARCH, (FOO, b"no archive either"))
    assert len(list(list_rejections(world.storage))) == 2


def test_index__bad_artifact_removed_before_it_was_inspected(world: World) -> None:
    key = world.upload(NOARCH, (FOO, b"no archive"))
    world.storage.remove(key)
    assert statuses(world, key) == {key: "unchanged"}
    assert rejected(world) == {}


@pytest.mark.parametrize("error", [AccessDeniedError("cold"), UnavailableError("slow"), VanishedError("gone")])
def test_index__unreadable_artifact(world: World, error: FairwayError) -> None:
    """An unreadable object (a cold storage class, a KMS key) delays no other."""

    def fault(kind: str, key: str, moment: str) -> None:
        if (kind, key, moment) == ("get", FOO_KEY, "before"):
            raise error

    world.storage.fault = fault
    keys = [world.upload(NOARCH, package()), world.upload(NOARCH, package(name="bar"))]
    (report,) = world.index(*keys)
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    assert report.failures == {FOO_KEY: error}
    world.storage.fault = None
    world.index(FOO_KEY)
    assert_same_as_from_nothing(world.storage)


def test_index__bug_while_reading_one_artifact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lambdas.indexer.artifacts.read import read_artifact

    def fail_for_foo(source: Any, distribution: Any, *others: Any) -> Any:  # noqa: ANN401 - as there
        if distribution.name == "foo":
            raise ZeroDivisionError("a bug")
        return read_artifact(source, distribution, *others)

    monkeypatch.setattr("lambdas.indexer.change.inspect.read_artifact", fail_for_foo)
    keys = [world.upload(NOARCH, package()), world.upload(NOARCH, package(name="bar"))]
    (report,) = world.index(*keys)
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    assert list(report.failures) == [FOO_KEY]


def test_reject__invalid_key(world: World) -> None:
    world.storage.upload("team/foo-1.0-0.conda", b"anything")
    error = RejectedError(RejectionCode.INVALID_KEY, "no", hint="upload elsewhere")
    indexer = world.indexer()
    (outcome,) = indexer.reject({"team/foo-1.0-0.conda": error}).outcomes
    indexer.invalidate_rejected()
    rejection = outcome.rejection
    assert rejection is not None
    assert (rejection.code, rejection.hint) == ("invalid-key", "upload elsewhere")
    assert [key for key in world.storage.list_keys() if not key.startswith(".fairway/")] == []
    assert world.storage.body(rejected_object_key(rejection.key, rejection.id)) == b"anything"
    assert set(world.notifier.dropped) == {"team/foo-1.0-0.conda"}


def test_reject__attack_key_too_long_for_the_quarantine(world: World) -> None:
    key = "x" * 1018 + ".conda"
    world.storage.upload(key, b"anything")
    (outcome,) = world.indexer().reject({key: RejectedError(RejectionCode.INVALID_KEY, "no")}).outcomes
    rejection = outcome.rejection
    assert rejection is not None
    assert len(rejection_key(rejection.key, rejection.id).encode()) <= 1024
    assert [one.key for one in list_rejections(world.storage)] == [key]
    assert key not in world.storage.list_keys()


def test_reject__missing_object(world: World) -> None:
    assert (
        world.indexer().reject({"team/foo-1.0-0.conda": RejectedError(RejectionCode.INVALID_KEY, "no")}).outcomes == ()
    )
    assert world.storage.list_keys() == []


# The size of a shard


@pytest.fixture
def small_shards(world: World) -> None:
    world.limits = replace(LIMITS, max_shard_bytes=4000)


def large(build: str, size: int = 1200) -> tuple[str, bytes]:
    return package(build=build, depends=long_specs(size, build))


def long_specs(size: int, first: str = "0") -> list[str]:
    """Return specs of about this many characters in all."""
    return [f"{first}{'x' * 50}{number}" for number in range(size // 50)]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("at_once", [True, False])
def test_index__artifacts_that_make_a_shard_larger_than_clients_read(world: World, *, at_once: bool) -> None:
    """Those that fit are indexed, and so are other names; redelivered messages change nothing."""
    uploads = [large(str(number)) for number in range(6)]
    keys = [world.upload(NOARCH, one) for one in (*uploads, package(name="bar"))]
    for batch in [keys] if at_once else [[key] for key in keys]:
        world.index(*batch)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "foo-1.0-1.conda", "bar-1.0-0.conda"}
    assert rejected(world) == dict.fromkeys(keys[2:6], "shard-full")
    (report,) = world.index(*keys)
    assert (report.commits, {outcome.status for outcome in report.outcomes}) == (0, {"unchanged"})
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)
    world.storage.remove(keys[0])
    world.index(keys[0])
    world.publish(NOARCH, uploads[5])
    assert world.listed(NOARCH) == {"foo-1.0-5.conda", "foo-1.0-1.conda", "bar-1.0-0.conda"}


@pytest.mark.usefixtures("small_shards")
def test_index__replacement_that_makes_a_shard_larger_than_clients_read(world: World) -> None:
    world.policy = MUTABLE
    world.publish(NOARCH, large("0"), large("1"))
    before = world.record(NOARCH, "foo-1.0-0.conda")
    report = world.publish(NOARCH, large("0", 3000))
    assert [outcome.status for outcome in report.outcomes] == ["rejected"]
    assert world.record(NOARCH, "foo-1.0-0.conda") == before
    world.publish(NOARCH, large("0", 1300))
    assert world.record(NOARCH, "foo-1.0-0.conda") != before
    check_readable(world.storage)


@pytest.mark.usefixtures("small_shards")
def test_index__artifact_replaced_before_it_is_rejected(world: World) -> None:
    world.publish(NOARCH, large("0"), large("1"))
    key = world.upload(NOARCH, large("2"))
    inspected: list[str] = []

    def fault(kind: str, requested: str, moment: str) -> None:
        if (kind, requested, moment) == ("head", key, "before"):
            inspected.append(key)
            if len(inspected) == 1:
                world.storage.upload(key, package(build="2")[1])

    world.storage.fault = fault
    world.index(key)
    assert "foo-1.0-2.conda" in world.listed(NOARCH)
    assert rejected(world) == {}


def test_index__shard_that_was_too_large_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed artifacts stay, and can be removed; patches are the operator's responsibility."""
    keys = [world.upload(NOARCH, large(str(number))) for number in range(4)]
    world.index(*keys)
    world.limits = replace(LIMITS, max_shard_bytes=4000)
    world.storage.upload(
        f"{NOARCH}/{PATCHES}",
        json.dumps({"packages.conda": {"foo-1.0-0.conda": {"depends": long_specs(9000)}}}).encode(),
    )
    world.index(f"{NOARCH}/{PATCHES}", *keys)
    assert len(world.listed(NOARCH)) == 4
    world.indexer().rebuild(NOARCH, SubdirKeys(artifacts=frozenset(map(parse_artifact_key, keys))))
    world.storage.remove(keys[3])
    world.index(keys[3])
    assert len(world.listed(NOARCH)) == 3
    world.publish(NOARCH, large("9"))
    assert rejected(world) == {f"{NOARCH}/foo-1.0-9.conda": "shard-full"}
    assert len(world.listed(NOARCH)) == 3


# Invariant 4: the record


def test_index__record_equals_the_artifact_s_index(world: World) -> None:
    world.storage.clock_ms = 1_790_000_000_000
    world.publish(NOARCH, package(depends=["bar >=1"], index_extra={"x-unknown": {"a": [1]}}))
    record = world.record(NOARCH, FOO)
    assert record["depends"] == ["bar >=1"]
    assert record["x-unknown"] == {"a": [1]}
    assert record["indexed_timestamp"] == 1_790_000_000_000
    assert record["size"] == len(world.storage.body(FOO_KEY))


def test_index__indexed_timestamp_never_changes(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.clock_ms += 86_400_000
    world.publish(NOARCH, package(), package(version="2.0"))
    assert world.record(NOARCH, FOO)["indexed_timestamp"] == 1_790_000_000_000
    assert world.record(NOARCH, "foo-2.0-0.conda")["indexed_timestamp"] == 1_790_086_400_000


def test_index__both_archives_of_one_build(world: World) -> None:
    world.publish(NOARCH, package(), tar_bz2_package())
    assert world.listed(NOARCH) == {FOO, "foo-1.0-0.tar.bz2"}


def test_index__run_exports(world: World) -> None:
    world.publish(NOARCH, package(run_exports=["foo >=1"]), package(name="bar"))
    assert world.index_json(NOARCH, "run_exports.json")["packages.conda"] == {
        FOO: {"run_exports": {"weak": ["foo >=1"]}},
        "bar-1.0-0.conda": {"run_exports": {}},
    }
    assert "run_exports" not in world.record(NOARCH, FOO)


def test_index__channeldata(world: World) -> None:
    world.publish(NOARCH, package(about={"summary": "Noarch"}))
    world.publish(LINUX, package(version="2.0", path=LINUX, about={"summary": "Linux"}))
    foo = json.loads(world.storage.body("team/channeldata.json"))["packages"]["foo"]
    assert (foo["summary"], foo["version"], foo["subdirs"]) == ("Linux", "2.0", ["linux-64", "noarch"])
    assert world.storage.body("team/channeldata.json").endswith(b"\n")


# Removal


def test_index__removed(world: World) -> None:
    world.publish(NOARCH, package(), package(name="bar"))
    world.storage.remove(FOO_KEY)
    assert statuses(world, FOO_KEY) == {FOO_KEY: "removed"}
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)


def test_index__the_last_one_removed(world: World) -> None:
    world.publish(LINUX, package(path=LINUX))
    world.storage.remove(f"{LINUX}/{FOO}")
    world.index(f"{LINUX}/{FOO}")
    assert world.listed(LINUX) == set()
    assert shards_of(world.storage, LINUX) == []
    assert json.loads(world.storage.body("team/channeldata.json"))["packages"] == {}


def test_index__removed_before_it_was_inspected(world: World) -> None:
    key = world.upload(NOARCH, package())
    world.storage.remove(key)
    assert statuses(world, key) == {key: "unchanged"}
    assert world.listed(NOARCH) == set()


def test_index__version_restored(world: World) -> None:
    """A delete marker that is deleted brings the artifact back."""
    world.publish(NOARCH, package(), package(name="bar"))
    before = public_view(world.storage)
    world.storage.remove(FOO_KEY)
    world.index(FOO_KEY)
    world.storage.versions[FOO_KEY].pop()
    assert statuses(world, FOO_KEY) == {FOO_KEY: "indexed"}
    assert public_view(world.storage) == before


def test_index__removal_of_an_unknown_artifact(world: World) -> None:
    assert statuses(world, FOO_KEY) == {FOO_KEY: "unchanged"}


def test_index__removed_artifact_is_invalidated(world: World) -> None:
    """It is cached for a year, and the filename may be used again with other bytes."""
    world.publish(NOARCH, package())
    world.storage.remove(FOO_KEY)
    world.index(FOO_KEY)
    assert world.notifier.dropped == [FOO_KEY]


# Attestations


def test_index__attestations(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    world.index(f"{FOO_KEY}.sigs")
    attestation = world.record(NOARCH, FOO)["attestations_sha256"]
    assert world.storage.body(f"{FOO_KEY}.sigs.{attestation}") == ATTESTATIONS
    assert world.storage.headers(f"{FOO_KEY}.sigs.{attestation}") == ContentHeaders(
        content_type="application/json", cache_control=caching.IMMUTABLE
    )
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)


def test_index__attestations_before_their_artifact(world: World) -> None:
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    assert statuses(world, f"{FOO_KEY}.sigs") == {FOO_KEY: "unchanged"}
    world.publish(NOARCH, package())
    assert "attestations_sha256" in world.record(NOARCH, FOO)


def test_index__attestations_appended(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    world.index(f"{FOO_KEY}.sigs")
    first = world.record(NOARCH, FOO)["attestations_sha256"]
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS.replace(b"]", b', {"second": 2}]'))
    world.index(f"{FOO_KEY}.sigs")
    second = world.record(NOARCH, FOO)["attestations_sha256"]
    assert first != second
    assert {f"{FOO_KEY}.sigs.{first}", f"{FOO_KEY}.sigs.{second}"} <= set(world.storage.list_keys())


def test_index__invalid_attestations(world: World) -> None:
    world.storage.upload(f"{FOO_KEY}.sigs", b"{}")
    world.publish(NOARCH, package())
    assert world.listed(NOARCH) == {FOO}
    assert "attestations_sha256" not in world.record(NOARCH, FOO)
    assert rejected(world) == {f"{FOO_KEY}.sigs": "attestations-malformed"}
    assert f"{FOO_KEY}.sigs" not in world.storage.list_keys()


@pytest.mark.parametrize(
    "body", [b'[{"a": NaN}]', b"\xef\xbb\xbf[{}]", b'[{"a": "\\ud800"}]', b'[{"a": 1, "a": 2}]', b"[" * 70 + b"]" * 70]
)
def test_index__attestations_that_some_client_cannot_read(world: World, body: bytes) -> None:
    world.publish(NOARCH, package())
    before = public_view(world.storage)
    world.storage.upload(f"{FOO_KEY}.sigs", body)
    world.index(f"{FOO_KEY}.sigs")
    assert public_view(world.storage) == before
    assert rejected(world) == {f"{FOO_KEY}.sigs": "attestations-not-json"}


def test_index__invalid_attestations_leave_the_earlier_ones(world: World) -> None:
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    world.publish(NOARCH, package())
    before = public_view(world.storage)
    world.storage.upload(f"{FOO_KEY}.sigs", b"no json")
    world.index(f"{FOO_KEY}.sigs")
    assert public_view(world.storage) == before
    assert world.storage.body(f"{FOO_KEY}.sigs") == ATTESTATIONS
    assert rejected(world) == {f"{FOO_KEY}.sigs": "attestations-not-json"}


# Patches


def test_index__patches(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]), package(name="bar"))
    key = patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}})
    assert statuses(world, key) == {key: "indexed"}
    assert world.record(NOARCH, FOO)["depends"] == ["b"]
    unpatched = world.index_json(NOARCH, "repodata_from_packages.json")["packages.conda"]
    assert unpatched[FOO]["depends"] == ["a"]
    assert set(unpatched) == {FOO, "bar-1.0-0.conda"}
    check_readable(world.storage)
    check_encodings(world.storage)
    assert_same_as_from_nothing(world.storage)


def test_index__patches_apply_to_later_uploads(world: World) -> None:
    world.publish(NOARCH, package(name="bar"))
    world.index(patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}}))
    world.publish(NOARCH, package(depends=["a"]), package(name="baz"))
    assert world.record(NOARCH, FOO)["depends"] == ["b"]
    assert set(world.index_json(NOARCH, "repodata_from_packages.json")["packages.conda"]) == world.listed(NOARCH)
    assert_same_as_from_nothing(world.storage)


def test_index__patches_replaced(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]), package(name="bar"))
    world.index(patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}}))
    world.index(patch(world, **{"packages.conda": {"bar-1.0-0.conda": {"license": "MIT"}}}))
    assert world.record(NOARCH, FOO)["depends"] == ["a"]
    assert world.record(NOARCH, "bar-1.0-0.conda")["license"] == "MIT"
    assert_same_as_from_nothing(world.storage)


def test_index__patches_removed(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]))
    before = public_view(world.storage)
    for _ in range(2):  # the second time, older versions of the removed files exist
        world.index(patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}}))
        world.publish(NOARCH, package())
        world.storage.remove(f"{NOARCH}/{PATCHES}")
        assert statuses(world, f"{NOARCH}/{PATCHES}") == {f"{NOARCH}/{PATCHES}": "removed"}
        assert not {f"{NOARCH}/{name}" for name in FROM_PACKAGES} & set(world.storage.list_keys())
        assert public_view(world.storage) == before


def test_index__unpatched_repodata_written_twice_and_removed(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]))
    key = patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}})
    world.index(key)
    world.publish(NOARCH, package(name="bar"))
    world.storage.remove(key)
    world.index(key)
    assert not {f"{NOARCH}/{name}" for name in FROM_PACKAGES} & set(world.storage.list_keys())


def test_index__invalid_patches_leave_the_last_valid_ones_in_force(world: World) -> None:
    world.publish(NOARCH, package(depends=["a"]))
    key = patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}})
    world.index(key)
    before = public_view(world.storage)
    world.storage.upload(key, b"{")
    world.storage.upload(key, b'{"packages": {"foo-1.0-0.tar.bz2": {"sha256": "0"}}}')
    assert statuses(world, key) == {key: "rejected"}
    assert public_view(world.storage) == before
    assert {rejection.code for rejection in list_rejections(world.storage)} == {
        "patches-not-json",
        "patches-protected-field",
    }


def test_index__invalid_patches_without_earlier_ones(world: World) -> None:
    world.publish(NOARCH, package())
    before = public_view(world.storage)
    key = patch(world, patch_instructions_version=9)
    world.index(key, world.upload(NOARCH, package()))
    assert public_view(world.storage) == before
    assert rejected(world) == {key: "patches-version"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"timestamp": 2**53}, "patches-malformed"),
        ({"revoked": True}, "patches-protected-field"),
        ({"purls": ["pkg:pypi"]}, "patches-malformed"),
    ],
)
def test_index__patches_with_values_that_artifacts_may_not_have(
    world: World, fields: dict[str, Any], code: str
) -> None:
    world.publish(NOARCH, package())
    before = public_view(world.storage)
    key = patch(world, **{"packages.conda": {FOO: fields}})
    assert statuses(world, key) == {key: "rejected"}
    assert public_view(world.storage) == before
    assert rejected(world) == {key: code}


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b"99999999999999999999", b'"\\ud800"', b"[" * 70 + b"]" * 70])
def test_index__patches_that_no_encoding_can_carry(world: World, value: bytes) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(f"{NOARCH}/{PATCHES}", b'{"packages.conda": {"foo-1.0-0.conda": {"x": ' + value + b"}}}")
    world.index(f"{NOARCH}/{PATCHES}", world.upload(NOARCH, package(name="bar")))
    assert world.listed(NOARCH) == {FOO, "bar-1.0-0.conda"}
    assert rejected(world) == {f"{NOARCH}/{PATCHES}": "patches-not-json"}


def test_index__yanked_and_back(world: World) -> None:
    world.publish(NOARCH, package(), package(version="2.0"), package(name="bar"))
    before = public_view(world.storage)
    key = patch(world, remove=[FOO, "bar-1.0-0.conda"])
    world.index(key)
    assert world.listed(NOARCH) == {"foo-2.0-0.conda"}
    assert world.index_json(NOARCH)["removed"] == ["bar-1.0-0.conda", FOO]
    assert {FOO_KEY, f"{NOARCH}/bar-1.0-0.conda"} <= set(world.storage.list_keys()), "for lock files"
    assert "bar" not in json.loads(world.storage.body("team/channeldata.json"))["packages"]
    assert_same_as_from_nothing(world.storage)
    world.storage.remove(key)
    world.index(key)
    assert public_view(world.storage) == before


def test_index__yanked_name_gets_another_version(world: World) -> None:
    world.publish(NOARCH, package())
    world.index(patch(world, remove=[FOO]))
    world.publish(NOARCH, package(version="2.0"))
    assert world.listed(NOARCH) == {"foo-2.0-0.conda"}
    assert_same_as_from_nothing(world.storage)


def test_index__yanked_artifact_is_deleted(world: World) -> None:
    world.publish(NOARCH, package())
    world.index(patch(world, remove=[FOO]))
    world.storage.remove(FOO_KEY)
    world.index(FOO_KEY)
    assert world.index_json(NOARCH)["removed"] == []
    assert_same_as_from_nothing(world.storage, times=False)


def test_index__yanked_artifact_is_overwritten(world: World) -> None:
    first = package()
    world.publish(NOARCH, first)
    world.index(patch(world, remove=[FOO]))
    world.publish(NOARCH, package(depends=["evil"]))
    assert world.storage.body(FOO_KEY) == first[1]


def test_index__run_exports_patched_and_removed(world: World) -> None:
    world.publish(NOARCH, package(run_exports=["foo"]))
    for value, expected in (({"strong": ["x"]}, {"weak": ["foo"], "strong": ["x"]}), (None, {})):
        world.index(patch(world, patch_instructions_version=2, **{"packages.conda": {FOO: {"run_exports": value}}}))
        shown = world.index_json(NOARCH, "run_exports.json")["packages.conda"][FOO]["run_exports"]
        assert shown == expected
    assert_same_as_from_nothing(world.storage)


@pytest.mark.parametrize("patched", [True, False])
def test_index__lost_patches_in_force(world: World, *, patched: bool) -> None:
    """The next publish takes those that are in the bucket."""
    world.publish(NOARCH, package(depends=["a"]))
    key = patch(world, **{"packages.conda": {FOO: {"depends": ["b"]}}})
    world.index(key)
    for lost in [one for one in private_keys(world) if "/patches/" in one]:
        world.storage.remove(lost)
    if not patched:
        world.storage.remove(key)
    world.index(world.upload(NOARCH, package(name="bar")))
    assert world.record(NOARCH, FOO)["depends"] == (["b"] if patched else ["a"])
    assert_same_as_from_nothing(world.storage)
    world.publish(NOARCH, package(name="baz"))


# Lost files, and files written by other tools


def test_index__lost_cards_are_made_again(world: World) -> None:
    world.publish(
        NOARCH, package(about={"summary": "s"}, run_exports=["x"]), package(version="2.0"), package(name="bar")
    )
    world.storage.clock_ms += 1000
    world.index(patch(world, remove=["foo-2.0-0.conda"], **{"packages.conda": {FOO: {"depends": ["b"]}}}))
    before, cards = public_view(world.storage), cards_of(world)
    for key in [one for one in private_keys(world) if "/cards/" in one]:
        world.storage.remove(key)
    world.index(FOO_KEY)
    assert public_view(world.storage) == before
    world.index(f"{NOARCH}/bar-1.0-0.conda")
    assert cards_of(world) == cards
    assert_same_as_from_nothing(world.storage)


def test_index__broken_cards_are_made_again(world: World) -> None:
    world.publish(NOARCH, package())
    (key,) = [one for one in private_keys(world) if "/cards/" in one]
    good = world.storage.body(key)
    world.storage.upload(key, b"broken")
    world.index(FOO_KEY)
    assert world.storage.body(key) == good


def test_index__lost_cards_of_an_unreadable_artifact(world: World) -> None:
    """Readers' records are patched: patches must not be applied to them again."""
    world.publish(NOARCH, package(depends=["a"]), package(version="2.0"))
    world.index(patch(world, revoke=[FOO]))
    before, cards = public_view(world.storage), cards_of(world)
    for key in [one for one in private_keys(world) if "/cards/" in one]:
        world.storage.remove(key)

    def fault(kind: str, key: str, moment: str) -> None:
        if (kind, key, moment) == ("get", FOO_KEY, "before"):
            raise UnavailableError("slow")

    world.storage.fault = fault
    bar = world.upload(NOARCH, package(name="bar"))
    (report,) = world.index(f"{NOARCH}/foo-2.0-0.conda", bar)
    assert set(report.failures) == {FOO_KEY, f"{NOARCH}/foo-2.0-0.conda"}
    assert world.listed(NOARCH) == {FOO, "foo-2.0-0.conda", "bar-1.0-0.conda"}
    world.storage.remove(bar)
    world.storage.fault = None
    world.index(f"{NOARCH}/foo-2.0-0.conda", bar)
    assert public_view(world.storage) == before
    assert cards_of(world) == cards


def test_index__lost_cards_of_a_removed_artifact(world: World) -> None:
    world.publish(NOARCH, package(), package(version="2.0"))
    for key in [one for one in private_keys(world) if "/cards/" in one]:
        world.storage.remove(key)
    world.storage.remove(FOO_KEY)
    world.index(f"{NOARCH}/foo-2.0-0.conda")
    assert world.listed(NOARCH) == {"foo-2.0-0.conda"}
    assert_same_as_from_nothing(world.storage)


def cards_of(world: World) -> dict[str, Any]:
    """The cards behind the current commit."""
    index = decode_index(world.storage.body(f"{NOARCH}/repodata_shards.msgpack.zst"))
    return {
        name: decode_cards(world.storage.body(f".fairway/cards/team/noarch/{sha256}.json.zst"))
        for name, sha256 in index.shards.items()
    }


@pytest.mark.parametrize("name", [*FILES, "../channeldata.json", "../rss.xml", "../index.html"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"broken", b'{"packages": {"evil-1-0.conda": {}}}'])
def test_index__foreign_file_under_an_output_s_name(world: World, name: str, body: bytes) -> None:
    world.publish(NOARCH, package())
    key = f"{NOARCH}/{name}".replace("noarch/../", "")
    world.storage.upload(key, body)
    world.index(FOO_KEY)
    assert_same_as_from_nothing(world.storage)
    world.storage.upload(key, body)
    world.publish(NOARCH, package(name="bar"))
    assert_same_as_from_nothing(world.storage)


@pytest.mark.parametrize("name", [*FILES, "../channeldata.json", "../rss.xml", "../index.html"])
def test_index__deleted_output(world: World, name: str) -> None:
    world.publish(NOARCH, package())
    world.storage.remove(f"{NOARCH}/{name}".replace("noarch/../", ""))
    world.index(FOO_KEY)
    assert_same_as_from_nothing(world.storage)


def test_index__broken_state_of_the_channel(world: World) -> None:
    world.publish(NOARCH, package())
    (state,) = [key for key in private_keys(world) if key.startswith(".fairway/channeldata/")]
    for _ in range(2):
        world.storage.upload(state, b"broken")
        world.publish(NOARCH, package(name="bar"))
        assert_same_as_from_nothing(world.storage)


def test_index__broken_shard_index_is_never_read_as_empty(world: World) -> None:
    """Invariant 7."""
    world.publish(NOARCH, package())
    world.storage.upload(f"{NOARCH}/repodata_shards.msgpack.zst", b"broken")
    world.index(world.upload(NOARCH, package(name="bar")))
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda"}


@pytest.mark.parametrize("error", [UnavailableError("500"), AccessDeniedError("403")])
def test_index__cloud_error_is_never_read_as_an_empty_index(world: World, error: FairwayError) -> None:
    """Invariant 7."""
    world.publish(NOARCH, package())
    before = world.storage.snapshot()

    def fault(kind: str, key: str, moment: str) -> None:
        if key == f"{NOARCH}/repodata_shards.msgpack.zst" and kind in {"get", "head"}:
            raise error

    world.storage.fault = fault
    key = world.upload(NOARCH, package(name="bar"))
    with pytest.raises(type(error)):
        world.index(key)
    world.storage.remove(key)
    assert world.storage.snapshot() == before


def test_index__expired_shard_index(world: World) -> None:
    """A file is made again if the commit that it shows is unknown."""
    world.publish(NOARCH, package())
    world.storage.fault = stop_at("put", f"{NOARCH}/repodata.json.zst")
    with pytest.raises(UnavailableError):
        world.publish(NOARCH, package(name="bar"))
    world.storage.fault = None
    key = f"{NOARCH}/repodata_shards.msgpack.zst"
    world.storage.versions[key] = world.storage.versions[key][-1:]
    world.index(f"{NOARCH}/bar-1.0-0.conda")
    assert_same_as_from_nothing(world.storage)


def stop_at(kind: str, key: str) -> Any:  # noqa: ANN401 - a fault
    def fault(this_kind: str, this_key: str, moment: str) -> None:
        if (this_kind, this_key, moment) == (kind, key, "before"):
            raise UnavailableError("stopped")

    return fault


def test_index__several_missed_commits_are_caught_up_at_once(world: World) -> None:
    world.publish(NOARCH, package())
    world.storage.fault = stop_at("put", f"{NOARCH}/repodata.json.zst")
    for number in range(3):
        with pytest.raises(UnavailableError):
            world.publish(NOARCH, package(name=f"p{number}"))
    world.storage.remove(FOO_KEY)
    world.storage.fault = None
    world.index(FOO_KEY)
    assert world.listed(NOARCH) == {f"p{number}-1.0-0.conda" for number in range(3)}
    assert_same_as_from_nothing(world.storage)


# Invariant 12, invariant 11: headers and files


def test_index__headers_of_every_output() -> None:
    world = World(policy=EVERYTHING)
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    patch(world, packages={"foo-1.0-0.tar.bz2": {"license": "MIT"}})
    world.index(world.upload(NOARCH, package()), f"{NOARCH}/{PATCHES}")
    world.publish(NOARCH, ("bad-1-0.conda", b"bad"))
    seen = set()
    for key in world.storage.list_keys():
        if key in {FOO_KEY, f"{NOARCH}/{PATCHES}"} or key.endswith("/object"):
            continue
        headers = world.storage.headers(key)
        name = key.rpartition("/")[2]
        private = key.startswith(".fairway/")
        immutable = "/shards/" in key or ".sigs." in name
        expected = caching.NO_STORE if private else caching.IMMUTABLE if immutable else caching.METADATA
        if name.endswith(".sigs"):
            expected = caching.NO_CACHE
        assert headers.cache_control == expected, key
        assert headers.content_type == content_type_of(name), key
        seen.add(name)
    for plain in ("repodata.json", "repodata_from_packages.json", "current_repodata.json", "run_exports.json"):
        assert {plain, f"{plain}.zst", f"{plain}.bz2"} <= seen


def content_type_of(name: str) -> str:
    if ".sigs" in name:
        return "application/json"
    return {
        "json": "application/json",
        "zst": "application/zstd",
        "bz2": "application/x-bzip2",
        "html": "text/html; charset=utf-8",
        "xml": "application/rss+xml; charset=utf-8",
    }[name.rpartition(".")[2]]


def test_index__optional_outputs_are_updated() -> None:
    world = World(policy=EVERYTHING)
    world.publish(NOARCH, package())
    world.publish(NOARCH, package(version="2.0"))
    assert set(world.index_json(NOARCH, "current_repodata.json")["packages.conda"]) == {"foo-2.0-0.conda"}
    assert_same_as_from_nothing(world.storage, EVERYTHING)


def test_index__optional_outputs_switched_on_later(world: World) -> None:
    world.publish(NOARCH, package())
    world.policy = EVERYTHING
    world.index(FOO_KEY)
    assert_same_as_from_nothing(world.storage, EVERYTHING)


# Order independence


UPLOADS = [
    (NOARCH, package(about={"summary": "one"})),
    (NOARCH, package(version="2.0", run_exports=["x"], about={"summary": "two"})),
    (NOARCH, tar_bz2_package()),
    (NOARCH, package(name="bar", index_extra={"schema_version": 3})),
    (LINUX, package(path=LINUX, about={"home": "h"})),
    (LINUX, package(name="baz", path=LINUX)),
    (NOARCH, ("foo-1.0-0.conda.sigs", ATTESTATIONS)),
    (NOARCH, (PATCHES, b'{"packages": {"foo-1.0-0.tar.bz2": {"license": "MIT"}}, "remove": ["foo-2.0-0.conda"]}')),
    (NOARCH, ("bad-1.0-0.conda", b"bad")),
]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(UPLOADS))), st.lists(st.integers(0, len(UPLOADS)), max_size=4))
def test_index__order_and_batches_do_not_matter(order: list[int], cuts: list[int]) -> None:
    worlds = []
    for sequence, ends in ((list(range(len(UPLOADS))), []), (order, sorted(cuts))):
        world = World()
        start = 0
        for stop in [*ends, len(sequence)]:
            keys = []
            for number in sequence[start:stop]:
                path, upload = UPLOADS[number]
                keys.append(world.upload(path, upload, last_modified_ms=1_790_000_000_000 + number))
            world.index(*keys)
            start = stop
        worlds.append(public_view(world.storage))
    assert worlds[0] == worlds[1]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([key for path, (name, _) in UPLOADS for key in [f"{path}/{name}"]]), min_size=1))
def test_index__replays_write_nothing(keys: list[str]) -> None:
    world = World()
    world.index(*(world.upload(path, upload) for path, upload in UPLOADS))
    before = world.storage.snapshot(private=True)
    requests = count(world, *keys)
    assert requests["put"] + requests["copy"] + requests["delete"] == 0
    assert world.storage.snapshot(private=True) == before


def test_index__no_changes(world: World) -> None:
    """Without keys to inspect, only the skeleton is written."""
    world.indexer().index(NOARCH, SubdirKeys())
    before = world.storage.snapshot(private=True)
    requests = count(world)
    world.indexer().index(NOARCH, SubdirKeys())
    assert requests["put"] == 0
    assert world.storage.snapshot(private=True) == before


def test_index__shards_are_named_by_their_bytes(world: World) -> None:
    world.publish(NOARCH, package(), package(name="bar"))
    (foo,) = [shard for shard in shards_of(world.storage, NOARCH) if FOO in shard.flat["packages.conda"]]
    assert decode_shard(world.storage.body(shard_key_of(world, "foo"))) == foo


def shard_key_of(world: World, name: str) -> str:
    index = decode_index(world.storage.body(f"{NOARCH}/repodata_shards.msgpack.zst"))
    return f"{NOARCH}/shards/{dict(index.shards)[name]}.msgpack.zst"  # type: ignore[index]  # a name


def test_index__attestations_of_a_yanked_artifact(world: World) -> None:
    """The unpatched repodata has them, although the patched one does not."""
    world.publish(NOARCH, package(), package(name="bar"))
    world.index(patch(world, remove=[FOO]))
    world.storage.upload(f"{FOO_KEY}.sigs", ATTESTATIONS)
    world.index(f"{FOO_KEY}.sigs")
    shown = world.index_json(NOARCH, "repodata_from_packages.json")["packages.conda"][FOO]
    assert "attestations_sha256" in shown
    assert_same_as_from_nothing(world.storage)


def test_index__yanked_artifact_is_replaced_in_a_mutable_channel() -> None:
    world = World(policy=MUTABLE)
    world.publish(NOARCH, package(), package(name="bar"))
    world.index(patch(world, remove=[FOO]))
    world.publish(NOARCH, package(depends=["x"]))
    assert world.index_json(NOARCH, "repodata_from_packages.json")["packages.conda"][FOO]["depends"] == ["x"]
    assert_same_as_from_nothing(world.storage, MUTABLE)


def test_index__version_3_artifact_is_yanked_patched_and_back(world: World) -> None:
    world.publish(NOARCH, package(index_extra={"schema_version": 3}), package(name="bar"))
    before = public_view(world.storage)
    assert list(world.index_json(NOARCH)["v3"]["conda"]) == ["foo-1.0-0"]
    key = patch(world, **{"packages.conda": {FOO: {"license": "MIT"}}})
    world.index(key)
    assert world.index_json(NOARCH)["v3"]["conda"]["foo-1.0-0"]["license"] == "MIT"
    patch(world, remove=[FOO])
    world.index(key)
    assert "v3" not in world.index_json(NOARCH)
    assert world.index_json(NOARCH)["removed"] == [FOO]
    assert_same_as_from_nothing(world.storage)
    world.storage.remove(key)
    world.index(key)
    assert public_view(world.storage) == before


def test_index__what_was_deleted_for_good_does_not_come_back(world: World) -> None:
    world.publish(LINUX, package(path=LINUX))
    world.publish(NOARCH, package())
    world.storage.versions.clear()
    world.index(f"{NOARCH}/", f"{NOARCH}/*", f"{LINUX}/", f"{LINUX}/*")
    assert not [one for one in world.storage.list_keys() if not one.startswith(".fairway/")]
