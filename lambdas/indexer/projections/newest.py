"""The artifacts of a subdir that were indexed last, kept by change. Pure.

A page shows a bounded number of them. Twice as many are kept, so that artifacts can go away for a
long time before all have to be looked at again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any, Final

from lambdas.channel.names import PackageName
from lambdas.indexer.projections.pages import MAX_ROWS
from lambdas.indexer.record import Record
from lambdas.indexer.tree import Shard, iter_records

KEPT_ROWS: Final = 2 * MAX_ROWS

Row = Sequence[Any]
"""``[filename, size, indexed_timestamp, sha256]``"""


def find_newest(records: Iterable[tuple[str, Record]]) -> list[Row]:
    """Return the newest of all records, newest first."""
    return nsmallest(KEPT_ROWS, (_make_row(filename, record) for filename, record in records), key=_order)


def apply_to_newest(rows: Sequence[Row], shards: Mapping[PackageName, Shard | None], *, total: int) -> list[Row]:
    """Return the newest rows after the records of some names were replaced.

    ``total`` is how many records there were before. What is older than all rows that are kept is left
    out: there may be others in between that nobody has kept.
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
    kept = [row for row in rows if row[0].rsplit("-", 2)[0] not in shards]
    return sorted([*kept, *new], key=_order)[:KEPT_ROWS]


def iter_rows(rows: Iterable[Row]) -> Iterator[tuple[str, Record]]:
    """Yield rows as a page wants them: ``(filename, record)``."""
    for filename, size, time, sha256 in rows:
        yield filename, {"size": size, "indexed_timestamp": time, "sha256": sha256}


def _make_row(filename: str, record: Record) -> Row:
    return [filename, record["size"], record["indexed_timestamp"], record["sha256"]]


def _order(row: Row) -> tuple[int, str]:
    return -row[2], row[0]
