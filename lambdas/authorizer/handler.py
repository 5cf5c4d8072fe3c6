"""The Lambda@Edge function: answers each viewer request.

Nothing is logged about a request. What is logged are failures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from lambdas.authorizer.answers import RETRY_AFTER_SECONDS, answer_request, respond
from lambdas.authorizer.log import report
from lambdas.authorizer.rules import RulesKeeper
from lambdas.authorizer.settings import AuthorizerSettings, parse_settings
from lambdas.authorizer.source import S3Source

_SETTINGS_FILE: Final = __file__.rpartition("/lambdas/")[0] + "/settings.json"

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def build_keeper(settings: AuthorizerSettings) -> RulesKeeper:
    """Wire the rules to S3."""
    return RulesKeeper(
        S3Source(settings),
        public_globs=settings.public_channels,
        refresh_seconds=settings.refresh_seconds,
        stale_seconds=settings.stale_seconds,
        report=report,
    )


def build_handler(keeper: RulesKeeper, clock: Callable[[], float] = time.time) -> Handler:
    """Return the handler over some rules."""

    def handle(event: dict[str, Any], _context: object) -> dict[str, Any]:
        try:
            now = clock()
            return answer_request(event["Records"][0]["cf"]["request"], keeper.current(now), now=int(now))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is let in (invariant 10)
            # The type alone: the text of an error may hold what the viewer sent.
            report("authorizer-failed", type(error).__name__)
            return respond(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    return handle


_handler: Handler | None = None


def handle_viewer_request(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer a viewer request: the entry point.

    Source: Lambda@Edge event structure, viewer request.
    """
    global _handler  # noqa: PLW0603 - one per execution environment, made with its first request
    if _handler is None:
        with open(_SETTINGS_FILE, "rb") as file:  # noqa: PTH123 - importing pathlib costs a tenth of the start
            _handler = build_handler(build_keeper(parse_settings(file.read())))
    return _handler(event, context)
