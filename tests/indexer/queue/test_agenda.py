"""What the messages of one invocation ask for together."""

from datetime import UTC, datetime

from lambdas.channel.errors import DeadlineError, InvalidDocumentError, UnavailableError
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.agenda import make_agenda
from lambdas.indexer.queue.messages import Message, ObjectEvent, Received

A, B = "team/noarch/a-1-0.conda", "team/noarch/b-1-0.conda"
NOW_MS = 1_000_000


def notified(*keys: str, receives: int = 1, sent_ms: int = NOW_MS, principal: str | None = None) -> Received:
    events = tuple(ObjectEvent(key=key, principal=principal) for key in keys)
    return Received(message=Message(keys=keys, events=events), receives=receives, sent_ms=sent_ms)


def requeued(*keys: str, mode: Mode = "together", publisher: str | None = None) -> Received:
    return Received(message=Message(keys=keys, mode=mode, publisher=publisher), receives=1, sent_ms=NOW_MS)


def test_make_agenda__message_that_is_received_again_is_read_alone() -> None:
    agenda = make_agenda([notified(A), notified(B, receives=2)], now_ms=NOW_MS)
    assert agenda.modes == {A: "together", B: "alone"}
    assert agenda.uploads == {A}
    assert agenda.persistent == set()


def test_make_agenda__message_that_failed_repeatedly() -> None:
    assert make_agenda([notified(A, receives=4)], now_ms=NOW_MS).persistent == {A}


def test_make_agenda__strictest_mode_of_a_key_counts() -> None:
    for messages in ([notified(A), requeued(A, mode="final")], [requeued(A, mode="final"), notified(A)]):
        assert make_agenda(messages, now_ms=NOW_MS).modes == {A: "final"}


def test_make_agenda__publisher_is_the_principal_or_else_the_channel() -> None:
    messages = [notified(A, principal="AWS:ALICE"), notified(B), requeued("x/noarch/c-1-0.conda", publisher="AWS:BOB")]
    assert make_agenda(messages, now_ms=NOW_MS).publishers == {
        A: "AWS:ALICE",
        B: "team",
        "x/noarch/c-1-0.conda": "AWS:BOB",
    }


def test_make_agenda__index_files_are_no_uploads() -> None:
    assert make_agenda([notified("team/noarch/repodata.json")], now_ms=NOW_MS).uploads == set()


def test_make_agenda__invalid_messages_ask_for_nothing() -> None:
    assert make_agenda([InvalidDocumentError("no message")], now_ms=NOW_MS).modes == {}


def test_sort__newest_first() -> None:
    agenda = make_agenda([notified(A, sent_ms=NOW_MS - 9000), notified(B)], now_ms=NOW_MS)
    assert agenda.sort({A, B}) == [B, A]
    assert agenda.waited_ms == 9000


def test_list_failures__of_one_mode_and_kind() -> None:
    agenda = make_agenda([notified(A, B)], now_ms=NOW_MS)
    agenda.failures |= {A: DeadlineError("no time"), B: UnavailableError("503")}
    assert agenda.list_failures("together", DeadlineError) == [A]
    assert agenda.list_failures("alone", DeadlineError) == []


def test_find_first_done__passes_over_failures_and_unknown_times() -> None:
    agenda = make_agenda([notified(A, B)], now_ms=NOW_MS)
    assert agenda.find_first_done() is None
    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    agenda.events[:] = [ObjectEvent(key=A, at=first), ObjectEvent(key=B, at=second)]
    assert agenda.find_first_done() == first
    agenda.failures[A] = UnavailableError("503")
    assert agenda.find_first_done() == second
