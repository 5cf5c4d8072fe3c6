"""What other principals do to index files of the deployed stack, and what a flood of uploads does to others."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lambdas.channel.layout import SHARD_INDEX
from lambdas.indexer.tree.encoding import decode_msgpack, decompress
from tests.builders import conda_package
from tests.end_to_end.conftest import Channel, wait_until
from tests.end_to_end.test_publishing import wait_until_idle

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]


def list_names(channel: Channel, subdir: str) -> set[str]:
    """Return the names in a shard index; nothing if it is not one."""
    try:
        body = channel.s3.get_object(Bucket=channel.bucket, Key=f"{subdir}/{SHARD_INDEX}")["Body"].read()
        return set(decode_msgpack(decompress(body, what="index", max_bytes=10**6), what="index")["shards"])
    except Exception:  # noqa: BLE001 - whatever is there
        return set()


def test_signals__hundred_publishes_and_the_queue_comes_to_rest(channel: Channel) -> None:
    for number in range(100):
        name, content = conda_package(name=f"p{number}")
        channel.put(f"rest/noarch/{name}", content)
    wait_until(lambda: len(channel.list_index("rest/noarch")) == 100, "all 100 are listed")
    wait_until_idle(channel)
    before = channel.versions("rest/noarch/repodata")
    time.sleep(2)  # a message in flight may not have been counted
    wait_until_idle(channel)
    assert channel.versions("rest/noarch/repodata") == before
    assert not channel.s3.list_objects_v2(Bucket=channel.bucket, Prefix=".fairway/signals/rest/").get("Contents")


def test_signals__foreign_index_with_tags_is_healed(channel: Channel) -> None:
    name, content = conda_package(name="kept")
    channel.publish(f"foreign/noarch/{name}", content)
    wait_until_idle(channel)
    key = f"foreign/noarch/{SHARD_INDEX}"
    channel.s3.put_object(Bucket=channel.bucket, Key=key, Body=b"foreign", Tagging="tool=other")
    wait_until(lambda: list_names(channel, "foreign/noarch") == {"kept"}, "the index is healed")
    wait_until_idle(channel)
    (replaced,) = channel.s3.list_objects_v2(Bucket=channel.bucket, Prefix=f".fairway/replaced/{key}/")["Contents"]
    body = channel.s3.get_object(Bucket=channel.bucket, Key=replaced["Key"])["Body"].read()
    assert body == b"foreign"


def test_signals__deleted_index_is_healed(channel: Channel) -> None:
    name, content = conda_package(name="kept")
    channel.publish(f"deleted/noarch/{name}", content)
    wait_until_idle(channel)
    channel.s3.delete_object(Bucket=channel.bucket, Key=f"deleted/noarch/{SHARD_INDEX}")
    wait_until(lambda: list_names(channel, "deleted/noarch") == {"kept"}, "the index is healed")


def test_signals__foreign_output_is_removed(channel: Channel) -> None:
    name, content = conda_package(name="kept")
    channel.publish(f"outputs/noarch/{name}", content)
    wait_until_idle(channel)
    channel.put("outputs/noarch/current_repodata.json", b"{}")
    wait_until(lambda: not is_there(channel, "outputs/noarch/current_repodata.json"), "it is removed")


def is_there(channel: Channel, key: str) -> bool:
    return bool(channel.s3.list_objects_v2(Bucket=channel.bucket, Prefix=key).get("Contents"))


def test_fairness__good_upload_behind_a_thousand_bad_ones(channel: Channel, functions: "LambdaClient") -> None:
    name, content = conda_package(name="good")
    _, other = conda_package(name="first")
    channel.publish("flood/noarch/first-1.0-0.conda", other)
    channel.publish("innocent/noarch/first-1.0-0.conda", other)
    wait_until_idle(channel)
    with queue_held(functions):  # so that all of them wait, however slow the machine is
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: channel.put(f"flood/noarch/bad-{number}-0.conda", b"bad"), range(1000)))
        for subdir in ("flood/noarch", "innocent/noarch"):
            channel.put(f"{subdir}/{name}", content)
        assert count_rejections(channel, "flood") < 100
    for subdir in ("innocent/noarch", "flood/noarch"):
        channel.wait_until_listed(f"{subdir}/{name}")
        assert count_rejections(channel, "flood") < 900, "it waited for the others"
    wait_until(lambda: count_rejections(channel, "flood") == 1000, "all bad ones are rejected")
    wait_until_idle(channel)
    assert channel.list_index("flood/noarch") == {name, "first-1.0-0.conda"}


@contextmanager
def queue_held(functions: "LambdaClient") -> Iterator[None]:
    """Hold back the messages of the queue."""
    (mapping,) = functions.list_event_source_mappings()["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        yield
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


def count_rejections(channel: Channel, prefix: str) -> int:
    pages = channel.s3.get_paginator("list_objects_v2").paginate(
        Bucket=channel.bucket, Prefix=f".fairway/rejected/{prefix}/"
    )
    return sum(entry["Key"].endswith("/reason.json") for page in pages for entry in page.get("Contents", ()))
