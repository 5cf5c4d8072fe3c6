"""Runs rattler's ``index_s3`` until what was uploaded is listed, in a process of its own.

Reads ``{"endpoint", "bucket", "channel", "subdir", "filename"}`` from standard input, and writes one JSON
document. It leaves without the interpreter's exit, where py-rattler sometimes aborts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from rattler.index import S3Credentials, index_s3
from rattler.platform import Subdir

from scripts.benchmarks.meter import make_client
from scripts.benchmarks.publisher import find_peak_bytes

MOST_RUNS = 200


def is_listed(task: dict[str, Any]) -> bool:
    """Tell whether the flat file has the artifact."""
    key = f"{task['channel']}/{task['subdir']}/repodata.json"
    body = make_client().get_object(Bucket=task["bucket"], Key=key)["Body"].read()
    return f'"{task["filename"]}"'.encode() in body


def index(task: dict[str, Any]) -> None:
    """Run it once."""
    asyncio.run(
        index_s3(
            f"s3://{task['bucket']}/{task['channel']}",
            credentials=S3Credentials(
                endpoint_url=task["endpoint"],
                region=os.environ["AWS_REGION"],
                access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
                secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
                addressing_style="path",
            ),
            target_platform=Subdir(task["subdir"]),
        )
    )


def main() -> None:
    """Do what standard input says."""
    task: dict[str, Any] = json.load(sys.stdin)
    started, cpu = time.perf_counter(), time.process_time()
    errors: list[str] = []
    for _ in range(MOST_RUNS):
        try:
            index(task)
        except Exception as error:  # noqa: BLE001 - a lost race comes as any error
            errors.append(f"{type(error).__name__}: {error}"[:200])
            continue
        if is_listed(task):
            break
    json.dump(
        {
            "wall_s": time.perf_counter() - started,
            "cpu_s": time.process_time() - cpu,
            "peak_bytes": find_peak_bytes(),
            "runs_lost": len(errors),
            "errors": errors[:3],
        },
        sys.stdout,
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)
