"""Extracts artifacts with py-rattler: ``extract_with_rattler.py DIRECTORY`` and filenames as JSON on standard input.

Prints ``{filename: {path: content} or null}``, null where rattler rejects. Leaves without the interpreter's exit,
where py-rattler sometimes aborts.
"""

import json
import os
import sys
from pathlib import Path

from rattler.package_streaming import extract


def read(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes().decode("latin-1") for path in files}


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    found: dict[str, dict[str, str] | None] = {}
    for filename in json.load(sys.stdin):
        target = directory / f"{filename}.extracted"
        try:
            extract(directory / filename, target)
            found[filename] = read(target)
        except Exception:  # noqa: BLE001 - whatever it is, nothing gets installed
            found[filename] = None
    json.dump(found, sys.stdout)
    sys.stdout.flush()
    os._exit(0)
