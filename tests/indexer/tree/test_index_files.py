"""Index files that can't be read: archived, or encrypted with a key that Fairway lacks."""

import json
from collections.abc import Callable

import pytest

from lambdas.channel.errors import AccessDeniedError, InvalidDocumentError
from lambdas.channel.layout import POLICY_KEY, SubdirLayout
from lambdas.indexer.outputs.registry import channel_filenames, subdir_filenames
from lambdas.indexer.quarantine.rejections import list_rejections
from lambdas.indexer.queue.index_watch import IndexWatch
from lambdas.indexer.queue.messages import ObjectEvent
from lambdas.indexer.queue.signals import Signal
from lambdas.indexer.settings import Settings, fetch_settings, publish_settings
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.collect_garbage import collect_garbage
from tests.indexer.world import (
    NOARCH,
    POLICY,
    SMALL,
    World,
    assert_same_as_from_nothing,
    check_encodings,
    check_readable,
    package,
)
from tests.memory import MemoryStorage

LAYOUT = SubdirLayout(subdir=NOARCH)
INDEX = LAYOUT.shard_index
INDEX_FILES = sorted(
    [INDEX, *(LAYOUT.file(name) for name in subdir_filenames()), *(f"team/{name}" for name in channel_filenames())]
)


def archive(storage: MemoryStorage, key: str) -> None:
    """As a copy of the file onto itself: its metadata stay."""
    storage.archive(key, "GLACIER")


def encrypt(storage: MemoryStorage, key: str) -> None:
    storage._change(key, storage_class=None, is_encrypted=True)


def upload_archived(storage: MemoryStorage, key: str) -> None:
    storage.upload(key, b"foreign", storage_class="DEEP_ARCHIVE")


def upload_encrypted(storage: MemoryStorage, key: str) -> None:
    storage.upload(key, b"foreign", is_encrypted=True)


Change = Callable[[MemoryStorage, str], object]


@pytest.fixture
def world() -> World:
    return World()


def is_readable(storage: MemoryStorage, key: str) -> bool:
    current = storage.versions[key][-1]
    return not current.is_encrypted and not current.info.is_archived


@pytest.mark.parametrize("key", INDEX_FILES)
@pytest.mark.parametrize("change", [archive, encrypt, upload_archived, upload_encrypted])
def test_index__attack_unreadable_index_file(world: World, key: str, change: Change) -> None:
    """The next run writes it again, or removes it if it is not wanted; what it named stays."""
    world.publish(NOARCH, package(), package(name="bar"))
    if world.storage.head(key) is None:
        world.storage.upload(key, b"foreign")
    change(world.storage, key)
    world.index(world.upload(NOARCH, package(name="new")), f"{NOARCH}/")
    assert key not in world.storage.list_keys() or is_readable(world.storage, key)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda", "new-1.0-0.conda"}
    check_readable(world.storage)
    assert_same_as_from_nothing(world.storage)
    assert list(list_rejections(world.storage)) == []


@pytest.mark.parametrize("change", [archive, encrypt])
@pytest.mark.parametrize("name", ["repodata.json", "repodata.json.zst", "run_exports.json", "tables"])
def test_index__unreadable_large_document(name: str, change: Change) -> None:
    world = World(limits=SMALL)
    world.publish(NOARCH, *(package(name=f"p{number}") for number in range(40)))
    change(world.storage, LAYOUT.tables if name == "tables" else LAYOUT.file(name))
    world.publish(NOARCH, package(name="new"))
    assert "new-1.0-0.conda" in world.listed(NOARCH)
    assert len(world.listed(NOARCH)) == 41
    check_readable(world.storage)
    check_encodings(world.storage)


@pytest.mark.parametrize("change", [archive, encrypt])
def test_index__unreadable_private_files(world: World, change: Change) -> None:
    """Cards, the patches in force, the state of the channel's outputs, a draft."""
    world.storage.upload(
        LAYOUT.patch_instructions, json.dumps({"packages.conda": {"foo-1.0-0.conda": {"license": "MIT"}}}).encode()
    )
    world.index(LAYOUT.patch_instructions)
    world.publish(NOARCH, package(), package(name="bar"))
    changed = [key for key in world.storage.list_keys() if key.startswith((".fairway/cards", ".fairway/patches"))]
    changed += [".fairway/channeldata/team/state.json.zst"]
    world.storage.upload(f".fairway/drafts/{INDEX}", b"draft")
    for key in [*changed, f".fairway/drafts/{INDEX}"]:
        change(world.storage, key)
    world.index(world.upload(NOARCH, package(version="2.0")), LAYOUT.whole, LAYOUT.prefix)
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "foo-2.0-0.conda", "bar-1.0-0.conda"}
    check_readable(world.storage)


@pytest.mark.parametrize("change", [archive, encrypt])
def test_index__unreadable_index_and_draft(world: World, change: Change) -> None:
    world.publish(NOARCH, package())
    world.storage.upload(f".fairway/drafts/{INDEX}", b"draft")
    for key in (INDEX, f".fairway/drafts/{INDEX}"):
        change(world.storage, key)
    world.publish(NOARCH, package(name="bar"))
    assert world.listed(NOARCH) == {"foo-1.0-0.conda", "bar-1.0-0.conda"}
    assert_same_as_from_nothing(world.storage)


@pytest.mark.parametrize("key", [INDEX, f"{NOARCH}/repodata.json", "team/channeldata.json"])
def test_index__denied_index_file_is_not_replaced(world: World, key: str) -> None:
    """A missing grant says nothing about the file."""
    world.publish(NOARCH, package())
    before = world.storage.body(key)

    def deny(kind: str, this_key: str, moment: str) -> None:
        if moment == "before" and this_key == key and kind != "put":
            raise AccessDeniedError(f"S3 answered 403 AccessDenied for {key!r}")

    world.storage.fault = deny
    with pytest.raises(AccessDeniedError):
        world.publish(NOARCH, package(name="bar"))
    assert world.storage.body(key) == before


@pytest.mark.parametrize("change", [archive, encrypt, upload_archived, upload_encrypted])
def test_list_checks__unreadable_index(world: World, change: Change) -> None:
    """Events without a principal are judged by the file: it is not Fairway's, readable as it has to be."""
    world.publish(NOARCH, package())
    change(world.storage, INDEX)
    world.storage.upload(LAYOUT.signals, b"{}", is_encrypted=True)
    watch = IndexWatch(
        storage=world.storage, outputs=POLICY.outputs, queue=None, period_seconds=60, raise_alarm=lambda *_: None
    )
    version = world.storage.versions[INDEX][-1].info.version
    event = ObjectEvent(key=INDEX, action="created", version=version)
    assert watch.list_checks(NOARCH, [Signal(subdir=NOARCH, event=event)]) == LAYOUT.check_keys
    assert is_readable(world.storage, LAYOUT.signals)


@pytest.mark.parametrize("change", [archive, encrypt])
def test_publish_settings__unreadable(change: Change) -> None:
    storage, settings = MemoryStorage(), Settings(bucket="bucket", policy=POLICY)
    publish_settings(storage, settings)
    change(storage, POLICY_KEY)
    with pytest.raises(InvalidDocumentError, match="unreadable settings"):
        fetch_settings(storage, bucket="bucket")
    publish_settings(storage, settings)
    assert fetch_settings(storage, bucket="bucket") == settings


@pytest.mark.parametrize("change", [upload_archived, upload_encrypted])
def test_collect_garbage__unreadable_list(world: World, change: Change) -> None:
    for version in ("1.0", "2.0"):
        world.publish(NOARCH, package(version=version))
    change(world.storage, LAYOUT.garbage)
    collect_garbage(open_subdir(world.storage, NOARCH), now_ms=world.storage.clock_ms, grace_ms=1000)
    assert is_readable(world.storage, LAYOUT.garbage)
