"""``--wait`` and ``--timeout``: no command waits longer than it says."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from lambdas.channel.errors import UsageError

DEFAULT_SECONDS: Final = 300.0
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Seconds(click.ParamType[float]):
    """A number of seconds, at least 0 and finite."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        """Parse it."""
        seconds: float = click.FLOAT.convert(value, param, ctx)
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def with_wait(purpose: str) -> Callable[[_Command], _Command]:
    """Add ``--wait`` and ``--timeout`` to a command; it gets ``wait``, the longest wait in seconds, or None."""

    def decorate(command: _Command) -> _Command:
        @click.option("--wait", "is_waiting", is_flag=True, help=f"Wait until {purpose}.")
        @click.option(
            "--timeout",
            type=Seconds(),
            default=None,
            metavar="SECONDS",
            help=f"Longest wait, with --wait.  [default: {DEFAULT_SECONDS:.0f}]",
        )
        @functools.wraps(command)
        def wrapped(*arguments: Any, is_waiting: bool, timeout: float | None, **options: Any) -> Any:  # noqa: ANN401 - click's
            if timeout is not None and not is_waiting:
                raise UsageError("--timeout without --wait", hint="add --wait")
            seconds = DEFAULT_SECONDS if timeout is None else timeout
            return command(*arguments, wait=seconds if is_waiting else None, **options)

        return wrapped  # type: ignore[return-value]  # the decorated function takes other arguments

    return decorate


def with_timeout(command: _Command) -> _Command:
    """Add ``--timeout`` to a command that always waits."""
    return click.option(
        "--timeout",
        type=Seconds(),
        default=DEFAULT_SECONDS,
        show_default=f"{DEFAULT_SECONDS:.0f}",
        metavar="SECONDS",
        help="Longest wait.",
    )(command)
