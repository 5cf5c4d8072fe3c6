"""Uploads that can't be read: archived, or encrypted with a key that readers lack."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from lambdas.channel.errors import AccessDeniedError, UnavailableError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from tests.indexer.world import NOARCH, PATCHES, POLICY, World, check_readable, package
from tests.memory import MemoryStorage

FOO = f"{NOARCH}/foo-1.0-0.conda"
BODY = package()[1]

Upload = Callable[[MemoryStorage, str, bytes], object]


def archived(storage: MemoryStorage, key: str, body: bytes) -> None:
    storage.upload(key, body, storage_class="GLACIER")


def encrypted(storage: MemoryStorage, key: str, body: bytes) -> None:
    storage.upload(key, body, is_encrypted=True)


def archived_with_checksum(storage: MemoryStorage, key: str, body: bytes) -> None:
    """As an upload with ``--checksum-algorithm SHA256``: HEAD says that these are the published bytes."""
    archived(storage, key, body)
    versions = storage.versions[key]
    sha256 = hashlib.sha256(body).hexdigest()
    versions[-1] = replace(versions[-1], info=replace(versions[-1].info, sha256=sha256))


UPLOADS = [archived, archived_with_checksum, encrypted]


@pytest.fixture
def world() -> World:
    return World()


def list_codes(world: World) -> list[str]:
    return [rejection.code for rejection in list_rejections(world.storage)]


def list_versions(world: World, key: str = FOO) -> list[tuple[str | None, bool]]:
    return [(one.info.version, one.is_deletion) for one in world.storage.list_history(key)]


def deny(storage: MemoryStorage, prefix: str) -> None:
    """Deny everything below a prefix, as S3 does where a grant is missing."""

    def fault(_kind: str, key: str, moment: str) -> None:
        if moment == "before" and key.startswith(prefix):
            raise AccessDeniedError(f"S3 answered 403 AccessDenied for {key!r}")

    storage.fault = fault


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("body", [BODY, b"other bytes"])
def test_index__attack_unreadable_upload_over_a_published_artifact(world: World, upload: Upload, body: bytes) -> None:
    world.publish(NOARCH, package())
    before, versions = world.storage.body(f"{NOARCH}/repodata.json"), list_versions(world)
    for _ in range(3):
        upload(world.storage, FOO, body)
    (report,) = world.index(FOO)
    assert [(one.status, one.rejection and one.rejection.code) for one in report.outcomes] == [
        ("rejected", RejectionCode.NOT_READABLE)
    ]
    assert report.failures == {}
    assert list_versions(world) == versions
    assert world.storage.body(FOO) == BODY
    assert world.storage.body(f"{NOARCH}/repodata.json") == before
    assert FOO in world.notifier.dropped


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__unreadable_upload_before_the_first_is_indexed(world: World, upload: Upload) -> None:
    world.upload(NOARCH, package())
    upload(world.storage, FOO, BODY)
    world.index(FOO)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert world.storage.body(FOO) == BODY


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__unreadable_upload_to_a_new_key_is_kept_behind_a_delete_marker(world: World, upload: Upload) -> None:
    upload(world.storage, FOO, BODY)
    versions = list_versions(world)
    world.index(FOO, world.upload(NOARCH, package(name="bar")))
    assert list_codes(world) == ["not-readable"]
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    (marker, *kept) = list_versions(world)
    assert marker[1]
    assert kept == versions
    check_readable(world.storage)


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__unreadable_upload_after_a_deletion(world: World, upload: Upload) -> None:
    """What came before a deletion is not served again."""
    world.publish(NOARCH, package())
    world.storage.remove(FOO)
    upload(world.storage, FOO, BODY)
    world.index(FOO)
    assert world.listed(NOARCH) == set()
    assert list_versions(world)[0][1]
    assert len(list_versions(world)) == 4


def test_index__good_upload_after_an_unreadable_one(world: World) -> None:
    archived(world.storage, FOO, BODY)
    world.index(FOO)
    world.publish(NOARCH, package())
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert world.storage.body(FOO) == BODY


def test_index__earlier_version_that_cannot_be_checked(world: World) -> None:
    """An outage while the earlier version is read is no evidence about it: nothing is removed."""
    world.publish(NOARCH, package())
    published = world.storage.head(FOO)
    assert published is not None
    archived(world.storage, FOO, BODY)
    versions = list_versions(world)
    real = world.storage.check_readable

    def check(info: object) -> None:
        if getattr(info, "version", None) == published.version:
            raise UnavailableError("503")
        real(info)  # type: ignore[arg-type]  # as there

    world.storage.check_readable = check  # type: ignore[method-assign]
    (report,) = world.index(FOO)
    assert set(report.failures) == {FOO}
    assert list_versions(world) == versions
    world.storage.check_readable = real  # type: ignore[method-assign]
    world.index(FOO)
    assert world.storage.body(FOO) == BODY


def test_index__good_upload_while_an_unreadable_one_is_hidden(world: World) -> None:
    archived(world.storage, FOO, BODY)
    real = world.storage.hide

    def hide(info: object) -> None:
        world.storage.hide = real  # type: ignore[method-assign]
        world.upload(NOARCH, package(about={"summary": "good"}))
        real(info)  # type: ignore[arg-type]  # as there

    world.storage.hide = hide  # type: ignore[method-assign]
    world.index(FOO)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    check_readable(world.storage)


@pytest.mark.parametrize("storage_class", ["STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
def test_index__storage_class_that_is_read_at_once(world: World, storage_class: str) -> None:
    world.publish(NOARCH, package())
    world.storage.archive(FOO, storage_class)
    world.index(FOO)
    assert list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}
    assert list_codes(world) == []


def test_reconcile__archived_without_an_event(world: World) -> None:
    world.publish(NOARCH, package())
    archived(world.storage, FOO, BODY)  # the same bytes: ETag and size say nothing
    assert list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert list_codes(world) == ["not-readable"]
    assert world.storage.body(FOO) == BODY
    assert world.listed(NOARCH) == {"foo-1.0-0.conda"}


def test_index__attack_denied_artifacts_are_neither_removed_nor_rejected(world: World) -> None:
    """The indexer's grant is missing: 1,000 events, and the records stay."""
    packages = [package(name=f"p{number}") for number in range(20)]
    world.publish(NOARCH, *packages)
    keys = [f"{NOARCH}/{filename}" for filename, _ in packages]
    before = world.storage.snapshot(private=True)
    deny(world.storage, f"{NOARCH}/p")
    for _ in range(50):
        (report,) = world.index(*keys)
        assert set(report.failures) == set(keys)
        assert not report.outcomes
    world.storage.fault = None
    assert world.storage.snapshot(private=True) == before
    assert world.notifier.rejections == []
    assert world.notifier.dropped == []


@pytest.mark.parametrize("upload", UPLOADS)
def test_reject__attack_unreadable_upload_under_an_invalid_key(world: World, upload: Upload) -> None:
    key = f"{NOARCH}/not-an-artifact.conda"
    upload(world.storage, key, BODY)
    world.index(key)
    assert list_codes(world) == ["not-readable"]
    assert key not in world.storage.list_keys()
    assert [is_deletion for _, is_deletion in list_versions(world, key)] == [True, False]


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__attack_unreadable_patches(world: World, upload: Upload) -> None:
    key = f"{NOARCH}/{PATCHES}"
    world.publish(NOARCH, package())
    world.storage.upload(key, b'{"patch_instructions_version": 1, "remove": ["foo-1.0-0.conda"]}')
    world.index(key)
    upload(world.storage, key, b"{}")
    world.index(key, world.upload(NOARCH, package(name="bar")))
    assert list_codes(world) == ["not-readable"]
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__attack_unreadable_attestations(world: World, upload: Upload) -> None:
    world.publish(NOARCH, package())
    sigs = f"{FOO}.sigs"
    world.storage.upload(sigs, b'[{"a": 1}]')
    world.index(sigs)
    before = world.storage.snapshot()
    upload(world.storage, sigs, b'[{"a": 1}, {"b": 2}]')
    (report,) = world.index(sigs)
    assert report.failures == {}
    assert list_codes(world) == ["not-readable"]
    assert world.storage.snapshot() == before
    assert len(list_versions(world, sigs)) == 4  # the publisher's, Fairway's, the unreadable one, Fairway's
    world.index(sigs)
    assert len(world.notifier.rejections) == 1
    assert list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert world.storage.snapshot() == before


@pytest.mark.parametrize("upload", UPLOADS)
def test_index__unreadable_attestations_alone(world: World, upload: Upload) -> None:
    world.publish(NOARCH, package())
    sigs = f"{FOO}.sigs"
    upload(world.storage, sigs, b'[{"a": 1}]')
    (report,) = world.index(sigs)
    assert report.failures == {}
    assert list_codes(world) == ["not-readable"]
    assert sigs not in world.storage.list_keys()
    world.storage.upload(sigs, b'[{"a": 1}]')
    world.index(sigs)
    assert "attestations_sha256" in world.record(NOARCH, "foo-1.0-0.conda")


@pytest.mark.parametrize("upload", UPLOADS)
def test_reconcile__unreadable_attestations_without_an_event(world: World, upload: Upload) -> None:
    world.publish(NOARCH, package())
    sigs = f"{FOO}.sigs"
    world.storage.upload(sigs, b'[{"a": 1}]')
    world.index(sigs)
    before = world.storage.snapshot()
    upload(world.storage, sigs, b'[{"a": 1}]')
    assert list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    world.index(sigs)  # an archived one has the ETag of its copy: its event tells
    assert world.storage.snapshot() == before


@pytest.mark.parametrize("earlier", [None, package(), package(depends=["old"])])
def test_reconcile__published_artifact_that_was_archived(earlier: tuple[str, bytes] | None) -> None:
    """Its own bytes are what was published: they are kept, even if an earlier version can be read."""
    world = World(policy=replace(POLICY, mutable_channels=("*",)))
    if earlier is not None:
        world.publish(NOARCH, earlier)
    world.publish(NOARCH, package(), package(name="bar"))
    versions = list_versions(world)
    world.storage.archive(FOO, "DEEP_ARCHIVE")
    assert list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert world.listed(NOARCH) == {"bar-1.0-0.conda"}
    assert list_codes(world) == ["not-readable"]
    assert list_versions(world)[1:] == versions
