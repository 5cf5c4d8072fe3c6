"""The command itself: help, errors and exit codes."""

import json
import subprocess
import sys

import click
import pytest

from lambdas.channel.errors import AccessDeniedError, InvalidNameError, PermanentError, UnavailableError, UsageError
from scripts.fairway.main import COMMANDS, describe_error, fairway
from scripts.fairway.session import Session
from tests.fairway.conftest import Run

GROUPS = {"token", "channel", "issuer", "rejected", "dead-letters"}


def list_commands() -> list[str]:
    """Every command and subcommand."""
    found = []
    for name in COMMANDS:
        command = fairway.get_command(click.Context(fairway), name)
        found.append(name)
        if isinstance(command, click.Group):
            found += [f"{name} {inner}" for inner in command.commands]
    return found


@pytest.mark.parametrize("command", list_commands())
def test_help__has_examples(run_fairway: Run, command: str) -> None:
    result = run_fairway(*command.split(), "--help")
    assert result.code == 0
    assert "Example" in result.out
    assert f"fairway {command}" in result.out


@pytest.mark.parametrize("command", sorted(set(list_commands()) - GROUPS))
def test_help__every_command_has_json_and_debug(run_fairway: Run, command: str) -> None:
    shown = run_fairway(*command.split(), "--help").out
    assert "--json" in shown
    assert "--debug" in shown


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


@pytest.mark.parametrize(("typed", "meant"), [("publsh", "publish"), ("verfy", "verify"), ("tokens", "token")])
def test_main__did_you_mean(run_fairway: Run, typed: str, meant: str) -> None:
    result = run_fairway(typed)
    assert result.code == 2
    assert f"did you mean '{meant}'?" in result.err.lower()


def test_main__error_as_json(run_fairway: Run) -> None:
    result = run_fairway("verify", "tools", "--json")
    assert (result.code, result.out) == (2, "")
    error = json.loads(result.err)["error"]
    assert (error["code"], error["message"]) == ("usage", "no bucket given")
    assert error["hint"]
    assert json.loads(run_fairway("verify", "--json", "--nonsense").err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (UsageError("x"), "usage", 2),
        (InvalidNameError("x"), "usage", 2),
        (AccessDeniedError("x"), "denied", 1),
        (UnavailableError("x"), "unavailable", 1),
        (PermanentError("x"), "failed", 1),
        (ZeroDivisionError("x"), "bug", 1),
    ],
)
def test_describe_error__code_and_exit_code(error: Exception, code: str, exit_code: int) -> None:
    failure = describe_error(error)
    assert (failure.code, failure.exit_code) == (code, exit_code)


def test_main__traceback_only_with_debug(run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "storage", property(lambda _: 1 / 0))
    arguments = ["channel", "list", "--bucket", "bucket"]
    plain = run_fairway(*arguments)
    assert plain.code == 1
    assert plain.err.startswith("error: unexpected ZeroDivisionError: division by zero\nhint: ")
    assert len(plain.err.splitlines()) == 2
    for debugged in (run_fairway(*arguments, "--debug"), run_fairway("--debug", *arguments)):
        assert debugged.err.startswith("Traceback ")
        assert debugged.err.endswith(plain.err)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "no space left on device"),
        (PermissionError(13, "Permission denied", "a.conda"), "permission denied: 'a.conda'"),
    ],
)
def test_describe_error__file_or_disk_is_no_bug(error: OSError, message: str) -> None:
    failure = describe_error(error)
    assert (failure.code, failure.message, failure.exit_code) == ("failed", message, 1)
    assert failure.hint


def test_main__option_before_the_command(run_fairway: Run) -> None:
    result = run_fairway("--deployment", "conda", "list", "team")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: no such option '--deployment'\nhint: see 'fairway --help'; the options of a command come after it\n"
    )
