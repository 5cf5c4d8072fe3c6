"""Attestations only ever grow (invariant 14): what publishers overwrite, truncate or delete stays."""

import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lambdas.channel.caching import METADATA
from lambdas.channel.errors import UnavailableError
from lambdas.indexer.artifacts.attestations import MAX_ADDED_BUNDLES, MAX_READ_BYTES
from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import ContentHeaders
from tests.builders import conda_package
from tests.indexer.world import (
    NOARCH,
    URL,
    World,
    assert_same_as_from_nothing,
    check_readable,
    index_keys,
    package,
    pause,
)

FOO = "foo-1.0-0.conda"
KEY = f"{NOARCH}/{FOO}"
SIGS = f"{KEY}.sigs"
ONE, TWO, THREE = (b'{"bundle": %d}' % number for number in (1, 2, 3))
IMMUTABLE = "public, max-age=31536000, immutable"
MUTABLE = Policy(mutable_channels=("team",), outputs=Outputs(url=URL))
HEADERS = ContentHeaders(content_type="application/json", cache_control=METADATA)


def document(*bundles: bytes) -> bytes:
    return b"[" + b",".join(bundles) + b"]"


@pytest.fixture
def world() -> World:
    world = World()
    world.publish(NOARCH, package())
    return world


def attest(world: World, *bundles: bytes) -> None:
    """Upload attestations, and index them."""
    world.storage.upload(SIGS, document(*bundles))
    world.index(SIGS)


def check(world: World, *bundles: bytes) -> None:
    """Check that the file, its immutable copy and the record have exactly these bundles."""
    sha256 = world.record(NOARCH, FOO)["attestations_sha256"]
    body = world.storage.body(SIGS)
    assert json.loads(body) == [json.loads(one) for one in bundles]
    assert hashlib.sha256(body).hexdigest() == sha256
    assert world.storage.body(f"{SIGS}.{sha256}") == body
    assert world.storage.headers(SIGS).cache_control == "no-cache"
    assert world.storage.headers(f"{SIGS}.{sha256}").cache_control == IMMUTABLE
    check_readable(world.storage)
    # The queue comes to rest: an event of the indexer's own writes leads to none.
    before = world.storage.snapshot(private=True), dict(world.storage.requests)
    (report,) = world.index(SIGS)
    assert {outcome.status for outcome in report.outcomes} == {"unchanged"}
    assert world.storage.snapshot(private=True) == before[0]
    writes = ("put", "copy", "delete", "splice")
    assert [world.storage.requests[kind] for kind in writes] == [before[1].get(kind, 0) for kind in writes]


def codes(world: World) -> dict[str, str]:
    return {rejection.key: rejection.code for rejection in world.notifier.rejections}


def test_index__attestations_that_lack_an_accepted_bundle(world: World) -> None:
    attest(world, ONE)
    attest(world, TWO)
    check(world, ONE, TWO)
    attest(world, TWO)
    check(world, ONE, TWO)
    assert codes(world) == {}


def test_index__attestations_overwritten_before_they_were_indexed(world: World) -> None:
    for one in (ONE, TWO, THREE, ONE):
        world.storage.upload(SIGS, document(one))
    world.index(SIGS)
    check(world, ONE, TWO, THREE)


def test_index__attestations_overwritten_by_the_accepted_ones(world: World) -> None:
    """The last one accepted is a version, not its bytes: the same bytes again hide nothing that came before."""
    attest(world, ONE)
    world.storage.upload(SIGS, document(ONE, TWO))
    world.storage.upload(SIGS, document(ONE))
    world.index(SIGS)
    check(world, ONE, TWO)


def test_index__attestations_deleted(world: World) -> None:
    attest(world, ONE, TWO)
    before = world.storage.body(SIGS)
    world.storage.remove(SIGS)
    world.index(SIGS)
    assert world.storage.body(SIGS) == before
    check(world, ONE, TWO)


def test_index__attestations_deleted_before_they_were_indexed(world: World) -> None:
    attest(world, ONE)
    world.storage.upload(SIGS, document(ONE, TWO))
    world.storage.remove(SIGS)
    world.index(SIGS)
    check(world, ONE, TWO)


def test_index__attestations_whose_versions_are_all_gone(world: World) -> None:
    attest(world, ONE, TWO)
    world.storage.versions[SIGS] = []
    world.index(SIGS)
    check(world, ONE, TWO)


def test_index__attestations_whose_copy_is_gone(world: World) -> None:
    attest(world, ONE)
    attest(world, ONE, TWO)
    world.storage.remove(f"{SIGS}.{world.record(NOARCH, FOO)['attestations_sha256']}")
    world.index(SIGS)
    check(world, ONE, TWO)


def test_index__attestations_whose_copy_is_gone_and_that_are_deleted(world: World) -> None:
    attest(world, ONE)
    attest(world, TWO)
    world.storage.remove(f"{SIGS}.{world.record(NOARCH, FOO)['attestations_sha256']}")
    world.storage.remove(SIGS)
    world.index(SIGS)
    check(world, ONE, TWO)


def test_index__attestations_are_kept_byte_for_byte(world: World) -> None:
    odd = b'{ "b": 1.50,\t"a": "\\u00e9" }'
    attest(world, odd)
    attest(world, b'{"a":"\xc3\xa9","b":1.5}', TWO)  # parsed, appended to and written again
    assert world.storage.body(SIGS) == document(odd, TWO)
    check(world, odd, TWO)


def test_index__attestations_are_named_as_they_were_uploaded(world: World) -> None:
    """The copy that rattler uploads first is the one that the record names."""
    body = b'[\n  {"bundle": 1},\n  {"bundle": 2}\n]\n'
    copy = f"{SIGS}.{hashlib.sha256(body).hexdigest()}"
    world.storage.upload(copy, body)
    world.storage.upload(SIGS, body)
    world.index(SIGS)
    check(world, ONE, TWO)
    assert world.storage.body(SIGS) == body
    assert copy in world.storage.list_keys()


def test_index__attestations_named_twice_in_one_upload(world: World) -> None:
    attest(world, ONE, ONE, TWO)
    assert world.storage.body(SIGS) == document(ONE, TWO)
    check(world, ONE, TWO)


def test_index__empty_attestations_are_rejected(world: World) -> None:
    attest(world)
    assert codes(world) == {SIGS: "attestations-empty"}
    assert SIGS not in world.storage.list_keys()
    assert "attestations_sha256" not in world.record(NOARCH, FOO)
    attest(world, ONE)
    attest(world)
    check(world, ONE)


def test_index__attack_attestations_truncated(world: World) -> None:
    """Neither an empty array nor half a file nor an unreadable one takes accepted bundles away."""
    attest(world, ONE, TWO)
    before = world.storage.body(SIGS)
    for body in (b"[]", b"", before[:-3], b"{}", b" " * (MAX_READ_BYTES + 1)):
        world.storage.upload(SIGS, body)
        world.index(SIGS)
        assert world.storage.body(SIGS) == before
        check(world, ONE, TWO)
    assert len(world.notifier.rejections) == 5


def test_index__attestations_beyond_the_limit_of_one_upload(world: World) -> None:
    attest(world, ONE)
    many = [b'{"many": %d}' % number for number in range(MAX_ADDED_BUNDLES + 1)]
    attest(world, ONE, *many)
    assert codes(world) == {SIGS: "attestations-too-many"}
    check(world, ONE, *many[:-1])
    attest(world, TWO)
    check(world, ONE, *many[:-1], TWO)
    assert len(world.notifier.rejections) == 1


def test_index__attack_large_bundle_keeps_no_other_out(world: World) -> None:
    attest(world, ONE)
    large = json.dumps({"padding": "x" * 300_000}).encode()
    world.storage.upload(SIGS, document(ONE, large))
    world.storage.upload(SIGS, document(ONE, large, TWO))
    world.index(SIGS)
    assert codes(world) == {SIGS: "attestations-too-many"}
    check(world, ONE, TWO)


def test_index__attestations_of_a_removed_artifact(world: World) -> None:
    attest(world, ONE)
    world.storage.remove(KEY)
    world.index(KEY)
    world.storage.remove(SIGS)
    world.index(SIGS)
    assert SIGS not in world.storage.list_keys()
    world.storage.upload(KEY, conda_package(depends=["other"])[1])
    world.index(KEY)
    assert "attestations_sha256" not in world.record(NOARCH, FOO)
    attest(world, TWO)
    check(world, TWO)  # and not those of other bytes, which were deleted with them


def test_index__attestations_of_an_artifact_that_is_replaced() -> None:
    world = World(policy=MUTABLE)
    world.publish(NOARCH, package())
    attest(world, ONE)
    world.publish(NOARCH, package(depends=["other"]))
    check(world, ONE)


def test_index__attestations_uploaded_with_their_artifact() -> None:
    world = World()
    for one in (ONE, TWO):
        world.storage.upload(SIGS, document(one))
    world.storage.upload(KEY, package()[1])
    world.index(SIGS, KEY)
    check(world, ONE, TWO)
    assert_same_as_from_nothing(world.storage)


def test_rebuild__many_accepted_attestations_are_no_upload(world: World) -> None:
    """Where nothing tells what was accepted, the immutable copy does: the limit of one upload is none here."""
    many = [b'{"many": %d}' % number for number in range(3 * MAX_ADDED_BUNDLES)]
    for end in range(MAX_ADDED_BUNDLES, len(many) + 1, MAX_ADDED_BUNDLES):
        attest(world, *many[:end])
    check(world, *many)
    for key in world.storage.list_keys():
        if key != KEY and ".sigs" not in key:
            world.storage.versions[key] = []
    world.storage.versions[SIGS] = world.storage.versions[SIGS][-1:]  # the others have expired
    world.index(KEY)
    check(world, *many)


@pytest.mark.parametrize("arrives", [True, False], ids=["its file arrives", "by listing"])
def test_index__attack_copy_that_is_not_what_its_name_says(world: World, *, arrives: bool) -> None:
    copy = f"{SIGS}.{hashlib.sha256(document(ONE)).hexdigest()}"
    world.storage.upload(copy, document(TWO))
    if arrives:
        attest(world, ONE)
        check(world, ONE)
    else:
        list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
        assert copy not in world.storage.list_keys()
        assert "attestations_sha256" not in world.record(NOARCH, FOO)
    assert codes(world) == {copy: "attestations-hash-mismatch"}


def test_index__copy_by_itself_is_no_input(world: World) -> None:
    world.storage.upload(f"{SIGS}.{hashlib.sha256(document(ONE)).hexdigest()}", document(ONE))
    world.index(KEY)
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert "attestations_sha256" not in world.record(NOARCH, FOO)
    assert codes(world) == {}


def test_reconcile__deleted_attestations_and_lost_copies_come_back(world: World) -> None:
    attest(world, ONE)
    subdir = open_subdir(world.storage, NOARCH)
    sha256 = world.record(NOARCH, FOO)["attestations_sha256"]
    for key in (SIGS, f"{SIGS}.{sha256}"):
        world.storage.remove(key)
        assert [one.filename for one in list_differences(subdir, subdir.fetch_commit()).attestations] == [FOO]
        list(reconcile(subdir, world.indexer()))
        check(world, ONE)
        assert not list_differences(subdir, subdir.fetch_commit()).attestations


def test_index__attestations_are_written_in_order(world: World) -> None:
    """The immutable copy, then the file, then the record."""
    attest(world, ONE)
    world.storage.upload(SIGS, document(TWO))
    world.storage.log.clear()
    world.index(SIGS)
    sha256 = world.record(NOARCH, FOO)["attestations_sha256"]
    puts = [key for kind, key in world.storage.log if kind == "put"]
    assert puts[:2] == [f"{SIGS}.{sha256}", SIGS]
    assert puts.index(SIGS) < puts.index(f"{NOARCH}/repodata_shards.msgpack.zst")


def test_index__attestations_overwritten_while_they_are_written(world: World) -> None:
    """Also where the same bytes come again, which a compare-and-swap by ETag doesn't see."""
    attest(world, ONE)
    world.storage.upload(SIGS, document(TWO))
    fired: list[str] = []

    def interfere(kind: str, key: str, moment: str) -> None:
        if (kind, key, moment) == ("put", SIGS, "before") and not fired:
            fired.append(key)
            world.storage.fault = None
            world.storage.upload(SIGS, document(THREE))
            world.storage.upload(SIGS, document(TWO))
            world.storage.fault = interfere

    world.storage.fault = interfere
    world.index(SIGS)
    world.storage.fault = None
    assert fired
    check(world, ONE, TWO, THREE)


def test_index__attestations_whose_record_was_not_written(world: World) -> None:
    attest(world, ONE)
    world.storage.upload(SIGS, document(TWO))

    def stop(kind: str, key: str, moment: str) -> None:
        if kind == "put" and key.endswith("shards.msgpack.zst"):
            raise UnavailableError("503")

    world.storage.fault = stop
    with pytest.raises(UnavailableError):
        world.index(SIGS)
    world.storage.fault = None
    world.storage.upload(SIGS, document(THREE))
    world.index(SIGS)
    check(world, ONE, TWO, THREE)


@pytest.mark.parametrize("seed", range(4))
def test_index__attack_twenty_publishers_lose_each_others_attestations(world: World, seed: int) -> None:
    """Each reads, appends and writes, and indexers run in between: twenty bundles in the end."""
    world.sleep = pause
    attest(world, ONE)

    def publish(number: int) -> None:
        chooser = random.Random(100 * seed + number)  # noqa: S311 - no secret
        body = world.storage.body(SIGS)
        if chooser.random() < 0.5:
            world.index(KEY)
        bundles = [*json.loads(body), {"publisher": number}]
        world.storage.upload(SIGS, json.dumps(bundles, indent=chooser.choice([None, 2])).encode())
        if chooser.random() < 0.7:
            world.index(SIGS)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(publish, range(20)))
    world.index(SIGS)
    found = json.loads(world.storage.body(SIGS))
    assert found[0] == json.loads(ONE)
    assert sorted(one["publisher"] for one in found[1:]) == list(range(20))
    assert codes(world) == {}
    check(world, *(json.dumps(one).encode() for one in found))


def test_index__attestations_in_a_directory(tmp_path: Path) -> None:
    """Without versions, the union is that of the record's copy and the file."""
    storage, world = DirectoryStorage(tmp_path), World()
    filename, body = package()
    storage.put(KEY, body, headers=HEADERS)
    sha256 = ""
    for uploaded, expected in (([ONE], [ONE]), ([TWO], [ONE, TWO]), (None, [ONE, TWO]), ([THREE], [ONE, TWO, THREE])):
        if uploaded is None:
            (tmp_path / SIGS).unlink()
        else:
            storage.put(SIGS, document(*uploaded), headers=HEADERS)
        index_keys(world.indexer(storage), [KEY, SIGS])
        stored = storage.get(SIGS)
        assert stored is not None
        assert stored.body == document(*expected)
        sha256 = hashlib.sha256(stored.body).hexdigest()
        records = json.loads((tmp_path / NOARCH.channel / "noarch" / "repodata.json").read_bytes())["packages.conda"]
        assert records[filename]["attestations_sha256"] == sha256
        assert (tmp_path / f"{SIGS}.{sha256}").read_bytes() == stored.body
    status = (tmp_path / SIGS).stat()
    index_keys(world.indexer(storage), [KEY, SIGS])
    assert (tmp_path / SIGS).stat().st_mtime_ns == status.st_mtime_ns


def test_index__same_attestations_again_are_unchanged(world: World) -> None:
    attest(world, ONE)
    world.storage.upload(SIGS, document(ONE))
    (report,) = world.index(SIGS)
    assert {outcome.status for outcome in report.outcomes} == {"unchanged"}
    assert report.commits == 0
    check(world, ONE)


def test_index__empty_attestations_that_an_earlier_version_accepted(world: World) -> None:
    """The record no longer names them, and publishers can append."""
    empty = hashlib.sha256(b"[]").hexdigest()
    for key in (SIGS, f"{SIGS}.{empty}"):
        world.storage.upload(key, b"[]")
    subdir = open_subdir(world.storage, NOARCH)
    commit = subdir.fetch_commit()
    for name, cards in subdir.fetch_cards(commit.index, commit.index.shards).items():
        assert cards is not None
        old = {filename: replace(card, attestations_sha256=empty) for filename, card in cards.items()}
        subdir.put_cards(commit.index.shards[name], old)
    world.index(SIGS)
    assert "attestations_sha256" not in world.record(NOARCH, FOO)
    assert codes(world) == {SIGS: "attestations-empty"}
    attest(world, ONE)
    check(world, ONE)


def test_index__cards_of_earlier_versions_name_no_version(world: World) -> None:
    """Everything under the key counts, beside what the record names."""
    attest(world, ONE)
    attest(world, TWO)
    subdir = open_subdir(world.storage, NOARCH)
    commit = subdir.fetch_commit()
    for name, cards in subdir.fetch_cards(commit.index, commit.index.shards).items():
        assert cards is not None
        old = {filename: replace(card, attestations_version=None) for filename, card in cards.items()}
        subdir.put_cards(commit.index.shards[name], old)
    world.storage.upload(SIGS, document(THREE))
    world.index(SIGS)
    check(world, ONE, TWO, THREE)
