"""What a publisher's role may do, and may not do, with IAM enforced."""

import json
import random
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.config import Publisher
from infra.permissions import grant_publisher
from scripts.emulated.commands import CommandError, run_tool
from tests.builders import conda_package
from tests.end_to_end.conftest import Channel
from tests.infra.iam import as_policy
from tests.infra.test_permissions import PUBLISHERS, Keys, find_channels, owns, parse_publisher

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import CredentialsTypeDef

GENERATED_ROLES = 100  # tests/infra/test_permissions.py has 1,000, held against an evaluator

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]


def borrow(channel: Channel, sts: "STSClient", name: str) -> "CredentialsTypeDef":
    role = channel.stack.outputs.publisher_roles[name]
    return sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]


def open_s3(channel: Channel, lent: "CredentialsTypeDef") -> "S3Client":
    return channel.stack.session().client(
        "s3",
        endpoint_url=channel.stack.endpoint,
        aws_access_key_id=lent["AccessKeyId"],
        aws_secret_access_key=lent["SecretAccessKey"],
        aws_session_token=lent["SessionToken"],
    )


@pytest.fixture(scope="module")
def publisher(channel: Channel, sts: "STSClient") -> Iterator["S3Client"]:
    """S3 as the role that the local environment declares for the channel ``demo``."""
    client = open_s3(channel, borrow(channel, sts, "demo"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def publisher_of_all(channel: Channel, sts: "STSClient") -> Iterator["S3Client"]:
    """S3 as the role that the local environment declares for every channel."""
    client = open_s3(channel, borrow(channel, sts, "all"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def environment_of_demo(channel: Channel, sts: "STSClient") -> dict[str, str]:
    """The environment of a command that is run with the role for the channel ``demo``."""
    lent = borrow(channel, sts, "demo")
    return channel.stack.environment | {
        "AWS_ACCESS_KEY_ID": lent["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": lent["SecretAccessKey"],
        "AWS_SESSION_TOKEN": lent["SessionToken"],
    }


def test_publisher__publishes(channel: Channel, publisher: "S3Client") -> None:
    name, content = conda_package(name="by-a-role")
    publisher.put_object(Bucket=channel.bucket, Key=f"demo/noarch/{name}", Body=content)
    channel.wait_until_listed(f"demo/noarch/{name}")


def test_publisher__publishes_with_the_command_and_reads_the_status(
    environment_of_demo: dict[str, str], tmp_path: Path
) -> None:
    name, content = conda_package(name="by-a-command", subdir="linux-aarch64")  # the first of its subdir
    file = tmp_path / name
    file.write_bytes(content)
    key = f"demo/linux-aarch64/{name}"
    published = run_tool("fairway", "publish", "--json", "--wait", str(file), "demo", environment=environment_of_demo)
    assert json.loads(published)["state"] == "indexed"
    status = run_tool("fairway", "status", "--json", key, environment=environment_of_demo)
    assert json.loads(status)["record"]["name"] == "by-a-command"


def test_publisher__reads_the_reason_of_a_rejection(
    channel: Channel, publisher: "S3Client", environment_of_demo: dict[str, str]
) -> None:
    key = "demo/noarch/broken-1.0-0.conda"
    publisher.put_object(Bucket=channel.bucket, Key=key, Body=b"no archive")
    with pytest.raises(CommandError, match="rejected"):
        run_tool("fairway", "status", "--wait", key, environment=environment_of_demo)


PRIVATE_KEYS = [".fairway/access.json", ".fairway/audit/2026-01.jsonl", ".fairway/patches/demo/noarch/x.json"]


@pytest.mark.parametrize("key", PRIVATE_KEYS)
def test_publisher__of_all_channels_may_not_read_nor_list_what_is_private(
    channel: Channel, publisher_of_all: "S3Client", key: str
) -> None:
    if key != ".fairway/access.json":
        channel.put(key, b"private")
    with pytest.raises(ClientError, match="AccessDenied"):
        publisher_of_all.get_object(Bucket=channel.bucket, Key=key)
    for prefix in ("", ".fairway/", key):
        with pytest.raises(ClientError, match="AccessDenied"):
            publisher_of_all.list_objects_v2(Bucket=channel.bucket, Prefix=prefix)


def test_publisher__of_all_channels_reads_them(channel: Channel, publisher_of_all: "S3Client") -> None:
    name, content = conda_package(name="read-by-all")
    channel.publish(f"demo/noarch/{name}", content)
    assert publisher_of_all.get_object(Bucket=channel.bucket, Key=f"demo/noarch/{name}")["ContentLength"]
    for prefix in ("demo/noarch/", ".fairway/cards/demo/noarch/"):
        assert publisher_of_all.list_objects_v2(Bucket=channel.bucket, Prefix=prefix)["KeyCount"]


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


# What the bucket's policy denies is in tests/infra/test_storage.py: the emulator knows none of its condition keys.
READABLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "standard": {"StorageClass": "STANDARD"},
    "tiering": {"StorageClass": "INTELLIGENT_TIERING"},
    "sse-s3": {"ServerSideEncryption": "AES256"},
}


@pytest.mark.parametrize("name", READABLE)
def test_upload__that_readers_can_get(channel: Channel, publisher: "S3Client", name: str) -> None:
    filename, content = conda_package(name=f"readable-{name}")
    key = f"demo/noarch/{filename}"
    publisher.put_object(Bucket=channel.bucket, Key=key, Body=content, **READABLE[name])
    channel.wait_until_listed(key)


def test_upload__in_parts(channel: Channel, publisher: "S3Client") -> None:
    filename, content = conda_package(name="in-parts")
    where: dict[str, Any] = {"Bucket": channel.bucket, "Key": f"demo/noarch/{filename}"}
    upload = publisher.create_multipart_upload(**where)["UploadId"]
    part = publisher.upload_part(**where, UploadId=upload, PartNumber=1, Body=content)
    publisher.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    channel.wait_until_listed(where["Key"])


def is_denied(request: Callable[[], object]) -> bool:
    """Tell whether IAM denies a request; "no such key" comes after IAM."""
    try:
        request()
    except ClientError as error:
        return error.response["Error"]["Code"] in {"AccessDenied", "403"}
    return False


@pytest.fixture(scope="module")
def iam(channel: Channel) -> Iterator[Any]:
    client: Any = channel.stack.session().client("iam", endpoint_url=channel.stack.endpoint)
    yield client
    client.close()


def open_generated(channel: Channel, iam: Any, sts: "STSClient", publisher: Publisher) -> "S3Client":  # noqa: ANN401 - IAM has no stubs
    """Return S3 as a role with the policy of these settings."""
    role = f"generated-{uuid.uuid4().hex}"
    principal = {"AWS": "arn:aws:iam::000000000000:root"}
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    arn = iam.create_role(
        RoleName=role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": as_policy(grant_publisher(channel.bucket, publisher))}
    iam.put_role_policy(RoleName=role, PolicyName="publisher", PolicyDocument=json.dumps(policy))
    return open_s3(channel, sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"])


@given(given_settings=PUBLISHERS, seed=st.integers(0, 2**32))
@settings(max_examples=GENERATED_ROLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_publisher__attack_generated_settings_reach_outside_its_channels(
    channel: Channel,
    iam: Any,  # noqa: ANN401 - there are no stubs of IAM
    sts: "STSClient",
    given_settings: dict[str, Any],
    seed: int,
) -> None:
    publisher = parse_publisher(given_settings)
    names = find_channels(publisher, random.Random(seed))[:3]  # noqa: S311 - chooses examples
    keys = Keys(channels=names)
    with closing(open_generated(channel, iam, sts, publisher)) as s3:

        def may_read(key: str) -> bool:
            return not is_denied(lambda: s3.head_object(Bucket=channel.bucket, Key=key))

        def may_put(key: str) -> bool:
            return not is_denied(lambda: s3.put_object(Bucket=channel.bucket, Key=key, Body=b"x"))

        def may_delete(key: str) -> bool:
            return not is_denied(lambda: s3.delete_object(Bucket=channel.bucket, Key=key))

        def may_list(prefix: str) -> bool:
            return not is_denied(lambda: s3.list_objects_v2(Bucket=channel.bucket, Prefix=prefix))

        for name in names:
            key = f"{name}/noarch/tool-1.0-0.conda"
            expected = owns(publisher, name) and publisher.may_read
            assert (may_read(key), may_list(f"{name}/noarch/")) == (expected, expected), key
            assert may_list(f".fairway/rejected/{name}/noarch/") == expected, key
            if not owns(publisher, name):
                assert not may_put(key), key
                assert not may_delete(key), key
        for key in keys.private()[:8]:
            assert not may_read(key), key
            assert not may_put(key), key
        for prefix in ("", ".fairway/", ".fairway/audit/", ".fairway/rejected/"):
            assert not may_list(prefix), prefix


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


def test_publisher__command_says_what_was_denied(channel: Channel, sts: "STSClient") -> None:
    lent = borrow(channel, sts, "demo")
    environment = channel.stack.environment | {
        "AWS_ACCESS_KEY_ID": lent["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": lent["SecretAccessKey"],
        "AWS_SESSION_TOKEN": lent["SessionToken"],
    }
    for command, denied in {
        "list other": f"s3:ListBucket on s3://{channel.bucket}/other/",
        "token list": f"s3:GetObject on s3://{channel.bucket}/.fairway/access.json",
        "use local --region us-east-1": "cloudformation:DescribeStacks on 'fairway-local'",
    }.items():
        with pytest.raises(CommandError, match=re.escape(f"error: access denied: {denied}\nhint: ")):
            run_tool("fairway", *command.split(), environment=environment)
