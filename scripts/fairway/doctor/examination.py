"""What the steps of ``fairway doctor`` have at hand: the bucket, the URL, the account, and a clock."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambdas.channel.caching import IMMUTABLE
from lambdas.channel.errors import DeadlineError, PermanentError
from lambdas.channel.layout import ArtifactKey
from lambdas.storage.protocol import ContentHeaders, IfAbsent, ObjectInfo, ObjectStorage
from scripts.fairway.doctor.account import Account
from scripts.fairway.doctor.canaries import Canary
from scripts.fairway.doctor.clock import CLOCK, Clock
from scripts.fairway.doctor.reader import Answer, Reader
from scripts.fairway.status import State, UploadStatus, fetch_status

POLL_SECONDS: Final = 1.0
INDEXED_SECONDS: Final = 90
"""Longest wait until the indexer has noticed a change; it takes a few seconds, and a cold start a few more."""
ARTIFACT_HEADERS: Final = ContentHeaders(content_type="application/octet-stream", cache_control=IMMUTABLE)


@dataclass(kw_only=True)
class Examination:
    """One run of the doctor."""

    bucket: ObjectStorage
    reader: Reader
    account: Account
    caller: str
    version: str
    """Of the command."""
    note: Callable[[str], None]
    """Prints progress."""
    deadline: float
    """Of ``clock.monotonic``: no wait lasts longer. Cleaning moves it."""
    clock: Clock = CLOCK
    token: str | None = None
    """The secret of the token that the step ``token`` creates."""

    def wait_until(self, condition: Callable[[], bool], what: str, *, seconds: float = INDEXED_SECONDS) -> None:
        """Wait until a condition holds.

        Raises:
            DeadlineError: it does not hold in time; ``what`` says what is missing.
        """
        started = self.clock.monotonic()
        end = min(started + seconds, self.deadline)
        is_noted = False
        while not condition():
            if self.clock.monotonic() >= end:
                raise DeadlineError(f"after {self.clock.monotonic() - started:.0f} s, still not: {what}")
            if not is_noted:
                self.note(f"  waiting: {what}")
                is_noted = True
            self.clock.sleep(POLL_SECONDS)

    def publish(self, canary: Canary) -> ObjectInfo:
        """Upload an artifact as ``fairway publish`` does."""
        return self.bucket.put(str(canary.key), canary.body, headers=ARTIFACT_HEADERS, condition=IfAbsent())

    def wait_for(self, canary: Canary, *wanted: State) -> State:
        """Wait until an artifact has one of the states; return it.

        Raises:
            DeadlineError: it does not have that state in time.
            PermanentError: it was rejected instead.
        """
        found: list[UploadStatus] = []

        def has_state() -> bool:
            found.append(fetch_status(self.bucket, canary.key, since_ms=0, sha256=canary.sha256))
            if found[-1].state is State.REJECTED and State.REJECTED not in wanted:
                rejection = found[-1].rejection
                raise PermanentError(
                    f"{canary.key} was rejected: {'' if rejection is None else rejection.message}",
                    hint=None if rejection is None else rejection.hint,
                )
            return found[-1].state in wanted

        try:
            self.wait_until(has_state, f"{canary.key} is {' or '.join(state.value for state in wanted)}")
        except DeadlineError as error:
            raise DeadlineError(
                str(error), hint="see the indexer's log and the queues: docs/operating.md says where they are"
            ) from error
        return found[-1].state

    def ask(self, path: str) -> Answer:
        """GET a path with the token."""
        return self.reader.fetch(path, token=self.token)

    def require(self, path: str) -> Answer:
        """GET a path with the token; the file must be there.

        Raises:
            PermanentError: the status is not 200.
        """
        answer = self.ask(path)
        require_status(answer, 200, path)
        return answer


def require_status(answer: Answer, expected: int, path: str) -> None:
    """Check the status of a response.

    Raises:
        PermanentError: it is another one.
    """
    if answer.status != expected:
        raise PermanentError(f"{path} was answered with {answer.status}, not {expected}")


def require_header(answer: Answer, name: str, expected: str | None, path: str) -> None:
    """Check a header of a response; None means that it must be missing.

    Raises:
        PermanentError: it is another one.
    """
    if (found := answer.headers.get(name)) != expected:
        raise PermanentError(f"{path} was answered with {name} {found!r}, not {expected!r}")


def url_path(key: ArtifactKey) -> str:
    """Return the path of an artifact as clients that encode ``+`` send it."""
    return f"/{key}".replace("+", "%2B")
