"""Clients of a private channel, through the development edge: the latency of shards, and concurrent installations.

The edge caches nothing and runs the deployed authorizer for each request, so that every request is one that
CloudFront would not have answered from a cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.client import make_s3_client
from lambdas.storage.s3 import S3Storage
from scripts.benchmarks.sections import THREADS
from scripts.benchmarks.tables import format_table
from scripts.emulated.commands import create_token, install
from scripts.emulated.stack import Stack
from scripts.emulated.viewer import Viewer
from tests.builders import conda_package

CLIENTS: Final = 24
PACKAGES: Final = 3_000
FEWER_PACKAGES: Final = 300
REQUESTS: Final = 200
"""For shards, of each of two channels in turn."""

_PATIENCE_SECONDS: Final = 600
_POLL_SECONDS: Final = 0.5


def measure_clients(stack: Stack, *, clients: int, packages: int, fewer: int, requests: int) -> dict[str, Any]:
    """Install disjoint shares of a channel's packages with concurrent clients; time shards of it and of a small one."""
    viewer = Viewer(url=stack.edge_url, token=create_token("clients", "clients-*", environment=stack.environment))
    channels = {number: parse_subdir_id(f"clients-{number}/noarch") for number in (fewer, packages)}
    storage = S3Storage(stack.outputs.bucket, make_s3_client())
    for number, subdir in channels.items():
        _publish(storage, subdir, number)
    shards = {number: _list_shards(storage, subdir) for number, subdir in channels.items()}
    latencies: dict[int, list[float]] = {number: [] for number in channels}
    for at in range(requests):
        for number, paths in shards.items():
            latencies[number].append(_time(viewer, paths[at * len(paths) // requests]))
    shares = [[f"client{number}" for number in range(packages)][at::clients] for at in range(clients)]
    url = viewer.channel_url(channels[packages].channel)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()

        def run(at: int) -> dict[str, Any]:
            return install(url, *shares[at], folder=Path(folder) / str(at), environment=stack.environment)

        outcomes = list(pool.map(run, range(clients)))
        wall = time.perf_counter() - started
    return {
        "clients": clients,
        "packages": packages,
        "installed": sum(len(outcome["records"]) for outcome in outcomes),
        "indexes": sorted({index for outcome in outcomes for index in outcome["indexes"]}),
        "wall_s": wall,
        "solve_s": sorted(outcome["solve_seconds"] for outcome in outcomes),
        "install_s": sorted(outcome["install_seconds"] for outcome in outcomes),
        "shard_s": {str(number): sorted(values) for number, values in latencies.items()},
    }


def _publish(storage: S3Storage, subdir: SubdirId, packages: int) -> None:
    """Upload packages of one artifact each, and wait until the deployed indexer has indexed all of them."""
    client = make_s3_client()

    def put(number: int) -> None:
        filename, body = conda_package(name=f"client{number}")
        client.put_object(Bucket=storage.bucket, Key=f"{subdir}/{filename}", Body=body)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, range(packages)))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := len(_list_shards(storage, subdir))) < packages:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{subdir}: {found} of {packages} packages after {_PATIENCE_SECONDS} s")
        time.sleep(_POLL_SECONDS)


def _list_shards(storage: S3Storage, subdir: SubdirId) -> list[str]:
    tree = open_subdir(storage, subdir, deployment=storage.bucket)
    return [f"/{tree.layout.shard(sha256)}" for _, sha256 in sorted(tree.fetch_commit().index.shards.items())]


def _time(viewer: Viewer, path: str) -> float:
    started = time.perf_counter()
    answer = viewer.ask(path)
    seconds = time.perf_counter() - started
    if answer.status != 200:  # noqa: PLR2004 - HTTP
        raise RuntimeError(f"{answer.status} for a shard")
    return seconds


def format_clients(one: Mapping[str, Any] | None) -> str:
    """Return the section of the report."""
    if one is None:
        return ""
    head = [
        "clients",
        "packages",
        "installed",
        "index",
        "all done after s",
        "solve s",
        "slowest",
        "install s",
        "slowest",
    ]
    row = [
        str(one["clients"]),
        f"{one['packages']:,}",
        f"{one['installed']:,}",
        ", ".join(one["indexes"]),
        f"{one['wall_s']:.0f}",
        *(f"{value:.1f}" for name in ("solve_s", "install_s") for value in _spread(one[name])),
    ]
    shards = {number: statistics.median(values) for number, values in one["shard_s"].items()}
    few, many = sorted(shards, key=int)
    latency = (
        f"a shard, median: {1000 * shards[few]:.1f} ms among {few} names, {1000 * shards[many]:.1f} ms among {many} "
        f"({100 * (shards[many] / shards[few] - 1):+.0f} %)"
    )
    return f"CLIENTS of a private channel, through the development edge\n\n{format_table(head, [row])}\n\n{latency}"


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.median(values), max(values)
