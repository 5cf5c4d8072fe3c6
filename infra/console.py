"""Prints errors for people: the error in one line, and its hint in another."""

from __future__ import annotations

import sys

from lambdas.channel.errors import FairwayError

EXIT_FAILED = 2


def print_error(error: FairwayError) -> int:
    """Print an error and return the exit code."""
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for people
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201 - for people
    return EXIT_FAILED
