"""Prints text to a terminal. Publishers choose keys, filenames and reasons, so control characters are escaped."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import click

from lambdas.channel.errors import UsageError


def escape(text: str) -> str:
    r"""Return the text with every character that is not printable as a Python escape, such as ``\x1b``.

    This includes line breaks, characters that change the writing direction (U+202E), and bytes of a
    filename that are not UTF-8.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_lines(lines: str | Iterable[str], *, file: TextIO | None = None) -> None:
    """Print lines, or one line, escaped; to stdout unless a file is given."""
    for line in [lines] if isinstance(lines, str) else lines:
        print(escape(line), file=file)


def print_error(message: str, hint: str | None = None, *, code: str = "") -> None:  # noqa: ARG001 - for programs
    """Print an error in one line, and what the user can do about it in another."""
    print_lines(f"error: {message}", file=sys.stderr)
    if hint:
        print_lines(f"hint: {hint}", file=sys.stderr)


def print_json_error(message: str, hint: str | None = None, *, code: str) -> None:
    """Print an error as a JSON document to stderr."""
    print(json.dumps({"error": {"code": code, "message": message, "hint": hint}}), file=sys.stderr)


def confirm(question: str, otherwise: UsageError) -> None:
    """Ask a question on stderr.

    Raises:
        UsageError: ``otherwise``, if the answer is no, or if no person can answer.
    """
    if not sys.stdin.isatty() or not click.confirm(escape(question), err=True):
        raise otherwise


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text as lines with aligned columns."""
    table = [headings, *([escape(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
