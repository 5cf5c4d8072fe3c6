"""Runs ``aws``, ``fairway`` and the demo's own programs against a running stack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambdas.channel.errors import FairwayError
from scripts.emulated.emulator import ROOT

_TOOLS = ROOT / ".venv" / "bin"
_TIMEOUT_SECONDS = 300.0


class CommandError(FairwayError):
    """A command failed; the message has its output."""


def run_tool(tool: str, *arguments: str, environment: Mapping[str, str]) -> str:
    """Run a tool of the Python environment; return its standard output.

    Raises:
        CommandError: the tool failed.
    """
    command = [str(_TOOLS / tool), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise CommandError(f"{tool} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def upload(path: Path, key: str, *, bucket: str, environment: Mapping[str, str]) -> None:
    """Publish a file with the real ``aws s3 cp``."""
    run_tool("aws", "s3", "cp", "--only-show-errors", str(path), f"s3://{bucket}/{key}", environment=environment)


def create_token(name: str, channels: str, *, environment: Mapping[str, str]) -> str:
    """Create a token that may read some channels, with the real ``fairway``."""
    answer = run_tool("fairway", "token", "create", name, "--channel", channels, "--json", environment=environment)
    return str(json.loads(answer)["token"])


def build_packages(folder: Path, *, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Build the demo's packages; return ``[{path, subdir, tool, seconds}]``."""
    here = {**environment, "XDG_CACHE_HOME": str(folder / "cache")}  # not the cache of the user
    built: list[dict[str, Any]] = json.loads(
        run_tool("python", "-m", "scripts.emulated.packages", str(folder), environment=here)
    )
    return built


def install(
    channel: str, *specs: str, folder: Path, environment: Mapping[str, str], sharded: bool = True
) -> dict[str, Any]:
    """Install with py-rattler into an empty folder; return the result of ``scripts.emulated.client``."""
    folder.mkdir(parents=True)
    arguments = ["-m", "scripts.emulated.client", "--channel", channel, "--folder", str(folder)]
    arguments += [] if sharded else ["--flat"]
    installed: dict[str, Any] = json.loads(run_tool("python", *arguments, *specs, environment=environment))
    return installed
