"""The newest artifacts of a subdir and the newest names of a channel, kept by change. Pure.

A page shows a bounded number of rows. Twice as many are kept, so that many can be removed before all
records have to be read again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any, Final

from lambdas.channel.artifact_kinds import name_of
from lambdas.channel.names import PackageName
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.artifacts.texts import cut_text
from lambdas.indexer.model import Limits
from lambdas.indexer.tree.shards import Shard, iter_records

Row = Sequence[Any]
"""``[filename, size, indexed_timestamp, sha256]``"""

Entry = Mapping[str, Any]
"""What channeldata.json says of a name, with ``newest``."""
NameRow = tuple[str, Entry]
"""A name, and of its entry what pages show."""
_SHOWN: Final = ("newest", "subdirs", "summary", "version")


def newest_rows(records: Iterable[tuple[str, Record]], limits: Limits) -> list[Row]:
    """Return the newest of all records, newest first."""
    return nsmallest(limits.kept_rows, (_make_row(filename, record) for filename, record in records), key=_order)


def apply_to_newest(
    rows: Sequence[Row], shards: Mapping[PackageName, Shard | None], *, total: int, limits: Limits
) -> list[Row]:
    """Return the newest rows after the records of some names were replaced.

    ``total`` is how many records there were before. Records older than every kept row are left out:
    there may be others in between that were not kept.
    """
    new = [
        _make_row(filename, record)
        for shard in shards.values()
        if shard is not None
        for filename, record in iter_records(shard)
    ]
    if len(rows) < total:
        oldest = rows[-1][2] if rows else 0
        new = [row for row in new if rows and row[2] > oldest]
    kept = [row for row in rows if name_of(row[0]) not in shards]
    return sorted([*kept, *new], key=_order)[: limits.kept_rows]


def iter_rows(rows: Iterable[Row]) -> Iterator[tuple[str, Record]]:
    """Yield rows as a page wants them: ``(filename, record)``."""
    for filename, size, time, sha256 in rows:
        yield filename, {"size": size, "indexed_timestamp": time, "sha256": sha256}


def newest_name_rows(entries: Iterable[tuple[str, Entry]], limits: Limits) -> list[NameRow]:
    """Return the names with the newest artifacts, newest first."""
    return nsmallest(limits.kept_rows, (make_name_row(name, entry) for name, entry in entries), key=_order_of_name)


def apply_to_newest_names(
    rows: Sequence[NameRow], entries: Mapping[str, Entry | None], *, total: int, limits: Limits
) -> list[NameRow]:
    """Return the newest names after the entries of some were replaced; ``total`` as in ``apply_to_newest``."""
    new = [make_name_row(name, entry) for name, entry in entries.items() if entry is not None]
    if len(rows) < total:
        oldest = _time_of_name(rows[-1]) if rows else 0
        new = [row for row in new if rows and _time_of_name(row) > oldest]
    kept = [row for row in rows if row[0] not in entries]
    return sorted([*kept, *new], key=_order_of_name)[: limits.kept_rows]


def make_name_row(name: str, entry: Entry) -> NameRow:
    """Return a name, and of its entry what pages show, with long texts cut."""
    return name, {field: cut_text(field, entry[field]) for field in _SHOWN if entry.get(field)}


def _order_of_name(row: NameRow) -> tuple[int, str]:
    return -_time_of_name(row), row[0]


def _time_of_name(row: NameRow) -> int:
    return int(row[1]["newest"]["indexed_timestamp"])


def _make_row(filename: str, record: Record) -> Row:
    return [filename, record["size"], record["indexed_timestamp"], record["sha256"]]


def _order(row: Row) -> tuple[int, str]:
    return -row[2], row[0]
