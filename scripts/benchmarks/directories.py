"""``fairway index`` of a directory beside rattler's ``index_fs``, and beside conda-index where that is installed.

Each run is a new process on a copy of the same artifacts; the tools take turns. Times include the start of the
process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.emulated.emulator import ROOT
from tests.builders import conda_package

NEW: Final = 2_000
BESIDE: Final = 10_000
_NAMES: Final = 25
"""Artifacts of one name."""
_FIRST: Final = "new"
_ONE_MORE: Final = "one_more"


def measure_directories(folder: Path, *, repeats: int) -> dict[str, Any]:
    """Index new artifacts, and one more beside many, with each tool; return all times.

    ``{"artifacts", "beside", "runs": {tool: {"new" | "one_more": [{"wall_s", "cpu_s"}]}}}``
    """
    tools = list_tools()
    runs: dict[str, dict[str, list[dict[str, float]]]] = {tool: {_FIRST: [], _ONE_MORE: []} for tool in tools}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        packages = [_build(number) for number in range(BESIDE + repeats)]
        for _ in range(repeats):
            for tool, command in tools.items():
                channel = work / "channel"
                _write(channel, packages[:NEW])
                runs[tool][_FIRST].append(_run([*command, str(channel)]))
                _check(channel, packages[NEW - 1][0])
                shutil.rmtree(channel)
        for tool, command in tools.items():
            _write(work / tool, packages[:BESIDE])
            _run([*command, str(work / tool)])
        for filename, body in packages[BESIDE:]:
            for tool, command in tools.items():
                _write(work / tool, [(filename, body)])
                runs[tool][_ONE_MORE].append(_run([*command, str(work / tool)]))
                _check(work / tool, filename)
    return {"artifacts": NEW, "beside": BESIDE, "runs": runs}


def list_tools() -> Mapping[str, Sequence[str]]:
    """Return ``{tool: command}``; a directory's path is the command's last argument."""
    tools = {
        "fairway": [sys.executable, "-m", "scripts.fairway", "index"],
        "index_fs": [sys.executable, "-m", "scripts.benchmarks.rattler_directory"],
    }
    conda_index = shutil.which("conda-index")
    return tools if conda_index is None else {**tools, "conda-index": [conda_index]}


def _build(number: int) -> tuple[str, bytes]:
    return conda_package(name=f"pkg-{number // _NAMES}", version=f"1.{number % _NAMES}", depends=["python >=3.10"])


def _write(channel: Path, packages: Sequence[tuple[str, bytes]]) -> None:
    (channel / "noarch").mkdir(parents=True, exist_ok=True)
    for filename, body in packages:
        (channel / "noarch" / filename).write_bytes(body)


def _run(command: Sequence[str]) -> dict[str, float]:
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    wall_s, after = time.perf_counter() - started, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": wall_s, "cpu_s": cpu_s}


def _check(channel: Path, filename: str) -> None:
    if f'"{filename}"'.encode() not in (channel / "noarch" / "repodata.json").read_bytes():
        raise AssertionError(f"{filename!r} is not in repodata.json")
