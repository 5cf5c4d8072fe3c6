"""Attestations of an artifact: parses their file, and adds what uploads bring to what was accepted before. Pure.

The file is a JSON array of Sigstore bundles, which only ever grows. A bundle is kept byte for byte, as it
was first accepted. Two bundles are the same if they are equal as JSON: a tool that parses the array, appends
to it and writes it again changes white space and escapes, and brings nothing new by that.

Whether a signature is valid is for clients to verify (CEP 27).

Source: CEP 50.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.strict_json import parse_document

MAX_ADDED_BYTES: Final = 256 * 1024
MAX_ADDED_BUNDLES: Final = 16
MAX_BYTES: Final = 10 * 1024 * 1024
"""Of all attestations of an artifact."""
MAX_VALUES: Final = 250_000
"""JSON values in all attestations of an artifact: bounds the memory that reading them takes."""
MAX_READ_BYTES: Final = MAX_BYTES + 2 * MAX_ADDED_BYTES
"""Of one upload, which holds what was there before as well."""

_MAX_SPARE_BYTES: Final = 4096
"""White space between bundles, in a file that is kept as it was uploaded."""
_WHITE_SPACE: Final = " \t\n\r"
_FORM_HINT: Final = "CEP 50: the .sigs file of an artifact is a JSON array, to which bundles are appended"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """One element of the array."""

    text: bytes
    """As it was uploaded."""
    identity: bytes
    """SHA-256 of its canonical JSON: equal for equal bundles."""

    @property
    def value_count(self) -> int:
        """About how many JSON values it has."""
        return _count_values(self.text)


def parse_attestations(body: bytes) -> list[Bundle]:
    """Parse a file of attestations.

    Raises:
        RejectedError: it is not a JSON array of at least one object, or it is too large.
    """
    if len(body) > MAX_READ_BYTES or _count_values(body) > 2 * MAX_VALUES:
        raise too_large()
    try:
        values = parse_document(body, "the file")
    except RejectedError as error:
        raise RejectedError(RejectionCode.ATTESTATIONS_NOT_JSON, f"attestations can't be read: {error}") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RejectedError(
            RejectionCode.ATTESTATIONS_MALFORMED,
            "attestations are not a JSON array of Sigstore bundles",
            hint=_FORM_HINT,
        )
    if not values:
        raise RejectedError(
            RejectionCode.ATTESTATIONS_EMPTY, "there is no Sigstore bundle in the array", hint=_FORM_HINT
        )
    texts = _split_array(body.decode())
    return [Bundle(text=text.encode(), identity=_identify(value)) for text, value in zip(texts, values, strict=True)]


def too_large() -> RejectedError:
    """Return why an upload is rejected unread."""
    return RejectedError(RejectionCode.ATTESTATIONS_TOO_LARGE, f"attestations are larger than {MAX_BYTES} bytes")


def hash_mismatch() -> RejectedError:
    """Return why a copy is rejected."""
    return RejectedError(
        RejectionCode.ATTESTATIONS_HASH_MISMATCH,
        "the file's SHA-256 is not the one in its name",
        hint="upload attestations as ARTIFACT.sigs: the channel makes the copy",
    )


def encode_attestations(bundles: Iterable[Bundle]) -> bytes:
    """Encode bundles as a file."""
    return b"[" + b",".join(bundle.text for bundle in bundles) + b"]"


def hash_attestations(document: bytes) -> str:
    """Return the hex SHA-256 by which records name a file of attestations."""
    return hashlib.sha256(document).hexdigest()


@dataclass(kw_only=True, slots=True)
class Union:
    """All bundles of an artifact, in the order in which they came."""

    bundles: list[Bundle] = field(default_factory=list)
    _identities: set[bytes] = field(default_factory=set)
    _size: int = 2
    _values: int = 0

    def accept(self, bundles: Iterable[Bundle]) -> None:
        """Add bundles that were accepted before, without any limit."""
        for bundle in bundles:
            if bundle.identity not in self._identities:
                self._append(bundle)

    def add(self, bundles: Sequence[Bundle], *, has_limit: bool = True) -> RejectedError | None:
        """Add the bundles of one upload that are new, up to the limits.

        Return why some of its bundles were not added; None if all are there now. Without ``has_limit``, the
        upload may add any number, up to the limit for all attestations of an artifact.
        """
        added = added_bytes = 0
        rejection: RejectedError | None = None
        for bundle in bundles:
            if bundle.identity in self._identities:
                continue
            size = len(bundle.text) + 1
            if has_limit and (added >= MAX_ADDED_BUNDLES or added_bytes + size > MAX_ADDED_BYTES):
                rejection = rejection or _adds_too_much()
            elif self._size + size > MAX_BYTES or self._values + bundle.value_count > MAX_VALUES:
                rejection = rejection or _is_full()
            else:
                self._append(bundle)
                added, added_bytes = added + 1, added_bytes + size
        return rejection

    def matches(self, bundles: Sequence[Bundle], document: bytes) -> bool:
        """Tell whether a file with these bundles can stay as it is: the same ones, in order, byte for byte."""
        return [one.text for one in bundles] == [one.text for one in self.bundles] and len(
            document
        ) <= self._size + _MAX_SPARE_BYTES

    def _append(self, bundle: Bundle) -> None:
        self.bundles.append(bundle)
        self._identities.add(bundle.identity)
        self._size += len(bundle.text) + 1
        self._values += bundle.value_count


def _adds_too_much() -> RejectedError:
    return RejectedError(
        RejectionCode.ATTESTATIONS_TOO_MANY,
        f"one upload adds at most {MAX_ADDED_BUNDLES} bundles of {MAX_ADDED_BYTES} bytes together",
        hint="the first ones are kept: append the others by further uploads",
    )


def _is_full() -> RejectedError:
    return RejectedError(
        RejectionCode.ATTESTATIONS_FULL,
        f"all attestations of an artifact are {MAX_BYTES} bytes and {MAX_VALUES} values at most",
    )


def _count_values(content: bytes) -> int:
    return sum(content.count(sign) for sign in (b",", b"[", b"{"))


def _split_array(text: str) -> list[str]:
    """Return the source text of each element of an array that was parsed before."""
    decoder = json.JSONDecoder()
    texts: list[str] = []
    position = text.index("[") + 1
    while True:
        while text[position] in _WHITE_SPACE or text[position] == ",":
            position += 1
        if text[position] == "]":
            return texts
        _, end = decoder.raw_decode(text, position)
        texts.append(text[position:end])
        position = end


def _identify(value: object) -> bytes:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()
