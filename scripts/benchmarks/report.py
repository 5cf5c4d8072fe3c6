"""Formats measurements as tables and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks.bursts import format_first_index
from scripts.benchmarks.clients import format_clients
from scripts.benchmarks.many_subdirs import HEAD, list_many_subdirs
from scripts.benchmarks.sections import median_of
from scripts.benchmarks.soak import format_soak
from scripts.benchmarks.tables import format_spread, format_table
from scripts.fairway.prices import DATED, price_publish

_MIB: Final = 1024 * 1024


def format_report(results: Mapping[str, Any]) -> str:
    """Return all figures as tables: medians, with the lowest and highest value of several runs."""
    theirs = {one["records"]: one for one in results["rattler_publish"]}
    blocks = [
        *(_format_publish(results, theirs) if results["publish"] else []),
        _format_subdirs(results.get("subdirs", [])),
        _format_crowd(results["crowd"], results["rattler_crowd"]),
        format_first_index(results.get("first_index", [])),
        _format_burst(results["burst"]),
        format_soak(results.get("soak", [])),
        format_clients(results.get("clients")),
        _format_duplicates(results["duplicates"]),
        _format_hostile(results.get("hostile", [])),
        _format_directories(results.get("directories")),
        _format_authorizer(results.get("authorizer")),
        *(_format_cost(results["publish"], theirs) if results["publish"] else []),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _format_publish(results: Mapping[str, Any], theirs: Mapping[int, Any]) -> list[str]:
    rows = results["publish"]
    kinds = _list_kinds(rows)
    return [
        f"ONE PUBLISH: median [lowest, highest] of {results['repeats']}; 'S3 copies' is time spent in the emulator",
        format_table(
            ["records", "wall s", "S3 copies s", "CPU s", "shard index s", ".json.zst s", ".json s",
             "peak MiB", "writes", "reads", "transfer MiB",
             "index_s3: wall s", "peak MiB", "PUTs", "Fairway is faster by"],
            [_publish_row(one, theirs.get(one["records"])) for one in rows],
        ),
        "no flat files were seeded nor written where none are timed" if any(_is_tree_only(one) for one in rows) else "",
        _format_deferred(rows),
        "S3 REQUESTS OF ONE PUBLISH, by operation (median)",
        format_table(
            ["records", *kinds],
            [[f"{one['records']:,}", *(f"{_median_kind(one, kind):.0f}" for kind in kinds)] for one in rows],
        ),
    ]  # fmt: skip


def _is_tree_only(one: Mapping[str, Any]) -> bool:
    return all(run["flat_s"] is None and run["packed_s"] is None for run in one["runs"])


def _format_crowd(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = [
        "publishers", "median s", "slowest s", "commits", "conflicts", "retries", "writes", "wrong records",
        "index_s3: median s", "slowest s", "failed runs", "wrong records", "Fairway is faster by",
    ]  # fmt: skip
    title = (
        "CONCURRENT PUBLISHERS, one artifact each, 1,000 records: seconds from upload until every client can install"
    )
    return f"{title}\n\n{format_table(head, [_crowd_row(one, others) for one in rows])}"


def _format_cost(rows: Sequence[Mapping[str, Any]], theirs: Mapping[int, Any]) -> list[str]:
    return [
        f"COST in US dollars at list prices of {DATED}: requests and Lambda time, deferred outputs included",
        format_table(
            ["records", "per publish", "per 1,000", "index_s3: per publish", "per 1,000"],
            [_cost_row(one, theirs.get(one["records"])) for one in rows],
        ),
        "index_s3 sends one conditional PUT per package name; S3 bills them although it answers most with 412.",
    ]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Plot wall time, memory, transfer and requests over the number of records in the subdir."""
    import matplotlib as mpl  # noqa: PLC0415 - slow, and used only after the measurements

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    ours, theirs = results["publish"], results["rattler_publish"]
    panels = (
        ("seconds", "wall_s", 1.0, (("deferred_s", "deferred outputs"), ("sharded_s", "until the shard index"))),
        ("peak memory, MiB", "peak_bytes", 1 / _MIB, ()),
        ("transfer, MiB", "moved_bytes", 1 / _MIB, ()),
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
    figure.suptitle("Cost of one publish, on the emulator")
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
    if field == "deferred_s":
        return float(run["deferred"]["wall_s"] if run["deferred"] else 0)
    return float(run[field])


def _publish_row(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    runs = one["runs"]
    reads = [sum(run["requests"].values()) - run["writes"] for run in runs]
    row = [
        f"{one['records']:,}",
        *(format_spread(runs, field) for field in ("wall_s", "copying_s", "cpu_s", "sharded_s", "packed_s", "flat_s")),
        f"{max(run['peak_bytes'] for run in runs) / _MIB:.0f}",
        f"{median_of(runs, 'writes'):.0f}",
        f"{statistics.median(reads):.0f}",
        f"{statistics.median(_value(run, 'moved_bytes') for run in runs) / _MIB:.1f}",
    ]
    if other is None:
        return [*row, "-", "-", "-", "-"]
    whole = statistics.median(run["wall_s"] + _value(run, "deferred_s") for run in runs)
    factor = median_of(other["runs"], "wall_s") / whole
    return [
        *row,
        format_spread(other["runs"], "wall_s"),
        f"{max(run['peak_bytes'] for run in other['runs']) / _MIB:.0f}",
        f"{other['names'] + median_of(other['runs'], 'puts'):.0f}",
        f"{factor:.1f}x",
    ]


def _format_deferred(rows: Sequence[Mapping[str, Any]]) -> str:
    deferred = [
        (one["records"], runs) for one in rows if (runs := [run["deferred"] for run in one["runs"] if run["deferred"]])
    ]
    if not deferred:
        return ""
    head = ["records", "wall s", "S3 copies s", "CPU s", ".json s", "writes", "transfer MiB"]
    table = [
        [
            f"{records:,}",
            *(format_spread(runs, field) for field in ("wall_s", "copying_s", "cpu_s", "flat_s")),
            f"{median_of(runs, 'writes'):.0f}",
            f"{statistics.median(_value(run, 'moved_bytes') for run in runs) / _MIB:.1f}",
        ]
        for records, runs in deferred
    ]
    title = "DEFERRED OUTPUTS, written once a minute for all publishes of that minute"
    return f"{title}\n\n{format_table(head, table)}"


def _format_subdirs(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    title = "MANY SUBDIRS: one publish of a name that every subdir of the channel has (median)"
    return f"{title}\n\n{format_table(HEAD, list_many_subdirs(rows))}"


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
    ours = statistics.median(_price(run) + (_price(run["deferred"]) if run["deferred"] else 0) for run in one["runs"])
    row = [f"{one['records']:,}", f"{ours:.6f}", f"{1000 * ours:.3f}"]
    if other is None:
        return [*row, "-", "-"]
    puts = other["names"] + median_of(other["runs"], "puts")
    theirs = price_publish({"PutObject": puts}, seconds=median_of(other["runs"], "wall_s"))
    return [*row, f"{theirs:.6f}", f"{1000 * theirs:.3f}"]


def _price(run: Mapping[str, Any]) -> float:
    return price_publish(run["requests"], seconds=run["wall_s"] - run["copying_s"])


def _format_burst(burst: Mapping[str, Any] | None) -> str:
    if burst is None:
        return ""
    rate = burst["artifacts"] / burst["wall_s"]
    return (
        f"BURST of {burst['artifacts']:,} artifacts: {rate:.0f} per second from upload until every client can install, "
        f"{burst['commits']} commits in {burst['batches']} batches, {burst['conflicts']} conflicts, "
        f"{burst['wrong_records']} wrong records, peak {burst['peak_bytes'] / _MIB:.0f} MiB"
    )


def _format_duplicates(duplicates: Mapping[str, Any] | None) -> str:
    if duplicates is None:
        return ""
    requests = sum(duplicates["requests"].values())
    return (
        f"DUPLICATES: {duplicates['events']:,} events of artifacts that are already indexed: "
        f"{duplicates['writes']} writes, {requests:,} requests, {duplicates['wall_s']:.1f} s"
    )


def _format_hostile(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = [
        "batch", "uploaded MiB", "peak MiB", "CPU s", "innocent upload after s", "left to later runs",
        "largest output MiB",
    ]  # fmt: skip
    table = [
        [
            one["title"],
            f"{one['uploaded_bytes'] / _MIB:.1f}",
            f"{one['peak_bytes'] / _MIB:.0f}",
            f"{one['cpu_s']:.1f}",
            "-" if one["innocent_s"] is None else f"{one['innocent_s']:.1f}",
            str(one["left"]),
            f"{one['largest_output_bytes'] / _MIB:.1f}",
        ]
        for one in rows
    ]
    limit = f"{rows[0]['memory_bytes'] / _MIB:.0f} MiB"
    title = f"HOSTILE BATCHES with an innocent upload to another channel, in a process limited to {limit} (RLIMIT_DATA)"
    return f"{title}\n\n{format_table(head, table)}"


def _format_directories(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    ours = figures["runs"]["fairway"]
    rows = [
        [
            tool,
            *(format_spread(runs[work], field) for work in ("new", "one_more") for field in ("wall_s", "cpu_s")),
            *(
                f"{median_of(runs[work], 'wall_s') / median_of(ours[work], 'wall_s'):.1f}"
                for work in ("new", "one_more")
            ),
        ]
        for tool, runs in figures["runs"].items()
    ]
    title = (
        f"A DIRECTORY: {figures['artifacts']:,} new artifacts, and one more beside {figures['beside']:,};"
        " median [lowest, highest] of separate processes"
    )
    head = ["tool", "new: wall s", "CPU s", "one more: wall s", "CPU s", "new: times Fairway's", "one more"]
    return f"{title}\n{format_table(head, rows)}"


def _format_authorizer(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    lines = [f"  {name}: {value}" for name, value in figures.items()]
    return "\n".join(["AUTHORIZER", *lines])


def _list_kinds(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({kind for one in rows for run in one["runs"] for kind in run["requests"]})


def _median_kind(one: Mapping[str, Any], kind: str) -> float:
    return float(statistics.median(run["requests"].get(kind, 0) for run in one["runs"]))
