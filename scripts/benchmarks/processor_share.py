"""The authorizer's first request and its refreshes, with the share of a core that Lambda gives 128 MB.

Each runs in a new process, with S3 behind TLS in this one, and is compared with an empty function: a process
that answers one request with itself. Where a control group can be made, the process is limited and the wall
time counts; elsewhere its processor time does. Ratios depend little on the machine.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html (1,769 MB are one core)
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from botocore import httpsession

from lambdas.authorizer.settings import AuthorizerSettings
from scripts.emulated.emulator import HOST, ROOT
from tests.access_documents import make_request

SHARE: Final = 128 / 1769
PHASES: Final = ("first_request", "refresh_unchanged", "refresh_changed")
_PERIOD_US: Final = 100_000
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CERTIFICATE: Final = ROOT / "tests" / "authorizer" / "loopback.pem"
_SECONDS: Final = 120

_MEASURE: Final = """
import json, resource, sys, time
started = float(sys.argv[1])
spent = []
def note():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent.append((time.perf_counter() - started, usage.ru_utime + usage.ru_stime))
event = json.loads(sys.argv[2])
"""
_EMPTY: Final = _MEASURE + "handle = lambda event, context: event\nhandle(event, None)\nnote()\n"
_AUTHORIZER: Final = (
    _MEASURE
    + """
sys.path.insert(0, sys.argv[3])
from lambdas.authorizer.handler import build_handler, build_rules
from lambdas.authorizer.settings import parse_settings
now = 1790000000
handle = build_handler(build_rules(parse_settings(sys.argv[4].encode())), clock=lambda: now)
for _ in range(3):
    assert handle(event, None)["uri"], "not forwarded"
    note()
    now += 31
"""
)
_PRINT: Final = "print(json.dumps(spent))\n"


def measure_share(document: bytes, uri: str, *, repeats: int) -> dict[str, Any]:
    """Measure requests for a file that the document makes public.

    Returns:
        The limit that held, the ratios of each phase to the empty function, and the medians in seconds.
    """
    event = json.dumps({"Records": [{"cf": {"request": make_request(uri)}}]})
    with _serving(document) as (settings, environment), _limiting() as group:
        which = 1 if group is None else 0  # of wall time and processor time
        empty, runs = [], []
        for _ in range(repeats):  # in turns, so that a busy machine slows both
            empty.append(_run(_EMPTY, [event], environment, group)[0][which])
            spent = _run(_AUTHORIZER, [event, str(ROOT), settings], environment, group)
            ends = [each[which] for each in spent]
            runs.append([ends[0], *(after - before for before, after in itertools.pairwise(ends))])
    base = statistics.median(empty)
    medians = {name: statistics.median(column) for name, column in zip(PHASES, zip(*runs, strict=True), strict=True)}
    return {
        "share_limit": "processor time" if group is None else f"control group, {SHARE:.1%} of a core",
        "share_document_bytes": len(document),
        "share_empty_function_s": round(base, 3),
        **{f"share_{name}_s": round(seconds, 4) for name, seconds in medians.items()},
        **{f"share_{name}_ratio": round(seconds / base, 3) for name, seconds in medians.items()},
    }


def _run(code: str, arguments: list[str], environment: dict[str, str], group: Path | None) -> list[list[float]]:
    command = [sys.executable, "-I", "-c", code + _PRINT, str(time.perf_counter()), *arguments]
    if group is not None:
        command = ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *command]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS, check=True)
    spent: list[list[float]] = json.loads(done.stdout)
    return spent


@contextlib.contextmanager
def _limiting() -> Iterator[Path | None]:
    """Make a control group with the share; None where that is impossible."""
    is_unified = (_CGROUPS / "cgroup.controllers").exists()
    group = (_CGROUPS if is_unified else _CGROUPS / "cpu") / f"fairway-bench-{os.getpid()}"
    quota = round(SHARE * _PERIOD_US)
    limits = (
        {"cpu.max": f"{quota} {_PERIOD_US}"}
        if is_unified
        else {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
    )
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        try:
            for name, value in limits.items():
                (group / name).write_text(value)
        except OSError:
            yield None
        else:
            yield group
    finally:
        group.rmdir()


@contextlib.contextmanager
def _serving(document: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve the document over TLS; yield the authorizer's settings, and the environment in which it trusts that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE)
    with tempfile.TemporaryDirectory() as folder, socket.create_server((HOST, 0)) as listener:
        bundle = Path(folder) / "bundle.pem"  # as large as a real one: loading it is what takes long
        shutil.copy(Path(httpsession.__file__).with_name("cacert.pem"), bundle)
        with bundle.open("ab") as file:
            file.write(_CERTIFICATE.read_bytes())
        threading.Thread(target=_accept, args=(listener, context, document), daemon=True).start()
        host = f"{HOST}:{listener.getsockname()[1]}"
        settings = AuthorizerSettings(bucket="bucket", region="us-east-1", origin_domain=host)
        yield (
            json.dumps(dataclasses.asdict(settings)),
            {"SSL_CERT_FILE": str(bundle), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
        )


def _accept(listener: socket.socket, context: ssl.SSLContext, document: bytes) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_answer, args=(plain, context, document), daemon=True).start()


def _answer(plain: socket.socket, context: ssl.SSLContext, document: bytes) -> None:
    """Answer with the document, then that it has not changed, then with the document again."""
    whole = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n%s' % (len(document), document)
    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
        for answer in (whole, b"HTTP/1.1 304 Not Modified\r\n\r\n", whole):
            if not connection.recv(65536):
                return
            connection.sendall(answer)
        connection.recv(1)
