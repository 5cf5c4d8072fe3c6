"""Handles one hostile batch in a process that is limited to the function's memory, and measures it.

Reads ``{"bucket", "memory_bytes", "seconds", "keys", "innocent"}`` from standard input, and writes one JSON
object. The objects are already uploaded. One run of the handler is measured; what takes long is left to later ones.

The limit is RLIMIT_DATA: of private memory that can be written, used or not. A function is limited by what it
uses, which is less.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, cast

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.channel.layout import SHARD_INDEX
from scripts.benchmarks.meter import Meter, MeteredStorage
from scripts.benchmarks.publisher import read_peak_bytes


@dataclass(kw_only=True)
class Context:
    """The context that Lambda passes to a handler."""

    ends_at: float
    memory_limit_in_mb: int
    function_name: str = "indexer"
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:indexer"
    aws_request_id: str = "bench"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time until the limit."""
        return max(0, int(1000 * (self.ends_at - time.monotonic())))


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Handle the batch."""
    os.environ |= {
        "FAIRWAY_BUCKET": task["bucket"],
        "POWERTOOLS_METRICS_NAMESPACE": "Fairway",
        "POWERTOOLS_SERVICE_NAME": "fairway-bench",
    }
    from lambdas.indexer import handler  # noqa: PLC0415 - it reads the environment

    meter = Meter()
    storage = MeteredStorage(task["bucket"], meter)
    handler.storage = lambda: storage  # type: ignore[assignment]  # it is cached there, and here
    folder = task["innocent"].rpartition("/")[0]
    cpu, started = time.process_time(), time.perf_counter()
    ends_at = time.monotonic() + task["seconds"]
    context = Context(ends_at=ends_at, memory_limit_in_mb=task["memory_bytes"] // 1024**2)
    event = _make_event(task["bucket"], [*task["keys"], task["innocent"]])
    answer = handler.handle_queue(event, cast("LambdaContext", context))
    visible = meter.written.get(f"{folder}/{SHARD_INDEX}")
    return {
        "peak_bytes": read_peak_bytes(),
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - started,
        "innocent_s": None if visible is None else visible - started,
        "left": len(answer["batchItemFailures"]),
        "writes": meter.writes,
    }


def _make_event(bucket: str, keys: list[str]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": key,
                "receiptHandle": key,
                "body": json.dumps({"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}),
                "attributes": {"ApproximateReceiveCount": "1"},
                "eventSource": "aws:sqs",
            }
            for key in keys
        ]
    }


def main() -> None:
    """Run the task that standard input describes."""
    task = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (task["memory_bytes"], task["memory_bytes"]))
    with redirect_stdout(io.StringIO()):  # the handler's log
        result = run(task)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
