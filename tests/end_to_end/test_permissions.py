"""What a publisher's role may do, with IAM enforced: that, and nothing else."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.builders import conda_package
from tests.end_to_end.conftest import Channel

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]


@pytest.fixture(scope="module")
def publisher(channel: Channel, sts: "STSClient") -> Iterator["S3Client"]:
    """S3 as the role that the local environment declares for the channel ``demo``."""
    role = channel.stack.outputs.publisher_roles["demo"]
    lent = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    client = channel.stack.session().client(
        "s3",
        endpoint_url=channel.stack.endpoint,
        aws_access_key_id=lent["AccessKeyId"],
        aws_secret_access_key=lent["SecretAccessKey"],
        aws_session_token=lent["SessionToken"],
    )
    yield client
    client.close()


def test_publisher__publishes(channel: Channel, publisher: "S3Client") -> None:
    name, content = conda_package(name="by-a-role")
    publisher.put_object(Bucket=channel.bucket, Key=f"demo/noarch/{name}", Body=content)
    channel.wait_until_listed(f"demo/noarch/{name}")


@pytest.mark.parametrize(
    "key",
    [
        "demo/noarch/repodata.json",
        "demo/noarch/repodata.json.zst",
        "demo/noarch/repodata_shards.msgpack.zst",
        "demo/noarch/run_exports.json",
        "demo/noarch/index.html",
        f"demo/noarch/shards/{'0' * 64}.msgpack.zst",
        "demo/channeldata.json",
        "demo/index.html",
        "demo2/noarch/foo-1.0-0.conda",
        "other/noarch/foo-1.0-0.conda",
        ".fairway/access.json",
        ".fairway/cards/demo/noarch/foo-1.0-0.conda",
        ".fairway/rejected/demo/noarch/foo-1.0-0.conda",
    ],
)
def test_publisher__may_not_write(channel: Channel, publisher: "S3Client", key: str) -> None:
    before = channel.versions(key)
    with pytest.raises(ClientError, match="AccessDenied"):
        publisher.put_object(Bucket=channel.bucket, Key=key, Body=b"forged")
    assert channel.versions(key) == before


def test_publisher__may_not_delete_nor_read_rules(channel: Channel, publisher: "S3Client") -> None:
    name, content = conda_package(name="stays")
    key = f"demo/noarch/{name}"
    channel.publish(key, content)
    with pytest.raises(ClientError, match="AccessDenied"):
        publisher.delete_object(Bucket=channel.bucket, Key=key)
    with pytest.raises(ClientError, match="AccessDenied"):
        publisher.get_object(Bucket=channel.bucket, Key=".fairway/access.json")
    with pytest.raises(ClientError, match="AccessDenied"):
        publisher.put_bucket_policy(Bucket=channel.bucket, Policy="{}")
    assert channel.everything.ask(f"/{key}").body == content
