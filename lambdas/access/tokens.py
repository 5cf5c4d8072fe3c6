"""The form of a token: ``fw-``, 27 random characters, 6 characters of checksum.

    fw-4VqT2zYgq0ZcGm9yXoJ1aB7dKfR0k3Ls8

Only ``[A-Za-z0-9-]``: conda ends a token in a URL at anything else. 27 characters of base 62 are
160 bits. The checksum tells a typing error or a scanner's find from a token without asking anybody;
it protects nothing. Knows nothing of who may read what.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Final, NewType

Sha256Hex = NewType("Sha256Hex", str)

TOKEN_PREFIX: Final = "fw-"  # noqa: S105 - what is known of every token
TOKEN_REGEXP: Final = r"\bfw-[0-9A-Za-z]{33}\b"  # noqa: S105 - likewise
"""For secret scanners; docs/tokens.md has it too."""
TOKEN_ENTROPY: Final = 62**27
"""How many tokens there are: draw a number below it."""
ID_CHARS: Final = 12

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 27
_CHECKSUM_CHARS: Final = 6
_TOKEN_CHARS: Final = len(TOKEN_PREFIX) + _RANDOM_CHARS + _CHECKSUM_CHARS


def format_token(number: int) -> str:
    """Make a token out of a random number ``0 <= number < TOKEN_ENTROPY``."""
    if not 0 <= number < TOKEN_ENTROPY:
        raise ValueError("a token's number is out of range")
    body = TOKEN_PREFIX + _encode_base62(number, _RANDOM_CHARS)
    return body + _checksum(body)


def is_token(text: str) -> bool:
    """Tell whether the text has the form and the checksum of a token; nothing is looked up."""
    if len(text) != _TOKEN_CHARS or not text.startswith(TOKEN_PREFIX) or not text.isascii():
        return False
    return text[len(TOKEN_PREFIX) :].isalnum() and text[-_CHECKSUM_CHARS:] == _checksum(text[:-_CHECKSUM_CHARS])


def hash_token(token: str) -> Sha256Hex:
    """Return what is stored of a token.

    Plain SHA-256 is enough: with 160 random bits there is nothing to guess, so nothing to slow down.
    """
    return Sha256Hex(hashlib.sha256(token.encode()).hexdigest())


def token_id(sha256: Sha256Hex) -> str:
    """Return the short public name of a token: the beginning of its hash."""
    return sha256[:ID_CHARS]


def _checksum(body: str) -> str:
    return _encode_base62(binascii.crc32(body.encode()), _CHECKSUM_CHARS)


def _encode_base62(number: int, chars: int) -> str:
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
