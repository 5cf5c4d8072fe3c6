"""The whole stack, for as long as a block lasts: emulator, deploy, development edge."""

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
from scripts.emulated.deploy import Outputs, bootstrap, deploy
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

Announce = Callable[[str, str, float], None]  # the step, what was done, and how many seconds it took


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
        """Where the emulated AWS answers."""
        return self.emulator.endpoint

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands that work on this stack: ``aws``, ``fairway``, …."""
        return self.emulator.environment | {"FAIRWAY_BUCKET": self.outputs.bucket, "FAIRWAY_URL": self.edge_url}

    def find_dead(self) -> str | None:
        """Return the name of a part that has ended by itself, if one has."""
        parts = {"the emulator": self.emulator.process, "the development edge": self.edge}
        return next((name for name, process in parts.items() if process.poll() is not None), None)

    def session(self) -> boto3.Session:
        """Return a session of the emulator's root user; clients need ``endpoint_url=stack.endpoint``."""
        return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)


@contextmanager
def running_stack(
    state: Path,
    *,
    keep: bool = False,
    port: int | None = None,
    edge_port: int | None = None,
    announce: Announce = lambda _step, _done, _seconds: None,
) -> Iterator[Stack]:
    """Run the stack until the block ends.

    Args:
        state: a folder for logs, temporary files and, with ``keep``, the state of all services.
        keep: load what an earlier run kept there, and keep it again.
        port: the emulator's; None picks one (the last run's, where state is kept and it is free).
        edge_port: the edge's, likewise.
        announce: told of each step as it is done.

    Raises:
        UnavailableError: a part didn't start; the message has the end of its log.
        UsageError: a port is taken.
    """
    ports = _Ports(state / "ports.json")
    started = time.monotonic()

    def done(step: str, what: str) -> None:
        nonlocal started
        announce(step, what, time.monotonic() - started)
        started = time.monotonic()

    with running_emulator(state, port=ports.pick("emulator", port), keep=keep) as emulator:
        done("Start the emulator", f"healthy at {emulator.endpoint}, IAM enforced")
        bootstrap(emulator, state)
        done("Deploy the app that goes to AWS", "cdk bootstrap")
        outputs = deploy(emulator, state)
        done(
            "Deploy the app that goes to AWS",
            f"cdk deploy: bucket {outputs.bucket}, distribution {outputs.distribution_id}",
        )
        with _running_edge(emulator, outputs, state, port=ports.pick("edge", edge_port)) as (edge, url):
            done("Start the development edge", f"it runs the deployed authorizer, at {url}")
            yield Stack(emulator=emulator, outputs=outputs, edge_url=url, state=state, edge=edge)


@dataclass(frozen=True, slots=True)
class _Ports:
    """The ports of the last run in a folder, so that URLs stay the same where state is kept."""

    path: Path

    def pick(self, role: str, wanted: int | None) -> int:
        """Return the wanted port, else the last run's if it is free, else any free one."""
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
    """Run the development edge until the block ends; gives its process and its URL."""
    log = state / "edge.log"
    command = [sys.executable, "-m", "scripts.emulated.edge"]
    command += ["--endpoint", emulator.endpoint, "--distribution", outputs.distribution_id, "--port", str(port)]
    with (
        log.open("ab") as errors,
        guarded(command, emulator.environment, cwd=ROOT, output=subprocess.PIPE, errors=errors) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = process.stdout.readline()
        if not line:
            raise UnavailableError(f"the development edge ended while starting; its log ends with:\n{read_tail(log)}")
        yield process, str(json.loads(line)["url"])
