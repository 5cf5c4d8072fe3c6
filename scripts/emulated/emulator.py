"""Starts the AWS emulator on loopback, with IAM enforced, and stops it.

Owns the settings and the health check of the emulator. Does not deploy.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lambdas.channel.errors import UnavailableError, UsageError
from scripts.emulated.isolation import make_environment

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Emulator:
    """A running emulator."""

    endpoint: str
    log: Path
    environment: dict[str, str]  # for every process that connects to it
    process: subprocess.Popen[bytes]


def find_free_port() -> int:
    """Return a loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int) -> int:
    """Return the port if it is free.

    Raises:
        UsageError: a process listens on the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} is in use", hint="use another port, or omit the option to use a free one"
            ) from error
    return port


@contextmanager
def running_emulator(state: Path, *, port: int, keep: bool) -> Iterator[Emulator]:
    """Run the emulator until the block ends; it is healthy when the block begins.

    Args:
        state: a folder for its log, its temporary files and, with ``keep``, its state.
        port: the port to listen on.
        keep: load the state that an earlier run saved in the folder, and save it at the end.

    Raises:
        UnavailableError: the emulator exited or did not become healthy; the message has the end of its log.
    """
    temporary = state / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    log = state / "emulator.log"
    endpoint = f"http://{HOST}:{port}"
    environment = make_environment(os.environ, endpoint=endpoint, root=ROOT, temporary=temporary)
    settings = {
        "AUTH": "true",  # signatures are checked, IAM and bucket policies evaluated
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "WARNING",
    }
    if keep:
        settings |= {
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state / "services"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state / "s3"),
        }
    command = [str(ROOT / ".local" / "emulator" / "bin" / "ministack")]
    with log.open("ab") as output, guarded(command, environment | settings, cwd=state, output=output) as process:
        _wait_until_healthy(process, port=port, log=log)
        yield Emulator(endpoint=endpoint, log=log, environment=environment, process=process)


@contextmanager
def guarded(
    command: list[str],
    environment: dict[str, str],
    *,
    cwd: Path,
    output: int | IO[bytes],
    errors: int | IO[bytes] = subprocess.STDOUT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends, or until this process ends if that is earlier."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.emulated.guard", *command],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        start_new_session=True,  # Ctrl-C reaches only the foreground command
    )
    try:
        yield process
    finally:
        assert process.stdin is not None  # noqa: S101 - because stdin is PIPE
        process.stdin.close()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_tail(log: Path) -> str:
    """Return the last lines of a log, or a note that it is empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "(empty)"


def is_healthy(port: int) -> bool:
    """Tell whether the emulator is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/_ministack/ready")
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and isinstance(json.loads(answer.read()), dict)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _wait_until_healthy(process: subprocess.Popen[bytes], *, port: int, log: Path) -> None:
    """Wait until the emulator is healthy."""
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(port):
        if process.poll() is not None:
            raise UnavailableError(f"the emulator exited while starting; its log ends with:\n{read_tail(log)}")
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the emulator was not healthy within {START_SECONDS:.0f} s; its log ends with:\n{read_tail(log)}"
            )
        time.sleep(_POLL_SECONDS)
