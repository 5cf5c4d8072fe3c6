"""Shards: one per package name; what readers see of the name's artifacts. Pure.

A shard is a pure function of the name's cards and of the patch instructions in force. It is named by
its hash, and so are the cards behind it: one pointer reaches both.

Source: CEP 16 (sharded repodata), CEP 48 (repodata revisions).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.artifact_kinds import flat_sections, kind_of, v3_kinds, v3_section
from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.artifacts.record import Record, is_v3
from lambdas.indexer.tree.cards import Card, Cards, check_stored_record
from lambdas.indexer.tree.encoding import (
    SHARD_LEVEL,
    compress,
    decode_msgpack,
    decompress,
    encode_json,
    encode_msgpack,
    measure,
)
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions, apply_patches
from lambdas.indexer.tree.shard_index import ShardHash

_HASH_FIELDS: Final = ("md5", "sha256", "attestations_sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """What readers see of one package name, with hex hashes; each record carries ``run_exports``."""

    flat: Mapping[str, Mapping[str, Record]] = field(
        default_factory=lambda: {section: {} for section in flat_sections()}
    )
    """``{"packages" | "packages.conda": {filename: record}}``."""
    v3: Mapping[str, Mapping[str, Record]] = field(default_factory=dict)
    """``{"conda" | "tar.bz2": {stem: record}}`` (CEP 48); empty sections are left out."""
    removed: tuple[str, ...] = ()
    removed_sha256: str | None = None
    """Hex SHA-256 of the records that patches removed: a change of those must change the shard too."""


def make_shard(cards: Cards, patches: PatchInstructions = NO_PATCHES) -> Shard:
    """Make what readers see of a name out of its cards and the patch instructions in force.

    Raises:
        InvalidDocumentError: a card's filename is no artifact's.
    """
    sections: dict[str, dict[str, Record]] = {section: {} for section in flat_sections()}
    for filename, card in sorted(cards.items()):
        kind = kind_of(filename)
        if kind is None:
            raise InvalidDocumentError(f"a card names no artifact: {filename!r}")
        record = {**card.record, "run_exports": card.run_exports}
        if card.attestations_sha256 is not None:
            record["attestations_sha256"] = card.attestations_sha256
        section = v3_section(kind) if kind.section is None or is_v3(card.record) else kind.section
        sections.setdefault(section, {})[filename] = record
    # Patches go by filename: they reach version 3 records too, or those could not be yanked.
    patched = apply_patches(sections, patches)
    v3 = {
        kind.v3_section: {filename.removesuffix(kind.extension): record for filename, record in records.items()}
        for kind in v3_kinds()
        if (records := patched.sections.get(v3_section(kind)))
    }
    return Shard(
        flat={section: patched.sections[section] for section in flat_sections()},
        v3=v3,
        removed=patched.removed,
        removed_sha256=_hash_removed(sections, patched.removed),
    )


def encode_shard(shard: Shard) -> tuple[ShardHash, bytes]:
    """Encode a shard; its name is the SHA-256 of the compressed bytes.

    Source: CEP 16: hashes are bytes, ``packages`` must be present even when empty, and clients ignore
    keys that they don't know (``removed_sha256``).
    """
    document: dict[str, Any] = {
        section: {filename: _hashes_to_bytes(record) for filename, record in shard.flat.get(section, {}).items()}
        for section in flat_sections()
    }
    document["removed"] = list(shard.removed)
    if shard.removed_sha256 is not None:
        document["removed_sha256"] = bytes.fromhex(shard.removed_sha256)
    if shard.v3:
        document["v3"] = {
            kind: {stem: _hashes_to_bytes(record) for stem, record in records.items()}
            for kind, records in shard.v3.items()
        }
    body = compress(encode_msgpack(document), level=SHARD_LEVEL)
    return ShardHash(hashlib.sha256(body).hexdigest()), body


def decode_shard(body: bytes) -> Shard:
    """Decode a shard.

    Raises:
        InvalidDocumentError: it has another form.
    """
    document = decode_msgpack(decompress(body, what="shard"), what="shard")
    try:
        return Shard(
            flat={
                section: {filename: _parse_record(record) for filename, record in document[section].items()}
                for section in flat_sections()
            },
            v3={
                kind.v3_section: {stem: _parse_record(record) for stem, record in records.items()}
                for kind in v3_kinds()
                if (records := document.get("v3", {}).get(kind.v3_section))
            },
            removed=tuple(document["removed"]),
            removed_sha256=document["removed_sha256"].hex() if "removed_sha256" in document else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocumentError(f"not a shard: {error!r}") from error


def choose_overflow(old: Cards, new: Cards, measure_alone: Callable[[str, Card], int], *, max_bytes: int) -> list[str]:
    """Return which new artifacts would make a name larger than ``max_bytes``; old ones keep their place.

    Sizes are measured one by one and added up: all together are no larger than the sum.
    """
    fresh = sorted(name for name, card in new.items() if name not in old or old[name].sha256 != card.sha256)
    kept = {name: old.get(name) if name in fresh else card for name, card in new.items()}
    size = sum(measure_alone(name, card) for name, card in kept.items() if card is not None)
    overflow = []
    for name in fresh:
        before = kept[name]
        more = measure_alone(name, new[name])
        more -= 0 if before is None else measure_alone(name, before)
        if size + more > max_bytes:
            overflow.append(name)
        else:
            size += more
    return overflow


def iter_records(shard: Shard) -> Iterator[tuple[str, Record]]:
    """Yield every record with its filename, version 3 records too."""
    for records in shard.flat.values():
        yield from records.items()
    extensions = {kind.v3_section: kind.extension for kind in v3_kinds()}
    for section, records in shard.v3.items():
        for stem, record in records.items():
            yield f"{stem}{extensions[section]}", record


def measure_alone(filename: str, card: Card, patches: PatchInstructions = NO_PATCHES) -> int:
    """Return the size of a shard that holds one artifact, before compression."""
    return measure(encode_shard(make_shard({filename: card}, patches))[1])


def _hash_removed(sections: Mapping[str, Mapping[str, Record]], removed: Iterable[str]) -> str | None:
    records = {filename: record for section in sections.values() for filename, record in section.items()}
    taken = {filename: records[filename] for filename in removed}
    return hashlib.sha256(encode_json(taken)).hexdigest() if taken else None


def _hashes_to_bytes(record: Record) -> Record:
    return {
        key: bytes.fromhex(value) if key in _HASH_FIELDS and isinstance(value, str) else value
        for key, value in record.items()
    }


def _parse_record(value: Any) -> Record:  # noqa: ANN401 - msgpack is anything
    record = check_stored_record(_hashes_to_hex(value))
    if not isinstance(record["run_exports"], dict):
        raise TypeError("run exports are not an object")
    return record


def _hashes_to_hex(record: Record) -> Record:
    return {
        key: value.hex() if key in _HASH_FIELDS and isinstance(value, bytes) else value for key, value in record.items()
    }
