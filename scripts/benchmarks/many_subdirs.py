"""Measures a publish in channels of many subdirs, all of which have the name that is published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from lambdas.channel.names import PackageName, SubdirId, SubdirName
from lambdas.storage.s3 import S3Storage
from scripts.benchmarks.sections import OURS, Bench, describe_subdir, median_of
from scripts.benchmarks.seeding import publish_cards
from scripts.benchmarks.synthetic import Channel, make_name
from tests.builders import conda_package

RECORDS: Final = 10
"""Of each subdir, all of one name."""
NAME: Final[PackageName] = make_name(0)


def measure_many_subdirs(bench: Bench, subdirs: int) -> dict[str, Any]:
    """Publish artifacts of the name, one after the other, into one of so many subdirs."""
    bucket = bench.make_bucket(f"subdirs-{subdirs}")
    storage = S3Storage(bucket, bench.client)
    cards = {NAME: Channel(records=RECORDS).make_cards(NAME)}
    names = [OURS.name, *(SubdirName(f"os{number}-64") for number in range(subdirs - 1))]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda name: publish_cards(storage, SubdirId(channel=OURS.channel, name=name), cards), names):
            pass
    filenames = []
    for number in range(bench.repeats + 1):
        filename, body = conda_package(name=NAME, version=f"99.{number}", subdir=OURS.name)
        bench.client.put_object(Bucket=bucket, Key=f"{OURS}/{filename}", Body=body)
        filenames.append(filename)
    runs = bench.run(
        "publisher",
        describe_subdir(bucket, OURS) | {"batches": [[filename] for filename in filenames], "has_outputs": True},
    )
    stored = storage.get(f"{OURS.channel}/channeldata.json")
    shown = {} if stored is None else json.loads(stored.body)["packages"][NAME]
    bench.empty_bucket(bucket)
    is_right = shown["version"] == f"99.{bench.repeats}" and shown["subdirs"] == sorted(names)
    # The first publish makes the outputs of the channel and noarch.
    return {"subdirs": subdirs, "first": runs[0], "runs": runs[1:], "is_right": is_right}


def list_many_subdirs(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a row of cells for each number of subdirs: wall, CPU, requests, writes, whether it is right."""
    return [
        [
            str(one["subdirs"]),
            f"{median_of(one['runs'], 'wall_s'):.2f}",
            f"{median_of(one['runs'], 'cpu_s'):.2f}",
            f"{median_of([{'n': sum(run['requests'].values())} for run in one['runs']], 'n'):.0f}",
            f"{median_of(one['runs'], 'writes'):.0f}",
            f"{sum(one['first']['requests'].values()):,}",
            "yes" if one["is_right"] else "NO",
        ]
        for one in rows
    ]


HEAD: Final = [
    "subdirs",
    "wall s",
    "CPU s",
    "requests",
    "writes",
    "requests of a first publish",
    "channeldata is right",
]
