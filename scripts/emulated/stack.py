"""The local stack as a context manager: emulator, deployment, development edge."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from lambdas.channel.errors import UnavailableError, UsageError
from scripts.emulated.deploy import DEPLOY_SECONDS, Outputs, bootstrap, deploy
from scripts.emulated.emulator import (
    ROOT,
    Emulator,
    find_free_port,
    guarded,
    read_tail,
    require_free_port,
    running_emulator,
)
from scripts.emulated.isolation import ACCESS_KEY, REGION, SECRET_KEY

ReportStep = Callable[[str, str, float], None]  # (step, fact, seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A running stack."""

    emulator: Emulator
    outputs: Outputs
    edge_url: str
    state: Path
    edge: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        """The URL of the emulated AWS."""
        return self.emulator.endpoint

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands that use this stack, such as ``aws`` and ``fairway``."""
        return self.emulator.environment | {"FAIRWAY_BUCKET": self.outputs.bucket, "FAIRWAY_URL": self.edge_url}

    def find_dead(self) -> str | None:
        """Return the name of a process that has exited, or None."""
        parts = {"the emulator": self.emulator.process, "the development edge": self.edge}
        return next((name for name, process in parts.items() if process.poll() is not None), None)

    def session(self) -> boto3.Session:
        """Return a boto3 session as root of the emulator; clients need ``endpoint_url=stack.endpoint``."""
        return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)


@contextmanager
def running_stack(
    state: Path,
    *,
    keep: bool = False,
    port: int | None = None,
    edge_port: int | None = None,
    timeout_seconds: float = DEPLOY_SECONDS,
    report_step: ReportStep = lambda _step, _fact, _seconds: None,
    report_event: Callable[[str], None] = lambda _: None,
) -> Iterator[Stack]:
    """Run the stack until the block ends.

    Args:
        state: a folder for logs, temporary files and, with ``keep``, the state of all services.
        keep: load the state of an earlier run, and save it at the end.
        port: port of the emulator; None picks the last run's if it is known and free, else any free port.
        edge_port: port of the edge; None picks one in the same way.
        timeout_seconds: the longest time of each cdk command.
        report_step: called after each step.
        report_event: called with each event of CloudFormation.

    Raises:
        UnavailableError: a process did not start; the message has the end of its log.
        UsageError: a port is in use.
    """
    ports = _Ports(state / "ports.json")
    started = time.monotonic()

    def report(step: str, fact: str) -> None:
        nonlocal started
        report_step(step, fact, time.monotonic() - started)
        started = time.monotonic()

    with running_emulator(state, port=ports.pick("emulator", port), keep=keep) as emulator:
        report("Start the emulator", f"healthy at {emulator.endpoint}, with IAM enforced")
        bootstrap(emulator, state, timeout_seconds=timeout_seconds, report_event=report_event)
        report("Deploy the CDK app", "cdk bootstrap")
        outputs = deploy(emulator, state, timeout_seconds=timeout_seconds, report_event=report_event)
        report(
            "Deploy the CDK app",
            f"cdk deploy: bucket {outputs.bucket}, distribution {outputs.distribution_id}",
        )
        with _running_edge(emulator, outputs, state, port=ports.pick("edge", edge_port)) as (edge, url):
            report("Start the development edge", f"listening at {url}, with the deployed authorizer")
            yield Stack(emulator=emulator, outputs=outputs, edge_url=url, state=state, edge=edge)


@dataclass(frozen=True, slots=True)
class _Ports:
    """The ports of the last run in a folder: URLs stay the same while the state is kept."""

    path: Path

    def pick(self, role: str, wanted: int | None) -> int:
        """Return the wanted port, or else the last run's if it is free, or else any free port."""
        known = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        port = require_free_port(wanted) if wanted else _reuse(known.get(role)) or find_free_port()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(known | {role: port}), encoding="utf-8")
        return port


def _reuse(port: int | None) -> int | None:
    try:
        return require_free_port(port) if port else None
    except UsageError:
        return None


@contextmanager
def _running_edge(
    emulator: Emulator, outputs: Outputs, state: Path, *, port: int
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the development edge until the block ends; yield its process and its URL."""
    log = state / "edge.log"
    command = [sys.executable, "-m", "scripts.emulated.edge"]
    command += ["--endpoint", emulator.endpoint, "--distribution", outputs.distribution_id, "--port", str(port)]
    with (
        log.open("ab") as errors,
        guarded(command, emulator.environment, cwd=ROOT, output=subprocess.PIPE, errors=errors) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - because output is PIPE
        line = process.stdout.readline()
        if not line:
            raise UnavailableError(f"the development edge exited while starting; its log ends with:\n{read_tail(log)}")
        yield process, str(json.loads(line)["url"])
