"""Runs a command that cannot outlive its parent process.

``python -m scripts.emulated.guard COMMAND…`` runs the command in its own process group, which the
terminal's Ctrl-C does not reach. When the command exits, or when the guard's standard input is closed
(which happens even if the parent is killed), the guard stops the whole group: with SIGTERM, so that
the emulator can save its state, and after ten seconds with SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

TERM_SECONDS = 10.0
_POLL_SECONDS = 0.1


def run_guarded(command: list[str]) -> int:
    """Run the command until it ends or standard input is closed; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)  # only the closed pipe stops the guard
    # The child is now the only process with its output open: a reader sees end of file when it exits.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if readable and not os.read(0, 1024):
            break
    else:
        print(f"guard: {command[0]} exited with {child.returncode}", file=sys.stderr, flush=True)
    _stop_group(child)
    return child.returncode


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """Stop the child and every process of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + TERM_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))
