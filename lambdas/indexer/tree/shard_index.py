"""The shard index: the commit, one pointer to the shards of a subdir. Pure.

What Fairway commits carries a *mark*: the deployment and the channel. A shard index that was read back
is checked strictly, entry by entry; one without the mark, of another subdir or channel, or of another
form is *foreign* and nothing is derived from it.

Source: CEP 16 (sharded repodata).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NewType

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError
from lambdas.channel.layout import SHARDS_FOLDER
from lambdas.channel.names import NOARCH, PackageName, SubdirId, SubdirName, parse_package_name
from lambdas.indexer.tree.encoding import (
    SHARD_LEVEL,
    compress,
    decode_msgpack,
    decompress,
    encode_msgpack,
    split_msgpack_map,
)

MAX_INDEX_BYTES: Final = 256 * 1024 * 1024
"""Of a decompressed shard index: 1,000,000 names take 70 MB."""
_MAX_INFO_BYTES: Final = 4096
_MAX_RATIO: Final = 4  # decompressed to compressed: a name takes at most 100 bytes, with a hash of 32 that stays 32
_HASH: Final = b"\xc4\x20"  # how msgpack encodes that 32 bytes follow
_HASH_BYTES: Final = 32
_MAX_CREATED_MS: Final = 253_402_300_799_000  # the last second of the year 9999
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
_MARK: Final = "fairway"

ShardHash = NewType("ShardHash", str)
"""Hex SHA-256 of a compressed shard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """The names of a subdir and their shards: the commit."""

    subdir: SubdirName
    shards: Mapping[PackageName, ShardHash] = field(default_factory=dict)
    created_ms: int = 0
    """When the newest artifact ever indexed arrived: a function of the contents, not of a clock."""
    patches_sha256: str | None = None
    """Hex SHA-256 of the patch instructions in force."""
    mark: "Mark | None" = None
    """None in commits of version 0.1.0, and in shard indexes of other tools."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Who committed a shard index."""

    deployment: str
    """The bucket's name; empty for a directory."""
    channel: str


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
    if index.mark is not None:
        info[_MARK] = {"deployment": index.mark.deployment, "channel": index.mark.channel}
    document = {
        "version": 1,
        "info": info,
        "shards": {name: bytes.fromhex(sha256) for name, sha256 in index.shards.items()},
    }
    return compress(encode_msgpack(document), level=SHARD_LEVEL)


def decode_index(body: bytes) -> ShardIndex:
    """Decode a shard index in the form that Fairway writes.

    Raises:
        InvalidDocumentError: it has another form.
    """
    max_bytes = min(MAX_INDEX_BYTES, _MAX_INFO_BYTES + _MAX_RATIO * len(body))
    parts = split_msgpack_map(decompress(body, what="shard index", max_bytes=max_bytes), what="shard index")
    if len(parts.get("info", b"")) > _MAX_INFO_BYTES or len(parts.get("version", b"")) > 1:
        raise InvalidDocumentError("not a shard index of Fairway: its head is too large")
    try:
        info = decode_msgpack(parts["info"], what="shard index")
        patches_sha256 = info.get("patch_instructions_sha256")
        version = decode_msgpack(parts["version"], what="shard index")
        if version != 1 or info["base_url"] != "" or info["shards_base_url"] != f"./{SHARDS_FOLDER}":
            raise InvalidDocumentError("not a shard index of Fairway: another version or other URLs")
        if patches_sha256 is not None and not _HEX.match(patches_sha256):
            raise InvalidDocumentError("not a shard index of Fairway: patch instructions without a SHA-256")
        return ShardIndex(
            subdir=SubdirName(_text(info["subdir"])),
            shards={
                parse_package_name(name): _parse_hash(sha256)
                for name, sha256 in split_msgpack_map(parts["shards"], what="shard index").items()
            },
            created_ms=_parse_time(info["created_at"]),
            patches_sha256=patches_sha256,
            mark=_parse_mark(info.get(_MARK)),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, InvalidNameError) as error:
        raise InvalidDocumentError(f"not a shard index of Fairway: {error!r}") from error


def is_marked_for(index: ShardIndex, subdir: SubdirId) -> bool:
    """Tell whether this is a commit of this subdir of this channel, by whichever deployment."""
    return index.mark is not None and index.mark.channel == subdir.channel and index.subdir == subdir.name


def _parse_mark(value: Any) -> Mark | None:  # noqa: ANN401 - msgpack is anything
    return None if value is None else Mark(deployment=_text(value["deployment"]), channel=_text(value["channel"]))


def _parse_time(value: str) -> int:
    """Return the time in ms, if it can be encoded again."""
    time_ms = round(datetime.fromisoformat(value).timestamp() * 1000)
    if not 0 <= time_ms <= _MAX_CREATED_MS:
        raise ValueError("a time outside the years 1970 to 9999")
    return time_ms


def _parse_hash(encoded: bytes) -> ShardHash:
    """Parse a hash, which is encoded as binary."""
    if not encoded.startswith(_HASH) or len(encoded) != len(_HASH) + _HASH_BYTES:
        raise ValueError("a shard without a SHA-256")
    return ShardHash(encoded[len(_HASH) :].hex())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a field is not text")
    return value


def empty_index(subdir: SubdirName = NOARCH, *, mark: Mark | None = None) -> ShardIndex:
    """Return the commit of a subdir without artifacts."""
    return ShardIndex(subdir=subdir, mark=mark)
