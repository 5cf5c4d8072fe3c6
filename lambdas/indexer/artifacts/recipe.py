"""Reads where a package's source came from: the ``source`` of the recipe that conda-build stores in info/.

Reads two scalars of machine-written YAML. This is not a YAML parser: complex notation is ignored,
because only two links on a page depend on these values. Pure.
"""

from __future__ import annotations

import json
import re

_TOP_LEVEL = re.compile(r"source:\s*(?:#.*)?\Z")
_ENTRY = re.compile(r"(\s+)(url|git_url):(?:\s+(.*))?\Z")
_ITEM = re.compile(r"\s+-\s+(.*)\Z")
_PLAIN = re.compile(r"[^\s\"'\[\]{}&*!|>%@`,#-][^\s\"]*\Z")


def parse_source(content: bytes) -> dict[str, str | list[str]]:
    """Return ``source_url`` and ``source_git_url`` of a rendered meta.yaml, if they are present.

    A source given as a list (several archives) has neither, as in conda-index.
    """
    lines = iter(content.decode("utf-8", "replace").splitlines())
    block: list[str] = []
    for line in lines:
        if _TOP_LEVEL.match(line):
            for inner in lines:
                if inner.strip() and not inner.startswith((" ", "\t")):
                    break
                block.append(inner.rstrip())
            break
    return _parse_block([line for line in block if line.strip() and not line.lstrip().startswith("#")])


def _parse_block(lines: list[str]) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    for at, line in enumerate(lines):
        match = _ENTRY.match(line)
        if not match or len(match[1]) != indent:
            continue
        value = _parse_scalar(match[3]) if match[3] else _parse_below(lines[at + 1 :], indent)
        if value:
            found[f"source_{match[2]}"] = value
    return found


def _parse_below(lines: list[str], indent: int) -> str | list[str] | None:
    """Parse a value that begins on the next line: a list, or a long scalar."""
    items: list[str] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        item = _ITEM.match(line)
        if not item:
            return items or (_parse_scalar(line.strip()) if depth > indent else None)
        scalar = _parse_scalar(item[1]) if depth >= indent else None
        if scalar is None:
            return None
        items.append(scalar)
    return items or None


def _parse_scalar(text: str) -> str | None:
    text = text.strip()
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            value = json.loads(text)
        except ValueError:
            return None
        return value if isinstance(value, str) else None
    plain = text.split(" #", 1)[0].rstrip()
    return plain if _PLAIN.match(plain) else None
