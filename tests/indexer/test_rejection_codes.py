"""docs/rejections.md lists exactly the codes that exist."""

import re
from pathlib import Path

from lambdas.channel.rejection_codes import RejectionCode

REPOSITORY = Path(__file__).parents[2]
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+\Z")
OF_FIELDS = {f"{field}-{what}" for field in ("name", "version", "build") for what in ("invalid", "mismatch")}
"""Made from the name of a field."""


def list_documented() -> set[str]:
    text = (REPOSITORY / "docs" / "rejections.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row) if KEBAB.match(word)}


def list_used() -> set[str]:
    sources = (path.read_text() for path in REPOSITORY.glob("lambdas/**/*.py"))
    names = {name for source in sources for name in re.findall(r"\bRejectionCode\.([A-Z0-9_]+)\b", source)}
    return {RejectionCode[name].value for name in names}


def test_codes__are_kebab_case() -> None:
    assert [code for code in RejectionCode if not KEBAB.match(code)] == []


def test_codes__are_documented() -> None:
    assert list_documented() == set(RejectionCode)


def test_codes__are_used() -> None:
    assert list_used() | OF_FIELDS == set(RejectionCode)
