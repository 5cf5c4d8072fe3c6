"""Publishing at a constant rate for minutes, on the emulated stack with its real queue and functions.

Every upload is timed from its PUT until ``repodata.json``, which is written after everything else that clients
need, lists it. In the meantime, the queue, the oldest upload that is not listed, and the memory of the emulator's
processes are sampled.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lambdas.storage.client import make_s3_client
from scripts.benchmarks.sections import build_artifact
from scripts.benchmarks.tables import format_table
from scripts.emulated.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

PUBLISHES_PER_MINUTE: Final = 1_500
SECONDS: Final = 300
CHANNELS: Final = (1, 10)
PATIENCE_SECONDS: Final = 300
"""After the last upload; what is not listed by then is lost."""

_PUBLISHERS: Final = 8
_POLL_SECONDS: Final = 0.1
_SAMPLE_SECONDS: Final = 1.0
_LISTED: Final = re.compile(rb'"(soak[0-9]+-[^"]+\.conda)":')


@dataclass(kw_only=True)
class Soak:
    """One run: uploads at a constant rate into some channels."""

    s3: S3Client
    sqs: SQSClient
    bucket: str
    queues: Mapping[str, str]
    """``{"queue" or "dead": URL}``."""
    emulator: int
    """The process whose children run the functions."""
    channels: Sequence[str]
    per_minute: int
    seconds: float
    uploaded: dict[str, float] = field(default_factory=dict)
    """``{filename: seconds}`` since the beginning, as all times here."""
    listed: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._total = max(1, round(self.per_minute * self.seconds / 60))
        self._started = 0.0
        self._is_over = threading.Event()

    def run(self) -> dict[str, Any]:
        """Publish, watch until everything is listed or patience ends, and return the measurements."""
        uploads = [build_artifact(f"soak{number}", "1.0") for number in range(self._total)]
        self._started = time.perf_counter()
        watchers = [threading.Thread(target=self._watch, args=(channel,)) for channel in self.channels]
        watchers.append(threading.Thread(target=self._sample))
        for watcher in watchers:
            watcher.start()
        try:
            with ThreadPoolExecutor(_PUBLISHERS) as pool:
                list(pool.map(self._publish, range(self._total), uploads))
            deadline = time.perf_counter() + PATIENCE_SECONDS
            while len(self.listed) < self._total and time.perf_counter() < deadline:
                time.sleep(_POLL_SECONDS)
        finally:
            self._is_over.set()
            for watcher in watchers:
                watcher.join()
        return self._describe()

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def _publish(self, number: int, package: tuple[str, bytes]) -> None:
        """Upload at the time when it is due."""
        time.sleep(max(0.0, number * 60 / self.per_minute - self._now()))
        filename, body = package
        channel = self.channels[number % len(self.channels)]
        self.s3.put_object(Bucket=self.bucket, Key=f"{channel}/linux-64/{filename}", Body=body)
        self.uploaded[filename] = self._now()

    def _watch(self, channel: str) -> None:
        """Read ``repodata.json`` whenever it changes."""
        key = f"{channel}/linux-64/repodata.json"
        etag = ""
        while not self._is_over.wait(_POLL_SECONDS):
            try:
                answer = self.s3.get_object(Bucket=self.bucket, Key=key, IfNoneMatch=etag or '"none"')
            except self.s3.exceptions.ClientError:  # unchanged, or not written yet
                continue
            etag = answer["ETag"]
            now, body = self._now(), answer["Body"].read()
            for filename in _LISTED.findall(body):
                self.listed.setdefault(filename.decode("ascii"), now)

    def _sample(self) -> None:
        while not self._is_over.wait(_SAMPLE_SECONDS):
            now = self._now()
            waiting = [at for name, at in list(self.uploaded.items()) if name not in self.listed]
            memory = list(_read_memory(self.emulator))
            self.samples.append(
                {
                    "at_s": now,
                    "oldest_s": now - min(waiting, default=now),
                    "messages": float(self._count("queue")),
                    "largest_function_bytes": float(max(memory, default=0)),
                    "functions_bytes": float(sum(memory)),
                }
            )

    def _count(self, queue: str) -> int:
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queues[queue], AttributeNames=["All"])["Attributes"]
        return int(answer["ApproximateNumberOfMessages"]) + int(answer["ApproximateNumberOfMessagesNotVisible"])

    def _describe(self) -> dict[str, Any]:
        latencies = [(self.uploaded[name], at - self.uploaded[name]) for name, at in self.listed.items()]
        return {
            "channels": len(self.channels),
            "per_minute": self.per_minute,
            "seconds": self.seconds,
            "artifacts": self._total,
            "uploading_s": max(self.uploaded.values()),
            "lost": self._total - len(self.listed),
            "dead_letters": self._count("dead"),
            "latencies_s": sorted(latencies),
            "samples": self.samples,
        }


def measure_soak(stack: Stack, *, channels: int, per_minute: int, seconds: float) -> dict[str, Any]:
    """Publish into new channels of the stack, whose environment this process has."""
    return Soak(
        s3=make_s3_client(),
        sqs=stack.session().client("sqs", endpoint_url=stack.endpoint),
        bucket=stack.outputs.bucket,
        queues={"queue": stack.outputs.queue_url, "dead": stack.outputs.dead_letter_queue_url},
        emulator=stack.emulator.process.pid,
        channels=[f"soak-{channels}-{number}" for number in range(channels)],
        per_minute=per_minute,
        seconds=seconds,
    ).run()


def format_soak(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of the report."""
    if not rows:
        return ""
    head = [
        "channels", "publishes", "per minute", "uploaded in s", "lost", "dead letters", "p50 s", "p99 s", "slowest s",
        "oldest in queue s", "most messages", "largest function MiB",
    ]  # fmt: skip
    title = "SUSTAINED publishing on the emulated stack: seconds from the upload until repodata.json lists it"
    return f"{title}\n\n{format_table(head, map(_row, rows))}"


def _row(one: Mapping[str, Any]) -> list[str]:
    latencies = sorted(latency for _, latency in one["latencies_s"]) or [float("nan")]
    p99 = latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)]
    samples = one["samples"]
    return [
        str(one["channels"]),
        f"{one['artifacts']:,}",
        f"{one['per_minute']:,}",
        f"{one['uploading_s']:.0f}",
        str(one["lost"]),
        str(one["dead_letters"]),
        f"{statistics.median(latencies):.2f}",
        f"{p99:.2f}",
        f"{latencies[-1]:.2f}",
        f"{max((sample['oldest_s'] for sample in samples), default=0):.1f}",
        f"{max((sample['messages'] for sample in samples), default=0):.0f}",
        f"{max((sample['largest_function_bytes'] for sample in samples), default=0) / 1024**2:.0f}",
    ]


def draw_soak(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot latency, queue and memory over time."""
    import matplotlib as mpl  # noqa: PLC0415 - slow, and used only after the measurements

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(4, 1, figsize=(11, 12), sharex=True)
    for one in rows:
        label = f"{one['channels']} channels" if one["channels"] > 1 else "one channel"
        axes[0].plot(*zip(*one["latencies_s"], strict=True), ".", markersize=2, label=label)
        times = [sample["at_s"] for sample in one["samples"]]
        for axis, name, scale in (
            (axes[1], "oldest_s", 1.0),
            (axes[2], "messages", 1.0),
            (axes[3], "largest_function_bytes", 1 / 1024**2),
        ):
            axis.plot(times, [sample[name] * scale for sample in one["samples"]], label=label)
    titles = (
        "seconds from the upload until repodata.json lists it",
        "age of the oldest upload that is not listed, s",
        "messages in the queue",
        "memory of the largest function, MiB",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    axes[-1].set_xlabel("seconds since the first upload")
    figure.suptitle("Sustained publishing, on the emulated stack")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _read_memory(parent: int) -> list[int]:
    """Return the resident bytes of each process that the emulator runs."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text(encoding="ascii", errors="replace")
        except OSError:  # it has exited
            continue
        process = int(status.parent.name)
        children.setdefault(int(text.split("PPid:")[1].split()[0]), []).append(process)
        if "VmRSS:" in text:
            sizes[process] = int(text.split("VmRSS:")[1].split()[0]) * 1024
    found, waiting = [], list(children.get(parent, []))
    while waiting:
        process = waiting.pop()
        found.append(sizes.get(process, 0))
        waiting += children.get(process, [])
    return found
