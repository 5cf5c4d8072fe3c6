"""Deploys the CDK app to the emulator with the real ``cdk``.

Owns the CDK command line and the outputs of the stack, not what is in the stack.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lambdas.channel.errors import UnavailableError
from scripts.emulated.emulator import ROOT, Emulator, read_tail
from scripts.emulated.isolation import ACCOUNT, REGION

_CDK = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
_ROLE = "PublisherRole"
_EVENT_COLUMNS = 6
DEPLOY_SECONDS = 900.0  # the longest time of one cdk command
ReportEvent = Callable[[str], None]
_QUIET = ("--no-color", "--no-notices", "--progress", "events", "--ci")


def _ignore(_event: str) -> None:
    """Report no event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """Outputs of the deployed stack that the local stack needs."""

    channel_url: str
    bucket: str
    distribution_id: str
    queue_url: str
    dead_letter_queue_url: str
    event_bus: str
    indexer_function: str
    reconciler_function: str
    publisher_roles: dict[str, str]  # {publisher's name in lower case, without dashes: ARN}


def bootstrap(
    emulator: Emulator, state: Path, *, timeout_seconds: float = DEPLOY_SECONDS, report_event: ReportEvent = _ignore
) -> None:
    """Bootstrap the emulated account for the CDK.

    Raises:
        UnavailableError: cdk failed or took too long; the message has the end of its log.
    """
    arguments = ["bootstrap", f"aws://{ACCOUNT}/{REGION}"]
    _run_cdk(arguments, emulator, state, cwd=state, timeout_seconds=timeout_seconds, report_event=report_event)


def deploy(
    emulator: Emulator, state: Path, *, timeout_seconds: float = DEPLOY_SECONDS, report_event: ReportEvent = _ignore
) -> Outputs:
    """Deploy every stack of the app; return their outputs.

    Raises:
        UnavailableError: cdk failed or took too long; the message has the end of its log.
    """
    outputs = state / "outputs.json"
    arguments = ["deploy", "--all", "--require-approval", "never", "--outputs-file", str(outputs)]
    arguments += ["--output", str(state / "cdk.out")]
    arguments += ["--context", "environment=local", "--context", f"endpoint_url={emulator.endpoint}"]
    _run_cdk(arguments, emulator, state, cwd=ROOT, timeout_seconds=timeout_seconds, report_event=report_event)
    return parse_outputs(outputs.read_text(encoding="utf-8"))


def parse_event(line: str) -> str | None:
    """Return ``3/56 CREATE_COMPLETE Storage/Bucket`` for a line of cdk about CloudFormation, else None. Pure.

    The lines are ``STACK | 3/56 | TIME | STATUS | TYPE | RESOURCE (LOGICAL ID)``; only ends are reported.
    """
    columns = [column.strip() for column in line.split("|")]
    if len(columns) != _EVENT_COLUMNS or not columns[3].endswith(("_COMPLETE", "_FAILED")):
        return None
    return f"{columns[1]} {columns[3]} {columns[5].partition(' (')[0]}"


def parse_outputs(text: str) -> Outputs:
    """Parse the file that ``cdk deploy --outputs-file`` wrote: ``{stack: {key: value}}``.

    Raises:
        UnavailableError: an output is missing.
    """
    values = {key: value for outputs in json.loads(text).values() for key, value in outputs.items()}
    try:
        return Outputs(
            channel_url=values["ChannelUrl"],
            bucket=values["BucketName"],
            distribution_id=values["DistributionId"],
            queue_url=values["QueueUrl"],
            dead_letter_queue_url=values["DeadLetterQueueUrl"],
            event_bus=values["EventBusName"],
            indexer_function=values["IndexerFunctionName"],
            reconciler_function=values["ReconcilerFunctionName"],
            publisher_roles={
                key.removeprefix(_ROLE).lower(): value for key, value in values.items() if key.startswith(_ROLE)
            },
        )
    except KeyError as error:
        raise UnavailableError(f"the stack has no output {error.args[0]!r}") from error


def _run_cdk(
    arguments: list[str],
    emulator: Emulator,
    state: Path,
    *,
    cwd: Path,
    timeout_seconds: float,
    report_event: ReportEvent,
) -> None:
    """Run one command of the CDK; its output goes to a log, and its events are reported."""
    log = state / f"cdk-{arguments[0]}.log"
    command = [str(ROOT / ".venv" / "bin" / "node"), str(_CDK), *arguments, *_QUIET]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=emulator.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # so that what cdk starts is stopped with it
    )
    alarm = threading.Timer(timeout_seconds, _stop, [process])
    alarm.start()
    try:
        _follow(process, log, report_event)
        status = process.wait()
    except BaseException:
        _stop(process)
        process.wait()
        raise
    finally:
        is_late = not alarm.is_alive()
        alarm.cancel()
    if status:
        what = f"did not end within {timeout_seconds:.0f} s" if is_late else "failed"
        raise UnavailableError(
            f"cdk {arguments[0]} {what}; its log ends with:\n{read_tail(log)}",
            hint=f"the emulator's log ends with:\n{read_tail(emulator.log)}",
        )


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _follow(process: subprocess.Popen[str], log: Path, report_event: ReportEvent) -> None:
    """Copy the output to the log until the process ends, and report its events."""
    assert process.stdout is not None  # noqa: S101 - because stdout is PIPE
    with log.open("w", encoding="utf-8") as output, process.stdout as lines:
        for line in lines:
            output.write(line)
            output.flush()
            if event := parse_event(line):
                report_event(event)
