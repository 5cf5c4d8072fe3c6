"""Strict JSON: parses a publisher's document, or says what is wrong with it.

The one exception is :func:`read_leniently`, for documents that no client reads.

Owns the rules for every document: size, UTF-8, depth, numbers that every client and encoding can
represent, no duplicate keys. Deals with no particular fields. Pure.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode

MAX_DEPTH = 64
MIN_INTEGER = -(2**63)  # the range of msgpack
MAX_INTEGER = 2**64 - 1
MAX_NUMBER_CHARS = 40
MAX_VALUES = 2_000_000
MAX_DOCUMENT_VALUES = 20_000  # of a document that is kept, or read for a few texts
VALUE_BYTES = 128  # of memory, for a small value and its place in another

Pairs = list[tuple[str, Any]]


def _never(_: Pairs) -> bool:
    return False


def parse_document(
    content: bytes,
    name: str,
    *,
    shape: Callable[[Pairs], Any] = dict,
    may_repeat: Callable[[Pairs], bool] = _never,
    max_values: int = MAX_VALUES,
) -> Any:  # noqa: ANN401 - any JSON
    """Parse one JSON document.

    ``name`` is its name in messages (``info/index.json``). ``shape`` maps the pairs of each object to the
    value that is kept, so that a long list of objects needs little memory. ``may_repeat`` tells which
    objects may have duplicate keys; the last one counts.

    Raises:
        RejectedError: ``json-invalid``, ``json-not-utf8``, ``json-duplicate-key``, ``json-number``,
            ``json-too-deep`` or ``json-oversized``.
    """
    if count_values(content) > max_values:
        raise RejectedError(RejectionCode.JSON_OVERSIZED, f"{name} has more than {max_values} values")
    numbers = _Numbers(name)

    def build(pairs: Pairs) -> Any:  # noqa: ANN401 - as above
        if len({key for key, _ in pairs}) != len(pairs) and not may_repeat(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise RejectedError(
                RejectionCode.JSON_DUPLICATE_KEY, f"{name} has the key {twice[:100]!r} twice in one object"
            )
        return shape(pairs)

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RejectedError(RejectionCode.JSON_NOT_UTF8, f"{name} is not UTF-8, at byte {error.start}") from error
    try:
        document = json.loads(
            text,
            object_pairs_hook=build,
            parse_constant=numbers.reject_constant,
            parse_int=numbers.parse_integer,
            parse_float=numbers.parse_float,
        )
    except json.JSONDecodeError as error:
        raise RejectedError(
            RejectionCode.JSON_INVALID, f"{name} is not JSON: {error.msg} at character {error.pos}"
        ) from error
    except RecursionError as error:
        raise _too_deep(name) from error
    _check_values(document, name)
    return document


def parse_object(
    content: bytes,
    name: str,
    *,
    shape: Callable[[Pairs], Any] = dict,
    may_repeat: Callable[[Pairs], bool] = _never,
    max_values: int = MAX_VALUES,
) -> dict[str, Any]:
    """Parse a JSON document that must be an object.

    Raises:
        RejectedError: as :func:`parse_document`, and ``json-not-an-object``.
    """
    document = parse_document(content, name, shape=shape, may_repeat=may_repeat, max_values=max_values)
    if not isinstance(document, dict):
        raise RejectedError(RejectionCode.JSON_NOT_AN_OBJECT, f"{name} is not a JSON object")
    return document


def read_leniently(content: bytes) -> dict[str, Any]:
    """Return a document as Python's parser reads it; ``{}`` if it is not an object.

    Only for texts that are shown to people. The last of duplicate keys counts; every number is
    ``None``; texts may have lone surrogates.
    """
    if count_values(content) > MAX_DOCUMENT_VALUES:
        return {}
    try:
        document = json.loads(content, parse_int=_pass_over, parse_float=_pass_over, parse_constant=_pass_over)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _pass_over(_: str) -> None:
    return None


def count_values(content: bytes) -> int:
    """Return at least the number of values in a document, without parsing it."""
    return sum(content.count(sign) for sign in (b",", b"[", b"{"))


def parsing_bytes(content: bytes) -> int:
    """Return how much memory parsing a document takes at most, beside the document."""
    text_bytes = len(content) if content.isascii() else 4 * len(content)
    return text_bytes + len(content) + VALUE_BYTES * count_values(content)


class _Numbers:
    """Parses numbers, and rejects those that some client or encoding cannot represent."""

    def __init__(self, name: str) -> None:
        self._name = name

    def reject_constant(self, text: str) -> NoReturn:
        raise RejectedError(RejectionCode.JSON_NUMBER, f"{self._name} has the number {text}, which is not JSON")

    def parse_integer(self, text: str) -> int:
        if len(text) > MAX_NUMBER_CHARS or not MIN_INTEGER <= int(text) <= MAX_INTEGER:
            raise RejectedError(
                RejectionCode.JSON_NUMBER, f"{self._name} has an integer of more than 64 bits: {text[:40]!r}"
            )
        return int(text)

    def parse_float(self, text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise RejectedError(
                RejectionCode.JSON_NUMBER, f"{self._name} has a number that is too large: {text[:40]!r}"
            )
        return number


def _too_deep(name: str) -> RejectedError:
    return RejectedError(RejectionCode.JSON_TOO_DEEP, f"{name} is nested deeper than {MAX_DEPTH} levels")


def _check_values(document: object, name: str) -> None:
    """Reject deep nesting, and strings with lone surrogates: neither can be encoded again."""
    level: list[object] = [document]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep(name)
        below: list[object] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value, name)
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key, name)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below


def _check_text(text: str, name: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RejectedError(
            RejectionCode.JSON_NOT_UTF8, f"{name} has half a character (a lone surrogate): {text[:40]!r}"
        ) from error
