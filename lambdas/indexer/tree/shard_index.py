"""The shard index: the commit, one pointer to the shards of a subdir. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NewType

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import NOARCH, PackageName, SubdirName
from lambdas.indexer.tree.encoding import (
    SHARD_LEVEL,
    compress,
    decode_msgpack,
    decompress,
    encode_msgpack,
)

SHARD_INDEX: Final = "repodata_shards.msgpack.zst"
SHARDS_FOLDER: Final = "shards/"

ShardHash = NewType("ShardHash", str)
"""Hex SHA-256 of a compressed shard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """What a subdir holds: the commit."""

    subdir: SubdirName
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
            subdir=SubdirName(info["subdir"]),
            shards={PackageName(name): ShardHash(sha256.hex()) for name, sha256 in document["shards"].items()},
            created_ms=round(created.timestamp() * 1000),
            patches_sha256=info.get("patch_instructions_sha256"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocumentError(f"not a shard index: {error!r}") from error


def empty_index(subdir: SubdirName = NOARCH) -> ShardIndex:
    """Return the commit of a subdir that holds nothing."""
    return ShardIndex(subdir=subdir)
