"""Runs a command that can't outlive whoever started it.

``python -m scripts.emulated.guard COMMAND…`` runs the command in a process group of its own, away
from the terminal's Ctrl-C. When the command ends, or the guard's standard input is closed (which
the kernel does even for a starter that was killed), the whole group is stopped: first politely, so
that the emulator can save its state, then not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

POLITE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def run_guarded(command: list[str]) -> int:
    """Run the command until it ends or standard input is closed; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)  # only the pipe counts
    # From here on nobody but the child holds its output: a reader sees its end when it ends.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if readable and not os.read(0, 1024):
            break
    else:
        print(f"guard: {command[0]} ended by itself with {child.returncode}", file=sys.stderr, flush=True)
    _stop_group(child)
    return child.returncode


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + POLITE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))
