"""``scripts/bench``: measures the cost of publishing, and compares it with rattler's ``index_s3``.

Everything runs on an emulated S3 on this machine. Fairway's indexer runs in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks import bursts, sections
from scripts.benchmarks.clients import CLIENTS, FEWER_PACKAGES, PACKAGES, REQUESTS, measure_clients
from scripts.benchmarks.directories import measure_directories
from scripts.benchmarks.hostile import BATCHES
from scripts.benchmarks.many_subdirs import measure_many_subdirs
from scripts.benchmarks.report import draw, format_report
from scripts.benchmarks.soak import CHANNELS, PUBLISHES_PER_MINUTE, SECONDS, draw_soak, measure_soak
from scripts.emulated.emulator import ROOT, find_free_port, running_emulator
from scripts.emulated.stack import running_stack

EXAMPLES: Final = """
examples:
  scripts/bench                       takes less than 4 minutes
  scripts/bench --full                up to 1,000,000 records and 100 publishers
  scripts/bench --json | jq .publish  only the figures of publishing
  scripts/bench --records 50000       only this size, with index_s3
  scripts/bench --records 10000000    above 2,000,000, shards alone: the emulator can't hold the flat files
  scripts/bench --bursts              only first indexes of many artifacts, with index_s3
  scripts/bench --soak                only sustained publishing, on the emulated stack: 15 minutes
  scripts/bench --clients             only concurrent installations, on the emulated stack: 5 minutes
  scripts/bench --directories         only directories
  scripts/bench --hostile             only hostile batches, the long ones too: 2 minutes
"""
QUICK: Final = {
    "records": (1_000, 10_000),
    "rattler": 1_000,
    "publishers": (1, 8, 20),
    "rattler_publishers": (20,),
    "first_index": {500: 2, 2_000: 1},
    "burst": 200,
    "events": 2_000,
    "directories": 3,
    "subdirs": (2, 100),
    "hostile": [number for number, one in enumerate(BATCHES) if not one.is_long],
}
FULL: Final = {
    "records": (1_000, 10_000, 50_000, 100_000, 1_000_000),
    "rattler": 50_000,
    "publishers": (1, 8, 20, 100),
    "rattler_publishers": (1, 8, 20),  # a lost run is repeated as a whole: 100 take a quarter of an hour
    "first_index": {500: 5, 2_000: 3},
    "burst": 2_000,
    "events": 10_000,
    "directories": 5,
    "subdirs": (2, 20, 100),
    "hostile": range(len(BATCHES)),
}
NOTHING: Final[dict[str, Any]] = {
    "records": (),
    "publishers": (),
    "first_index": {},
    "burst": 0,
    "directories": 0,
    "subdirs": (),
    "hostile": (),
}
CROWD_RECORDS: Final = 1_000


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="all sizes and all numbers of publishers")
    parser.add_argument("--records", type=int, nargs="+", metavar="N", help="only these sizes, with one publisher")
    parser.add_argument("--bursts", action="store_true", help="only first indexes of many artifacts")
    parser.add_argument("--soak", action="store_true", help="only sustained publishing, on the emulated stack")
    parser.add_argument(
        "--soak-seconds", type=float, default=SECONDS, metavar="S", help=f"of each soak (default: {SECONDS})"
    )
    parser.add_argument("--clients", action="store_true", help="only clients that install, on the emulated stack")
    parser.add_argument("--packages", type=int, default=PACKAGES, help=f"that they install (default: {PACKAGES})")
    parser.add_argument("--directories", action="store_true", help="only directories, without S3")
    parser.add_argument("--hostile", action="store_true", help="only hostile batches")
    parser.add_argument("--repeats", type=int, default=5, help="number of publishes of each size (default: 5)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".local" / "bench", help="folder for the results (default: .local/bench)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    return parser.parse_args()


def main() -> int:
    """Measure, and write the report."""
    arguments = parse_arguments()
    plan: dict[str, Any] = dict(FULL if arguments.full else QUICK)
    if arguments.records:
        plan |= NOTHING | {"records": tuple(arguments.records), "rattler": 50_000}
    if arguments.bursts:
        plan |= NOTHING | {"first_index": plan["first_index"]}
    if arguments.hostile:
        plan |= NOTHING | {"hostile": range(len(BATCHES))}
    if arguments.directories:
        plan |= NOTHING | {"directories": arguments.repeats}
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.soak or arguments.clients:
        for results in measure_on_stack(arguments):
            save(results, arguments)
        if arguments.soak:
            draw_soak(results["soak"], arguments.output / "soak.png")
        return write(results, arguments)
    with running_emulator(arguments.output, port=find_free_port(), keep=False) as emulator:
        os.environ.update(emulator.environment)
        bench = sections.connect(emulator, repeats=arguments.repeats)
        for results in measure(bench, plan, arguments.output):
            save(results, arguments)
    draw(results, arguments.output / "bench.png")
    return write(results, arguments)


def save(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write the results so far, so that a failure keeps them."""
    (arguments.output / "bench.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def write(results: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Write the report, and print it; return the exit code."""
    report = format_report(results)
    (arguments.output / "bench.txt").write_text(report, encoding="utf-8")
    print(json.dumps(results) if arguments.json else report)
    say(f"written to {arguments.output}")
    return 0


def measure_on_stack(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Deploy the stack on the emulator; install from it, and publish to it at a constant rate, as asked."""
    results = describe_run(arguments.repeats)
    with running_stack(arguments.output / "stack") as stack:
        os.environ.update(stack.environment)
        if arguments.clients:
            say(f"{CLIENTS} clients that install {arguments.packages:,} packages")
            results["clients"] = measure_clients(
                stack,
                clients=CLIENTS,
                packages=arguments.packages,
                fewer=max(1, arguments.packages * FEWER_PACKAGES // PACKAGES),
                requests=REQUESTS,
            )
            yield results
        for channels in CHANNELS if arguments.soak else ():
            say(f"{PUBLISHES_PER_MINUTE:,} publishes a minute into {channels} channels, {arguments.soak_seconds:.0f} s")
            run = measure_soak(
                stack, channels=channels, per_minute=PUBLISHES_PER_MINUTE, seconds=arguments.soak_seconds
            )
            results["soak"].append(run)
            yield results


def describe_run(repeats: int) -> dict[str, Any]:
    """Return results without any measurement."""
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "repeats": repeats,
        "publish": [],
        "rattler_publish": [],
        "subdirs": [],
        "crowd": [],
        "rattler_crowd": [],
        "first_index": [],
        "burst": None,
        "duplicates": None,
        "soak": [],
        "clients": None,
        "hostile": [],
        "directories": None,
        "authorizer": None,
    }


def measure(bench: sections.Bench, plan: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Run the plan, alternating Fairway and index_s3; yield the results after each step."""
    started = time.monotonic()
    results = describe_run(bench.repeats)
    for records in plan["records"]:
        say(f"publishing into {records:,} records")
        results["publish"].append(sections.measure_publish(bench, records))
        yield results
        if records <= plan["rattler"]:
            say(f"index_s3 on {records:,} records")
            results["rattler_publish"].append(sections.measure_rattler_publish(bench, records))
            yield results
    for subdirs in plan["subdirs"]:
        say(f"publishing into one of {subdirs} subdirs")
        results["subdirs"].append(measure_many_subdirs(bench, subdirs))
        yield results
    for number in plan["hostile"]:
        say(f"a hostile batch: {BATCHES[number].title}")
        results["hostile"].append(sections.measure_hostile(bench, number))
        yield results
    for publishers in plan["publishers"]:
        say(f"{publishers} concurrent publishers")
        results["crowd"].append(sections.measure_crowd(bench, publishers, records=CROWD_RECORDS))
        yield results
        if publishers in plan["rattler_publishers"]:
            say(f"{publishers} concurrent runs of index_s3")
            crowd = sections.measure_rattler_crowd(bench, publishers, records=CROWD_RECORDS)
            results["rattler_crowd"].append(crowd)
            yield results
    for artifacts, repeats in plan["first_index"].items():
        say(f"the first index of {artifacts:,} artifacts")
        results["first_index"].append(bursts.measure_first_index(bench, artifacts, repeats=repeats))
        yield results
    if plan["directories"]:
        say("directories, index_fs beside")
        results["directories"] = measure_directories(folder, repeats=plan["directories"])
        yield results
    if plan["burst"]:
        say(f"a burst of {plan['burst']:,} artifacts")
        results["burst"] = sections.measure_burst(bench, plan["burst"])
        yield results
        say(f"{plan['events']:,} duplicate events")
        results["duplicates"] = sections.measure_duplicates(bench, plan["events"])
        yield results
        say("the authorizer")
        results["authorizer"] = sections.measure_authorizer()
    results["seconds"] = time.monotonic() - started
    yield results


def say(text: str) -> None:
    """Print progress to stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
