"""Parses match specs with py-rattler in its lenient mode: a JSON list of them on standard input.

Prints ``[[name, build] or null]``, null where rattler rejects. Exits without the interpreter's shutdown, where
py-rattler sometimes aborts.
"""

import json
import os
import sys

from rattler import MatchSpec


def parse(text: str) -> list[str | None] | None:
    try:
        spec = MatchSpec(text, strict=False)
    except Exception:  # noqa: BLE001 - any exception means that the record is unreadable
        return None
    return [str(spec.name.normalized), spec.build]


if __name__ == "__main__":
    json.dump([parse(text) for text in json.load(sys.stdin)], sys.stdout)
    sys.stdout.flush()
    os._exit(0)
