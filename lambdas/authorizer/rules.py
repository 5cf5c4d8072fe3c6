"""Caches the access rules: one small conditional GET per refresh interval.

Rules are used for ``refresh_seconds`` without asking S3. If a request to S3 fails, the last valid rules
are used until ``stale_seconds`` after S3 last confirmed them, then none (invariant 10). While the document is
malformed, the last valid rules are used, and an alarm is raised. Ages are wall-clock time: a monotonic
clock may stop while Lambda freezes the environment, and a revoked token must not stay valid meanwhile.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from lambdas.access.decisions import NO_INDEX_FILES, AccessRules, compile_rules
from lambdas.access.document import AccessDocument, parse_access
from lambdas.channel.errors import InvalidDocumentError, UnavailableError
from lambdas.channel.layout import IndexFiles

RETRY_SECONDS: Final = 2
"""How long after a failed request the next one is sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedDocument:
    """S3's answer; both are None if the object is missing."""

    body: bytes | None
    etag: str | None


class DocumentSource(Protocol):
    """A source of the access document."""

    def fetch(self, etag: str | None) -> FetchedDocument | None:
        """Return the document; None if it still has that ETag.

        Raises:
            UnavailableError: there is no answer, or it is an error.
        """


class RulesCache:
    """The rules of one execution environment."""

    def __init__(
        self,
        source: DocumentSource,
        *,
        public_globs: tuple[str, ...],
        index_files: IndexFiles = NO_INDEX_FILES,
        refresh_seconds: int,
        stale_seconds: int,
        report: Callable[[str, str], None],
    ) -> None:
        """``report`` takes a code, which an alarm counts, and a message."""
        self._source = source
        self._public_globs = public_globs
        self._index_files = index_files
        self._refresh_seconds = refresh_seconds
        self._stale_seconds = stale_seconds
        self._report = report
        self._rules: AccessRules | None = None
        self._etag: str | None = None
        self._confirmed_at = 0.0
        self._asked_at = float("-inf")
        self._failed = False

    def current(self, now: float) -> AccessRules | None:
        """Return the valid rules; None if there are none."""
        wait = RETRY_SECONDS if self._failed else self._refresh_seconds
        if not 0 <= now - self._asked_at < wait:  # also when the clock was set back
            self._refresh(now)
        if self._rules is None or not 0 <= now - self._confirmed_at < self._stale_seconds:
            return None
        return self._rules

    def _refresh(self, now: float) -> None:
        self._asked_at = now
        self._failed = True
        try:
            fetched = self._source.fetch(self._etag)
        except UnavailableError as error:
            self._report("access-document-unavailable", str(error))
            return
        if fetched is not None and not self._accept(fetched):
            return
        self._failed = False
        self._confirmed_at = now

    def _accept(self, fetched: FetchedDocument) -> bool:
        if fetched.body is None:
            # Every deployment creates one, so it was deleted. That must change nothing.
            self._report("access-document-missing", "the access document is missing")
            return False
        try:
            document = _parse(fetched.body)
        except InvalidDocumentError as error:
            self._report("access-document-malformed", str(error))
            return self._rules is not None
        self._rules = compile_rules(document, public_globs=self._public_globs, index_files=self._index_files)
        self._etag = fetched.etag
        return True


def _parse(body: bytes) -> AccessDocument:
    gc.disable()  # collections take most of the time if the document is deeply nested, and find nothing
    try:
        return parse_access(body, with_history=False)
    finally:
        gc.enable()
