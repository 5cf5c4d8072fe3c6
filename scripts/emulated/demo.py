"""The demo: from an empty machine to an installed environment, with a transcript."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lambdas.channel.artifact_kinds import flat_sections
from lambdas.channel.errors import FairwayError
from lambdas.channel.layout import parse_artifact_key
from scripts.emulated.commands import build_packages, create_token, install, run_tool, upload
from scripts.emulated.emulator import ROOT, read_tail
from scripts.emulated.stack import Stack, running_stack
from scripts.emulated.transcript import Transcript
from scripts.emulated.viewer import Viewer

CHANNEL = "demo"
_VISIBLE_SECONDS = 180.0
_POLL_SECONDS = 0.05


class DemoError(FairwayError):
    """A step of the demo had an unexpected result."""


def run_demo(transcript: Transcript) -> None:
    """Run every step of the demo.

    Raises:
        FairwayError: a step failed or had an unexpected result.
    """
    with tempfile.TemporaryDirectory(prefix="fairway-demo-") as name, transcript.concluded():
        folder = Path(name)
        transcript.begin("Set up the checkout, with locked and hashed requirements")
        transcript.tell(_describe_tools(), transcript.before_seconds)
        with running_stack(folder / "state", report_step=transcript.report_step) as stack:
            viewer = _show_token(stack, transcript)
            artifacts = _show_building(stack, folder / "built", transcript)
            _show_publishing(stack, viewer, artifacts, transcript)
            _show_installing(stack, viewer, folder, artifacts, transcript)
            _show_answers(viewer, artifacts, transcript)
            transcript.begin("Stop the stack")
        transcript.tell("emulator and edge stopped, state removed")


def _describe_tools() -> str:
    """Return the versions of the installed tools."""
    node = subprocess.run([ROOT / ".venv/bin/node", "--version"], capture_output=True, text=True, check=True)
    cdk = json.loads((ROOT / "node_modules/aws-cdk/package.json").read_text(encoding="utf-8"))["version"]
    (emulator,) = (ROOT / ".local/emulator").glob("lib/python*/site-packages/ministack-*.dist-info")
    version = emulator.name.removeprefix("ministack-").removesuffix(".dist-info")
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"Python {python}, Node {node.stdout.strip().removeprefix('v')}, cdk {cdk}, MiniStack {version}"


def _show_token(stack: Stack, transcript: Transcript) -> Viewer:
    """Create the token for all later requests; return a viewer that uses it."""
    transcript.begin("Create a token, build packages, publish them")
    token = create_token("demo", CHANNEL, environment=stack.environment)
    transcript.tell(f"fairway token create demo --channel {CHANNEL}: {token}")
    return Viewer(url=stack.edge_url, token=token)


def _show_building(stack: Stack, folder: Path, transcript: Transcript) -> list[dict[str, Any]]:
    """Build the packages; return their descriptions."""
    folder.mkdir()
    artifacts = build_packages(folder, environment=stack.environment)
    for artifact in artifacts:
        artifact["filename"] = Path(artifact["path"]).name
        transcript.tell(f"{artifact['tool']} builds {artifact['subdir']}/{artifact['filename']}", artifact["seconds"])
    return artifacts


def _show_publishing(stack: Stack, viewer: Viewer, artifacts: list[dict[str, Any]], transcript: Transcript) -> None:
    """Publish the packages; wait for each until it is indexed."""
    transcript.restart_clock()
    keys = []
    for artifact in artifacts:
        folder = f"{CHANNEL}/{artifact['subdir']}"
        key = f"{folder}/{artifact['filename']}"
        upload(Path(artifact["path"]), key, bucket=stack.outputs.bucket, environment=stack.environment)
        transcript.tell(f"aws s3 cp {artifact['filename']} s3://{stack.outputs.bucket}/{folder}/")
        _wait_until_listed(stack, viewer, key)
        transcript.tell(f"{artifact['filename']} can be installed")
        keys.append(key)
    run_tool("fairway", "status", "--wait", *keys, environment=stack.environment)
    transcript.tell("fairway status --wait: every package is indexed")


def _wait_until_listed(stack: Stack, viewer: Viewer, key: str) -> None:
    """Wait until ``repodata.json`` lists the artifact."""
    artifact = parse_artifact_key(key)
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        answer = viewer.ask(f"/{artifact.subdir}/repodata.json")
        sections = answer.json() if answer.status == 200 else {}  # noqa: PLR2004 - HTTP's
        if any(artifact.filename in sections[section] for section in flat_sections() if section in sections):
            return
        if time.monotonic() > deadline:
            raise DemoError(
                f"{key!r} is not listed after {_VISIBLE_SECONDS:.0f} s; the edge answers {answer.status}",
                hint=f"the emulator's log ends with:\n{read_tail(stack.emulator.log)}",
            )
        time.sleep(_POLL_SECONDS)


def _show_installing(
    stack: Stack, viewer: Viewer, folder: Path, artifacts: list[dict[str, Any]], transcript: Transcript
) -> None:
    """Install with py-rattler from each kind of index and URL, and run the installed program."""
    transcript.begin("Install through the edge with py-rattler: solve, download, link")
    by_path = viewer.channel_url(CHANNEL)
    by_password = f"{viewer.url.replace('://', f'://token:{viewer.token}@')}/{CHANNEL}"
    variants = [
        ("sharded index, token in the path", by_path, True),
        ("flat index, token in the path", by_path, False),
        ("sharded index, token as password", by_password, True),
    ]
    expected = sorted(artifact["filename"] for artifact in artifacts)
    for number, (variant, url, sharded) in enumerate(variants):
        target = folder / f"install-{number}"
        installed = install(url, "fairway-hello", folder=target, environment=stack.environment, sharded=sharded)
        if installed["records"] != expected:
            raise DemoError(f"{variant}: installed {installed['records']!r}, not {expected!r}")
        if installed["indexes"] != ["sharded" if sharded else "flat"]:
            raise DemoError(f"{variant}: read {installed['indexes']!r} indexes")
        transcript.tell(f"{variant}: {len(expected)} packages")
    python = next(Path(installed["prefix"]).glob("bin/python3*"))
    output = subprocess.run([python, "-m", "fairway_hello"], capture_output=True, text=True, check=True).stdout
    transcript.tell(f"the installed program prints:\n{output.rstrip()}")


def _show_answers(viewer: Viewer, artifacts: list[dict[str, Any]], transcript: Transcript) -> None:
    """Show the status codes with and without a token, for an artifact and for a missing key."""
    anonymous = Viewer(url=viewer.url)
    existing = f"/{CHANNEL}/{artifacts[0]['subdir']}/{artifacts[0]['filename']}"
    missing = f"/{CHANNEL}/noarch/missing-1.0-0.conda"
    for credentials, client, path, status in (
        ("with the token", viewer, existing, 200),
        ("without a token", anonymous, existing, 401),
        ("without a token", anonymous, missing, 401),
        ("with the token", viewer, missing, 404),
    ):
        answer = client.ask(path)
        if answer.status != status:
            raise DemoError(f"GET {path} {credentials} is answered with {answer.status}, not {status}")
        transcript.tell(f"{answer.status} for GET {path} {credentials}")
