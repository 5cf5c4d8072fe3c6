"""Turns measurements into a table for people and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks.prices import DATED, price_publish
from scripts.benchmarks.sections import find_median

_MIB: Final = 1024 * 1024


def format_report(results: Mapping[str, Any]) -> str:
    """Return every figure as text: the median, and the lowest and highest where there are several."""
    theirs = {one["records"]: one for one in results["rattler_publish"]}
    blocks = [
        f"PUBLISH ONE ARTIFACT: median [lowest, highest] of {results['repeats']}; 'copying' is the emulator's own time",
        _table(
            ["records", "wall s", "copying s", "CPU s", "sharded s", "flat .zst s", "flat .json s",
             "peak MiB", "writes", "reads", "moved MiB", "index_s3 s", "its MiB", "its PUTs", "faster"],
            [_publish_row(one, theirs.get(one["records"])) for one in results["publish"]],
        ),
        _format_later(results["publish"]),
        "S3 REQUESTS BY KIND, of one publish (median)",
        _table(
            ["records", *(kinds := _list_kinds(results["publish"]))],
            [
                [f"{one['records']:,}", *(f"{_median_kind(one, kind):.0f}" for kind in kinds)]
                for one in results["publish"]
            ],
        ),
        "PUBLISHERS AT ONCE, one artifact each, into 1,000 records: seconds from upload to visible, sharded and flat",
        _table(
            ["publishers", "median s", "slowest s", "commits", "lost swaps", "retries", "writes", "wrong records",
             "index_s3 median s", "slowest s", "its lost runs", "wrong", "faster"],
            [_crowd_row(one, results["rattler_crowd"]) for one in results["crowd"]],
        ),
        _format_burst(results["burst"]),
        _format_duplicates(results["duplicates"]),
        _format_authorizer(results.get("authorizer")),
        f"COSTS in dollars, at list prices of {DATED}: requests and the function's time; what is left for later is in",
        _table(
            ["records", "per publish", "per 1,000", "index_s3 per publish", "per 1,000"],
            [_cost_row(one, theirs.get(one["records"])) for one in results["publish"]],
        ),
        "index_s3: one conditional PUT for each name, most of which S3 answers with 412 and bills; reads left out.",
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw wall time, bytes, memory and requests against the size of the subdir."""
    import matplotlib as mpl  # noqa: PLC0415 - slow, and wanted at the end alone

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    ours, theirs = results["publish"], results["rattler_publish"]
    panels = (
        ("seconds", "wall_s", 1.0, (("later_s", "left for later"), ("sharded_s", "to the sharded index"))),
        ("peak memory, MiB", "peak_bytes", 1 / _MIB, ()),
        ("MiB moved", "moved_bytes", 1 / _MIB, ()),
        ("S3 write requests", "writes", 1.0, ()),
    )
    for axis, (title, field, scale, more) in zip(axes.flat, panels, strict=True):
        _plot(axis, ours, field, scale=scale, label="Fairway")
        for other, label in more:
            _plot(axis, ours, other, scale=scale, label=label)
        if theirs and field in {"wall_s", "peak_bytes"}:
            _plot(axis, theirs, field, scale=scale, label="index_s3")
        axis.set(title=title, xlabel="records in the subdir", xscale="log")
        if field == "wall_s":
            axis.set_yscale("symlog", linthresh=0.1)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    figure.suptitle("What one publish costs, on the emulator")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot(axis: Any, rows: Sequence[Any], field: str, *, scale: float, label: str) -> None:  # noqa: ANN401 - matplotlib's
    values = [[_value(run, field) * scale for run in one["runs"]] for one in rows]
    middle = [statistics.median(one) for one in values]
    below = [median - min(one) for median, one in zip(middle, values, strict=True)]
    above = [max(one) - median for median, one in zip(middle, values, strict=True)]
    sizes = [one["records"] for one in rows]
    axis.errorbar(sizes, middle, yerr=[below, above], marker="o", capsize=3, label=label)


def _value(run: Mapping[str, Any], field: str) -> float:
    if field == "moved_bytes":
        return float(run["read_bytes"] + run["written_bytes"])
    if field == "later_s":
        return float(run["later"]["wall_s"] if run["later"] else 0)
    return float(run[field])


def _publish_row(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    runs = one["runs"]
    reads = [sum(run["requests"].values()) - run["writes"] for run in runs]
    row = [
        f"{one['records']:,}",
        *(_spread(runs, field) for field in ("wall_s", "copying_s", "cpu_s", "sharded_s", "packed_s", "flat_s")),
        f"{max(run['peak_bytes'] for run in runs) / _MIB:.0f}",
        f"{find_median(runs, 'writes'):.0f}",
        f"{statistics.median(reads):.0f}",
        f"{statistics.median(_value(run, 'moved_bytes') for run in runs) / _MIB:.1f}",
    ]
    if other is None:
        return [*row, "-", "-", "-", "-"]
    whole = statistics.median(run["wall_s"] + _value(run, "later_s") for run in runs)
    factor = find_median(other["runs"], "wall_s") / whole
    return [
        *row,
        _spread(other["runs"], "wall_s"),
        f"{max(run['peak_bytes'] for run in other['runs']) / _MIB:.0f}",
        f"{other['names'] + find_median(other['runs'], 'puts'):.0f}",
        f"{factor:.1f}x",
    ]


def _format_later(rows: Sequence[Mapping[str, Any]]) -> str:
    later = [(one["records"], runs) for one in rows if (runs := [run["later"] for run in one["runs"] if run["later"]])]
    if not later:
        return ""
    head = ["records", "wall s", "copying s", "CPU s", "flat .json s", "writes", "moved MiB"]
    table = [
        [
            f"{records:,}",
            *(_spread(runs, field) for field in ("wall_s", "copying_s", "cpu_s", "flat_s")),
            f"{find_median(runs, 'writes'):.0f}",
            f"{statistics.median(_value(run, 'moved_bytes') for run in runs) / _MIB:.1f}",
        ]
        for records, runs in later
    ]
    title = "LEFT FOR LATER, and done once for all publishes of a minute"
    return f"{title}\n\n{_table(head, table)}"


def _crowd_row(one: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> list[str]:
    latencies = one["latencies_s"]
    row = [
        str(one["publishers"]),
        f"{statistics.median(latencies):.2f}",
        f"{max(latencies):.2f}",
        *(str(one[field]) for field in ("commits", "conflicts", "retries", "writes", "wrong_records")),
    ]
    for other in others:
        if other["publishers"] == one["publishers"]:
            slowest = max(other["latencies_s"])
            return [
                *row,
                f"{statistics.median(other['latencies_s']):.2f}",
                f"{slowest:.2f}",
                str(other["runs_lost"]),
                str(other["wrong_records"]),
                f"{slowest / max(latencies):.1f}x",
            ]
    return [*row, "-", "-", "-", "-", "-"]


def _cost_row(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    ours = statistics.median(_price(run) + (_price(run["later"]) if run["later"] else 0) for run in one["runs"])
    row = [f"{one['records']:,}", f"{ours:.6f}", f"{1000 * ours:.3f}"]
    if other is None:
        return [*row, "-", "-"]
    puts = other["names"] + find_median(other["runs"], "puts")
    theirs = price_publish({"PutObject": puts}, seconds=find_median(other["runs"], "wall_s"))
    return [*row, f"{theirs:.6f}", f"{1000 * theirs:.3f}"]


def _price(run: Mapping[str, Any]) -> float:
    return price_publish(run["requests"], seconds=run["wall_s"] - run["copying_s"])


def _format_burst(burst: Mapping[str, Any] | None) -> str:
    if burst is None:
        return ""
    rate = burst["artifacts"] / burst["wall_s"]
    return (
        f"BURST of {burst['artifacts']:,}: {rate:.0f} artifacts a second from upload to visible, "
        f"{burst['commits']} commits in {burst['batches']} batches, {burst['conflicts']} lost swaps, "
        f"{burst['wrong_records']} wrong records, peak {burst['peak_bytes'] / _MIB:.0f} MiB"
    )


def _format_duplicates(duplicates: Mapping[str, Any] | None) -> str:
    if duplicates is None:
        return ""
    requests = sum(duplicates["requests"].values())
    return (
        f"DUPLICATES: {duplicates['events']:,} events of artifacts that are indexed already: "
        f"{duplicates['writes']} writes, {requests:,} requests, {duplicates['wall_s']:.1f} s"
    )


def _format_authorizer(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    lines = [f"  {name}: {value}" for name, value in figures.items()]
    return "\n".join(["AUTHORIZER", *lines])


def _list_kinds(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({kind for one in rows for run in one["runs"] for kind in run["requests"]})


def _median_kind(one: Mapping[str, Any], kind: str) -> float:
    return float(statistics.median(run["requests"].get(kind, 0) for run in one["runs"]))


def _spread(runs: Sequence[Mapping[str, Any]], field: str) -> str:
    values = sorted(run[field] for run in runs if run[field] is not None)
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
