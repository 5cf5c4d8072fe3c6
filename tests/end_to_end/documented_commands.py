"""Extracts the commands of the documentation: each logical command of ``console``, ``sh`` and ``bash`` blocks."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^( *)```(console|sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command, with its page."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def list_commands() -> list[Command]:
    """Return all commands of README and docs, in the order of the pages."""
    found = []
    for page in PAGES:
        for indent, language, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = [line.removeprefix(indent) for line in block.splitlines()]
            texts = _split(lines, is_console=language == "console")
            found += [Command(page=page.name, text=text) for text in texts]
    return found


def _split(lines: list[str], *, is_console: bool) -> list[str]:
    """Join lines until bash accepts them as complete; in a console, only those after a prompt are commands."""
    commands: list[str] = []
    pending: list[str] = []
    for line in lines:
        if not pending:
            if is_console and not line.startswith("$ "):
                continue  # output
            line = line.removeprefix("$ ")  # noqa: PLW2901
            if not line.strip() or line.startswith("#"):
                continue
        pending.append(line)
        if not line.endswith("\\") and _is_complete("\n".join(pending)):
            commands.append("\n".join(pending))
            pending = []
    assert not pending, f"unfinished: {pending}"
    return commands


def _is_complete(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0
