"""The errors of Fairway, split by whether a retry helps.

    FairwayError
    ├── PermanentError               a retry answers the same
    │   ├── InvalidNameError         a channel, subdir, filename or key breaks the grammar
    │   ├── RejectedError             an upload that may not be indexed, with a code for programs
    │   ├── InvalidDocumentError     a document of Fairway's own can't be understood
    │   ├── AccessDeniedError        the cloud says no: a grant is missing
    │   └── UsageError               the command was asked for something impossible
    └── TransientError               a retry may help
        ├── ConflictError            a conditional write lost against another writer
        ├── VanishedError            an object changed or went away between two looks
        ├── LimitExceededError       reading took more memory or time than was allowed
        ├── DeadlineError                there was no time left to begin
        └── UnavailableError         the cloud answers 5xx, throttles, or not at all

Messages are lower case, without a full stop, with the offending value as its repr. A hint, where
there is one, says what a person can do. Nothing here is decided by the text of an error (invariant 6).
"""

from __future__ import annotations

from typing import Literal


class FairwayError(Exception):
    """Any error that Fairway raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the hint beside the message: logs show one, people both."""
        super().__init__(message)
        self.hint = hint


class PermanentError(FairwayError):
    """A retry would answer the same."""


class InvalidNameError(PermanentError):
    """A channel, subdir, filename or key breaks the grammar of CEP 26."""


class RejectedError(PermanentError):
    """An upload that may not be indexed.

    ``code`` is stable and in kebab case (``name-mismatch``): programs and metrics use it. The
    message is a sentence that the publisher understands.
    """

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        """Keep the code apart from the sentence."""
        super().__init__(message, hint=hint)
        self.code = code


class InvalidDocumentError(PermanentError):
    """A document of Fairway's own (access rules, shard index, card) can't be understood."""


class AccessDeniedError(PermanentError):
    """The cloud says no: a grant is missing. Never read as "not there" (invariant 7)."""


class UsageError(PermanentError):
    """The command was asked for something impossible."""


class TransientError(FairwayError):
    """A retry may help."""


class ConflictError(TransientError):
    """A conditional write lost against another writer (S3: 409 or 412)."""


class VanishedError(TransientError):
    """An object changed or went away between two looks at it."""


class DeadlineError(TransientError):
    """There was no time left to begin: whoever comes next does it."""


class LimitExceededError(TransientError):
    """Reading an artifact exceeded a stated limit: its own, or that of the whole run.

    ``limit`` says which, and ``scope`` whether it holds for the ``artifact`` alone or for the ``run``.
    """

    def __init__(self, limit: str, *, scope: Literal["artifact", "run"]) -> None:
        """Keep the limit apart from the sentence."""
        super().__init__(f"reading exceeded the limit of {limit}")
        self.limit = limit
        self.scope = scope


class UnavailableError(TransientError):
    """The cloud answers 5xx, throttles, or does not answer."""
