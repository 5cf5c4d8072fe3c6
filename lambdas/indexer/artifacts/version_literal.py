"""Version literals: whether every client can compare one. Pure.

Owns the grammar of one literal, in records and in match specs. The order of versions is in
``artifacts/versions.py``.

Source: CEP 33 (version literals), conda's ``VersionOrder`` and rattler's ``Version``.
"""

from __future__ import annotations

import re
from typing import Final

MAX_VERSION_CHARS: Final = 64
MAX_VERSION_NUMBER: Final = 2**64 - 1
"""rattler reads the numbers of a version into 64 bits."""

_LITERAL = re.compile(
    r"""(?:[0-9]+!)?                               # epoch
        [0-9a-z]+ (?:[._][0-9a-z]+)* (?:[._]?_)?   # release; a trailing '_' sorts first, for OpenSSL
        (?:\+[0-9a-z]+(?:[._][0-9a-z]+)*)?\Z       # local
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"[0-9]+")


def is_version_literal(text: str) -> bool:
    """Return whether clients can compare a version. They ignore case."""
    return (
        len(text) <= MAX_VERSION_CHARS
        and _LITERAL.match(text) is not None
        and all(int(number) <= MAX_VERSION_NUMBER for number in _NUMBER.findall(text))
    )
