"""A short listing says the same of many keys as one request for each."""

import pytest

from lambdas.indexer.change.list_many import KEYS_PER_PAGE, current_etag, list_many
from lambdas.storage.protocol import PAGE_OBJECTS
from tests.indexer.world import NOARCH, World, package
from tests.memory import MemoryStorage

KEYS = [f"{NOARCH}/p{number:05}-1-0.conda" for number in range(4000)]


def upload(storage: MemoryStorage, *keys: str) -> None:
    for key in keys:
        storage.upload(key, key.encode())


def test_list_many__few_keys_are_not_listed() -> None:
    storage = MemoryStorage()
    upload(storage, *KEYS[:KEYS_PER_PAGE])
    assert list_many(storage, KEYS[: KEYS_PER_PAGE - 1]) == {}
    assert storage.requests["list"] == 0
    assert len(list_many(storage, KEYS[:KEYS_PER_PAGE])) == KEYS_PER_PAGE


def test_list_many__present_replaced_deleted_and_missing() -> None:
    storage = MemoryStorage()
    keys = KEYS[:KEYS_PER_PAGE]
    upload(storage, *keys[1:])
    upload(storage, keys[2], f"{keys[3]}.sigs", f"{NOARCH}/a-1-0.conda", f"{NOARCH}/z-1-0.conda")
    storage.remove(keys[4])
    listed = list_many(storage, keys)
    assert list(listed) == keys
    assert [len(listed[key]) for key in keys[:6]] == [0, 1, 2, 1, 2, 1]
    for key in keys:
        info = storage.head(key)
        assert current_etag(listed[key]) == (None if info is None else info.etag)


@pytest.mark.parametrize("pages", [1, 2])
def test_list_many__lists_no_more_pages_than_pay(pages: int) -> None:
    storage = MemoryStorage()
    upload(storage, *KEYS)
    wanted = KEYS[:: len(KEYS) // (pages * KEYS_PER_PAGE)]
    listed = list_many(storage, wanted)
    assert list(listed) == [key for key in wanted if key < KEYS[pages * PAGE_OBJECTS - 1]]
    assert 0 < len(listed) < len(wanted)


def test_index__a_burst_takes_fewer_requests_than_two_per_artifact() -> None:
    world = World()
    count = 200
    keys = [world.upload(NOARCH, package(name=f"p{number % 20}", version=f"1.{number}")) for number in range(count)]
    world.upload(NOARCH, package(name="p1", version="1.1"))
    world.storage.upload(f"{keys[7]}.sigs", b'[{"other": 1}]')
    world.storage.requests.clear()
    (report,) = world.index(*keys)
    assert {outcome.status for outcome in report.outcomes} == {"indexed"}
    assert world.record(NOARCH, keys[7].rpartition("/")[2])["attestations_sha256"]
    assert sum(world.storage.requests.values()) < 2 * count
    assert world.storage.requests["head"] < count / 4
