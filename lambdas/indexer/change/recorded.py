"""What the cards of a subdir say of its objects: what a listing is compared with.

Reading it takes the cards of every name. A directory keeps a copy between runs, by name and shard: a name
whose shard has changed is read again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel import caching
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName
from lambdas.indexer.tree.cards import Cards
from lambdas.indexer.tree.encoding import PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.indexer.tree.shard_index import ShardHash
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.storage.protocol import ContentHeaders, ObjectInfo

_NAMES_AT_ONCE: Final = 500
_FORM: Final = 1
_FIELDS: Final = 5
_HEADERS: Final = ContentHeaders(content_type="application/zstd", cache_control=caching.NO_STORE)

Row = Sequence[Any]
"""``[ETag, size, version, hex SHA-256 of the attestations, version up to which they were accepted]``."""
NameRows = tuple[ShardHash, Mapping[str, Row] | None]
"""The shard of a name, and ``{filename: row}``; None if its cards are lost."""
Rows = Mapping[PackageName, NameRows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What the cards of a subdir say, as little of it as possible."""

    objects: Mapping[str, Row]
    """By filename; cards of 0.1.0 have no version."""
    lost_names: frozenset[PackageName]
    """Names whose cards are lost."""

    @property
    def attestations(self) -> dict[str, str]:
        """``{filename: hex SHA-256 of its attestations}``."""
        return {filename: row[3] for filename, row in self.objects.items() if row[3] is not None}

    def has(self, filename: str, info: ObjectInfo, oldest_version: str | None) -> bool:
        """Tell whether a card describes the object; one of 0.1.0 was made of the oldest version with its ETag."""
        known = self.objects.get(filename)
        return known is not None and known[1] == info.size and is_same(known[0], known[2], info, oldest_version)


def is_same(etag: str, version: str | None, info: ObjectInfo, oldest_version: str | None) -> bool:
    """Tell whether an object is the version with this ETag that a card names.

    A card of 0.1.0 names no version: it was made of the oldest one with its ETag.
    """
    return (etag, version or oldest_version) == (info.etag, info.version)


def summarize(rows: Rows) -> Recorded:
    """Return what the rows of all names say."""
    objects: dict[str, Row] = {}
    for _, found in rows.values():
        objects.update(found or {})
    return Recorded(objects=objects, lost_names=frozenset(name for name, (_, found) in rows.items() if found is None))


def fetch_rows(subdir: Subdir, commit: Commit, known: Rows) -> Rows:
    """Return the rows of all names of a commit; cards are read of names whose shard is not the one in ``known``."""
    shards = commit.index.shards
    rows = {name: known[name] for name, sha256 in shards.items() if name in known and known[name][0] == sha256}
    missing = sorted(shards.keys() - rows.keys())
    for start in range(0, len(missing), _NAMES_AT_ONCE):  # cards are large: never all at once
        for name, cards in subdir.fetch_cards(commit.index, missing[start : start + _NAMES_AT_ONCE]).items():
            rows[name] = (shards[name], None if cards is None else _make_rows(cards))
    return rows


def read_kept(subdir: Subdir) -> Rows:
    """Read the copy that an earlier run kept; empty if it is missing or unreadable.

    Cards may change behind a shard that does not. A copy may thus hold the ETag of an object that is gone,
    of the same bytes; such an artifact is inspected once more.
    """
    stored = subdir.storage.get(subdir.layout.recorded)
    if stored is None:
        return {}
    try:
        document = decode_json(decompress(stored.body, what="recorded objects"), what="recorded objects")
        if document["form"] != _FORM:
            return {}
        return {
            PackageName(name): (ShardHash(sha256), _check_rows(rows))
            for name, (sha256, rows) in document["names"].items()
        }
    except (InvalidDocumentError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def keep(subdir: Subdir, rows: Rows, *, known: Rows) -> None:
    """Keep a copy of the rows for the next run, if they are not what is kept already.

    Names with lost cards are left out: they are read again.
    """
    kept = {name: one for name, one in rows.items() if one[1] is not None}
    if kept == known:
        return
    document = {
        "form": _FORM,
        "names": kept,
    }
    body = compress(encode_json(document), level=PRIVATE_LEVEL)
    subdir.storage.put(subdir.layout.recorded, body, headers=_HEADERS)


def without(rows: Rows, names: Iterable[PackageName]) -> Rows:
    """Return the rows without those of some names."""
    left_out = set(names)
    return {name: one for name, one in rows.items() if name not in left_out}


def _check_rows(rows: Mapping[str, Row]) -> Mapping[str, Row]:
    if any(len(row) != _FIELDS for row in rows.values()):
        raise ValueError("a row with other fields")
    return rows


def _make_rows(cards: Cards) -> dict[str, Row]:
    return {
        filename: [
            card.etag,
            card.record["size"],
            card.version,
            card.attestations_sha256,
            card.attestations_version,
        ]
        for filename, card in cards.items()
    }
