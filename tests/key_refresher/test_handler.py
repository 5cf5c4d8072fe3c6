import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from lambdas.access.document import AccessDocument, Issuer, SigningKey, encode_access
from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidDocumentError,
    UnavailableError,
    UsageError,
)
from lambdas.channel.layout import ACCESS_KEY
from lambdas.key_refresher import handler
from lambdas.key_refresher.handler import refresh_keys, run_hourly
from lambdas.key_refresher.refresh import CONFIRM_SECONDS, ISSUERS_UNAVAILABLE
from lambdas.key_refresher.store import fetch_access
from lambdas.storage.retry import MAX_ATTEMPTS
from tests.access_documents import ISSUER, KEY, NOW, make_document, make_issuer, make_secret, make_token
from tests.memory import MemoryStorage

NEW_KEY = SigningKey(kid="k2", n=KEY.n, e=KEY.e)
OTHER = replace(make_issuer("lab"), issuer="https://other.example.com")


def make_bucket(document: AccessDocument) -> MemoryStorage:
    storage = MemoryStorage()
    storage.upload(ACCESS_KEY, encode_access(document))
    return storage


def interrupt(storage: MemoryStorage, *documents: AccessDocument | None) -> None:
    """Before each of the next writes, let another writer storage a document, or delete it."""
    pending = list(documents)

    def fault(request: str, key: str, when: str) -> None:
        if (request, when) != ("put", "before") or not pending:
            return
        other = pending.pop(0)
        if other is None:
            storage.remove(ACCESS_KEY)
        else:
            storage.upload(ACCESS_KEY, encode_access(other))

    storage.fault = fault


class FakeIssuers:
    """Answers with keys, or fails."""

    def __init__(self, answers: Mapping[str, tuple[SigningKey, ...] | Exception]) -> None:
        self.answers = answers

    def fetch(self, issuer: str) -> tuple[SigningKey, ...]:
        answer = self.answers[issuer]
        if isinstance(answer, Exception):
            raise answer
        return answer


def refresh(storage: MemoryStorage, *, now: int = NOW, **answers: tuple[SigningKey, ...] | Exception) -> None:
    names = {"first": ISSUER, "second": OTHER.issuer}
    issuers = FakeIssuers({names[name]: answer for name, answer in answers.items()})
    refresh_keys(storage, issuers.fetch, now=now, sleep=lambda _: None)


def fetch_issuer(storage: MemoryStorage, name: str) -> Issuer:
    return next(issuer for issuer in fetch_access(storage).issuers if issuer.issuer == name)


def test_refresh_keys__new_keys_replace_old_ones() -> None:
    storage = make_bucket(make_document(make_token(make_secret(1), "team"), issuers=[make_issuer("team")]))
    refresh(storage, first=(NEW_KEY,))
    assert fetch_issuer(storage, ISSUER).keys == (NEW_KEY,)
    assert len(fetch_access(storage).tokens) == 1


def test_refresh_keys__unchanged_keys_write_nothing() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    refresh(storage, now=NOW + CONFIRM_SECONDS - 1, first=(KEY,))
    assert storage.requests["put"] == 0


def test_refresh_keys__unchanged_keys_are_confirmed_once_a_day() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    refresh(storage, now=NOW + CONFIRM_SECONDS, first=(KEY,))
    assert fetch_issuer(storage, ISSUER).confirmed == NOW + CONFIRM_SECONDS


@pytest.mark.parametrize("error", [UnavailableError("down"), InvalidDocumentError("nonsense")])
def test_refresh_keys__failing_issuer_keeps_its_keys_and_delays_no_other(error: Exception) -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team"), OTHER]))
    with pytest.raises(UnavailableError, match=r"issuer\.example\.com"):
        refresh(storage, first=error, second=(NEW_KEY,))
    assert fetch_issuer(storage, ISSUER) == make_issuer("team")
    assert fetch_issuer(storage, OTHER.issuer).keys == (NEW_KEY,)


def test_refresh_keys__lost_swap_is_applied_to_what_is_there_now() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    interrupt(storage, make_document(make_token(make_secret(2), "lab"), issuers=[make_issuer("team")]))
    refresh(storage, first=(NEW_KEY,))
    assert fetch_issuer(storage, ISSUER).keys == (NEW_KEY,)
    assert len(fetch_access(storage).tokens) == 1


def test_refresh_keys__issuer_removed_meanwhile_stays_removed() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    interrupt(storage, AccessDocument())
    refresh(storage, first=(NEW_KEY,))
    assert fetch_access(storage) == AccessDocument()


def test_refresh_keys__gives_up_against_endless_competition() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    others = [make_document(issuers=[make_issuer("lab")]), make_document(issuers=[make_issuer("team")])]
    interrupt(storage, *others * MAX_ATTEMPTS)
    with pytest.raises(ConflictError):
        refresh(storage, first=(NEW_KEY,))
    assert storage.requests["put"] == MAX_ATTEMPTS


@pytest.mark.parametrize("run", [refresh_keys, run_hourly])
def test_refresh_keys__attack_deleted_document_is_not_replaced_by_an_empty_one(run: Callable[..., object]) -> None:
    storage = MemoryStorage()
    with pytest.raises(UsageError, match="missing"):
        run(storage, FakeIssuers({}).fetch, now=NOW)
    assert (storage.list_keys(), storage.requests["put"]) == ([], 0)


def test_refresh_keys__attack_document_deleted_meanwhile_is_not_written_again() -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    interrupt(storage, None)
    with pytest.raises(UsageError, match="missing"):
        refresh(storage, first=(NEW_KEY,))
    assert storage.list_keys() == []


def test_run_hourly__malformed_document_fails_the_run() -> None:
    storage = MemoryStorage()
    storage.upload(ACCESS_KEY, b"{}")
    with pytest.raises(InvalidDocumentError):
        run_hourly(storage, FakeIssuers({}).fetch, now=NOW)
    assert storage.requests["put"] == 0


def test_run_hourly__failing_issuer_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    run_hourly(storage, FakeIssuers({ISSUER: UnavailableError("down")}).fetch, now=NOW)
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["code"]) == ("ERROR", ISSUERS_UNAVAILABLE)
    assert ISSUER in line["message"]


def test_run_hourly__logs_the_number_of_issuers(capsys: pytest.CaptureFixture[str]) -> None:
    storage = make_bucket(make_document(issuers=[make_issuer("team")]))
    run_hourly(storage, FakeIssuers({ISSUER: (KEY,)}).fetch, now=NOW)
    assert json.loads(capsys.readouterr().out) == {"level": "INFO", "code": "keys-refreshed", "issuers": 1}


def test_run_hourly__attack_unreadable_document_is_not_replaced_by_an_empty_one() -> None:
    storage = make_bucket(make_document(make_token(make_secret(1), "team")))
    before = storage.body(ACCESS_KEY)

    def deny(request: str, key: str, when: str) -> None:
        raise AccessDeniedError("S3 answered 403")

    storage.fault = deny
    with pytest.raises(AccessDeniedError, match="missing, or may not be read"):
        run_hourly(storage, FakeIssuers({}).fetch, now=NOW)
    assert (storage.body(ACCESS_KEY), storage.requests["put"]) == (before, 0)


def test_handle_event__of_cloudformation_creates_the_document_of_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, sent = MemoryStorage(), []
    monkeypatch.setenv("FAIRWAY_BUCKET", "bucket")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(handler, "S3Storage", lambda bucket, _client: storage if bucket == "bucket" else None)
    monkeypatch.setattr(handler, "send_answer", lambda url, _body: sent.append(url))
    event = {
        "RequestType": "Create",
        "ResponseURL": "https://cloudformation.example.com/",
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "AccessDocument",
    }
    handler.handle_event(event, None)
    assert fetch_access(storage) == AccessDocument()
    assert sent == ["https://cloudformation.example.com/"]
