"""docs/rejections.md lists exactly the codes that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+\Z")
FIELDS = {f"{field}-{what}" for field in ("name", "version", "build") for what in ("invalid", "mismatch")}


def list_codes() -> set[str]:
    """The first argument of each RejectedError in the functions' code."""
    codes: set[str] = set()
    for path in REPOSITORY.glob("lambdas/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RejectedError":
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    codes.add(str(code.value))
                else:
                    assert ast.unparse(code) in {"f'{field}-invalid'", "f'{field}-mismatch'"} | {"code"}, path
    return codes | FIELDS


def list_documented() -> set[str]:
    text = (REPOSITORY / "docs" / "rejections.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row) if KEBAB.match(word)}


def test_codes__are_kebab_case() -> None:
    assert [code for code in list_codes() if not KEBAB.match(code)] == []


def test_codes__are_documented() -> None:
    assert list_documented() == list_codes()
