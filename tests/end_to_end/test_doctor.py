"""``fairway doctor`` against the deployed stack: a run that is interrupted, and a whole one."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lambdas.access.document import Action
from lambdas.key_refresher.store import fetch_access
from lambdas.storage.s3 import S3Storage
from scripts.emulated.emulator import ROOT
from scripts.fairway.doctor.cleaning import PREFIXES, TOKEN_NAME
from tests.end_to_end.conftest import Channel, wait_until

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

COMMAND = (str(ROOT / ".venv" / "bin" / "fairway"), "doctor")
RUN_SECONDS = 600


def list_leftovers(channel: Channel) -> list[tuple[str, str]]:
    pages = channel.s3.get_paginator("list_object_versions")
    return [
        (entry["Key"], entry["VersionId"])
        for prefix in PREFIXES
        for page in pages.paginate(Bucket=channel.bucket, Prefix=prefix)
        for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
    ]


def list_tokens(channel: Channel) -> list[str]:
    return [token.name for token in fetch_access(S3Storage(channel.bucket, channel.s3)).tokens]


def interrupt_while_splicing(channel: Channel, log: Path) -> None:
    """Start a run, and interrupt it once some of the large artifacts are there."""
    with log.open("wb") as output:
        run = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=os.environ | channel.stack.environment,
            stdout=output,
            stderr=output,
            # Jobs in the background of a shell ignore the signal, and so do their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread here
        )
    with run:
        try:
            wait_until(
                lambda: run.poll() is not None or channel.versions("fairway-doctor/linux-64/canary-0"),
                "the run has reached the splice",
                seconds=RUN_SECONDS,
            )
        finally:
            run.send_signal(signal.SIGINT)
        assert run.wait() == 130, log.read_text()


def test_doctor__after_an_interrupted_run(channel: Channel, tmp_path: Path) -> None:
    interrupt_while_splicing(channel, tmp_path / "interrupted.log")
    assert list_leftovers(channel)
    assert TOKEN_NAME in list_tokens(channel)

    done = subprocess.run(
        [*COMMAND, "--json"],
        cwd=ROOT,
        env=os.environ | channel.stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    steps = {step["name"]: step for step in document["steps"]}
    assert done.returncode == 0, done.stdout
    assert document["healthy"]
    assert "and the token" in steps["earlier-run"]["detail"]
    assert {name for name, step in steps.items() if step["state"] != "passed"} == {"quotas", "upload-policy"}
    assert all("not enforced by this emulator" in steps[name]["detail"] for name in ("quotas", "upload-policy"))

    assert list_leftovers(channel) == []
    assert TOKEN_NAME not in list_tokens(channel)
    actions = [
        change.action
        for change in fetch_access(S3Storage(channel.bucket, channel.s3)).history
        if change.subject in {TOKEN_NAME, "fairway-doctor"}
    ]
    assert actions.count(Action.TOKEN_CREATED) == actions.count(Action.TOKEN_REVOKED) == 2
