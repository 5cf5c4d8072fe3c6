"""Concurrent publishers, with batches as the queue makes them, in a separate process.

Reads ``{"bucket", "channel", "subdir", "uploads": [[filename, base64]…], "publishers", "workers", "batch",
"window_s", "repeats"}`` from standard input, and writes one JSON document. Concurrent publishers upload
equal shares of the uploads; workers take batches from a queue and index them, as concurrent instances of
the function do. An artifact counts as visible when the call that indexed it has returned.
"""

from __future__ import annotations

import base64
import json
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from lambdas.channel.names import Channel, SubdirId, SubdirName
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.queue.index_keys import index_batch
from lambdas.storage.client import make_s3_client
from scripts.benchmarks.meter import Meter, MeteredStorage
from scripts.benchmarks.publisher import SilentNotifier, read_peak_bytes


@dataclass(kw_only=True)
class Crowd:
    """Publishers, a queue, and workers."""

    bucket: str
    path: SubdirId
    batch: int
    window_s: float
    events: queue.Queue[str | None] = field(default_factory=queue.Queue)
    uploaded: dict[str, float] = field(default_factory=dict)
    visible: dict[str, float] = field(default_factory=dict)
    commits: int = 0
    conflicts: int = 0
    retries: int = 0
    batches: int = 0
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0

    def run(self, uploads: list[tuple[str, bytes]], *, publishers: int, workers: int, repeats: int) -> None:
        """Upload everything; return when every event of every upload has been processed."""
        self._left = len(uploads) * repeats
        shares = [uploads[at::publishers] for at in range(publishers)]
        threads = [threading.Thread(target=self._publish, args=(share, repeats)) for share in shares if share]
        threads += [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _publish(self, uploads: list[tuple[str, bytes]], repeats: int) -> None:
        client = make_s3_client()
        for filename, body in uploads:
            if body:
                client.put_object(Bucket=self.bucket, Key=f"{self.path}/{filename}", Body=body)
            self.uploaded[filename] = time.perf_counter()
            for _ in range(repeats):
                self.events.put(filename)

    def _work(self) -> None:
        indexer = Indexer(MeteredStorage(self.bucket, self.meter), SilentNotifier(), Policy(outputs=Outputs()))
        while (batch := self._take_batch()) is not None:
            report = index_batch(indexer, [f"{self.path}/{filename}" for filename in batch])
            again = [filename for filename in batch if f"{self.path}/{filename}" in report.failures]
            with self._lock:
                self.commits += sum(one.commits for one in report.subdirs.values())
                self.conflicts += sum(one.conflicts for one in report.subdirs.values())
            now = time.perf_counter()
            with self._lock:
                self.batches += 1
                self.retries += len(again)
                done = [filename for filename in batch if filename not in set(again)]
                self._left -= len(done)
                for filename in done:
                    self.visible.setdefault(filename, now)
                if not self._left:
                    for _ in threading.enumerate():
                        self.events.put(None)
            for filename in again:
                self.events.put(filename)

    def _take_batch(self) -> list[str] | None:
        """Take the events within the window after the first one, up to a full batch."""
        first = self.events.get()
        if first is None:
            return None
        batch = [first]
        deadline = time.perf_counter() + self.window_s
        while len(batch) < self.batch:
            try:
                more = self.events.get(timeout=max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                break
            if more is None:
                self.events.put(None)
                break
            batch.append(more)
        return batch


def main() -> None:
    """Run the task that standard input describes."""
    task: dict[str, Any] = json.load(sys.stdin)
    crowd = Crowd(
        bucket=task["bucket"],
        path=SubdirId(channel=Channel(task["channel"]), name=SubdirName(task["subdir"])),
        batch=task["batch"],
        window_s=task["window_s"],
    )
    uploads = [(filename, base64.b64decode(body)) for filename, body in task["uploads"]]
    started = time.perf_counter()
    crowd.run(uploads, publishers=task["publishers"], workers=task["workers"], repeats=task["repeats"])
    wall = time.perf_counter() - started
    json.dump(
        {
            "wall_s": wall,
            "latencies_s": sorted(crowd.visible[name] - crowd.uploaded[name] for name in crowd.uploaded),
            "commits": crowd.commits,
            "conflicts": crowd.conflicts,
            "retries": crowd.retries,
            "batches": crowd.batches,
            "writes": crowd.meter.writes,
            "requests": dict(crowd.meter.requests),
            "read_bytes": crowd.meter.read_bytes,
            "written_bytes": crowd.meter.written_bytes,
            "peak_bytes": read_peak_bytes(),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
