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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NewType

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import EXTENSIONS, NOARCH, PackageName, Subdir, SubdirPath, find_extension
from lambdas.indexer.encoding import (
    PRIVATE_LEVEL,
    SHARD_LEVEL,
    compress,
    decode_json,
    decode_msgpack,
    decompress,
    encode_json,
    encode_msgpack,
    measure,
)
from lambdas.indexer.patches import NO_PATCHES, PatchInstructions, apply_patches
from lambdas.indexer.record import Record, find_section

ShardHash = NewType("ShardHash", str)
"""Hex SHA-256 of a compressed shard."""

SHARD_INDEX: Final = "repodata_shards.msgpack.zst"
SHARDS_FOLDER: Final = "shards/"
CARDS: Final = "cards"
FLAT_SECTIONS: Final = ("packages", "packages.conda")
MAX_SHARD_BYTES: Final = 16 * 1024 * 1024
"""Of a shard, decompressed: conda reads no larger one."""
_V3: Final = "v3"
_HASH_FIELDS: Final = ("md5", "sha256", "attestations_sha256")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """What a subdir holds: the commit."""

    subdir: Subdir
    shards: Mapping[PackageName, ShardHash] = field(default_factory=dict)
    created_ms: int = 0
    """When the newest artifact ever indexed arrived: a function of the contents, not of a clock."""
    patches_sha256: str | None = None
    """Hex SHA-256 of the patch instructions in force."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndexDiff:
    """Which names lead from one commit to another; removed names are in ``removed``."""

    changed: frozenset[PackageName]
    removed: frozenset[PackageName]

    @property
    def names(self) -> frozenset[PackageName]:
        """Every name whose records differ."""
        return self.changed | self.removed


def diff_indexes(old: ShardIndex, new: ShardIndex) -> ShardIndexDiff:
    """Compare two commits name by name."""
    return ShardIndexDiff(
        changed=frozenset(name for name, sha256 in new.shards.items() if old.shards.get(name) != sha256),
        removed=frozenset(old.shards.keys() - new.shards.keys()),
    )


def apply_shards(index: ShardIndex, shards: Mapping[PackageName, ShardHash | None], *, created_ms: int) -> ShardIndex:
    """Return the commit after some names got another shard, or none; the input is untouched."""
    merged = {name: sha256 for name, sha256 in index.shards.items() if name not in shards}
    merged |= {name: sha256 for name, sha256 in shards.items() if sha256 is not None}
    return replace(index, shards=merged, created_ms=max(index.created_ms, created_ms))


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
        section = find_section(card.record, extension)
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


def find_surplus(old: Cards, new: Cards, patches: PatchInstructions = NO_PATCHES) -> list[str]:
    """Return which artifacts among the new cards leave their shard no room; what is old always has its place.

    Sizes are taken one by one and added up: a shard of all is no larger than the sum.
    """
    fresh = sorted(name for name, card in new.items() if name not in old or old[name].sha256 != card.sha256)
    kept = {name: old.get(name) if name in fresh else card for name, card in new.items()}
    size = sum(_measure_alone(name, card, patches) for name, card in kept.items() if card is not None)
    surplus = []
    for name in fresh:
        before = kept[name]
        more = _measure_alone(name, new[name], patches)
        more -= 0 if before is None else _measure_alone(name, before, patches)
        if size + more > MAX_SHARD_BYTES:
            surplus.append(name)
        else:
            size += more
    return surplus


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


def encode_index(index: ShardIndex) -> bytes:
    """Encode a shard index.

    Source: CEP 16; ``base_url`` and ``shards_base_url`` as both reference indexers and mamba have them.
    """
    info: dict[str, Any] = {
        "subdir": index.subdir,
        "base_url": "",
        "shards_base_url": f"./{SHARDS_FOLDER}",
        "created_at": datetime.fromtimestamp(index.created_ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    if index.patches_sha256 is not None:
        info["patch_instructions_sha256"] = index.patches_sha256
    document = {
        "version": 1,
        "info": info,
        "shards": {name: bytes.fromhex(sha256) for name, sha256 in index.shards.items()},
    }
    return compress(encode_msgpack(document), level=SHARD_LEVEL)


def decode_index(body: bytes) -> ShardIndex:
    """Decode a shard index.

    Raises:
        InvalidDocumentError: it is none.
    """
    document = decode_msgpack(decompress(body, what="shard index"), what="shard index")
    try:
        info = document["info"]
        created = datetime.fromisoformat(info["created_at"])
        return ShardIndex(
            subdir=Subdir(info["subdir"]),
            shards={PackageName(name): ShardHash(sha256.hex()) for name, sha256 in document["shards"].items()},
            created_ms=round(created.timestamp() * 1000),
            patches_sha256=info.get("patch_instructions_sha256"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocumentError(f"not a shard index: {error!r}") from error


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


def shard_key(path: SubdirPath, sha256: ShardHash) -> str:
    """Return where readers find a shard."""
    return path.key(f"{SHARDS_FOLDER}{sha256}.msgpack.zst")


def cards_key(path: SubdirPath, sha256: ShardHash) -> str:
    """Return where the indexer finds the cards behind a shard."""
    return path.private_key(CARDS, f"{sha256}.json.zst")


def empty_index(subdir: Subdir = NOARCH) -> ShardIndex:
    """Return the commit of a subdir that holds nothing."""
    return ShardIndex(subdir=subdir)


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
