"""Globs: ``*`` matches any characters, ``?`` matches one, any other character matches itself. Pure.

Matching takes at most time proportional to the product of both lengths, because no regular expression is
used: no pattern in the access document can stall the authorizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NewType, cast

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.names import MAX_CHANNEL_CHARS, MAX_FIELD_CHARS

Glob = NewType("Glob", str)

_NAME_GLOB = re.compile(r"[a-z0-9_.*?-]+\Z")


def glob_matches(pattern: str, text: str) -> bool:
    """Tell whether the pattern matches the whole text."""
    if pattern in {text, "*"}:
        return True
    position = here = 0
    star = -1
    resume = 0
    while here < len(text):
        if position < len(pattern) and pattern[position] == "*":
            star, resume = position, here
            position += 1
        elif position < len(pattern) and (pattern[position] == "?" or pattern[position] == text[here]):
            position += 1
            here += 1
        elif star >= 0:  # let the last star match one more character
            resume += 1
            position, here = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[position:])


def matches_any(patterns: tuple[str, ...], text: str) -> bool:
    """Tell whether one of the patterns matches the whole text."""
    return any(glob_matches(pattern, text) for pattern in patterns)


def parse_channel_globs(texts: Iterable[str]) -> tuple[Glob, ...]:
    """Check patterns of channel names.

    Raises:
        InvalidNameError: one is too long or has characters that no channel's name may have.
        TypeError: one is not a string.
    """
    return _parse_globs(tuple(texts), "channel", MAX_CHANNEL_CHARS)


def parse_package_globs(texts: Iterable[str]) -> tuple[Glob, ...]:
    """Check patterns of package names.

    Raises:
        InvalidNameError: one is too long or has characters that no package's name may have.
        TypeError: one is not a string.
    """
    return _parse_globs(tuple(texts), "package", MAX_FIELD_CHARS)


def _parse_globs(texts: tuple[str, ...], kind: str, max_chars: int) -> tuple[Glob, ...]:
    # All at once: the authorizer may have hundreds of thousands.
    if not texts or (_NAME_GLOB.match("".join(texts)) and all(texts) and max(map(len, texts)) <= max_chars):
        return cast("tuple[Glob, ...]", texts)
    invalid = next(text for text in texts if len(text) > max_chars or not _NAME_GLOB.match(text))
    raise InvalidNameError(
        f"invalid {kind} pattern {invalid!r}",
        hint=f"use a-z, 0-9, '_', '.' and '-', with '*' and '?' as wildcards, at most {max_chars} characters",
    )
