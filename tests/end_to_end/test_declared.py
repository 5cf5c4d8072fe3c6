"""A declared subdir (setting ``subdirs``): a client that asked before the first upload keeps reading shards."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.emulated.commands import CommandError, run_tool
from tests.builders import conda_package
from tests.end_to_end.conftest import Channel, wait_until

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

DECLARED = "declared"  # in cdk.json


def try_install(channel: Channel, spec: str, folder: Path) -> dict[str, Any] | None:
    """Install with the caches of earlier calls; return None if the client finds no such package."""
    url = channel.everything.channel_url(DECLARED)
    arguments = ["-m", "scripts.emulated.client", "--channel", url, "--folder", str(folder), spec]
    try:
        installed: dict[str, Any] = json.loads(run_tool("python", *arguments, environment=channel.stack.environment))
    except CommandError as error:
        if "No candidates were found" not in str(error):
            raise
        return None
    return installed


def test_declared_subdir__client_that_asked_before_the_first_upload(
    channel: Channel, functions: "LambdaClient", tmp_path: Path
) -> None:
    reconciler = channel.stack.outputs.reconciler_function
    answer = functions.invoke(FunctionName=reconciler, Payload=json.dumps({"channels": [DECLARED]}).encode())
    assert json.loads(answer["Payload"].read())["failed"] == 0
    assert channel.everything.ask(f"/{DECLARED}/linux-64/repodata_shards.msgpack.zst").status == 200
    assert channel.list_index(f"{DECLARED}/linux-64") == set()
    assert try_install(channel, "early", tmp_path) is None

    name, content = conda_package(name="early", subdir="linux-64")
    channel.publish(f"{DECLARED}/linux-64/{name}", content)
    installed: list[dict[str, Any]] = []

    def is_installed() -> bool:  # once the client's cache has expired
        installed.extend(filter(None, [try_install(channel, "early", tmp_path)]))
        return bool(installed)

    wait_until(is_installed, "the client installs the package")
    assert installed[0]["records"] == [name]
    assert installed[0]["indexes"] == ["sharded"]
