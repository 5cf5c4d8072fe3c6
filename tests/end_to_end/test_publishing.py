"""Effects of uploads, deletions and bad uploads on the deployed stack."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambdas.channel.names import parse_subdir_id
from lambdas.indexer.tree.encoding import decompress
from lambdas.storage.s3 import S3Storage
from scripts.benchmarks import synthetic
from scripts.benchmarks.seeding import seed
from scripts.emulated.commands import run_tool, upload
from tests.builders import conda_package, tar_bz2_package
from tests.end_to_end.conftest import CHANNEL, Channel, wait_until

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]


def test_publish__record_equals_the_artifact_s_index(channel: Channel, artifacts: list[str]) -> None:
    for path in artifacts:
        subdir, _, filename = path.partition("/")
        repodata = channel.reader.ask(f"/{CHANNEL}/{subdir}/repodata.json").json()
        section = "packages.conda" if filename.endswith(".conda") else "packages"
        record = repodata[section][filename]
        assert record["size"] == len(channel.reader.ask(f"/{CHANNEL}/{path}").body)
        assert record["subdir"] == subdir
        assert filename.startswith(f"{record['name']}-{record['version']}-{record['build']}.")


def test_publish__unchanged_subdir_is_not_written(channel: Channel) -> None:
    for subdir in ("linux-64", "noarch", "osx-arm64"):
        name, content = conda_package(name="first", subdir=subdir)
        channel.publish(f"still/{subdir}/{name}", content)
    wait_until_idle(channel)  # pages are written after the files that clients need
    prefixes = ("still/linux-64/", "still/osx-arm64/", ".fairway/cards/still/linux-64/")
    before = {prefix: channel.versions(prefix) for prefix in prefixes}
    changed = channel.versions("still/noarch/")
    name, content = tar_bz2_package(name="second")
    channel.publish(f"still/noarch/{name}", content)
    wait_until_idle(channel)
    assert {prefix: channel.versions(prefix) for prefix in prefixes} == before
    assert all(before.values())
    assert channel.versions("still/noarch/") != changed


def test_publish__same_bytes_again_write_nothing(channel: Channel) -> None:
    name, content = conda_package(name="again")
    channel.publish(f"again/noarch/{name}", content)
    wait_until_idle(channel)
    before = channel.versions("again/")
    channel.put(f"again/noarch/{name}", content)
    wait_until_idle(channel)
    (added,) = set(channel.versions("again/")) - set(before)
    assert added[0] == f"again/noarch/{name}"  # the upload itself


def test_publish__noarch_exists_from_the_first_upload_on(channel: Channel) -> None:
    name, content = conda_package(name="first", subdir="linux-64")
    channel.publish(f"fresh/linux-64/{name}", content)
    wait_until_idle(channel)  # the same run makes it, right after the uploaded artifact's subdir
    for file in ("repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst"):
        assert channel.everything.ask(f"/fresh/noarch/{file}").status == 200
    assert channel.everything.ask("/fresh/noarch/repodata.json").json()["packages"] == {}


def test_remove__record_is_removed_with_the_artifact(channel: Channel) -> None:
    kept, content = conda_package(name="kept")
    removed, other = conda_package(name="removed")
    channel.publish(f"removing/noarch/{kept}", content)
    channel.publish(f"removing/noarch/{removed}", other)
    uri = f"s3://{channel.bucket}/removing/noarch/{removed}"
    run_tool("aws", "s3", "rm", "--only-show-errors", uri, environment=channel.stack.environment)
    channel.wait_until_listed(f"removing/noarch/{removed}", listed=False)
    assert channel.list_index("removing/noarch") == {kept}
    assert channel.everything.ask(f"/removing/noarch/{removed}").status == 404


def test_reject__quarantined_and_the_others_are_indexed(channel: Channel, tmp_path: Path) -> None:
    good, content = conda_package(name="good")
    _, other = conda_package(name="other")
    bad = {
        "liar-1.0-0.conda": other,  # its content has another name
        "cut-1.0-0.conda": conda_package(name="cut")[1][:-100],
        "empty-1.0-0.tar.bz2": b"",
    }
    for name, broken in bad.items():
        (tmp_path / name).write_bytes(broken)
        upload(
            tmp_path / name, f"rejecting/noarch/{name}", bucket=channel.bucket, environment=channel.stack.environment
        )
    channel.publish(f"rejecting/noarch/{good}", content)
    for name in bad:
        wait_until(
            lambda name=name: channel.everything.ask(f"/rejecting/noarch/{name}").status == 404, f"{name} is gone"
        )
        (reason,) = [
            json.loads(channel.s3.get_object(Bucket=channel.bucket, Key=key)["Body"].read())
            for key, _ in channel.versions(f".fairway/rejected/rejecting/noarch/{name}/")
            if key.endswith(".json")
        ]
        assert reason["code"]
        assert reason["message"]
    assert channel.list_index("rejecting/noarch") == {good}


def test_reject__other_bytes_under_a_taken_name(channel: Channel) -> None:
    name, first = conda_package(name="taken")
    _, second = conda_package(name="taken", about={"summary": "other bytes"})
    channel.publish(f"taken/noarch/{name}", first)
    channel.put(f"taken/noarch/{name}", second)
    wait_until(lambda: channel.versions(f".fairway/rejected/taken/noarch/{name}/"), "the second upload is rejected")
    wait_until_idle(channel)
    assert channel.everything.ask(f"/taken/noarch/{name}").body == first


@pytest.mark.parametrize(
    "key",
    [
        "foo-1.0-0.conda",
        "noarch/foo-1.0-0.conda",
        "a/b/c/foo-1.0-0.conda",
        "Team/noarch/foo-1.0-0.conda",
        "team/Noarch/foo-1.0-0.conda",
    ],
)
def test_reject__invalid_keys(channel: Channel, key: str) -> None:
    _, content = conda_package()
    channel.put(key, content)
    wait_until(lambda: channel.versions(f".fairway/rejected/{key}/"), f"{key} is rejected")
    wait_until(lambda: not channel.versions(key), f"{key} is gone")
    assert channel.everything.ask(f"/{key}").status != 200


def test_status__of_an_upload(channel: Channel, tmp_path: Path) -> None:
    name, content = conda_package(name="watched")
    (tmp_path / name).write_bytes(content)
    key = f"watching/noarch/{name}"
    upload(tmp_path / name, key, bucket=channel.bucket, environment=channel.stack.environment)
    answer = json.loads(run_tool("fairway", "status", key, "--wait", "--json", environment=channel.stack.environment))
    assert answer["state"] == "indexed"
    assert name in channel.list_index("watching/noarch")


def test_patches__applied_and_removed(channel: Channel) -> None:
    name, content = conda_package(name="patched", depends=["old"])
    key, instructions = f"patching/noarch/{name}", "patching/noarch/patch_instructions.json"
    channel.publish(key, content)

    def depends() -> list[str]:
        found: list[str] = channel.everything.ask("/patching/noarch/repodata.json").json()["packages.conda"][name][
            "depends"
        ]
        return found

    channel.put(instructions, json.dumps({"packages.conda": {name: {"depends": ["new"]}}}).encode())
    wait_until(lambda: depends() == ["new"], "the patch is in force")
    wait_until_idle(channel)
    unpatched = channel.everything.ask("/patching/noarch/repodata_from_packages.json").json()
    assert unpatched["packages.conda"][name]["depends"] == ["old"]
    channel.s3.delete_object(Bucket=channel.bucket, Key=instructions)
    wait_until(lambda: depends() == ["old"], "the patch is undone")
    wait_until_idle(channel)
    assert channel.everything.ask("/patching/noarch/repodata_from_packages.json").status == 404


def test_publish__twenty_at_once_lose_nothing(channel: Channel) -> None:
    """20 publishers, 25 packages each, into one subdir."""
    packages = [
        [
            conda_package(name=f"p{(one + number) % 35}", version=f"{one}.{number}", subdir="linux-64")
            for number in range(25)
        ]
        for one in range(20)
    ]

    def publish(several: list[tuple[str, bytes]]) -> None:
        for name, content in several:
            channel.put(f"crowd/linux-64/{name}", content)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(publish, packages))
    expected = {name for several in packages for name, _ in several}
    wait_until(lambda: channel.list_index("crowd/linux-64") == expected, "all 500 are listed", seconds=150)
    wait_until_idle(channel)
    assert channel.versions(".fairway/rejected/crowd/") == []
    found = run_tool("fairway", "verify", "--deep", "--json", "crowd", environment=channel.stack.environment)
    assert json.loads(found)["clean"]


def wait_until_idle(channel: Channel) -> None:
    """Return once no message is waiting or being processed."""
    client = channel.stack.session().client("sqs", endpoint_url=channel.stack.endpoint)

    def is_idle() -> bool:
        counts = client.get_queue_attributes(
            QueueUrl=channel.stack.outputs.queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        )["Attributes"]
        return set(counts.values()) == {"0"}

    try:
        wait_until(is_idle, "the queue is empty")
    finally:
        client.close()


def test_publish__large_subdir_defers_the_plain_file(channel: Channel) -> None:
    made_up = synthetic.Channel(records=30_000)
    path = parse_subdir_id("large/linux-64")
    names = made_up.list_names()[:1]
    seed(S3Storage(channel.bucket, channel.s3), path, made_up, names=names)
    filename, content = conda_package(name=names[0], version="99.0", subdir="linux-64")
    channel.put(f"{path}/{filename}", content)

    def shows(name: str) -> bool:
        body = channel.everything.ask(f"/{f'{path}/{name}'}").body
        return filename.encode() in (decompress(body, what=name) if name.endswith(".zst") else body)

    wait_until(lambda: shows("repodata.json.zst"), "the compressed file shows it")
    assert not shows("repodata.json")
    wait_until(lambda: shows("repodata.json"), "the plain file shows it")
    wait_until(lambda: shows("run_exports.json.zst"), "what few wait for shows it")


def test_zz_dead_letters__none(channel: Channel, sqs: "SQSClient") -> None:
    """Last in this file: no message of the tests above ended in the dead-letter queue."""
    wait_until_idle(channel)
    url = channel.stack.outputs.dead_letter_queue_url
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "0"
