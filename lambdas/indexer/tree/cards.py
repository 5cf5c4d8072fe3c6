"""Cards: what the index knows of artifacts beyond their public records. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.tree.encoding import (
    PRIVATE_LEVEL,
    compress,
    decode_json,
    decompress,
    encode_json,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What the index knows of one artifact."""

    record: Record
    """Before patches, with hex hashes, ``size`` and ``indexed_timestamp``."""
    run_exports: dict[str, Any]
    facts: dict[str, Any]
    """What channeldata.json says of the artifact (CEP 38)."""
    etag: str
    attestations_sha256: str | None = None
    """Hex SHA-256 of the artifact's ``.sigs`` sidecar (CEP 50)."""

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
            "attestations_sha256": card.attestations_sha256,
        }
        for filename, card in cards.items()
    }
    return compress(encode_json(document), level=PRIVATE_LEVEL)


def decode_cards(body: bytes) -> dict[str, Card]:
    """Decode the cards of one name.

    Raises:
        InvalidDocumentError: they are none.
    """
    document = decode_json(decompress(body, what="cards"), what="cards")
    try:
        return {filename: Card(**card) for filename, card in document.items()}
    except (TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"not cards: {error!r}") from error
