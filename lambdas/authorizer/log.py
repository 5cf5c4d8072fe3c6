"""Logs failures of the functions at the edge: one JSON object per line, and nothing about requests."""

from __future__ import annotations

import json
import sys


def report(code: str, message: str) -> None:
    """Write one line; metric filters count lines with a ``code``."""
    sys.stdout.write(json.dumps({"level": "ERROR", "code": code, "message": message}) + "\n")
