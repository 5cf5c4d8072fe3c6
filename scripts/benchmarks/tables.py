"""Formats figures as tables of plain text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with aligned columns."""
    lines = [head, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    texts = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def format_spread(runs: Sequence[Mapping[str, Any]], field: str, *, scale: float = 1.0) -> str:
    """Return a field's median, lowest and highest value; ``-`` if no run has it."""
    values = sorted(run[field] * scale for run in runs if run[field] is not None)
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"
