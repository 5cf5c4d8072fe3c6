"""The viewer-request function: answers each request. Logs failures, and nothing about requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from lambdas.authorizer.answers import RETRY_AFTER_SECONDS, answer_request, respond
from lambdas.authorizer.log import report
from lambdas.authorizer.rules import RulesCache
from lambdas.authorizer.settings import AuthorizerSettings, parse_settings
from lambdas.authorizer.source import S3Source
from lambdas.channel.layout import IndexFiles

_SETTINGS_FILE: Final = __file__.rpartition("/lambdas/")[0] + "/settings.json"

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def build_rules(settings: AuthorizerSettings) -> RulesCache:
    """Return the rules, to be fetched from S3."""
    return RulesCache(
        S3Source(settings),
        public_globs=settings.public_channels,
        index_files=IndexFiles(channel=frozenset(settings.channel_files), subdir=frozenset(settings.subdir_files)),
        refresh_seconds=settings.refresh_seconds,
        stale_seconds=settings.stale_seconds,
        report=report,
    )


def build_handler(rules: RulesCache, clock: Callable[[], float] = time.time) -> Handler:
    """Return a handler that decides by these rules."""

    def handle(event: dict[str, Any], _context: object) -> dict[str, Any]:
        try:
            now = clock()
            return answer_request(event["Records"][0]["cf"]["request"], rules.current(now), now=int(now))
        except Exception as error:  # noqa: BLE001 - fail closed, whatever the error (invariant 10)
            # Only the type: the message may contain what the viewer sent.
            report("authorizer-failed", type(error).__name__)
            return respond(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    return handle


_handler: Handler | None = None


def handle_viewer_request(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer a viewer request: the entry point.

    Source: Lambda@Edge event structure, viewer request.
    """
    global _handler  # noqa: PLW0603 - one per execution environment, built at its first request
    if _handler is None:
        with open(_SETTINGS_FILE, "rb") as file:  # noqa: PTH123 - importing pathlib takes a tenth of the cold start
            _handler = build_handler(build_rules(parse_settings(file.read())))
    return _handler(event, context)
