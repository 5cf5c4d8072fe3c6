import gc
from collections.abc import Callable

import pytest

from lambdas.access.decisions import AccessRules
from lambdas.access.document import AccessDocument, encode_access
from lambdas.authorizer.rules import RETRY_SECONDS, FetchedDocument, RulesCache
from lambdas.channel.errors import UnavailableError
from tests.access_documents import NOW, make_document, make_secret, make_token

REFRESH = 30
STALE = 900
FIRST = make_document(make_token(make_secret(1), "team"))
SECOND = make_document(make_token(make_secret(2), "team"))
MISSING = FetchedDocument(body=None, etag=None)


class FakeSource:
    """Answers with what it is told to: a document, no document, bytes, or an error."""

    def __init__(self, answer: AccessDocument | FetchedDocument | bytes | Exception) -> None:
        self.answer = answer
        self.asked: list[str | None] = []

    def fetch(self, etag: str | None) -> FetchedDocument | None:
        self.asked.append(etag)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, FetchedDocument):
            return self.answer
        body = encode_access(self.answer) if isinstance(self.answer, AccessDocument) else self.answer
        current = f'"{hash(body)}"'
        return None if etag == current else FetchedDocument(body=body, etag=current)


class Harness:
    def __init__(self, answer: AccessDocument | FetchedDocument | bytes | Exception) -> None:
        self.source = FakeSource(answer)
        self.reports: list[str] = []
        self.cache = RulesCache(
            self.source,
            public_globs=("pub",),
            refresh_seconds=REFRESH,
            stale_seconds=STALE,
            report=lambda code, _: self.reports.append(code),
        )

    def hashes(self, now: float) -> set[str] | None:
        rules = self.cache.current(now)
        return None if rules is None else set(rules.tokens)


def hashes_of(document: AccessDocument) -> set[str]:
    return {token.sha256 for token in document.tokens}


def test_current__asks_once_per_interval() -> None:
    harness = Harness(FIRST)
    for second in range(REFRESH):
        assert harness.hashes(NOW + second) == hashes_of(FIRST)
    assert harness.source.asked == [None]
    harness.hashes(NOW + REFRESH)
    assert len(harness.source.asked) == 2


def test_current__unchanged_document_is_not_read_again() -> None:
    harness = Harness(FIRST)
    first = harness.cache.current(NOW)
    again = harness.cache.current(NOW + REFRESH)
    assert again is first
    assert harness.source.asked[1] is not None


def test_current__attack_revoked_token_lives_for_one_interval_at_most() -> None:
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = SECOND
    assert harness.hashes(NOW + REFRESH - 1) == hashes_of(FIRST)
    assert harness.hashes(NOW + REFRESH) == hashes_of(SECOND)
    assert REFRESH <= 60


def test_current__attack_frozen_environment_does_not_revive_old_rules() -> None:
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = UnavailableError("S3 is down")
    assert harness.hashes(NOW + 7 * 24 * 3600) is None


def test_current__clock_set_back_asks_again() -> None:
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = SECOND
    assert harness.hashes(NOW - 3600) == hashes_of(SECOND)


def test_current__never_loaded() -> None:
    harness = Harness(UnavailableError("S3 is down"))
    assert harness.hashes(NOW) is None
    assert harness.reports == ["access-document-unavailable"]
    harness.source.answer = FIRST
    assert harness.hashes(NOW + RETRY_SECONDS) == hashes_of(FIRST)


def test_current__outage_serves_the_last_rules_for_a_quarter_of_an_hour() -> None:
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = UnavailableError("S3 is down")
    assert harness.hashes(NOW + STALE - 1) == hashes_of(FIRST)
    assert harness.hashes(NOW + STALE) is None
    harness.source.answer = FIRST
    assert harness.hashes(NOW + STALE + RETRY_SECONDS) == hashes_of(FIRST)


def test_current__outage_does_not_make_every_request_wait() -> None:
    harness = Harness(UnavailableError("S3 is down"))
    for tenth in range(10 * RETRY_SECONDS):
        harness.hashes(NOW + tenth / 10)
    assert len(harness.source.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{", b'{"version": 2}', b"[]"])
def test_current__malformed_document_keeps_the_last_good_one_and_is_reported(body: bytes) -> None:
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = body
    for interval in range(1, 60):
        assert harness.hashes(NOW + interval * REFRESH) == hashes_of(FIRST)
    assert set(harness.reports) == {"access-document-malformed"}
    harness.source.answer = SECOND
    assert harness.hashes(NOW + 60 * REFRESH) == hashes_of(SECOND)


def test_current__malformed_from_the_start_denies_access() -> None:
    harness = Harness(b"{")
    assert harness.hashes(NOW) is None
    assert harness.reports == ["access-document-malformed"]


def test_current__attack_missing_document_denies_access() -> None:
    # Channels that are public by configuration may have been made private in the document that is gone.
    harness = Harness(MISSING)
    assert harness.cache.current(NOW) is None
    assert harness.reports == ["access-document-missing"]


def test_current__first_document_is_found() -> None:
    harness = Harness(MISSING)
    harness.hashes(NOW)
    harness.source.answer = FIRST
    assert harness.hashes(NOW + REFRESH) == hashes_of(FIRST)


def test_current__attack_deleted_document_opens_nothing() -> None:
    # Without it, a channel that the document made private would be what the deployment says: public.
    harness = Harness(FIRST)
    harness.hashes(NOW)
    harness.source.answer = MISSING
    assert harness.hashes(NOW + REFRESH) == hashes_of(FIRST)
    assert harness.reports == ["access-document-missing"]
    assert harness.hashes(NOW + STALE) is None


@pytest.mark.parametrize(
    "break_it",
    [
        lambda source: setattr(source, "answer", UnavailableError("x")),
        lambda source: setattr(source, "answer", b"{"),
        lambda source: setattr(source, "answer", MISSING),
    ],
)
def test_current__attack_no_failure_gives_more_than_there_was(break_it: Callable[[FakeSource], None]) -> None:
    harness = Harness(FIRST)
    before: AccessRules | None = harness.cache.current(NOW)
    break_it(harness.source)
    for second in range(1, 2 * STALE, 7):
        assert harness.cache.current(NOW + second) in (before, None)


@pytest.mark.parametrize("body", [encode_access(FIRST), b"[]"])
def test_current__garbage_collection_goes_on(body: bytes) -> None:
    assert gc.isenabled()
    Harness(body).cache.current(NOW)
    assert gc.isenabled()


def test_current__history_does_not_matter() -> None:
    harness = Harness(b'{"version": 1, "history": [7]}')
    assert harness.hashes(NOW) == set()
    assert harness.reports == []
