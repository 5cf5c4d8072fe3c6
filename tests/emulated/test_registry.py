import os
import subprocess
import sys
from pathlib import Path

import pytest

from lambdas.channel.errors import UsageError
from scripts.emulated.registry import Registration, Registry

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from scripts.emulated.registry import Registration, Registry
registry = Registry(folder=Path(sys.argv[1]))
with registry.held():
    registry.write(Registration(pid=os.getpid(), phase="running", state="/state"))
    print("held", flush=True)
    time.sleep(600)
"""


def start_holder(folder: Path) -> "subprocess.Popen[bytes]":
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_read__never_started(tmp_path: Path) -> None:
    registry = Registry(folder=tmp_path / "none")
    assert registry.read() is None
    assert not registry.stop(timeout_seconds=1)


def test_held__found_by_another_process_and_stopped(tmp_path: Path) -> None:
    registry = Registry(folder=tmp_path)
    with start_holder(tmp_path) as holder:
        running = registry.read()
        assert running == Registration(pid=holder.pid, phase="running", state="/state")
        with pytest.raises(UsageError, match="already running"), registry.held():
            raise AssertionError
        assert registry.stop(timeout_seconds=30)
        assert holder.wait() != 0
    assert registry.read() is None


def test_read__holder_killed(tmp_path: Path) -> None:
    registry = Registry(folder=tmp_path)
    with start_holder(tmp_path) as holder:
        holder.kill()
        holder.wait()
    assert registry.path.exists()  # the crash left it
    assert registry.read() is None
    assert not registry.stop(timeout_seconds=1)  # another process may have that id now
    with registry.held():
        pass


def test_write__readable_only_by_its_owner(tmp_path: Path) -> None:
    registry = Registry(folder=tmp_path)
    with registry.held():
        registry.write(Registration(pid=os.getpid(), phase="running", state="/state", token="t"))
        assert registry.path.stat().st_mode & 0o077 == 0
    assert not registry.path.exists()
