"""The first index of many artifacts that are already there: Fairway and ``index_s3`` in turn, one process each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lambdas.channel.names import SubdirId
from scripts.benchmarks.sections import (
    OURS,
    THEIRS,
    THREADS,
    Bench,
    build_artifact,
    count_wrong,
    describe_rattler,
    describe_subdir,
    store_artifact,
)
from scripts.benchmarks.synthetic import Channel
from scripts.benchmarks.tables import format_spread, format_table

ARTIFACTS_PER_NAME = 5


def measure_first_index(bench: Bench, artifacts: int, *, repeats: int) -> dict[str, Any]:
    """Index an empty channel's artifacts in one batch, with each of the two in turn."""
    names = Channel(records=artifacts * 10 // ARTIFACTS_PER_NAME).list_names()
    uploads = [build_artifact(names[number % len(names)], f"1.{number}") for number in range(artifacts)]
    filenames = [filename for filename, _ in uploads]
    runs, others, wrong = [], [], 0
    for number in range(repeats):
        bucket = bench.make_bucket(f"first-{artifacts}-{number}")
        _store(bench, bucket, OURS, uploads)
        (run,) = bench.run("publisher", describe_subdir(bucket, OURS) | {"batches": [filenames], "has_outputs": True})
        runs.append(run)
        wrong += count_wrong(bench, bucket, 0, filenames)
        bench.empty_bucket(bucket)
        bucket = bench.make_bucket(f"first-rattler-{artifacts}-{number}")
        _store(bench, bucket, THEIRS, uploads)
        others.append(bench.run("rattler_index", describe_rattler(bench, bucket, filenames[-1])))
        bench.empty_bucket(bucket)
    return {"artifacts": artifacts, "names": len(names), "runs": runs, "rattler_runs": others, "wrong_records": wrong}


def _store(bench: Bench, bucket: str, path: SubdirId, uploads: Sequence[tuple[str, bytes]]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda package: store_artifact(bench, bucket, path, package), uploads))


def format_first_index(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of the report."""
    if not rows:
        return ""
    head = [
        "artifacts", "names", "wall s", "CPU ms per artifact", "requests per artifact", "peak MiB", "wrong records",
        "index_s3: wall s", "CPU ms per artifact", "Fairway is faster by",
    ]  # fmt: skip
    return f"FIRST INDEX of artifacts that are already on S3, in one batch\n\n{format_table(head, map(_row, rows))}"


def _row(one: Mapping[str, Any]) -> list[str]:
    runs, others, artifacts = one["runs"], one["rattler_runs"], one["artifacts"]
    requests = statistics.median(sum(run["requests"].values()) for run in runs)
    ratio = statistics.median(other["wall_s"] / run["wall_s"] for run, other in zip(runs, others, strict=True))
    return [
        f"{artifacts:,}",
        f"{one['names']:,}",
        format_spread(runs, "wall_s"),
        format_spread(runs, "cpu_s", scale=1000 / artifacts),
        f"{requests / artifacts:.2f}",
        f"{max(run['peak_bytes'] for run in runs) / 1024**2:.0f}",
        str(one["wrong_records"]),
        format_spread(others, "wall_s"),
        format_spread(others, "cpu_s", scale=1000 / artifacts),
        f"{ratio:.1f}x",
    ]
