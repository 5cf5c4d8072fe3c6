import contextlib
from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from lambdas.access.changes import MAX_HISTORY, apply_token_created, apply_visibility
from lambdas.access.document import AccessDocument, Change, Visibility, encode_access
from lambdas.authorizer.rules import FetchedDocument, RulesCache
from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidDocumentError,
    UnavailableError,
    UsageError,
)
from lambdas.channel.layout import ACCESS_KEY, AUDIT_PREFIX
from lambdas.channel.names import Channel
from lambdas.key_refresher.store import change_access, create_access, fetch_access, fetch_history, swap_access
from lambdas.storage.protocol import ContentHeaders
from lambdas.storage.retry import MAX_ATTEMPTS
from lambdas.storage.s3 import S3Storage
from tests.access_documents import NOW, make_secret, make_token
from tests.memory import MemoryStorage

TOKEN = make_token(make_secret(1), "team", created=NOW)
BODY = encode_access(AccessDocument())


def make_bucket() -> MemoryStorage:
    """A bucket as a deployment leaves it."""
    storage = MemoryStorage()
    storage.upload(ACCESS_KEY, BODY)
    return storage


def create(document: AccessDocument) -> AccessDocument:
    return apply_token_created(document, TOKEN)


def publish(name: str) -> Callable[[AccessDocument], AccessDocument]:
    return lambda document: apply_visibility(document, Channel(name), Visibility.PUBLIC, now=NOW, by="ada")


def change(storage: MemoryStorage, make: Callable[[AccessDocument], AccessDocument]) -> AccessDocument:
    return change_access(storage, make, now=NOW, sleep=lambda _: None)


@pytest.mark.parametrize(
    ("body", "fit"),
    [
        (BODY, True),
        (b'{"version": 1}', True),
        (b"", False),
        (b"[]", False),
        (b'{"version": 2}', False),
        (b'{"version": 1, "channels": {"team": {"visibility": "open"}}}', False),
        (b'{"version": 1, "tokens": [{"name": "ci"}]}', False),
    ],
)
def test_fetch_access__understands_what_the_authorizer_does_and_nothing_else(body: bytes, *, fit: bool) -> None:
    class Source:
        def fetch(self, etag: str | None) -> FetchedDocument:
            return FetchedDocument(body=body, etag="1")

    reports: list[str] = []
    rules = RulesCache(
        Source(), public_globs=(), refresh_seconds=30, stale_seconds=900, report=lambda code, _: reports.append(code)
    )
    assert (rules.current(0) is not None) == fit == (not reports)

    storage = make_bucket()
    storage.upload(ACCESS_KEY, body)
    with contextlib.nullcontext() if fit else pytest.raises(InvalidDocumentError):
        assert fetch_access(storage) == AccessDocument()


@pytest.mark.parametrize("error", [AccessDeniedError("denied"), UnavailableError("down")])
def test_fetch_access__attack_error_is_no_missing_document(error: Exception) -> None:
    storage = make_bucket()

    def fail(request: str, key: str, when: str) -> None:
        raise error

    storage.fault = fail
    with pytest.raises(type(error), match=str(error)):
        fetch_access(storage)


def test_create_access__writes_an_empty_document() -> None:
    storage = MemoryStorage()
    create_access(storage)
    assert fetch_access(storage) == AccessDocument()
    assert storage.headers(ACCESS_KEY) == ContentHeaders(content_type="application/json", cache_control="no-store")


def test_create_access__attack_existing_document_is_not_replaced() -> None:
    storage = make_bucket()
    change(storage, create)
    with pytest.raises(ConflictError):
        create_access(storage)
    assert fetch_access(storage).tokens == (TOKEN,)


def test_change_access__returns_what_is_there_now() -> None:
    storage = make_bucket()
    assert change(storage, create) == fetch_access(storage) == create(AccessDocument())


def test_change_access__attack_lost_document_is_not_replaced_by_an_empty_one() -> None:
    storage = make_bucket()
    storage.remove(ACCESS_KEY)
    with pytest.raises(UsageError, match="is missing"):
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


def test_fetch_history__crash_between_archive_and_swap_duplicates_nothing() -> None:
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


def test_swap_access__writes_nothing_but_the_document() -> None:
    storage = make_bucket()
    history = make_full(storage)
    before = storage.list_keys()
    after = swap_access(storage, create)
    assert storage.list_keys() == before
    assert after.history == (*history, *create(AccessDocument()).history)


Stubbed = tuple[S3Storage, Stubber]


@pytest.fixture
def stubbed() -> Iterator[Stubbed]:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with Stubber(client) as stubber:
        yield S3Storage("bucket", client), stubber


def test_create_access__asks_s3_for_creation_alone(stubbed: Stubbed) -> None:
    storage, stubber = stubbed
    request = {
        "Bucket": "bucket",
        "Key": ".fairway/access.json",
        "Body": BODY,
        "ContentType": "application/json",
        "CacheControl": "no-store",
        "Metadata": {},
        "IfNoneMatch": "*",
    }
    stubber.add_response("put_object", {"ETag": '"1"'}, request)
    create_access(storage)


@pytest.mark.parametrize("status", [403, 503])
def test_change_access__attack_s3_error_writes_nothing(stubbed: Stubbed, status: int) -> None:
    storage, stubber = stubbed
    stubber.add_client_error("get_object", http_status_code=status)
    with pytest.raises(AccessDeniedError if status == 403 else UnavailableError):
        change_access(storage, create, now=NOW, sleep=lambda _: None)
    stubber.assert_no_pending_responses()  # and a put would have failed: none was expected
