from collections.abc import Callable

import pytest

from lambdas.access.changes import MAX_HISTORY, apply_token_created, apply_visibility
from lambdas.access.document import AccessDocument, Change, Visibility, encode_access
from lambdas.channel.errors import ConflictError, InvalidDocumentError, UnavailableError, UsageError
from lambdas.channel.layout import ACCESS_KEY, AUDIT_PREFIX
from lambdas.channel.names import Channel
from scripts.fairway.access_store import MAX_ATTEMPTS, change_access, fetch_access, fetch_history
from tests.access_documents import NOW, make_secret, make_token
from tests.memory import MemoryStorage

TOKEN = make_token(make_secret(1), "team", created=NOW)


def make_bucket() -> MemoryStorage:
    """A bucket as a deployment leaves it."""
    storage = MemoryStorage()
    storage.upload(ACCESS_KEY, encode_access(AccessDocument()))
    return storage


def create(document: AccessDocument) -> AccessDocument:
    return apply_token_created(document, TOKEN)


def publish(name: str) -> Callable[[AccessDocument], AccessDocument]:
    return lambda document: apply_visibility(document, Channel(name), Visibility.PUBLIC, now=NOW, by="ada")


def change(storage: MemoryStorage, make: Callable[[AccessDocument], AccessDocument]) -> AccessDocument:
    return change_access(storage, make, now=NOW, sleep=lambda _: None)


def test_change_access__returns_what_is_there_now() -> None:
    storage = make_bucket()
    assert change(storage, create) == fetch_access(storage) == create(AccessDocument())


def test_change_access__attack_lost_document_is_not_replaced_by_an_empty_one() -> None:
    storage = make_bucket()
    storage.remove(ACCESS_KEY)
    with pytest.raises(UsageError, match="no access document"):
        change(storage, create)
    assert storage.list_keys() == []


def test_change_access__nothing_to_change_writes_nothing() -> None:
    storage = make_bucket()
    change(storage, create)
    before = storage.requests["put"]
    change(storage, create)
    assert storage.requests["put"] == before


def test_change_access__competing_changes_are_all_kept() -> None:
    storage = make_bucket()
    others = iter(["one", "two", "three"])

    def interrupt(request: str, key: str, when: str) -> None:
        if (request, when) == ("put", "before") and (name := next(others, None)):
            storage.fault = None
            change(storage, publish(name))
            storage.fault = interrupt

    storage.fault = interrupt
    change(storage, create)
    assert set(fetch_access(storage).channels) == {"one", "two", "three"}
    assert fetch_access(storage).tokens == (TOKEN,)


def test_change_access__gives_up_against_endless_competition() -> None:
    storage = make_bucket()

    def lose(request: str, key: str, when: str) -> None:
        if (request, when) == ("put", "before"):
            raise ConflictError("lost")

    storage.fault = lose
    with pytest.raises(ConflictError):
        change(storage, create)
    assert storage.requests["get"] == MAX_ATTEMPTS


def test_change_access__lost_answer_of_a_write_that_persisted_is_no_second_token() -> None:
    storage = make_bucket()

    def lose_once(request: str, key: str, when: str) -> None:
        if (request, when) == ("put", "after"):
            storage.fault = None
            raise ConflictError("412 to a retry of our own write")

    storage.fault = lose_once
    assert change(storage, create).tokens == (TOKEN,)
    assert len(fetch_access(storage).history) == 1


def test_change_access__outage_is_passed_on() -> None:
    storage = make_bucket()

    def fail(request: str, key: str, when: str) -> None:
        raise UnavailableError("down")

    storage.fault = fail
    with pytest.raises(UnavailableError):
        change(storage, create)


def test_change_access__malformed_document_is_not_replaced() -> None:
    storage = make_bucket()
    storage.upload(ACCESS_KEY, b"{")
    with pytest.raises(InvalidDocumentError):
        change(storage, create)
    assert storage.requests["put"] == 0


def make_full(storage: MemoryStorage) -> tuple[Change, ...]:
    history = tuple(Change(at=at, by="ada", action="x", subject=str(at)) for at in range(MAX_HISTORY))
    storage.upload(ACCESS_KEY, encode_access(AccessDocument(history=history)))
    return history


def test_fetch_history__archives_lose_nothing() -> None:
    storage = make_bucket()
    history = make_full(storage)
    after = change(storage, create)
    assert len(after.history) == MAX_HISTORY // 2
    assert fetch_history(storage) == (*history, *create(AccessDocument()).history)


def test_fetch_history__crash_between_archive_and_swap_doubles_nothing() -> None:
    storage = make_bucket()
    history = make_full(storage)

    def crash(request: str, key: str, when: str) -> None:
        if (request, key, when) == ("put", ACCESS_KEY, "before"):
            raise UnavailableError("power cut")

    storage.fault = crash
    with pytest.raises(UnavailableError):
        change(storage, create)
    storage.fault = None
    assert list(storage.list_objects(AUDIT_PREFIX))
    assert fetch_history(storage) == history
    change(storage, create)
    assert fetch_history(storage) == (*history, *create(AccessDocument()).history)
