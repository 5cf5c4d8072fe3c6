"""Collects the results of a run over its rounds."""

from collections.abc import Callable
from typing import TypeVar

from lambdas.channel.errors import FairwayError, UnavailableError
from lambdas.channel.names import SubdirId
from lambdas.indexer.model import Outcome, Rejection, Report, Status
from lambdas.indexer.tree.subdir import Commit

_Result = TypeVar("_Result")


class Results:
    """What is known of each key so far."""

    def __init__(self) -> None:
        self.failures: dict[str, FairwayError] = {}
        """``{key: error}``: keys to be tried again."""
        self.commits = 0
        self.conflicts = 0
        self.bases: dict[SubdirId, Commit] = {}
        """The commit of each subdir when the run began."""
        self.healed: str | None = None
        """Why the shard index had to be healed."""
        self._outcomes: dict[str, Outcome] = {}

    def add(self, key: str, status: Status) -> None:
        """Keep the first status of a key that is not ``unchanged``; the key has not failed."""
        self.failures.pop(key, None)
        known = self._outcomes.get(key)
        if known is None or known.status == "unchanged":
            self._outcomes[key] = Outcome(key=key, status=status)

    def add_rejection(self, rejection: Rejection) -> None:
        """Keep a rejection, whatever is found under the key afterwards."""
        self._outcomes[rejection.key] = Outcome(key=rejection.key, status="rejected", rejection=rejection)

    def report(self) -> Report:
        """Return the results so far."""
        return Report(
            outcomes=tuple(self._outcomes.values()),
            failures=dict(self.failures),
            commits=self.commits,
            conflicts=self.conflicts,
            healed=self.healed,
        )


def guard(action: Callable[[], _Result], what: str) -> _Result | FairwayError:
    """Return what the action returns, or its error: one key must not stop the others (invariant 3).

    An unforeseen exception, a bug of Fairway's, becomes an ``UnavailableError``: it is tried again.
    """
    try:
        return action()
    except FairwayError as error:
        return error
    except Exception as error:  # noqa: BLE001 - see above
        failure = UnavailableError(f"could not {what}: {error!r}")
        failure.__cause__ = error
        return failure
