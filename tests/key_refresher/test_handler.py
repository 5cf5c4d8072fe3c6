import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from lambdas.access.document import AccessDocument, Issuer, SigningKey, parse_access
from lambdas.channel.errors import AccessDeniedError, ConflictError, InvalidDocumentError, UnavailableError
from lambdas.key_refresher.handler import ISSUERS_UNAVAILABLE, MAX_ATTEMPTS, refresh_keys, run_hourly
from lambdas.key_refresher.refresh import CONFIRM_SECONDS
from tests.access_documents import ISSUER, KEY, NOW, make_document, make_issuer, make_secret, make_token

NEW_KEY = SigningKey(kid="k2", n=KEY.n, e=KEY.e)
OTHER = replace(make_issuer("lab"), issuer="https://other.example.com")


class MemoryDocument:
    """The access document; others may replace it behind our back, or we may not read it."""

    def __init__(self, document: AccessDocument | None, *, readable: bool = True) -> None:
        self.document = document
        self.readable = readable
        self.version = 1
        self.writes = 0
        self.interruptions: list[AccessDocument | None] = []

    def fetch(self) -> tuple[AccessDocument, str] | None:
        return (self.document, str(self.version)) if self.document is not None and self.readable else None

    def replace(self, document: AccessDocument, etag: str) -> None:
        if self.interruptions:
            self.document = self.interruptions.pop()
            self.version += 1
        if etag != str(self.version):
            raise ConflictError("lost")
        self._write(document)

    def _write(self, document: AccessDocument) -> None:
        self.document = document
        self.version += 1
        self.writes += 1


class FakeIssuers:
    """Answers with keys, or fails."""

    def __init__(self, answers: Mapping[str, tuple[SigningKey, ...] | Exception]) -> None:
        self.answers = answers

    def fetch(self, issuer: str) -> tuple[SigningKey, ...]:
        answer = self.answers[issuer]
        if isinstance(answer, Exception):
            raise answer
        return answer


def refresh(store: MemoryDocument, *, now: int = NOW, **answers: tuple[SigningKey, ...] | Exception) -> None:
    names = {"first": ISSUER, "second": OTHER.issuer}
    refresh_keys(store, FakeIssuers({names[name]: answer for name, answer in answers.items()}).fetch, now=now)


def find_issuer(store: MemoryDocument, name: str) -> Issuer:
    assert store.document is not None
    return next(issuer for issuer in store.document.issuers if issuer.issuer == name)


def test_refresh_keys__new_keys_replace_old_ones() -> None:
    store = MemoryDocument(make_document(make_token(make_secret(1), "team"), issuers=[make_issuer("team")]))
    refresh(store, first=(NEW_KEY,))
    assert find_issuer(store, ISSUER).keys == (NEW_KEY,)
    assert store.document is not None
    assert len(store.document.tokens) == 1


def test_refresh_keys__unchanged_keys_write_nothing() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    refresh(store, now=NOW + CONFIRM_SECONDS - 1, first=(KEY,))
    assert store.writes == 0


def test_refresh_keys__unchanged_keys_are_confirmed_once_a_day() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    refresh(store, now=NOW + CONFIRM_SECONDS, first=(KEY,))
    assert find_issuer(store, ISSUER).confirmed == NOW + CONFIRM_SECONDS


@pytest.mark.parametrize("error", [UnavailableError("down"), InvalidDocumentError("nonsense")])
def test_refresh_keys__issuer_that_fails_keeps_its_keys_and_hinders_no_other(error: Exception) -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team"), OTHER]))
    with pytest.raises(UnavailableError, match=r"issuer\.example\.com"):
        refresh(store, first=error, second=(NEW_KEY,))
    assert find_issuer(store, ISSUER) == make_issuer("team")
    assert find_issuer(store, OTHER.issuer).keys == (NEW_KEY,)


def test_refresh_keys__lost_swap_is_applied_to_what_is_there_now() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    store.interruptions = [make_document(make_token(make_secret(2), "lab"), issuers=[make_issuer("team")])]
    refresh(store, first=(NEW_KEY,))
    assert store.document is not None
    assert find_issuer(store, ISSUER).keys == (NEW_KEY,)
    assert len(store.document.tokens) == 1


def test_refresh_keys__issuer_removed_meanwhile_stays_removed() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    store.interruptions = [AccessDocument()]
    refresh(store, first=(NEW_KEY,))
    assert store.document == AccessDocument()


def test_refresh_keys__gives_up_against_endless_competition() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    assert store.document is not None
    store.interruptions = [store.document] * (MAX_ATTEMPTS + 1)
    with pytest.raises(ConflictError):
        refresh(store, first=(NEW_KEY,))


@pytest.mark.parametrize("run", [refresh_keys, run_hourly])
def test_refresh_keys__attack_deleted_document_is_not_replaced_by_an_empty_one(run: Callable[..., object]) -> None:
    store = MemoryDocument(None)
    with pytest.raises(AccessDeniedError, match="missing"):
        run(store, FakeIssuers({}).fetch, now=NOW)
    assert (store.document, store.writes) == (None, 0)


def test_refresh_keys__attack_document_deleted_meanwhile_is_not_written_again() -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    store.interruptions = [None]
    with pytest.raises(AccessDeniedError, match="missing"):
        refresh(store, first=(NEW_KEY,))
    assert (store.document, store.writes) == (None, 0)


def test_run_hourly__malformed_document_fails_the_run() -> None:
    class MalformedDocument(MemoryDocument):
        def fetch(self) -> tuple[AccessDocument, str] | None:
            return parse_access(b"{}"), "1"

    store = MalformedDocument(None)
    with pytest.raises(InvalidDocumentError):
        run_hourly(store, FakeIssuers({}).fetch, now=NOW)
    assert store.writes == 0


def test_run_hourly__issuer_that_fails_is_logged_and_fails_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    run_hourly(store, FakeIssuers({ISSUER: UnavailableError("down")}).fetch, now=NOW)
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["code"]) == ("ERROR", ISSUERS_UNAVAILABLE)
    assert ISSUER in line["message"]


def test_run_hourly__says_how_many_issuers_answered(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryDocument(make_document(issuers=[make_issuer("team")]))
    run_hourly(store, FakeIssuers({ISSUER: (KEY,)}).fetch, now=NOW)
    assert json.loads(capsys.readouterr().out) == {"level": "INFO", "code": "keys-refreshed", "issuers": 1}


def test_refresh_keys__attack_unreadable_document_is_not_replaced_by_an_empty_one() -> None:
    document = make_document(make_token(make_secret(1), "team"))
    store = MemoryDocument(document, readable=False)
    with pytest.raises(AccessDeniedError):
        refresh(store)
    assert store.document is document
