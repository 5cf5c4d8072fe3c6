"""``scripts/local up``, ``status`` and ``down`` as people use them."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.emulated.viewer import Viewer
from tests.end_to_end.conftest import wait_until

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

ROOT = Path(__file__).resolve().parents[2]


def run_local(*arguments: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"FAIRWAY_LOCAL_FOLDER": str(folder)} | variables
    return subprocess.run(
        [ROOT / "scripts" / "local", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def is_open(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname or "", parts.port or 0)) == 0


def test_up__status_and_interrupt(tmp_path: Path) -> None:
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [ROOT / "scripts" / "local", "up"],
            env=os.environ | {"FAIRWAY_LOCAL_FOLDER": str(tmp_path), "AWS_PROFILE": "of-a-real-account"},
            stdout=log,
            stderr=log,
        )
    with up:
        try:
            wait_until(
                lambda: up.poll() is not None or run_local("status", folder=tmp_path).returncode == 0, "the stack is up"
            )
            running = json.loads(run_local("status", "--json", folder=tmp_path).stdout)
            assert running["phase"] == "running"
            said = (tmp_path / "up.log").read_text()
            for line in (
                "aws s3 cp",
                "conda install",
                "mamba install",
                "pixi init",
                "curl -u",
                "export AWS_ENDPOINT_URL=",
                "CREATE_COMPLETE Storage/Bucket",
            ):
                assert line in said
            shell = f'eval "$({ROOT}/scripts/local env)" && fairway channel list --json'
            listed = subprocess.run(
                ["/bin/sh", "-c", shell],
                env=os.environ | {"FAIRWAY_LOCAL_FOLDER": str(tmp_path)},
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(listed.stdout) == []
            viewer = Viewer(url=running["edge_url"], token=running["token"])
            assert viewer.ask("/nothing/noarch/repodata.json").status == 404
            assert Viewer(url=running["edge_url"]).ask("/nothing/noarch/repodata.json").status == 401
            assert run_local("up", folder=tmp_path).returncode == 2
        finally:
            up.send_signal(signal.SIGINT)
        assert up.wait() == 0
    assert not is_open(running["endpoint"])
    assert not is_open(running["edge_url"])
    assert not Path(running["state"]).exists()
    assert run_local("status", folder=tmp_path).returncode == 1
    assert run_local("down", folder=tmp_path).stdout == "nothing is running\n"
    stopped = run_local("env", folder=tmp_path)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "error: the stack is stopped" in stopped.stderr


@pytest.mark.parametrize("command", ["up", "demo"])
def test_local__real_endpoint_is_an_error(tmp_path: Path, command: str) -> None:
    result = run_local(command, folder=tmp_path, AWS_ENDPOINT_URL="https://s3.amazonaws.com")
    assert result.returncode == 2
    assert "not a loopback endpoint" in result.stderr
    assert "hint:" in result.stderr
