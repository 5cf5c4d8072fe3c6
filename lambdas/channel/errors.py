"""The errors of Fairway, split by whether a retry helps.

    FairwayError
    ├── PermanentError               a retry fails in the same way
    │   ├── InvalidNameError         a channel, subdir, filename or key breaks the grammar
    │   ├── RejectedError            an upload that may not be indexed, with a code for programs
    │   ├── InvalidDocumentError     a document of Fairway's own is malformed
    │   ├── AccessDeniedError        the cloud denies access: a permission is missing
    │   │   └── UnreadableError      the cloud says what keeps everybody from reading an object
    │   └── UsageError               an invalid option or argument of the command
    └── TransientError               a retry may help
        ├── ConflictError            a conditional write lost against another writer
        ├── VanishedError            an object was replaced or deleted between two requests
        ├── LimitExceededError       reading took more memory or time than was allowed
        ├── DeadlineError            there was no time left to begin
        └── UnavailableError         the cloud answers 5xx, throttles, or not at all

Messages are lower case, without a full stop, with the offending value as its repr. A hint, if
there is one, says what a person can do. No code decides by the text of an error (invariant 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the authorizer rejects no upload, and starts sooner without the codes
    from lambdas.channel.rejection_codes import RejectionCode


class FairwayError(Exception):
    """Any error that Fairway raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the hint beside the message: logs show one, people both."""
        super().__init__(message)
        self.hint = hint


class PermanentError(FairwayError):
    """A retry fails in the same way."""


class InvalidNameError(PermanentError):
    """A channel, subdir, filename or key breaks the grammar of CEP 26."""


class RejectedError(PermanentError):
    """An upload that may not be indexed.

    The message is a sentence that the publisher understands.
    """

    def __init__(self, code: RejectionCode, message: str, *, hint: str | None = None) -> None:
        """Keep the code apart from the sentence."""
        super().__init__(message, hint=hint)
        self.code = code


class InvalidDocumentError(PermanentError):
    """A document of Fairway's own (access rules, shard index, card) is malformed."""


class AccessDeniedError(PermanentError):
    """The cloud denies access: a permission is missing. Never read as "not found" (invariant 7)."""


class UnreadableError(AccessDeniedError):
    """The cloud names a property of an object that keeps everybody from reading it.

    It is archived, or encrypted with a key that readers lack. The message is a sentence that the publisher
    understands.
    """


class UsageError(PermanentError):
    """An invalid option or argument of the command."""


class TransientError(FairwayError):
    """A retry may help."""


class ConflictError(TransientError):
    """A conditional write lost against another writer (S3: 409 or 412)."""


class VanishedError(TransientError):
    """An object was replaced or deleted between two requests."""


class DeadlineError(TransientError):
    """There was no time left to begin: the next run does it."""


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
