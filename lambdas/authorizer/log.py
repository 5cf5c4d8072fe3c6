"""Writes the log of the functions at the edge: failures alone, one JSON object per line."""

from __future__ import annotations

import json
import sys


def report(code: str, message: str) -> None:
    """Write one line of log; the ``code`` is what metric filters look for."""
    sys.stdout.write(json.dumps({"level": "ERROR", "code": code, "message": message}) + "\n")
