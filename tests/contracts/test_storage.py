"""One contract for every storage that the indexer may run on."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lambdas.channel import caching
from lambdas.channel.errors import AccessDeniedError, ConflictError, FairwayError, UnreadableError, VanishedError
from lambdas.storage.protocol import (
    CHUNK_BYTES,
    MIN_PART_BYTES,
    ContentHeaders,
    CopyRange,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
    Part,
)
from lambdas.storage.s3 import S3Storage
from tests.contracts.conftest import Subject, make_s3_storage
from tests.memory import MemoryStorage

HEADERS = ContentHeaders(content_type="application/octet-stream", cache_control=caching.METADATA)
WRITERS = 12
ODD_KEYS = (
    "team/noarch/plus-1.0+cu118-py3.11_0.conda",
    "team/noarch/epoch-1!2.0-0.conda",
    "team/noarch/with space-1-0.conda",
    "team/noarch/per%20cent%2Fslash.conda",
    "team/noarch/a&b=c;d,e:f@g$h.conda",
    "team/noarch/quote'double\"star*.conda",
    "team/noarch/ünïcode-日本語-🦔.conda",
    "team/noarch/tilde~(brackets)[more]{most}.conda",
    "team/noarch/back\\slash.conda",
    "team/noarch/hash#question?.conda",
)


def put(storage: ObjectStorage, key: str, body: bytes = b"body") -> ObjectInfo:
    return storage.put(key, body, headers=HEADERS)


def body_of(storage: ObjectStorage, key: str) -> bytes | None:
    stored = storage.get(key)
    return None if stored is None else stored.body


def keys_under(storage: ObjectStorage, prefix: str) -> list[str]:
    return [info.key for info in storage.list_objects(prefix)]


def race(write: Callable[[int], object]) -> tuple[list[int], list[BaseException]]:
    """Let several threads write at once; return the winner, and the errors of the others."""
    barrier = threading.Barrier(WRITERS)
    won: list[int] = []
    told: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            write(number)
        except FairwayError as error:
            told.append(error)
        else:
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, told


# Reading


def test_head__missing(storage: ObjectStorage) -> None:
    assert storage.head("team/noarch/none.conda") is None


def test_get__missing(storage: ObjectStorage) -> None:
    assert storage.get("team/noarch/none.conda") is None


def test_head__folder_of_a_key_is_no_object(storage: ObjectStorage) -> None:
    put(storage, "team/noarch/a.conda")
    assert storage.head("team/noarch") is None
    assert storage.get("team/noarch") is None


def test_get__what_was_put(storage: ObjectStorage) -> None:
    put(storage, "team/noarch/a.conda", b"first")
    stored = storage.get("team/noarch/a.conda")
    assert stored is not None
    assert stored.body == b"first"
    assert stored.info.key == "team/noarch/a.conda"
    assert stored.info.size == 5


def test_get__empty_object(storage: ObjectStorage) -> None:
    put(storage, "k/empty", b"")
    stored = storage.get("k/empty")
    assert stored is not None
    assert (stored.body, stored.info.size) == (b"", 0)


def test_head__agrees_with_get_and_put(storage: ObjectStorage) -> None:
    written = put(storage, "k/a", b"something")
    head, stored = storage.head("k/a"), storage.get("k/a")
    assert head is not None
    assert stored is not None
    assert (head.etag, head.version, head.size) == (written.etag, written.version, written.size)
    assert stored.info == head
    assert head.last_modified_ms > 1_600_000_000_000


def test_head__whole_seconds(storage: ObjectStorage) -> None:
    put(storage, "k/a")
    head = storage.head("k/a")
    assert head is not None
    assert head.last_modified_ms % 1000 == 0


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 10), (3, 7), (9, 10), (5, 10)])
def test_read_range__exact(storage: ObjectStorage, start: int, stop: int) -> None:
    put(storage, "k/a", b"0123456789")
    info = storage.head("k/a")
    assert info is not None
    assert storage.read_range(info, start, stop) == b"0123456789"[start:stop]


def test_read_range__beyond_the_end_is_cut(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"0123456789")
    info = storage.head("k/a")
    assert info is not None
    assert storage.read_range(info, 8, 100) == b"89"


def test_read_range__empty(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"0123456789")
    info = storage.head("k/a")
    assert info is not None
    assert storage.read_range(info, 4, 4) == b""


def test_stream__whole_object_in_chunks(storage: ObjectStorage) -> None:
    body = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"tail"
    put(storage, "k/large", body)
    info = storage.head("k/large")
    assert info is not None
    chunks = list(storage.stream(info))
    assert b"".join(chunks) == body
    assert len(chunks) >= 4
    assert max(map(len, chunks)) <= CHUNK_BYTES


def test_stream__empty_object(storage: ObjectStorage) -> None:
    put(storage, "k/empty", b"")
    info = storage.head("k/empty")
    assert info is not None
    assert b"".join(storage.stream(info)) == b""


def test_stream__of_a_listed_object(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"listed")
    (info,) = storage.list_objects("k/")
    assert b"".join(storage.stream(info)) == b"listed"


def test_read_range__of_a_listed_object_that_was_replaced(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"old bytes")
    (info,) = storage.list_objects("k/")
    put(storage, "k/a", b"new bytes")
    with pytest.raises(VanishedError):
        storage.read_range(info, 0, 3)
    with pytest.raises(VanishedError):
        list(storage.stream(info))


def test_read_range__replaced_object_is_never_read_as_the_old_one(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"old bytes")
    info = storage.head("k/a")
    assert info is not None
    put(storage, "k/a", b"new bytes")
    with contextlib.suppress(VanishedError):  # a storage that keeps versions may still have it
        assert storage.read_range(info, 0, 3) == b"old"
    with contextlib.suppress(VanishedError):
        assert b"".join(storage.stream(info)) == b"old bytes"


def test_read_range__deleted_object(storage: ObjectStorage) -> None:
    info = put(storage, "k/a")
    storage.delete(info)
    with pytest.raises(VanishedError):
        storage.read_range(info, 0, 3)
    with pytest.raises(VanishedError):
        list(storage.stream(info))


# Conditions


def test_put__replaces(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"one")
    put(storage, "k/a", b"two")
    assert body_of(storage, "k/a") == b"two"


def test_put__if_absent_and_absent(storage: ObjectStorage) -> None:
    storage.put("k/a", b"one", headers=HEADERS, condition=IfAbsent())
    assert body_of(storage, "k/a") == b"one"


@pytest.mark.needs("conditions")
def test_put__if_absent_and_present(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"one")
    with pytest.raises(ConflictError):
        storage.put("k/a", b"two", headers=HEADERS, condition=IfAbsent())
    assert body_of(storage, "k/a") == b"one"


def test_put__if_absent_after_deletion(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"one")
    (info,) = storage.list_objects("k/")
    storage.delete(info)
    storage.put("k/a", b"two", headers=HEADERS, condition=IfAbsent())
    assert body_of(storage, "k/a") == b"two"


def test_put__if_match_and_matching(storage: ObjectStorage) -> None:
    info = put(storage, "k/a", b"one")
    second = storage.put("k/a", b"two", headers=HEADERS, condition=IfMatch(etag=info.etag))
    assert body_of(storage, "k/a") == b"two"
    storage.put("k/a", b"three", headers=HEADERS, condition=IfMatch(etag=second.etag))
    assert body_of(storage, "k/a") == b"three"


@pytest.mark.needs("conditions")
def test_put__if_match_and_replaced(storage: ObjectStorage) -> None:
    info = put(storage, "k/a", b"one")
    put(storage, "k/a", b"two")
    with pytest.raises(ConflictError):
        storage.put("k/a", b"three", headers=HEADERS, condition=IfMatch(etag=info.etag))
    assert body_of(storage, "k/a") == b"two"


@pytest.mark.needs("conditions")
def test_put__if_match_and_gone(storage: ObjectStorage) -> None:
    info = put(storage, "k/a", b"one")
    storage.delete(info)
    with pytest.raises(ConflictError):
        storage.put("k/a", b"two", headers=HEADERS, condition=IfMatch(etag=info.etag))
    assert body_of(storage, "k/a") is None


def test_put__etag_of_a_listing_matches(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"one")
    (info,) = storage.list_objects("k/")
    storage.put("k/a", b"two", headers=HEADERS, condition=IfMatch(etag=info.etag))
    assert body_of(storage, "k/a") == b"two"


@pytest.mark.needs("conditions")
def test_put__many_create_at_once(storage: ObjectStorage) -> None:
    won, told = race(
        lambda number: storage.put("k/a", f"writer {number}".encode(), headers=HEADERS, condition=IfAbsent())
    )
    assert len(won) == 1
    assert [type(error) for error in told] == [ConflictError] * (WRITERS - 1)
    assert body_of(storage, "k/a") == f"writer {won[0]}".encode()


@pytest.mark.needs("conditions")
def test_put__many_replace_at_once(storage: ObjectStorage) -> None:
    info = put(storage, "k/a", b"base")
    won, told = race(
        lambda number: storage.put(
            "k/a", f"writer {number}".encode(), headers=HEADERS, condition=IfMatch(etag=info.etag)
        )
    )
    assert len(won) == 1
    assert [type(error) for error in told] == [ConflictError] * (WRITERS - 1)
    assert body_of(storage, "k/a") == f"writer {won[0]}".encode()


def test_put__unconditional_writes_are_whole(storage: ObjectStorage) -> None:
    bodies = [bytes([number]) * 300_000 for number in range(WRITERS)]
    won, told = race(lambda number: put(storage, "k/a", bodies[number]))
    assert (len(won), told) == (WRITERS, [])
    assert body_of(storage, "k/a") in bodies


@pytest.mark.needs("conditions")
def test_put__counter_of_many_writers_loses_no_increment(storage: ObjectStorage) -> None:
    put(storage, "k/counter", b"0")

    def increment(number: int) -> None:
        while True:
            stored = storage.get("k/counter")
            assert stored is not None
            try:
                storage.put(
                    "k/counter",
                    str(int(stored.body) + 1).encode(),
                    headers=HEADERS,
                    condition=IfMatch(etag=stored.info.etag),
                )
            except ConflictError:
                continue
            return

    won, told = race(increment)
    assert (len(won), told) == (WRITERS, [])
    assert body_of(storage, "k/counter") == str(WRITERS).encode()


# Metadata, hashes


def test_put__metadata_round_trip(storage: ObjectStorage) -> None:
    metadata = {"fairway-commit": "ab" * 32, "fairway-commit-version": "x.Y_z-1", "odd": "a b;c=d,e"}
    written = storage.put("k/a", b"one", headers=HEADERS, metadata=metadata)
    head, stored = storage.head("k/a"), storage.get("k/a")
    assert head is not None
    assert stored is not None
    assert head.metadata == stored.info.metadata == written.metadata == metadata


def test_put__metadata_goes_with_the_object(storage: ObjectStorage) -> None:
    storage.put("k/a", b"one", headers=HEADERS, metadata={"fairway-commit": "1"})
    put(storage, "k/a", b"two")
    head = storage.head("k/a")
    assert head is not None
    assert head.metadata == {}


def test_put__same_bytes_other_metadata(storage: ObjectStorage) -> None:
    first = storage.put("k/a", b"one", headers=HEADERS, metadata={"fairway-commit": "1"})
    storage.put("k/a", b"one", headers=HEADERS, metadata={"fairway-commit": "2"}, condition=IfMatch(etag=first.etag))
    head = storage.head("k/a")
    assert head is not None
    assert head.metadata == {"fairway-commit": "2"}


def test_head__checksums_match_the_bytes(subject: Subject) -> None:
    body = b"x" * 10_000
    put(subject.storage, "k/a", body)
    info = subject.storage.head("k/a")
    assert info is not None
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    assert info.md5 == (md5 if subject.vouches else None)
    assert info.sha256 in {None, hashlib.sha256(body).hexdigest()}


# Versions, copies, deletions


@pytest.mark.needs("version-requests")
def test_head__older_version(subject: Subject) -> None:
    old = put(subject.storage, "k/a", b"old")
    put(subject.storage, "k/a", b"newer")
    if not subject.keeps_versions:
        assert old.version is None
        assert subject.storage.head("k/a", version="any") is None
        assert subject.storage.get("k/a", version="any") is None
        return
    assert old.version is not None
    head, stored = (
        subject.storage.head("k/a", version=old.version),
        subject.storage.get("k/a", version=old.version),
    )
    assert head is not None
    assert stored is not None
    assert (head.size, head.version, stored.body) == (3, old.version, b"old")


@pytest.mark.needs("versions")
def test_get__version_that_was_deleted(subject: Subject) -> None:
    old = put(subject.storage, "k/a", b"old")
    put(subject.storage, "k/a", b"new")
    subject.storage.delete(old)
    assert subject.storage.get("k/a", version=old.version) is None
    assert subject.storage.head("k/a", version=old.version) is None
    assert body_of(subject.storage, "k/a") == b"new"


def test_delete__current_version_lets_the_earlier_one_be_current_again(subject: Subject) -> None:
    old = put(subject.storage, "k/a", b"old")
    new = put(subject.storage, "k/a", b"new")
    subject.storage.delete(new)
    assert body_of(subject.storage, "k/a") == (b"old" if subject.keeps_versions else None)
    if subject.keeps_versions:
        head = subject.storage.head("k/a")
        assert head is not None
        assert head.version == old.version


@pytest.mark.needs("conditions")
def test_delete__stale_info_leaves_the_new_object(storage: ObjectStorage) -> None:
    old = put(storage, "k/a", b"old")
    put(storage, "k/a", b"new")
    storage.delete(old)
    assert body_of(storage, "k/a") == b"new"


def test_delete__info_of_a_listing_removes_the_object(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"old")
    put(storage, "k/a", b"new")
    (info,) = storage.list_objects("k/")
    storage.delete(info)
    assert body_of(storage, "k/a") is None
    assert keys_under(storage, "k/") == []


def test_delete__twice(storage: ObjectStorage) -> None:
    info = put(storage, "k/a")
    storage.delete(info)
    storage.delete(info)
    assert body_of(storage, "k/a") is None


def test_delete__forgets_metadata(storage: ObjectStorage) -> None:
    info = storage.put("k/a", b"one", headers=HEADERS, metadata={"fairway-commit": "1"})
    storage.delete(info)
    put(storage, "k/a", b"one")
    head = storage.head("k/a")
    assert head is not None
    assert head.metadata == {}


def test_copy__bytes_and_metadata(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"bytes")
    info = storage.head("k/a")
    assert info is not None
    storage.copy(info, "elsewhere/deep/b", metadata={"reason": "because"})
    stored = storage.get("elsewhere/deep/b")
    assert stored is not None
    assert (stored.body, stored.info.metadata) == (b"bytes", {"reason": "because"})
    assert body_of(storage, "k/a") == b"bytes"


@pytest.mark.needs("conditions")
def test_copy__replaced_source_is_never_copied_as_the_old_one(subject: Subject) -> None:
    put(subject.storage, "k/a", b"old bytes")
    info = subject.storage.head("k/a")
    assert info is not None
    put(subject.storage, "k/a", b"new bytes")
    if subject.keeps_versions:
        subject.storage.copy(info, "k/b", metadata={})
        assert body_of(subject.storage, "k/b") == b"old bytes"
    else:
        with pytest.raises(VanishedError):
            subject.storage.copy(info, "k/b", metadata={})
        assert body_of(subject.storage, "k/b") is None


def test_copy__source_is_gone(storage: ObjectStorage) -> None:
    info = put(storage, "k/a")
    storage.delete(info)
    with pytest.raises(VanishedError):
        storage.copy(info, "k/b", metadata={})
    assert body_of(storage, "k/b") is None


def test_copy__over_an_object(storage: ObjectStorage) -> None:
    put(storage, "k/b", b"was here")
    put(storage, "k/a", b"bytes")
    info = storage.head("k/a")
    assert info is not None
    storage.copy(info, "k/b", metadata={})
    assert body_of(storage, "k/b") == b"bytes"


@pytest.mark.needs("conditions")
def test_copy__empty_object_to_a_free_key(storage: ObjectStorage) -> None:
    check_copy_to_free_key(storage, b"")


@pytest.mark.parametrize("body", [b"bytes", b"a" * MIN_PART_BYTES, b"a" * (MIN_PART_BYTES + 1)])
def test_copy__to_a_free_key(storage: ObjectStorage, body: bytes) -> None:
    check_copy_to_free_key(storage, body)


def check_copy_to_free_key(storage: ObjectStorage, body: bytes) -> None:
    put(storage, "k/a", body)
    info = storage.head("k/a")
    assert info is not None
    storage.copy(info, "k/b", metadata={"reason": "because"}, condition=IfAbsent())
    stored = storage.get("k/b")
    assert stored is not None
    assert (stored.body, stored.info.metadata) == (body, {"reason": "because"})


@pytest.mark.parametrize("body", [b"bytes", b""])
@pytest.mark.needs("conditions")
def test_copy__never_over_an_object_if_conditional(storage: ObjectStorage, body: bytes) -> None:
    put(storage, "k/b", b"was here")
    put(storage, "k/a", body)
    info = storage.head("k/a")
    assert info is not None
    with pytest.raises(ConflictError):
        storage.copy(info, "k/b", metadata={}, condition=IfAbsent())
    assert body_of(storage, "k/b") == b"was here"


def test_copy__to_a_free_key_and_source_is_gone(storage: ObjectStorage) -> None:
    info = put(storage, "k/a")
    storage.delete(info)
    with pytest.raises(VanishedError):
        storage.copy(info, "k/b", metadata={}, condition=IfAbsent())
    assert body_of(storage, "k/b") is None


# Listing


def test_list_objects__empty(storage: ObjectStorage) -> None:
    assert keys_under(storage, "nothing/here/") == []


@pytest.mark.needs("key-order")
def test_list_objects__order_of_bytes_of_whole_keys(storage: ObjectStorage) -> None:
    # No key is the folder of another: a directory can't contain both.
    keys = ["k/a-b", "k/a.b", "k/a/b", "k/a0", "k/aB", "k/ab", "k/z/y/x", "k/é", "K/a", "k-/a", "k0/a"]
    for key in keys:
        put(storage, key)
    expected = sorted(keys, key=str.encode)
    assert keys_under(storage, "") == expected
    assert keys_under(storage, "k/") == [key for key in expected if key.startswith("k/")]


def test_list_objects__prefix_inside_a_name(storage: ObjectStorage) -> None:
    for key in ("k/ab", "k/abc/d", "k/b", "ka/b"):
        put(storage, key)
    assert keys_under(storage, "k/a") == ["k/ab", "k/abc/d"]
    assert keys_under(storage, "k") == ["k/ab", "k/abc/d", "k/b", "ka/b"]


def test_list_objects__size_etag_and_time(storage: ObjectStorage) -> None:
    put(storage, "k/a", b"12345")
    (info,) = storage.list_objects("k/")
    head = storage.head("k/a")
    assert head is not None
    assert (info.key, info.size, info.etag) == ("k/a", 5, head.etag)
    assert info.last_modified_ms // 1000 == head.last_modified_ms // 1000
    assert info.version is None
    assert info.metadata == {}


def test_list_objects__more_than_a_page(storage: ObjectStorage) -> None:
    keys = [f"many/{number:04}" for number in range(1203)]
    threads = [threading.Thread(target=lambda part=part: [put(storage, key) for key in part]) for part in chunked(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    put(storage, "manyother/x")
    assert keys_under(storage, "many/") == keys
    assert len(set(keys_under(storage, ""))) == 1204


def chunked(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + 101] for start in range(0, len(keys), 101)]


def test_list_objects__without_private_files(storage: ObjectStorage) -> None:
    info = storage.put("k/a", b"one", headers=HEADERS, metadata={"fairway-commit": "1"})
    storage.put("k/a", b"two", headers=HEADERS, metadata={"fairway-commit": "2"}, condition=IfMatch(etag=info.etag))
    assert keys_under(storage, "") == ["k/a"]
    assert keys_under(storage, ".fairway/") == []


def test_list_folders__direct_ones(storage: ObjectStorage) -> None:
    for key in ("team/noarch/a", "team/linux-64/shards/b", "team/channeldata.json", "other/noarch/a"):
        put(storage, key)
    assert list(storage.list_folders("team/")) == ["linux-64", "noarch"]
    assert list(storage.list_folders("team/linux-64/")) == ["shards"]
    assert [folder for folder in storage.list_folders("") if folder != ".fairway"] == ["other", "team"]
    assert list(storage.list_folders("nobody/")) == []


def test_list_folders__more_than_a_page_of_keys_in_one(storage: ObjectStorage) -> None:
    for number in range(3):
        for name in ("a", "b", "c"):
            put(storage, f"team/{name}/{number}")
    assert list(storage.list_folders("team/")) == ["a", "b", "c"]


def test_list_files__direct_ones(storage: ObjectStorage) -> None:
    for key in ("team/noarch/a", "team/b", "team/a", "c"):
        put(storage, key)
    assert [info.key for info in storage.list_files("team/")] == ["team/a", "team/b"]
    assert list(storage.list_files("team/")) == [
        info for info in storage.list_objects("team/") if "noarch" not in info.key
    ]
    assert [info.key for info in storage.list_files("")] == ["c"]
    assert list(storage.list_files("nobody/")) == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_put__unusual_keys(storage: ObjectStorage, key: str) -> None:
    info = put(storage, key, key.encode())
    assert body_of(storage, key) == key.encode()
    head = storage.head(key)
    assert head is not None
    assert storage.read_range(head, 0, 4) == key.encode()[:4]
    assert keys_under(storage, "team/") == [key]
    assert keys_under(storage, key[:-3]) == [key]
    storage.copy(head, f".fairway/rejected/{key}/0/object", metadata={})
    assert body_of(storage, f".fairway/rejected/{key}/0/object") == key.encode()
    storage.put(key, b"again", headers=HEADERS, condition=IfMatch(etag=info.etag))
    (listed,) = storage.list_objects("team/")
    storage.delete(listed)
    assert storage.head(key) is None


# The history of one key


@pytest.mark.needs("version-requests")
def test_list_history__newest_first_with_deletions(subject: Subject) -> None:
    storage = subject.storage
    first = put(storage, "k/a.sigs", b"1")
    second = put(storage, "k/a.sigs", b"22")
    put(storage, "k/a.sigs.0", b"of a longer key")
    if not subject.keeps_versions:
        (only,) = storage.list_history("k/a.sigs")
        assert (only.info.etag, only.info.version, only.is_deletion) == (second.etag, None, False)
        return
    current = next(info for info in storage.list_objects("k/a.sigs"))
    storage.delete(current)  # of a listing, which names no version: it leaves a delete marker
    third = put(storage, "k/a.sigs", b"333")
    found = list(storage.list_history("k/a.sigs"))
    assert [(one.info.size, one.is_deletion) for one in found if not one.is_deletion] == [
        (3, False), (2, False), (1, False),
    ]  # fmt: skip
    assert [one.info.version for one in found if not one.is_deletion] == [third.version, second.version, first.version]
    assert sum(one.is_deletion for one in found) == 1
    assert {one.info.key for one in found} == {"k/a.sigs"}
    assert body_of(storage, "k/a.sigs") == b"333"


def test_list_history__deleted_key_begins_with_its_deletion(subject: Subject) -> None:
    storage = subject.storage
    put(storage, "k/a", b"1")
    storage.delete(next(storage.list_objects("k/a")))
    found = list(storage.list_history("k/a"))
    assert [one.is_deletion for one in found] == ([True, False] if subject.keeps_versions else [])
    assert len({one.info.version for one in found}) == len(found)


def test_list_history__of_nothing(storage: ObjectStorage) -> None:
    put(storage, "k/a.sigs", b"of a longer key")
    assert list(storage.list_history("k/a")) == []


@pytest.mark.needs("version-requests")
def test_has_history__iff_there_is_something_to_list(subject: Subject) -> None:
    storage = subject.storage
    put(storage, "k/a.sigs", b"of a longer key")
    assert not storage.has_history("k/a")
    put(storage, "k/a", b"1")
    assert storage.has_history("k/a")
    storage.delete(next(storage.list_objects("k/a")))
    assert storage.has_history("k/a") == subject.keeps_versions == bool(list(storage.list_history("k/a")))
    put(storage, "k/b", b"1")
    for one in storage.list_history("k/b"):
        storage.delete(one.info)
    assert not storage.has_history("k/b")


@pytest.mark.needs("version-requests")
def test_list_history__each_is_read_by_its_version(subject: Subject) -> None:
    storage = subject.storage
    for number in range(3):
        put(storage, "k/a", str(number).encode())
    stored = [storage.get("k/a", version=one.info.version) for one in storage.list_history("k/a")]
    expected = [b"2", b"1", b"0"] if subject.keeps_versions else [b"2"]
    assert [None if one is None else one.body for one in stored] == expected


@pytest.mark.needs("version-requests")
def test_read_range__older_version(subject: Subject) -> None:
    storage = subject.storage
    put(storage, "k/a", b"first")
    put(storage, "k/a", b"second")
    oldest = list(storage.list_history("k/a"))[-1].info
    expected = b"first" if subject.keeps_versions else b"second"
    assert storage.read_range(oldest, 1, 3) == expected[1:3]
    assert b"".join(storage.stream(oldest)) == expected


@pytest.mark.needs("version-requests")
def test_list_versions__of_several_keys(subject: Subject) -> None:
    storage = subject.storage
    for key in ("k/b", "k/a.sigs", "k/a", "k/a", "k/shards/x", "l/a"):
        put(storage, key, key.encode())
    storage.delete(next(storage.list_objects("k/b")))
    found = [(one.info.key, one.is_deletion) for one in storage.list_versions("k/")]
    kept = [("k/a", False), ("k/a.sigs", False), ("k/shards/x", False)]
    if subject.keeps_versions:
        kept = [("k/a", False), *kept[:2], ("k/b", True), ("k/b", False), kept[2]]
    assert found == kept
    for key in ("k/a", "k/a.sigs", "k/b"):
        assert [one for one in storage.list_versions("k/") if one.info.key == key] == list(storage.list_history(key))


# What can't be read


@pytest.mark.parametrize("upload", ["archived", "encrypted"])
def test_any__unreadable(subject: Subject, upload: str) -> None:
    storage = subject.storage
    first = put(storage, "k/a", b"bytes")
    if not subject.keeps_versions:  # a directory has no such objects
        storage.check_readable(first)
        assert first.storage_class is None
        return
    upload_unreadable(storage, "k/a", b"bytes", is_encrypted=upload == "encrypted")
    (latest, earlier) = (one.info for one in storage.list_history("k/a"))
    assert earlier.version == first.version
    storage.check_readable(earlier)
    assert storage.has_history("k/a")
    (listed,) = storage.list_objects("k/a")
    assert listed.storage_class == latest.storage_class == ("GLACIER" if upload == "archived" else None)
    reads: list[Callable[[], object]] = [
        lambda: storage.check_readable(latest),
        lambda: storage.get("k/a"),
        lambda: storage.get("k/a", version=latest.version),
        lambda: storage.fetch("k/a", max_bytes=10),
        lambda: storage.read_range(latest, 0, 1),
        lambda: list(storage.stream(latest)),
    ]
    if upload == "encrypted" or isinstance(storage, MemoryStorage):  # the emulator copies archived objects
        reads.append(lambda: storage.copy(latest, "k/b", metadata={}))
    for read in reads:
        with pytest.raises(UnreadableError):
            read()
    if upload == "archived":
        head = storage.head("k/a")
        assert head is not None
        assert head.storage_class == "GLACIER"
    else:
        with pytest.raises(UnreadableError):
            storage.head("k/a")


def upload_unreadable(storage: ObjectStorage, key: str, body: bytes, *, is_encrypted: bool) -> None:
    if isinstance(storage, S3Storage):
        how: dict[str, Any] = (
            {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(32)}
            if is_encrypted
            else {"StorageClass": "GLACIER"}
        )
        storage._client.put_object(Bucket=storage.bucket, Key=key, Body=body, **how)
    else:
        assert isinstance(storage, MemoryStorage)
        storage.upload(key, body, storage_class=None if is_encrypted else "GLACIER", is_encrypted=is_encrypted)


def test_check_readable__replaced_and_gone(subject: Subject) -> None:
    storage = subject.storage
    first = put(storage, "k/a", b"first")
    second = put(storage, "k/a", b"the second")
    storage.check_readable(second)
    storage.check_readable(put(storage, "k/empty", b""))
    if subject.keeps_versions:
        storage.check_readable(first)
    storage.delete(second)
    with pytest.raises(VanishedError):
        storage.check_readable(second)


@pytest.mark.needs("version-requests")
def test_hide__keeps_the_version(subject: Subject) -> None:
    storage = subject.storage
    first = put(storage, "k/a", b"first")
    if not subject.keeps_versions:
        with pytest.raises(AccessDeniedError, match="keeps no versions"):
            storage.hide(first)
        assert body_of(storage, "k/a") == b"first"
        return
    second = put(storage, "k/a", b"second")
    with pytest.raises(VanishedError):
        storage.hide(first)
    storage.hide(second)
    assert storage.head("k/a") is None
    found = list(storage.list_history("k/a"))
    assert [one.is_deletion for one in found] == [True, False, False]
    with pytest.raises(VanishedError):
        storage.hide(second)


# Splicing

PART = MIN_PART_BYTES


@pytest.mark.needs("large-objects")
def test_splice__parts_of_itself_and_new_bytes(storage: ObjectStorage) -> None:
    body = b"a" * PART + b"b" * PART + b"c" * PART + b"tail"
    base = put(storage, "k/large", body)
    middle = b"B" * (PART + 1)
    written = storage.splice(
        "k/large",
        [CopyRange(start=0, stop=PART), middle, CopyRange(start=2 * PART, stop=len(body))],
        base=base,
        headers=HEADERS,
        metadata={"fairway-commit": "1"},
    )
    stored = storage.get("k/large")
    assert stored is not None
    assert stored.body == b"a" * PART + middle + b"c" * PART + b"tail"
    assert (stored.info.etag, stored.info.size, stored.info.version) == (written.etag, written.size, written.version)
    assert stored.info.metadata == written.metadata == {"fairway-commit": "1"}
    assert storage.read_range(written, PART, PART + 3) == b"BBB"
    assert stored.info.md5 in {None, hashlib.md5(stored.body, usedforsecurity=False).hexdigest()}
    assert stored.info.sha256 in {None, hashlib.sha256(stored.body).hexdigest()}


def test_splice__twice(storage: ObjectStorage) -> None:
    info = put(storage, "k/large", b"a" * (2 * PART))
    for letter in (b"b", b"c"):
        info = storage.splice(
            "k/large", [CopyRange(start=0, stop=2 * PART), letter], base=info, headers=HEADERS, metadata={}
        )
    assert body_of(storage, "k/large") == b"a" * (2 * PART) + b"c"


def test_splice__creates(storage: ObjectStorage) -> None:
    storage.splice("k/large", [b"a" * PART, b"b" * PART, b"c"], base=None, headers=HEADERS)
    assert body_of(storage, "k/large") == b"a" * PART + b"b" * PART + b"c"


@pytest.mark.needs("conditions")
def test_splice__create_conflicts_with_an_existing_object(storage: ObjectStorage) -> None:
    put(storage, "k/large", b"there")
    with pytest.raises(ConflictError):
        storage.splice("k/large", [b"new"], base=None, headers=HEADERS)
    assert body_of(storage, "k/large") == b"there"


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.needs("conditions")
def test_splice__base_was_replaced(storage: ObjectStorage, *, copies: bool) -> None:
    base = put(storage, "k/large", b"a" * (PART + 1))
    put(storage, "k/large", b"other")
    with pytest.raises(ConflictError):
        storage.splice(
            "k/large",
            [CopyRange(start=0, stop=PART) if copies else b"a" * PART, b"new"],
            base=base,
            headers=HEADERS,
        )
    assert body_of(storage, "k/large") == b"other"


def test_splice__base_is_gone(storage: ObjectStorage) -> None:
    base = put(storage, "k/large", b"a" * (PART + 1))
    storage.delete(base)
    with pytest.raises(ConflictError):
        storage.splice("k/large", [CopyRange(start=0, stop=PART), b"new"], base=base, headers=HEADERS)
    assert body_of(storage, "k/large") is None


@pytest.mark.needs("conditions")
def test_splice__many_at_once(storage: ObjectStorage) -> None:
    base = put(storage, "k/large", b"a" * PART)
    won, told = race(
        lambda number: storage.splice(
            "k/large", [CopyRange(start=0, stop=PART), bytes([number])], base=base, headers=HEADERS
        )
    )
    assert len(won) == 1
    assert [type(error) for error in told] == [ConflictError] * (WRITERS - 1)
    assert body_of(storage, "k/large") == b"a" * PART + bytes([won[0]])


@pytest.mark.parametrize("parts", [[b"small", b"last"], [CopyRange(start=0, stop=3), b"last"], [b""]])
def test_splice__invalid_parts(storage: ObjectStorage, parts: list[Part]) -> None:
    base = put(storage, "k/large", b"a" * PART)
    with pytest.raises(ValueError, match="a part of"):
        storage.splice("k/large", parts, base=base, headers=HEADERS)
    assert body_of(storage, "k/large") == b"a" * PART


def test_splice__a_failing_source_leaves_the_old_object(storage: ObjectStorage) -> None:
    base = put(storage, "k/large", b"a" * PART)

    def parts() -> Iterator[Part]:
        yield b"b" * PART
        raise VanishedError("what was to be read is gone")

    with pytest.raises(VanishedError):
        storage.splice("k/large", parts(), base=base, headers=HEADERS)
    assert body_of(storage, "k/large") == b"a" * PART
    assert keys_under(storage, "k/") == ["k/large"]


# What a second emulator is for


@pytest.mark.emulator
def test_fauxqs__rejects_a_range_of_a_small_source(fauxqs_endpoint: str) -> None:
    storage = make_s3_storage(fauxqs_endpoint, keeps_versions=False)
    put(storage, "k/a", b"a" * MIN_PART_BYTES)
    client: Any = storage._client
    place = {"Bucket": storage.bucket, "Key": "k/b"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    with pytest.raises(client.exceptions.ClientError, match="InvalidRequest"):
        client.upload_part_copy(
            **place,
            UploadId=upload,
            PartNumber=1,
            CopySource=f"{storage.bucket}/k/a",
            CopySourceRange=f"bytes=0-{MIN_PART_BYTES - 1}",
        )
