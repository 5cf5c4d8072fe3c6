"""The registry of the running stack, with which another terminal can find and stop it.

A file describes the stack; a lock beside it is held by the process of the stack. The kernel releases
the lock when the process ends, so that a crash cannot leave a stack that appears to be running.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lambdas.channel.errors import UnavailableError, UsageError

_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """The description of a running stack."""

    pid: int
    phase: str  # "starting" or "running"
    state: str  # folder with the logs
    endpoint: str | None = None
    edge_url: str | None = None
    bucket: str | None = None
    distribution_id: str | None = None
    token: str | None = None  # reads every channel of this stack
    tools: str | None = None  # folder with aws and fairway


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """The file and the lock, in one folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file with the description."""
        return self.folder / "running.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of this folder until the block ends.

        Raises:
            UsageError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "running.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"a stack is already running, see {str(self.path)!r}", hint="stop it with ./scripts/local down"
                ) from error
            try:
                yield
            finally:
                self.path.unlink(missing_ok=True)

    def write(self, registration: Registration) -> None:
        """Write the description; the caller holds the lock."""
        fresh = self.path.with_suffix(".new")
        fresh.touch(mode=0o600)  # it contains a token
        fresh.write_text(json.dumps(asdict(registration), indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def read(self) -> Registration | None:
        """Return the description of the running stack, or None."""
        if not self._is_held():
            return None
        try:
            return Registration(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None  # the stack is starting or stopping

    def stop(self, *, timeout_seconds: float) -> bool:
        """Stop the running stack and wait until it has stopped; tell whether there was one.

        Raises:
            UnavailableError: it did not stop in time.
        """
        running = self.read()
        if running is None:
            return False
        os.kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while self._is_held():
            if time.monotonic() > deadline:
                raise UnavailableError(f"process {running.pid} has not stopped within {timeout_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        return True

    def _is_held(self) -> bool:
        """Tell whether a process holds the lock."""
        try:
            with (self.folder / "running.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False
