"""Strict JSON: reads a document that a publisher wrote, or says what is wrong with it.

The one exception is :func:`read_leniently`, for what no client reads.

Owns what any document must fulfil whatever it means: size, UTF-8, depth, numbers that every client
and every encoding can carry, no key twice. Knows no fields. Pure.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from lambdas.channel.errors import RejectedError

MAX_DEPTH = 64
MIN_INTEGER = -(2**63)  # what msgpack carries
MAX_INTEGER = 2**64 - 1
MAX_NUMBER_CHARS = 40
MAX_VALUES = 2_000_000  # a few hundred bytes of memory each, at worst

Pairs = list[tuple[str, Any]]


def _never(_: Pairs) -> bool:
    return False


def parse_document(
    content: bytes,
    name: str,
    *,
    shape: Callable[[Pairs], Any] = dict,
    may_repeat: Callable[[Pairs], bool] = _never,
) -> Any:  # noqa: ANN401 - any JSON
    """Parse one JSON document.

    ``name`` is what messages call it (``info/index.json``). ``shape`` turns the pairs of each object
    into what is kept of it, so that a long list of objects needn't be held. ``may_repeat`` says of
    which objects a key may come twice; the last one counts.

    Raises:
        RejectedError: ``json-invalid``, ``json-not-utf8``, ``json-duplicate-key``, ``json-number``,
            ``json-too-deep`` or ``json-oversized``.
    """
    if _has_too_many_values(content):
        raise RejectedError("json-oversized", f"{name} has more than {MAX_VALUES} values")
    numbers = _Numbers(name)

    def build(pairs: Pairs) -> Any:  # noqa: ANN401 - as above
        if len({key for key, _ in pairs}) != len(pairs) and not may_repeat(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise RejectedError("json-duplicate-key", f"{name} has the key {twice[:100]!r} twice in one object")
        return shape(pairs)

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RejectedError("json-not-utf8", f"{name} is not UTF-8, at byte {error.start}") from error
    try:
        document = json.loads(
            text,
            object_pairs_hook=build,
            parse_constant=numbers.refuse_constant,
            parse_int=numbers.parse_integer,
            parse_float=numbers.parse_float,
        )
    except json.JSONDecodeError as error:
        raise RejectedError("json-invalid", f"{name} is not JSON: {error.msg} at character {error.pos}") from error
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
) -> dict[str, Any]:
    """Parse a JSON document that must be an object.

    Raises:
        RejectedError: as :func:`parse_document`, and ``json-not-an-object``.
    """
    document = parse_document(content, name, shape=shape, may_repeat=may_repeat)
    if not isinstance(document, dict):
        raise RejectedError("json-not-an-object", f"{name} is not a JSON object")
    return document


def read_leniently(content: bytes) -> dict[str, Any]:
    """Return what a document says, as Python reads it; nothing, where it isn't an object.

    For what is shown to people alone. A key that comes twice has its last value; every number is
    ``None``; texts may hold lone surrogates.
    """
    if _has_too_many_values(content):
        return {}
    try:
        document = json.loads(content, parse_int=_pass_over, parse_float=_pass_over, parse_constant=_pass_over)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _pass_over(_: str) -> None:
    return None


def _has_too_many_values(content: bytes) -> bool:
    return sum(content.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES


class _Numbers:
    """Parses numbers, and refuses those that no client or encoding can carry."""

    def __init__(self, name: str) -> None:
        self._name = name

    def refuse_constant(self, text: str) -> NoReturn:
        raise RejectedError("json-number", f"{self._name} has the number {text}, which JSON does not know")

    def parse_integer(self, text: str) -> int:
        if len(text) > MAX_NUMBER_CHARS or not MIN_INTEGER <= int(text) <= MAX_INTEGER:
            raise RejectedError("json-number", f"{self._name} has an integer that 64 bits can't hold: {text[:40]!r}")
        return int(text)

    def parse_float(self, text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise RejectedError("json-number", f"{self._name} has a number that is too large: {text[:40]!r}")
        return number


def _too_deep(name: str) -> RejectedError:
    return RejectedError("json-too-deep", f"{name} is nested deeper than {MAX_DEPTH} levels")


def _check_values(document: object, name: str) -> None:
    """Refuse depth, and strings that are not Unicode text (lone surrogates): neither can be encoded again."""
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
            "json-not-utf8", f"{name} has half a character (a lone surrogate): {text[:40]!r}"
        ) from error
