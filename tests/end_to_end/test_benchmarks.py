"""The measurements that need the deployed stack, each as small as it can be."""

import pytest

from scripts.benchmarks.clients import measure_clients
from scripts.benchmarks.soak import measure_soak
from scripts.emulated.stack import Stack

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]


def test_measure_soak__every_upload_is_listed(stack: Stack) -> None:
    measured = measure_soak(stack, channels=2, per_minute=120, seconds=3)

    assert measured["artifacts"] == len(measured["latencies_s"]) == 6
    assert (measured["lost"], measured["dead_letters"]) == (0, 0)
    assert all(latency > 0 for _, latency in measured["latencies_s"])


def test_measure_clients__install_every_package_from_shards(stack: Stack) -> None:
    measured = measure_clients(stack, clients=2, packages=5, fewer=2, requests=2)

    assert measured["installed"] == 5
    assert measured["indexes"] == ["sharded"]
    assert {number: len(values) for number, values in measured["shard_s"].items()} == {"2": 2, "5": 2}
