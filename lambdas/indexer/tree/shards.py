"""The tree: one shard per package name, one shard index per subdir, one card beside each shard. Pure.

The shard index is the commit: it alone says what a subdir holds. A *card* is what the index knows
of one artifact: its record before patches, its run_exports, the facts that channel pages need, and
the ETag that was seen. The cards of a name lie in a private object named by the hash of the public
shard, so that one pointer reaches both and no second one can disagree. A shard is a pure function of
its cards and of the patch instructions in force.

Source: CEP 16 (sharded repodata), CEP 48 (repodata revisions).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import EXTENSIONS, SubdirId, find_extension
from lambdas.indexer.artifacts.record import Record, section_of
from lambdas.indexer.tree.cards import Card, Cards
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
from lambdas.indexer.tree.shard_index import SHARDS_FOLDER, ShardHash

CARDS: Final = "cards"
FLAT_SECTIONS: Final = ("packages", "packages.conda")
MAX_SHARD_BYTES: Final = 16 * 1024 * 1024
"""Of a shard, decompressed: conda reads no larger one."""
_V3: Final = "v3"
_HASH_FIELDS: Final = ("md5", "sha256", "attestations_sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """What readers see of one package name, with hex hashes; each record carries ``run_exports``."""

    packages: dict[str, Record] = field(default_factory=dict)
    packages_conda: dict[str, Record] = field(default_factory=dict)
    v3: dict[str, dict[str, Record]] = field(default_factory=dict)
    """``{"conda" | "tar.bz2": {stem: record}}`` (CEP 48)."""
    removed: tuple[str, ...] = ()
    removed_sha256: str | None = None
    """Hex SHA-256 of the records that patches took away: what they leave out must change the shard too."""

    def section(self, name: str) -> dict[str, Record]:
        """Return ``packages`` or ``packages.conda``."""
        return self.packages if name == "packages" else self.packages_conda


def make_shard(cards: Cards, patches: PatchInstructions = NO_PATCHES) -> Shard:
    """Make what readers see of a name out of its cards and the patch instructions in force."""
    sections: dict[str, dict[str, Record]] = {section: {} for section in FLAT_SECTIONS}
    for filename, card in sorted(cards.items()):
        extension = find_extension(filename)
        if extension is None:
            raise InvalidDocumentError(f"a card names no artifact: {filename!r}")
        record = {**card.record, "run_exports": card.run_exports}
        if card.attestations_sha256 is not None:
            record["attestations_sha256"] = card.attestations_sha256
        section = section_of(card.record, extension)
        name = f"{_V3}{extension}" if section == "v3" else section
        sections.setdefault(name, {})[filename] = record
    # Patches go by filename: they reach version 3 records too, or those could not be yanked.
    patched = apply_patches(sections, patches)
    v3 = {
        extension[1:]: {filename[: -len(extension)]: record for filename, record in records.items()}
        for extension in EXTENSIONS
        if (records := patched.sections.get(_V3 + extension))
    }
    return Shard(
        packages=patched.sections["packages"],
        packages_conda=patched.sections["packages.conda"],
        v3=v3,
        removed=patched.removed,
        removed_sha256=_hash_removed(sections, patched.removed),
    )


def encode_shard(shard: Shard) -> tuple[ShardHash, bytes]:
    """Encode a shard; its name is the SHA-256 of the compressed bytes.

    Source: CEP 16: hashes are bytes, ``packages`` must be there even when empty, and keys that a
    client doesn't know (``removed_sha256``) are ignored.
    """
    document: dict[str, Any] = {
        "packages": {name: _hashes_to_bytes(record) for name, record in shard.packages.items()},
        "packages.conda": {name: _hashes_to_bytes(record) for name, record in shard.packages_conda.items()},
        "removed": list(shard.removed),
    }
    if shard.removed_sha256 is not None:
        document["removed_sha256"] = bytes.fromhex(shard.removed_sha256)
    if shard.v3:
        document["v3"] = {
            kind: {stem: _hashes_to_bytes(record) for stem, record in records.items()}
            for kind, records in shard.v3.items()
        }
    body = compress(encode_msgpack(document), level=SHARD_LEVEL)
    return ShardHash(hashlib.sha256(body).hexdigest()), body


def find_overflow(old: Cards, new: Cards, patches: PatchInstructions = NO_PATCHES) -> list[str]:
    """Return which artifacts among the new cards leave their shard no room; what is old always has its place.

    Sizes are taken one by one and added up: a shard of all is no larger than the sum.
    """
    fresh = sorted(name for name, card in new.items() if name not in old or old[name].sha256 != card.sha256)
    kept = {name: old.get(name) if name in fresh else card for name, card in new.items()}
    size = sum(_measure_alone(name, card, patches) for name, card in kept.items() if card is not None)
    overflow = []
    for name in fresh:
        before = kept[name]
        more = _measure_alone(name, new[name], patches)
        more -= 0 if before is None else _measure_alone(name, before, patches)
        if size + more > MAX_SHARD_BYTES:
            overflow.append(name)
        else:
            size += more
    return overflow


def _measure_alone(filename: str, card: Card, patches: PatchInstructions) -> int:
    return measure(encode_shard(make_shard({filename: card}, patches))[1])


def decode_shard(body: bytes) -> Shard:
    """Decode a shard.

    Raises:
        InvalidDocumentError: it is none.
    """
    document = decode_msgpack(decompress(body, what="shard"), what="shard")
    try:
        return Shard(
            packages={name: _hashes_to_hex(record) for name, record in document["packages"].items()},
            packages_conda={name: _hashes_to_hex(record) for name, record in document["packages.conda"].items()},
            v3={
                kind: {stem: _hashes_to_hex(record) for stem, record in records.items()}
                for kind, records in document.get("v3", {}).items()
            },
            removed=tuple(document["removed"]),
            removed_sha256=document["removed_sha256"].hex() if "removed_sha256" in document else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"not a shard: {error!r}") from error


def shard_key(path: SubdirId, sha256: ShardHash) -> str:
    """Return where readers find a shard."""
    return path.key(f"{SHARDS_FOLDER}{sha256}.msgpack.zst")


def cards_key(path: SubdirId, sha256: ShardHash) -> str:
    """Return where the indexer finds the cards behind a shard."""
    return path.private_key(CARDS, f"{sha256}.json.zst")


def iter_records(shard: Shard) -> Iterable[tuple[str, Record]]:
    """Yield every record with its filename, version 3 records too."""
    yield from shard.packages.items()
    yield from shard.packages_conda.items()
    for kind, records in shard.v3.items():
        for stem, record in records.items():
            yield f"{stem}.{kind}", record


def _hash_removed(sections: Mapping[str, Mapping[str, Record]], removed: Iterable[str]) -> str | None:
    records = {filename: record for section in sections.values() for filename, record in section.items()}
    taken = {filename: records[filename] for filename in removed}
    return hashlib.sha256(encode_json(taken)).hexdigest() if taken else None


def _hashes_to_bytes(record: Record) -> Record:
    return {
        key: bytes.fromhex(value) if key in _HASH_FIELDS and isinstance(value, str) else value
        for key, value in record.items()
    }


def _hashes_to_hex(record: Record) -> Record:
    return {
        key: value.hex() if key in _HASH_FIELDS and isinstance(value, bytes) else value for key, value in record.items()
    }
