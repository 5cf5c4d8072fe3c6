"""docs/security.md names a test for each attack, and every test of an attack."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def list_tests() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def list_named() -> set[str]:
    return set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))


def test_security_page__names_existing_tests() -> None:
    assert len(list_named()) > 50
    assert list_named() - list_tests() == set()


def test_security_page__names_every_attack_on_access() -> None:
    attacks = {name for name in list_tests() if "__attack_" in name and not name.startswith("test_format_")}
    assert attacks - list_named() == set()
