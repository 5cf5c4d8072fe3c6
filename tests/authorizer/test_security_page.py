"""docs/security.md names a test for each attack, and leaves out no attack that has one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_tests() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def find_named() -> set[str]:
    return set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))


def test_security_page__every_test_it_names_is_there() -> None:
    assert len(find_named()) > 50
    assert find_named() - find_tests() == set()


def test_security_page__names_every_attack_on_access() -> None:
    attacks = {name for name in find_tests() if "__attack_" in name and not name.startswith("test_format_")}
    assert attacks - find_named() == set()
