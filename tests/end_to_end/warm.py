"""Runs ``fairway`` and ``aws`` in forks of one process that has imported both.

Their imports take most of the time of a short command. A shell finds the two programs of ``WarmTools.folder``
first in its PATH; each sends its arguments, its folder, its environment and its three standard streams to the
process, which forks. The fork is the command: what it reads, writes and returns is its own.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CLIENT = """#!{python} -IS
import os, pickle, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = pickle.dumps((sys.argv, os.getcwd(), dict(os.environ)))
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.recv(8)))
"""


@contextmanager
def warm_tools(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Start the process; yield the folder of the two programs; stop the process."""
    address = folder / "socket"
    for name in ("fairway", "aws"):
        program = folder / name
        program.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
        program.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, str(address)], cwd=ROOT, env=environment)
    try:
        while not address.exists():
            assert process.poll() is None, "the process has ended"
            time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        process.wait()


def _serve(address: str) -> None:
    run = {"fairway": _load_fairway(), "aws": _load_aws()}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        os.rename(f"{address}.new", address)  # noqa: PTH104 - now it accepts connections
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the forks
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    _handle(connection, run)


def _handle(connection: socket.socket, run: dict[str, Callable[[], object]]) -> None:
    """Be the command, in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        sys.argv, folder, environment = pickle.loads(file.read(int.from_bytes(header, "big")))  # noqa: S301 - our own
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        run[Path(sys.argv[0]).name]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the interpreter does the same
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(code)


def _load_fairway() -> Callable[[], object]:
    import importlib

    from scripts.fairway.main import COMMANDS, main

    for module, _ in COMMANDS.values():
        importlib.import_module(module.partition(":")[0])
    importlib.import_module("boto3")
    importlib.import_module("scripts.fairway.aws_errors")
    return main


def _load_aws() -> Callable[[], object]:
    import awscli.handlers  # type: ignore[import-untyped]  # noqa: F401 - the slow part
    from awscli.clidriver import main  # type: ignore[import-untyped]

    models = os.environ["AWS_DATA_PATH"]  # set by the import

    def run() -> None:
        os.environ["AWS_DATA_PATH"] = models
        sys.exit(main())

    return run


if __name__ == "__main__":
    _serve(sys.argv[1])
