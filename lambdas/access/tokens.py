"""The form of tokens: ``fw-``, 27 random characters, 6 characters of checksum. Pure.

    fw-4VqT2zYgq0ZcGm9yXoJ1aB7dKfR0k3Ls8

Only ``[A-Za-z0-9-]``, because any other character ends a token in a conda URL. 27 characters of base 62 are
160 bits. The checksum lets clients and secret scanners recognize mistyped tokens and other strings without
a request; it protects nothing. What a token may read is in ``document.py``.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Final, NewType

Sha256Hex = NewType("Sha256Hex", str)

TOKEN_PREFIX: Final = "fw-"  # noqa: S105 - common to all tokens
TOKEN_REGEXP: Final = r"\bfw-[0-9A-Za-z]{33}\b"  # noqa: S105 - likewise
"""For secret scanners; also in docs/tokens.md."""
TOKEN_ENTROPY: Final = 62**27
"""The number of possible tokens: draw a number below it."""
ID_CHARS: Final = 12

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 27
_CHECKSUM_CHARS: Final = 6
_TOKEN_CHARS: Final = len(TOKEN_PREFIX) + _RANDOM_CHARS + _CHECKSUM_CHARS


def format_token(number: int) -> str:
    """Return the token for a random number ``0 <= number < TOKEN_ENTROPY``."""
    if not 0 <= number < TOKEN_ENTROPY:
        raise ValueError("a token's number is out of range")
    body = TOKEN_PREFIX + _encode_base62(number, _RANDOM_CHARS)
    return body + _checksum(body)


def is_token(text: str) -> bool:
    """Tell whether the text has the form and the checksum of a token."""
    if len(text) != _TOKEN_CHARS or not text.startswith(TOKEN_PREFIX) or not text.isascii():
        return False
    return text[len(TOKEN_PREFIX) :].isalnum() and text[-_CHECKSUM_CHARS:] == _checksum(text[:-_CHECKSUM_CHARS])


def hash_token(token: str) -> Sha256Hex:
    """Return the hash of a token, which is all that is stored.

    Plain SHA-256 is enough: 160 random bits cannot be guessed, so that hashing need not be slow.
    """
    return Sha256Hex(hashlib.sha256(token.encode()).hexdigest())


def token_id(sha256: Sha256Hex) -> str:
    """Return the public id of a token: the beginning of its hash."""
    return sha256[:ID_CHARS]


def _checksum(body: str) -> str:
    return _encode_base62(binascii.crc32(body.encode()), _CHECKSUM_CHARS)


def _encode_base62(number: int, chars: int) -> str:
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
