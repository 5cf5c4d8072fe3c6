"""A real client against private and public channels, with each credential form that it supports."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.emulated.commands import CommandError, install
from tests.end_to_end.conftest import CHANNEL, Channel

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

HOST = "127.0.0.1"


def try_install(
    channel: Channel,
    url: str,
    folder: Path,
    *specs: str,
    sharded: bool = True,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Install with credentials from the URL, or from files below the folder, and no others."""
    home = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "RATTLER_AUTH_FILE": str(folder / "auth.json")}
    given = environment if environment is not None else home
    installed = install(
        url,
        *(specs or ("fairway-hello",)),
        folder=folder / "installed",
        environment=channel.stack.environment | home | dict(given),
        sharded=sharded,
    )
    assert installed["indexes"] == ["sharded" if sharded else "flat"]
    python = next(Path(installed["prefix"]).glob("bin/python3*"), None)
    if python:
        said = subprocess.run([python, "-m", "fairway_hello"], capture_output=True, text=True, check=True).stdout
        assert "hello from a package with a plus" in said
    return [str(record) for record in installed["records"]]


@pytest.fixture
def expected(artifacts: list[str]) -> list[str]:
    return sorted(path.partition("/")[2] for path in artifacts)


@pytest.mark.parametrize("sharded", [True, False], ids=["sharded", "flat"])
def test_install__token_in_the_path(channel: Channel, expected: list[str], tmp_path: Path, sharded: bool) -> None:
    assert try_install(channel, channel.reader.channel_url(CHANNEL), tmp_path, sharded=sharded) == expected


@pytest.mark.parametrize("sharded", [True, False], ids=["sharded", "flat"])
def test_install__password_in_the_url(channel: Channel, expected: list[str], tmp_path: Path, sharded: bool) -> None:
    url = channel.stranger.channel_url(CHANNEL).replace("://", f"://me:{channel.reader.token}@")
    assert try_install(channel, url, tmp_path, sharded=sharded) == expected


@pytest.mark.parametrize("form", ["BearerToken", "BasicHTTP", "CondaToken"])
def test_install__authentication_file(channel: Channel, expected: list[str], tmp_path: Path, form: str) -> None:
    token = channel.reader.token
    credential = {"username": "me", "password": token} if form == "BasicHTTP" else token
    (tmp_path / "auth.json").write_text(json.dumps({HOST: {form: credential}}))
    assert try_install(channel, channel.stranger.channel_url(CHANNEL), tmp_path) == expected


def test_install__netrc(channel: Channel, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine {HOST} login me password {channel.reader.token}\n")
    (tmp_path / "auth.json").write_text("{}")
    assert try_install(channel, channel.stranger.channel_url(CHANNEL), tmp_path) == expected


def test_install__public_channel_without_credentials(channel: Channel, tmp_path: Path) -> None:
    from tests.builders import conda_package

    name, content = conda_package(name="for-everybody")
    channel.publish(f"open/noarch/{name}", content)
    (tmp_path / "auth.json").write_text("{}")
    assert try_install(channel, channel.stranger.channel_url("open"), tmp_path, "for-everybody") == [name]


@pytest.mark.parametrize("sharded", [True, False], ids=["sharded", "flat"])
@pytest.mark.parametrize("status", ["401", "403"])
def test_install__denied(channel: Channel, artifacts: list[str], tmp_path: Path, status: str, sharded: bool) -> None:
    url = {"401": channel.stranger, "403": channel.outsider}[status].channel_url(CHANNEL)
    with pytest.raises(CommandError, match=status) as failure:
        try_install(channel, url, tmp_path, sharded=sharded)
    token = channel.outsider.token
    assert token
    assert base64.b64encode(f"token:{token}".encode()).decode() not in str(failure.value)


def test_install__noarch_without_a_platform_subdir(channel: Channel, artifacts: list[str], tmp_path: Path) -> None:
    """In a channel with noarch only, the platform's 404 is no error."""
    from tests.builders import conda_package

    name, content = conda_package(name="only-noarch", version="1!2.0+plus")
    channel.publish(f"noarch-only/noarch/{name}", content)
    for number, sharded in enumerate((True, False)):
        url = channel.everything.channel_url("noarch-only")
        folder = tmp_path / str(number)
        folder.mkdir()
        if sharded:
            assert try_install(channel, url, folder, "only-noarch", sharded=sharded) == [name]
        else:
            records = install(
                url, "only-noarch", folder=folder / "flat", environment=channel.stack.environment, sharded=False
            )["records"]
            assert records == [name]
