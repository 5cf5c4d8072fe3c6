"""The repository's pages: every test they name is there, every link leads somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _tests() -> set[str]:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    return {name for source in sources for name in re.findall(r"def (test_\w+)", source)}


def test_architecture__each_law_names_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    laws = re.findall(r"^(\d+)\. (.+)$", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in laws] == list(range(1, 14))
    for number, law in laws:
        named = re.findall(r"`(test_\w+)`", law)
        files = re.findall(r"`(tests/[\w/]+\.py)`", law)
        assert named or files, f"law {number} names no test"
        assert set(named) <= _tests(), f"law {number} names tests that are not there"
        assert all((ROOT / file).exists() for file in files), f"law {number} names files that are not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page__links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_repository__names_no_place_of_its_own_making() -> None:
    """No path of a machine, no address of a package registry: the locks carry hashes alone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    forbidden = re.compile(
        r"/wo" r"rk/|/ro" r"ot/|--index-" r"url|\"resolved\": \"ht" r"tp|registry\.npm" r"js|py" r"pi\.org"
    )
    for name in listed.splitlines():
        file = ROOT / name
        if file.is_file() and (text := _read(file)) is not None:
            assert not forbidden.search(text), f"{name}: {forbidden.search(text)}"


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
