"""The measurements, each on a new emulated S3 bucket, with the measured code in a separate process."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lambdas.channel.names import Channel as ChannelName
from lambdas.channel.names import PackageName, SubdirId, SubdirName
from lambdas.indexer.tree.shards import iter_records
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.client import make_s3_client
from lambdas.storage.s3 import S3Storage
from scripts.benchmarks.hostile import BATCHES
from scripts.benchmarks.seeding import publish_cards, seed
from scripts.benchmarks.synthetic import Channel
from scripts.emulated.emulator import ROOT, Emulator
from tests.builders import conda_package

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OURS: Final = SubdirId(channel=ChannelName("ours"), name=SubdirName("linux-64"))
THEIRS: Final = SubdirId(channel=ChannelName("theirs"), name=SubdirName("linux-64"))
INNOCENT: Final = SubdirId(channel=ChannelName("zz-innocent"), name=SubdirName("linux-64"))
"""It is indexed after all others."""
FUNCTION_BYTES: Final = 1769 * 1024 * 1024
"""The function's memory, as the stack is configured."""
FUNCTION_SECONDS: Final = 300
MOST_FLAT_RECORDS: Final = 2_000_000
"""Of a subdir with flat files: the emulator keeps every version in memory, and ten million records have 7 GB."""
RATTLER_REPEATS: Final = 2
WORKERS: Final = 4
BATCH: Final = 1000  # as the stack is configured
WINDOW_S: Final = 1.0

THREADS: Final = 16
_PROCESS_SECONDS: Final = 1800


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """An emulated S3, and the number of repeats."""

    emulator: Emulator
    client: S3Client
    repeats: int

    def make_bucket(self, name: str) -> str:
        """Create a versioned bucket; return its name."""
        bucket = f"bench-{name}"
        self.client.create_bucket(Bucket=bucket)
        self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return bucket

    def empty_bucket(self, bucket: str) -> None:
        """Empty a bucket: the emulator keeps its contents in memory."""
        pages = list(self.client.get_paginator("list_object_versions").paginate(Bucket=bucket))
        for page in pages:  # list everything first: deletions would shift the pages
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            objects: Any = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            if objects:
                self.client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

    def run(self, module: str, task: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON is anything
        """Run a module with a task; return its result."""
        with self.start(module, task) as process:
            return finish(process)

    def start(self, module: str, task: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a module with a task."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"scripts.benchmarks.{module}"],
            cwd=ROOT,
            env=self.emulator.environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - because it is PIPE
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
        return process


def finish(process: subprocess.Popen[bytes]) -> Any:  # noqa: ANN401 - JSON is anything
    """Wait for a process; return its result."""
    assert process.stdout is not None  # noqa: S101 - because it is PIPE
    output = process.stdout.read()
    if process.wait(timeout=_PROCESS_SECONDS) or not output:
        raise RuntimeError(f"{process.args!r} failed")
    return json.loads(output)


def measure_publish(bench: Bench, records: int) -> dict[str, Any]:
    """Publish artifacts one after the other into a subdir with this number of records."""
    bucket = bench.make_bucket(f"publish-{records}")
    channel = Channel(records=records)
    names = pick_names(channel.list_names(), bench.repeats + 1)
    has_outputs = records <= MOST_FLAT_RECORDS
    seed(S3Storage(bucket, bench.client), OURS, channel, names=names, has_outputs=has_outputs)
    files = {info.key: info.size for info in S3Storage(bucket, bench.client).list_objects(f"{OURS}/r")}
    filenames = [store_artifact(bench, bucket, OURS, build_artifact(name, "99.0")) for name in names]
    task = {"batches": [[filename] for filename in filenames], "has_outputs": has_outputs}
    runs = bench.run("publisher", describe_subdir(bucket, OURS) | task)
    bench.empty_bucket(bucket)
    # The first publish also opens connections and creates noarch.
    return {"records": records, "names": channel.names, "files": files, "first": runs[0], "runs": runs[1:]}


def measure_rattler_publish(bench: Bench, records: int) -> dict[str, Any]:
    """Publish in the same way with rattler's ``index_s3``, which lists the whole subdir in each run."""
    bucket = bench.make_bucket(f"rattler-{records}")
    channel = Channel(records=records)
    names = pick_names(channel.list_names(), min(bench.repeats, RATTLER_REPEATS) + 1)
    seed_rattler(bench, bucket, channel)
    runs = []
    for name in names:
        filename = store_artifact(bench, bucket, THEIRS, build_artifact(name, "99.0"))
        before = _count_versions(bench, bucket)
        run = bench.run("rattler_index", describe_rattler(bench, bucket, filename))
        after = _count_versions(bench, bucket)
        runs.append(run | {"puts": after[0] - before[0], "written_bytes": after[1] - before[1]})
    bench.empty_bucket(bucket)
    return {"records": records, "names": channel.names, "first": runs[0], "runs": runs[1:]}


def seed_rattler(bench: Bench, bucket: str, channel: Channel) -> None:
    """Store a placeholder for each artifact, and a ``repodata.json`` that lists them: rattler reads only new ones."""
    seed(S3Storage(bucket, bench.client), OURS, channel, names=[])
    bench.client.copy_object(Bucket=bucket, Key=f"{THEIRS}/repodata.json", CopySource=f"{bucket}/{OURS}/repodata.json")

    def put(filename: str) -> None:
        bench.client.put_object(Bucket=bucket, Key=f"{THEIRS}/{filename}", Body=b"x")

    with ThreadPoolExecutor(THREADS) as pool:
        for name in channel.list_names():
            list(pool.map(put, channel.make_cards(name)))


def measure_crowd(bench: Bench, publishers: int, *, records: int) -> dict[str, Any]:
    """Upload one artifact per concurrent publisher; count lost and duplicate records."""
    bucket = bench.make_bucket(f"crowd-{publishers}")
    channel = Channel(records=records)
    names = pick_names(channel.list_names(), publishers)
    storage = S3Storage(bucket, bench.client)
    seed(storage, OURS, channel, names=channel.list_names())
    uploads = [build_artifact(name, f"99.{number}") for number, name in enumerate(names)]
    outcome: dict[str, Any] = bench.run(
        "crowd", describe_subdir(bucket, OURS) | _describe_crowd(uploads, publishers=publishers, repeats=1)
    )
    outcome["wrong_records"] = count_wrong(bench, bucket, records, [name for name, _ in uploads])
    bench.empty_bucket(bucket)
    return {"publishers": publishers, "records": records} | outcome


def measure_rattler_crowd(bench: Bench, publishers: int, *, records: int) -> dict[str, Any]:
    """Run ``index_s3`` in concurrent processes, each until its artifact is listed."""
    bucket = bench.make_bucket(f"rattler-crowd-{publishers}")
    channel = Channel(records=records)
    seed_rattler(bench, bucket, channel)
    names = pick_names(channel.list_names(), publishers + 1)
    filename = store_artifact(bench, bucket, THEIRS, build_artifact(names.pop(), "98.0"))
    bench.run("rattler_index", describe_rattler(bench, bucket, filename))  # the first run writes every shard
    filenames = [
        store_artifact(bench, bucket, THEIRS, build_artifact(name, f"99.{number}")) for number, name in enumerate(names)
    ]
    processes = [bench.start("rattler_index", describe_rattler(bench, bucket, filename)) for filename in filenames]
    outcomes = [finish(process) for process in processes]
    for process in processes:
        assert process.stdout is not None  # noqa: S101 - because it is PIPE
        process.stdout.close()
    body = bench.client.get_object(Bucket=bucket, Key=f"{THEIRS}/repodata.json")["Body"].read()
    lost = sum(f'"{filename}"'.encode() not in body for filename in filenames)
    bench.empty_bucket(bucket)
    return {
        "publishers": publishers,
        "records": records,
        "latencies_s": sorted(outcome["wall_s"] for outcome in outcomes),
        "runs_lost": sum(outcome["runs_lost"] for outcome in outcomes),
        "wrong_records": lost,
    }


def measure_burst(bench: Bench, artifacts: int) -> dict[str, Any]:
    """Upload many artifacts concurrently into an empty subdir."""
    bucket = bench.make_bucket("burst")
    names = Channel(records=artifacts * 5).list_names()
    uploads = [build_artifact(names[number % len(names)], f"1.{number}") for number in range(artifacts)]
    outcome: dict[str, Any] = bench.run(
        "crowd", describe_subdir(bucket, OURS) | _describe_crowd(uploads, publishers=THREADS, repeats=1)
    )
    outcome["wrong_records"] = count_wrong(bench, bucket, 0, [name for name, _ in uploads])
    bench.empty_bucket(bucket)
    return {"artifacts": artifacts} | outcome


def measure_duplicates(bench: Bench, events: int) -> dict[str, Any]:
    """Send events of artifacts that are already indexed."""
    bucket = bench.make_bucket("duplicates")
    names = Channel(records=1000).list_names()
    uploads = [build_artifact(name, "1.0") for name in names]
    bench.run("crowd", describe_subdir(bucket, OURS) | _describe_crowd(uploads, publishers=THREADS, repeats=1))
    known = [(filename, b"") for filename, _ in uploads]
    task = _describe_crowd(known, publishers=1, repeats=events // len(known))
    outcome: dict[str, Any] = bench.run("crowd", describe_subdir(bucket, OURS) | task)
    bench.empty_bucket(bucket)
    return {"events": events} | outcome


def measure_hostile(bench: Bench, number: int) -> dict[str, Any]:
    """Send a hostile batch, with one innocent upload to another channel among it, to a process of limited memory."""
    hostile = BATCHES[number]
    bucket = bench.make_bucket(f"hostile-{number}")
    storage = S3Storage(bucket, bench.client)
    if published := hostile.published():
        publish_cards(storage, OURS, published, deployment=bucket)
    uploads = hostile.build()
    for package in uploads.items():
        store_artifact(bench, bucket, OURS, package)
    innocent = store_artifact(bench, bucket, INNOCENT, build_artifact("innocent", "1.0"))
    keys = [f"{OURS}/{filename}" for filename in uploads]
    task = {
        "bucket": bucket,
        "memory_bytes": FUNCTION_BYTES,
        "seconds": FUNCTION_SECONDS,
        "keys": keys,
        "innocent": f"{INNOCENT}/{innocent}",
    }
    outcome: dict[str, Any] = bench.run("hostile_run", task)
    outputs = {info.key: info.size for info in storage.list_objects(f"{OURS.channel}/") if info.key not in keys}
    bench.empty_bucket(bucket)
    return {
        "title": hostile.title,
        "uploaded_bytes": sum(map(len, uploads.values())),
        "memory_bytes": FUNCTION_BYTES,
        "largest_output_bytes": max(outputs.values()),
    } | outcome


def measure_authorizer() -> dict[str, Any] | None:
    """Run the authorizer's benchmark."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_authorizer"], cwd=ROOT, capture_output=True, check=False
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def median_of(runs: Iterable[dict[str, Any]], field: str) -> float:
    """Return the median of a field."""
    return float(statistics.median(run[field] for run in runs))


def pick_names(names: Sequence[PackageName], count: int) -> list[PackageName]:
    """Return names spread evenly over the list."""
    return [names[(2 * at + 1) * len(names) // (2 * count)] for at in range(count)]


def build_artifact(name: str, version: str) -> tuple[str, bytes]:
    """Build a small artifact; return its filename and bytes."""
    return conda_package(
        name=name,
        version=version,
        subdir=OURS.name,
        depends=["python >=3.12,<3.13.0a0"],
        run_exports={"weak": [f"{name} >={version}"]},
        about={"summary": f"The {name} package does what its name says"},
    )


def store_artifact(bench: Bench, bucket: str, path: SubdirId, package: tuple[str, bytes]) -> str:
    """Upload an artifact; return its filename."""
    filename, body = package
    bench.client.put_object(Bucket=bucket, Key=f"{path}/{filename}", Body=body)
    return filename


def describe_subdir(bucket: str, path: SubdirId) -> dict[str, Any]:
    """Return what every measured process is told."""
    return {"bucket": bucket, "channel": path.channel, "subdir": path.name}


def describe_rattler(bench: Bench, bucket: str, filename: str) -> dict[str, Any]:
    """Return what ``rattler_index`` is told: to index until the artifact is listed."""
    return describe_subdir(bucket, THEIRS) | {"endpoint": bench.emulator.endpoint, "filename": filename}


def _describe_crowd(uploads: Sequence[tuple[str, bytes]], *, publishers: int, repeats: int) -> dict[str, Any]:
    return {
        "uploads": [(filename, base64.b64encode(body).decode("ascii")) for filename, body in uploads],
        "publishers": publishers,
        "repeats": repeats,
        "workers": WORKERS,
        "batch": BATCH,
        "window_s": WINDOW_S,
    }


def _count_versions(bench: Bench, bucket: str) -> tuple[int, int]:
    """Return the number and size of the object versions that rattler wrote: its requests cannot be counted."""
    sizes = [
        version["Size"]
        for prefix in ("theirs/linux-64/repodata", "theirs/linux-64/shards/")
        for page in bench.client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for version in page.get("Versions", [])
    ]
    return len(sizes), sum(sizes)


def count_wrong(bench: Bench, bucket: str, records: int, filenames: Sequence[str]) -> int:
    """Return the number of missing or extra records in the tree and in ``repodata.json``."""
    storage = S3Storage(bucket, bench.client)
    subdir = open_subdir(storage, OURS)
    commit = subdir.fetch_commit()
    shards = subdir.fetch_shards(commit.index, commit.index.shards)
    tree = [filename for shard in shards.values() for filename, _ in iter_records(shard)]
    stored = storage.get(f"{OURS}/repodata.json")
    flat = [] if stored is None else list(json.loads(stored.body)["packages.conda"])
    expected = records + len(filenames)
    missing = sum((name not in set(tree)) + (name not in set(flat)) for name in filenames)
    return missing + abs(len(tree) - expected) + abs(len(flat) - expected)


def connect(emulator: Emulator, *, repeats: int) -> Bench:
    """Return a bench on a running emulator; this process has its environment."""
    return Bench(emulator=emulator, client=make_s3_client(), repeats=repeats)
