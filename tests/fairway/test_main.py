"""The command itself: help, errors and exit codes."""

import subprocess
import sys

import click
import pytest

from scripts.fairway.main import COMMANDS, fairway
from tests.fairway.conftest import Run


@pytest.mark.parametrize(
    "command",
    ["status", "rejected list", "rejected show", "rejected release", "verify", "reconcile", "rebuild", "yank", "unyank",
     "index", "publish"],
)  # fmt: skip
def test_help__has_examples(run_fairway: Run, command: str) -> None:
    result = run_fairway(*command.split(), "--help")
    assert result.code == 0
    assert "Examples:" in result.out
    assert f"fairway {command}" in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help__summary_is_the_first_sentence_of_the_command(name: str) -> None:
    """``COMMANDS`` repeats it, so that the list of commands needs no imports."""
    command = fairway.get_command(click.Context(fairway), name)
    assert command is not None
    first_line = (command.help or "").splitlines()[0]
    assert first_line.rstrip(".").startswith(COMMANDS[name][1].rstrip("."))


def test_help__imports_no_command() -> None:
    code = (
        "import sys; sys.argv = ['fairway', '--help']\n"
        "from scripts.fairway.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {name for name in sys.modules if name.startswith(('lambdas.indexer', 'lambdas.storage', 'boto'))}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_main__unknown_command(run_fairway: Run) -> None:
    result = run_fairway("destroy")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: no such command 'destroy'\nhint: see 'fairway --help'\n"


def test_main__missing_bucket(run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRWAY_BUCKET", raising=False)
    result = run_fairway("verify", "tools")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: no bucket given\nhint: ")
