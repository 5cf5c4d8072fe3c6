"""Runs rattler's ``index_s3`` in a separate process until the uploaded artifact is listed.

Reads ``{"endpoint", "bucket", "channel", "subdir", "filename"}`` from standard input, and writes one JSON
document. It ends with ``os._exit``, because py-rattler may abort while the interpreter exits.
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

from lambdas.storage.client import make_s3_client
from scripts.benchmarks.publisher import read_peak_bytes

MAX_RUNS = 200


def is_listed(task: dict[str, Any]) -> bool:
    """Tell whether ``repodata.json`` lists the artifact."""
    key = f"{task['channel']}/{task['subdir']}/repodata.json"
    body = make_s3_client().get_object(Bucket=task["bucket"], Key=key)["Body"].read()
    return f'"{task["filename"]}"'.encode() in body


def index(task: dict[str, Any]) -> None:
    """Run ``index_s3`` once."""
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
    """Run the task that standard input describes."""
    task: dict[str, Any] = json.load(sys.stdin)
    started, cpu = time.perf_counter(), time.process_time()
    errors: list[str] = []
    for _ in range(MAX_RUNS):
        try:
            index(task)
        except Exception as error:  # noqa: BLE001 - a conflict may raise any error
            errors.append(f"{type(error).__name__}: {error}"[:200])
            continue
        if is_listed(task):
            break
    json.dump(
        {
            "wall_s": time.perf_counter() - started,
            "cpu_s": time.process_time() - cpu,
            "peak_bytes": read_peak_bytes(),
            "runs_lost": len(errors),
            "errors": errors[:3],
        },
        sys.stdout,
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)
