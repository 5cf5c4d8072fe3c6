"""Extracts artifacts for tests: one filename a line, in JSON, on standard input.

For each, prints a line ``{tool: {path: content} or null}``, null where the tool rejects: py-rattler (``rattler``),
conda-package-streaming (``cps``) and conda-package-handling (``cph``). Exits without the interpreter's shutdown, where
py-rattler sometimes aborts.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import conda_package_handling.api
import conda_package_streaming.extract  # type: ignore[import-untyped] # it ships no types
from rattler.package_streaming import extract

TOOLS: dict[str, Callable[[str, str], object]] = {
    "rattler": lambda file, folder: extract(Path(file), Path(folder)),
    "cps": conda_package_streaming.extract.extract,
    "cph": conda_package_handling.api.extract,
}


def read_info(folder: Path) -> dict[str, str]:
    files = (path for path in (folder / "info").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes().decode("latin-1") for path in files}


def run(tool: Callable[[str, str], object], file: str) -> dict[str, str] | None:
    folder = Path(tempfile.mkdtemp(dir=Path(file).parent))
    try:
        tool(file, str(folder))
        return read_info(folder)
    except BaseException:  # noqa: BLE001 - a panic of Rust too: the tool installs nothing
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tools print does not get between the answers
    for line in sys.stdin:
        answers.write(json.dumps({name: run(tool, json.loads(line)) for name, tool in TOOLS.items()}) + "\n")
        answers.flush()
    os._exit(0)
