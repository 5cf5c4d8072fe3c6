"""The command behind scripts/local: demo, up, down, status, env."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click

from lambdas.channel.errors import FairwayError, UnavailableError, UsageError
from scripts.emulated.commands import create_token
from scripts.emulated.demo import run_demo
from scripts.emulated.deploy import DEPLOY_SECONDS
from scripts.emulated.emulator import ROOT
from scripts.emulated.instructions import format_environment, format_instructions
from scripts.emulated.isolation import require_loopback_environment
from scripts.emulated.registry import Registration, Registry
from scripts.emulated.stack import Stack, running_stack
from scripts.emulated.transcript import Transcript

_REGISTRY = Registry(folder=Path(os.environ.get("FAIRWAY_LOCAL_FOLDER", ROOT / ".local")))
_STOP_SECONDS = 60.0
_WATCH_SECONDS = 0.5
_INTERRUPTED = 130  # the exit code of a command that Ctrl-C interrupted

_EPILOG = """\b
Examples:
  ./scripts/local demo                  deploy, publish and install once, with a transcript
  ./scripts/local up                    keep the stack running; prints commands to copy
  ./scripts/local up --keep .local/mine keep the published packages between runs
  eval "$(./scripts/local env)"         use it from this shell
  ./scripts/local status --json         describe the running stack, for programs
  ./scripts/local down                  stop it from another terminal
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Run Fairway on this machine: the real deployment on an emulated AWS, without an account or Docker.

    All connections stay on loopback. No process started here sees credentials or profiles of real
    accounts.
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the transcript as one JSON document.")
def demo(*, as_json: bool) -> None:
    """Deploy, publish, install, and stop. The exit code is 0 only if every step worked.

    \b
    Example:
      ./scripts/local demo
    """  # noqa: D301 - click's mark for text that it does not wrap
    with _reported_errors():
        require_loopback_environment(os.environ)
        run_demo(Transcript(as_json=as_json, before_seconds=_setup_seconds()))


@main.command()
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the state in this folder.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the emulated AWS. [default: a free port]")
@click.option("--edge-port", type=click.IntRange(1, 65535), help="Port of the edge. [default: a free port]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=DEPLOY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Longest time that each of cdk bootstrap and cdk deploy may take.",
)
def up(*, keep: Path | None, port: int | None, edge_port: int | None, timeout: float) -> None:
    """Keep the stack running in the foreground, and print commands to copy.

    Ctrl-C or ./scripts/local down stops it.

    \b
    Examples:
      ./scripts/local up
      ./scripts/local up --keep .local/mine --port 4566 --edge-port 8080
    """  # noqa: D301 - click's mark for text that it does not wrap
    with _reported_errors(), _REGISTRY.held(), _state_folder(keep) as state:
        require_loopback_environment(os.environ)
        _REGISTRY.write(Registration(pid=os.getpid(), phase="starting", state=str(state)))
        try:
            with running_stack(
                state,
                keep=keep is not None,
                port=port,
                edge_port=edge_port,
                timeout_seconds=timeout,
                report_step=_print_step,
                report_event=_print_event,
            ) as stack:
                running = _describe(stack, token=_load_token(stack))
                _REGISTRY.write(running)
                click.echo("\n" + format_instructions(running))
                click.echo("Running. Ctrl-C stops it.")
                _watch(stack)
        except KeyboardInterrupt:
            click.echo("\nStopped.")


@main.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=_STOP_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait.",
)
def down(*, timeout: float) -> None:
    """Stop the stack that runs in another terminal.

    \b
    Example:
      ./scripts/local down
    """  # noqa: D301 - click's mark for text that it does not wrap
    with _reported_errors():
        stopped = _REGISTRY.stop(timeout_seconds=timeout)
        click.echo("stopped" if stopped else "nothing is running")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the description as JSON.")
def status(*, as_json: bool) -> None:
    """Show whether the stack is running. The exit code is 0 if it is ready, else 1.

    \b
    Examples:
      ./scripts/local status
      ./scripts/local status --json
    """  # noqa: D301 - click's mark for text that it does not wrap
    running = _REGISTRY.read()
    phase = running.phase if running else "stopped"
    if as_json:
        click.echo(json.dumps(asdict(running) if running else {"phase": phase}, indent=2))
    elif running and phase == "running":
        click.echo(format_instructions(running))
    else:
        click.echo(phase)
    sys.exit(0 if phase == "running" else 1)


@main.command()
def env() -> None:
    """Print the variables with which aws and fairway use the running stack, for eval.

    \b
    Example:
      eval "$(./scripts/local env)"
    """  # noqa: D301 - click's mark for text that it does not wrap
    with _reported_errors():
        running = _REGISTRY.read()
        if running is None or running.phase != "running":
            phase = running.phase if running else "stopped"
            raise UnavailableError(f"the stack is {phase}", hint="start it with ./scripts/local up")
        click.echo(format_environment(running))


@contextmanager
def _reported_errors() -> Iterator[None]:
    """Print errors and exit with their exit codes; stop in order on a signal."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(stop, signal.SIG_IGN)  # a second signal does not interrupt the cleanup
        raise KeyboardInterrupt

    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except FairwayError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


@contextmanager
def _state_folder(keep: Path | None) -> Iterator[Path]:
    """Yield the folder for the state: the given one, locked against a second stack, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="fairway-") as name:
            yield Path(name)
    else:
        folder = (Path(os.environ.get("FAIRWAY_LOCAL_FROM", "")) / keep).resolve()
        with Registry(folder=folder).held():
            yield folder


def _setup_seconds() -> float:
    """Return how long scripts/setup took, as scripts/local measured it."""
    return max(0.0, time.time() - float(os.environ.get("FAIRWAY_LOCAL_STARTED", time.time())))


def _print_step(step: str, fact: str, seconds: float) -> None:
    click.echo(f"{seconds:8.2f} s  {step}: {fact}")


def _print_event(event: str) -> None:
    click.echo(f"{'':8}    {event}")


def _load_token(stack: Stack) -> str:
    """Return a token for every channel: the one that an earlier run stored in the kept folder, or a new one."""
    path = stack.state / "token"
    if not path.exists():
        token = create_token("local", "*", environment=stack.environment)
        path.touch(mode=0o600)
        path.write_text(token, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _describe(stack: Stack, *, token: str) -> Registration:
    return Registration(
        pid=os.getpid(),
        phase="running",
        state=str(stack.state),
        endpoint=stack.endpoint,
        edge_url=stack.edge_url,
        bucket=stack.outputs.bucket,
        distribution_id=stack.outputs.distribution_id,
        token=token,
        tools=str(ROOT / ".venv" / "bin"),
    )


def _watch(stack: Stack) -> None:
    """Wait until interrupted, or until a process of the stack exits."""
    while True:
        dead = stack.find_dead()
        if dead:
            raise UnavailableError(f"{dead} has exited", hint=f"see its log in {str(stack.state)!r}")
        time.sleep(_WATCH_SECONDS)


if __name__ == "__main__":
    main(prog_name="./scripts/local")
