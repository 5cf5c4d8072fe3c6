"""One new stack for all tests here: emulator, real deployment, development edge."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.emulated.commands import build_packages, create_token, run_tool, upload
from scripts.emulated.stack import Stack, running_stack
from scripts.emulated.viewer import Viewer

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

CHANNEL = "team"
VISIBLE_SECONDS = 240  # a loaded machine is slow; a success ends the wait at once


@dataclass(frozen=True, kw_only=True)
class Channel:
    """The stack as its users see it: tokens, channels, and ways to publish and to inspect."""

    stack: Stack
    s3: "S3Client"
    everything: Viewer  # a token for every channel
    reader: Viewer  # a token for CHANNEL
    outsider: Viewer  # a token for another channel
    stranger: Viewer  # no token

    @property
    def bucket(self) -> str:
        return self.stack.outputs.bucket

    def put(self, key: str, content: bytes) -> None:
        """Upload without waiting, faster than with the command."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def publish(self, key: str, content: bytes) -> None:
        """Upload, and wait until the index that clients read has it."""
        self.put(key, content)
        self.wait_until_listed(key)

    def list_index(self, subdir_path: str) -> set[str]:
        """The artifacts that repodata.json of ``CHANNEL/SUBDIR`` lists."""
        answer = self.everything.ask(f"/{subdir_path}/repodata.json")
        if answer.status == 404:
            return set()
        assert answer.status == 200, answer
        repodata = answer.json()
        return {*repodata["packages"], *repodata["packages.conda"]}

    def wait_until_listed(self, key: str, *, listed: bool = True) -> None:
        folder, _, filename = key.rpartition("/")
        wait_until(lambda: (filename in self.list_index(folder)) is listed, f"{key} listed: {listed}")

    def versions(self, prefix: str) -> list[tuple[str, str]]:
        """Every version of every object under a prefix, deletions too."""
        page = self.s3.list_object_versions(Bucket=self.bucket, Prefix=prefix)
        assert not page["IsTruncated"]
        entries: list[Any] = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        return sorted((entry["Key"], entry["VersionId"]) for entry in entries)


def wait_until(condition: Any, what: str, *, seconds: float = VISIBLE_SECONDS) -> None:  # noqa: ANN401 - a callable
    """Return once the condition holds; fail if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {seconds} s: {what}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch, running_stack(tmp_path_factory.mktemp("stack")) as stack:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in stack.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield stack


@pytest.fixture(scope="session")
def s3(stack: Stack) -> Iterator["S3Client"]:
    client = stack.session().client("s3", endpoint_url=stack.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def sqs(stack: Stack) -> Iterator["SQSClient"]:
    client = stack.session().client("sqs", endpoint_url=stack.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def sts(stack: Stack) -> Iterator["STSClient"]:
    client = stack.session().client("sts", endpoint_url=stack.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def functions(stack: Stack) -> Iterator["LambdaClient"]:
    client = stack.session().client("lambda", endpoint_url=stack.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def channel(stack: Stack, s3: "S3Client") -> Channel:
    """Once its tokens are accepted: the authorizer fetches new ones only every 30 s."""
    environment = stack.environment
    run_tool("fairway", "channel", "set-public", "--yes", "open", environment=environment)
    readable = {"everything": "*", "reader": CHANNEL, "outsider": "another"}
    tokens = {name: create_token(name, globs, environment=environment) for name, globs in readable.items()}
    viewers = {name: Viewer(url=stack.edge_url, token=token) for name, token in tokens.items()}
    for viewer in viewers.values():
        wait_until(lambda viewer=viewer: viewer.ask("/another/noarch/missing-1-0.conda").status != 401, "accepted")
    return Channel(stack=stack, s3=s3, stranger=Viewer(url=stack.edge_url), **viewers)


@pytest.fixture(scope="session")
def artifacts(channel: Channel, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Real packages, published with the real ``aws s3 cp``: their paths below the channel."""
    environment = channel.stack.environment
    built = build_packages(tmp_path_factory.mktemp("built"), environment=environment)
    paths = []
    for package in built:
        path = f"{package['subdir']}/{Path(package['path']).name}"
        upload(Path(package["path"]), f"{CHANNEL}/{path}", bucket=channel.bucket, environment=environment)
        paths.append(path)
    for path in paths:
        channel.wait_until_listed(f"{CHANNEL}/{path}")
    return paths
