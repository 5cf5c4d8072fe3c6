"""Cards: what the index knows of artifacts beyond their public records. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.artifacts.strict_json import parsing_bytes
from lambdas.indexer.tree.encoding import (
    PRIVATE_LEVEL,
    compress,
    decode_json,
    decompress,
    encode_json,
)

_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What the index knows of one artifact."""

    record: Record
    """Before patches, with hex hashes, ``size`` and ``indexed_timestamp``."""
    run_exports: dict[str, Any]
    facts: dict[str, Any]
    """What channeldata.json says of the artifact (CEP 38)."""
    etag: str
    version: str | None = None
    """The version of the object that was read, if the storage keeps versions. Cards of 0.1.0 have none."""
    attestations_sha256: str | None = None
    """Hex SHA-256 of the artifact's attestations (CEP 50)."""
    attestations_version: str | None = None
    """The version of their key up to which everything is in them; a deletion has one as well."""

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the artifact."""
        return str(self.record["sha256"])


Cards = Mapping[str, Card]
"""The cards of one package name, by filename."""


def encode_cards(cards: Cards) -> bytes:
    """Encode the cards of one name."""
    document = {
        filename: {
            "record": card.record,
            "run_exports": card.run_exports,
            "facts": card.facts,
            "etag": card.etag,
            "version": card.version,
            "attestations_sha256": card.attestations_sha256,
            "attestations_version": card.attestations_version,
        }
        for filename, card in cards.items()
    }
    return compress(encode_json(document), level=PRIVATE_LEVEL)


def estimate_memory(card: Card) -> int:
    """Return how many bytes of memory a card takes at most."""
    return parsing_bytes(encode_json([card.record, card.run_exports, card.facts]))


def estimate_encoded(body: bytes) -> int:
    """Return how many bytes of memory encoded cards take at most; decodes no JSON.

    Raises:
        InvalidDocumentError: they are not one zstd frame.
    """
    return parsing_bytes(decompress(body, what="cards"))


def decode_cards(body: bytes) -> dict[str, Card]:
    """Decode the cards of one name.

    Raises:
        InvalidDocumentError: they have another form.
    """
    document = decode_json(decompress(body, what="cards"), what="cards")
    try:
        return {filename: _parse_card(filename, card) for filename, card in document.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocumentError(f"not cards: {error!r}") from error


def check_stored_record(record: object) -> Record:
    """Check that a record that was read back has what everything else is derived from, and return it.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, or has another type.
    """
    if not isinstance(record, dict):
        raise TypeError("a record is not an object")
    for field in ("name", "version", "build", "md5"):
        if not isinstance(record[field], str):
            raise TypeError(f"{field!r} of a record is not text")
    for field in ("size", "indexed_timestamp"):
        if not isinstance(record[field], int) or record[field] < 0:
            raise ValueError(f"{field!r} of a record is not a count")
    if not _HEX.match(record["sha256"]):
        raise ValueError("a record without a SHA-256")
    return record


def _parse_card(filename: str, document: Mapping[str, Any]) -> Card:
    if kind_of(filename) is None:
        raise ValueError(f"a card of {filename!r}")
    for name, expected in (("etag", str), ("run_exports", dict), ("facts", dict)):
        if not isinstance(document[name], expected):
            raise TypeError(f"{name!r} of a card has another type")
    attestations = document["attestations_sha256"]
    if attestations is not None and not _HEX.match(attestations):
        raise ValueError("attestations without a SHA-256")
    check_stored_record(document["record"])
    return Card(**document)
