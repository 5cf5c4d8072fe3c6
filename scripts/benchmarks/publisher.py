"""Publishes artifacts one after the other, in a process of its own, and says what each cost.

Reads ``{"bucket", "channel", "subdir", "filenames"}`` from standard input, and writes one JSON list. The
artifacts have been uploaded: what is measured is the indexer alone, warm. What a publish leaves for
later is done before the next one, and measured apart, under ``later``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lambdas.channel.layout import SHARD_INDEX
from lambdas.channel.names import Channel, SubdirId, SubdirName
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, Rejection, SubdirKeys
from scripts.benchmarks.meter import Meter, MeteredStorage


class Silence:
    """Announces nothing."""

    def publish_rejection(self, rejection: Rejection) -> None:
        """Fail: nothing that a benchmark publishes is to be refused."""
        raise AssertionError(rejection)

    def invalidate(self, keys: list[str]) -> None:
        """Do nothing."""


def find_peak_bytes() -> int:
    """Return the most memory that this process has had; getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(meter: Meter, indexer: Indexer, path: SubdirId, touched: SubdirKeys) -> dict[str, object]:
    """Run the indexer once."""

    def find_seconds(name: str) -> float | None:
        written = meter.written.get(path.key(name))
        return None if written is None else written - started

    meter.reset()
    cpu, started = time.process_time(), time.perf_counter()
    report = indexer.index(path, touched)
    wall = time.perf_counter() - started
    return {
        "wall_s": wall,
        "copying_s": meter.copying_s,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": find_peak_bytes(),
        "sharded_s": find_seconds(SHARD_INDEX),
        "packed_s": find_seconds("repodata.json.zst"),
        "flat_s": find_seconds("repodata.json"),
        "requests": dict(meter.requests),
        "writes": meter.writes,
        "read_bytes": meter.read_bytes,
        "written_bytes": meter.written_bytes,
        "indexed": sum(outcome.status == "indexed" for outcome in report.outcomes),
    }


def main() -> None:
    """Publish what standard input names."""
    task = json.load(sys.stdin)
    path = SubdirId(channel=Channel(task["channel"]), name=SubdirName(task["subdir"]))
    meter = Meter()
    reminded: list[SubdirId] = []
    storage = MeteredStorage(task["bucket"], meter)
    indexer = Indexer(storage, Silence(), Policy(outputs=Outputs()), requeue=reminded.append)
    runs = []
    for filename in task["filenames"]:
        run = measure(meter, indexer, path, SubdirKeys(artifacts=frozenset({filename})))
        later = measure(meter, indexer, path, SubdirKeys(deferred=True)) if reminded else None
        runs.append(run | {"later": later})
        reminded.clear()
    json.dump(runs, sys.stdout)


if __name__ == "__main__":
    main()
