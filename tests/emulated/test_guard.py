import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUARD = [sys.executable, "-m", "scripts.emulated.guard"]


def start(program: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*GUARD, sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie still has its process id.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for_end(pid: int) -> None:
    while is_alive(pid):
        time.sleep(0.01)


def test_run_guarded__returns_the_exit_status() -> None:
    with start("import sys; sys.exit(7)") as guard:
        assert guard.wait() == 7


def test_run_guarded__closed_input_stops_the_whole_group() -> None:
    program = """
        import os, subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(os.getpid(), grandchild.pid, flush=True)
        time.sleep(600)
    """
    with start(program) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        child, grandchild = map(int, guard.stdout.readline().split())
        assert is_alive(child)
        assert is_alive(grandchild)
        guard.stdin.close()
        guard.wait()
        wait_for_end(child)
        wait_for_end(grandchild)


def test_run_guarded__sends_sigterm_first() -> None:
    program = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(600)
    """
    with start(program) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        assert guard.stdout.readline() == b"ready\n"
        guard.stdin.close()
        assert guard.stdout.readline() == b"saved\n"
        assert guard.wait() == 0


def test_run_guarded__parent_killed() -> None:
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import subprocess, time
                child = ["{sys.executable}", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
                subprocess.Popen({GUARD!r} + child, stdin=subprocess.PIPE)
                time.sleep(600)
            """),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        assert is_alive(child)
        starter.kill()
        wait_for_end(child)
