"""Publishes batches of artifacts one after the other in a separate process, and measures each publish.

Reads ``{"bucket", "channel", "subdir", "batches": [[filename…]…], "has_outputs"}`` from standard input, and
writes one JSON list. Without outputs, each publish ends with its commit: shards are visible, and no other file is
written. The artifacts are already uploaded: only the indexer is measured, in a warm process. Deferred outputs are
written before the next publish and measured separately, under ``deferred``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lambdas.channel.layout import SHARD_INDEX, parse_artifact_key
from lambdas.channel.names import Channel, SubdirId, SubdirName
from lambdas.indexer import indexer as indexer_module
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, Rejection, SubdirKeys
from scripts.benchmarks.meter import Meter, MeteredStorage


class SilentNotifier:
    """A notifier that sends nothing, and fails on a rejection."""

    def publish_rejection(self, rejection: Rejection) -> None:
        """Fail: a benchmark publishes only valid artifacts."""
        raise AssertionError(rejection)

    def invalidate(self, keys: Sequence[str]) -> None:
        """Do nothing."""


def read_peak_bytes() -> int:
    """Return the peak memory of this process; getrusage would include that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(meter: Meter, indexer: Indexer, path: SubdirId, keys: SubdirKeys) -> dict[str, object]:
    """Run the indexer once, and return the measurements."""

    def seconds_until(name: str) -> float | None:
        written = meter.written.get(f"{path}/{name}")
        return None if written is None else written - started

    meter.reset()
    cpu, started = time.process_time(), time.perf_counter()
    report = indexer.index(path, keys)
    wall = time.perf_counter() - started
    return {
        "wall_s": wall,
        "copying_s": meter.copying_s,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": read_peak_bytes(),
        "sharded_s": seconds_until(SHARD_INDEX),
        "packed_s": seconds_until("repodata.json.zst"),
        "flat_s": seconds_until("repodata.json"),
        "requests": dict(meter.requests),
        "writes": meter.writes,
        "read_bytes": meter.read_bytes,
        "written_bytes": meter.written_bytes,
        "indexed": sum(outcome.status == "indexed" for outcome in report.outcomes),
    }


class NoOutputs:
    """Replaces ``CatchUp`` where there are no outputs to bring up to date."""

    def __init__(self, **_: object) -> None:
        pass

    def update_subdir(self, *_: object) -> bool:
        """Do nothing."""
        return False

    def update_channel(self, *_: object, **__: object) -> bool:
        """Do nothing."""
        return False

    def is_complete(self, *_: object) -> bool:
        """Say that ``noarch`` is complete."""
        return True


def main() -> None:
    """Publish the artifacts that standard input names."""
    task = json.load(sys.stdin)
    if not task["has_outputs"]:
        indexer_module.CatchUp = NoOutputs  # type: ignore[assignment,attr-defined]
    path = SubdirId(channel=Channel(task["channel"]), name=SubdirName(task["subdir"]))
    meter = Meter()
    requeued: list[str] = []
    storage = MeteredStorage(task["bucket"], meter)
    indexer = Indexer(storage, SilentNotifier(), Policy(outputs=Outputs()), requeue=requeued.append)
    runs = []
    for batch in task["batches"]:
        artifacts = frozenset(parse_artifact_key(f"{path}/{filename}") for filename in batch)
        run = measure(meter, indexer, path, SubdirKeys(artifacts=artifacts))
        deferred = measure(meter, indexer, path, SubdirKeys(deferred=True)) if requeued else None
        runs.append(run | {"deferred": deferred})
        requeued.clear()
    json.dump(runs, sys.stdout)


if __name__ == "__main__":
    main()
