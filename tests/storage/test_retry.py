"""The one bound and back-off for competing writers."""

import pytest

from lambdas.channel.errors import ConflictError, InvalidDocumentError, VanishedError
from lambdas.storage.retry import MAX_ATTEMPTS, MAX_PAUSE_SECONDS, retry_conflicts


class Failing:
    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.attempts = 0

    def __call__(self) -> str:
        self.attempts += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_retry_conflicts__until_it_succeeds() -> None:
    attempt = Failing(7, ConflictError("lost"))
    pauses: list[float] = []
    assert retry_conflicts(attempt, sleep=pauses.append) == "done"
    assert attempt.attempts == 8
    assert len(pauses) == 7
    assert all(0 <= pause <= MAX_PAUSE_SECONDS for pause in pauses)


def test_retry_conflicts__is_bounded() -> None:
    attempt = Failing(1000, ConflictError("lost"))
    with pytest.raises(ConflictError):
        retry_conflicts(attempt, sleep=lambda _: None)
    assert attempt.attempts == MAX_ATTEMPTS


@pytest.mark.parametrize("error", [InvalidDocumentError("broken"), VanishedError("gone")])
def test_retry_conflicts__raises_other_errors_at_once(error: Exception) -> None:
    attempt = Failing(1, error)
    with pytest.raises(type(error)):
        retry_conflicts(attempt, sleep=lambda _: None)
    assert attempt.attempts == 1
