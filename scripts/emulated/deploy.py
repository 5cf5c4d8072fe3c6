"""Deploys the CDK app to the emulator with the real ``cdk``.

Owns the CDK command line and the outputs of the stack, not what is in the stack.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lambdas.channel.errors import UnavailableError
from scripts.emulated.emulator import ROOT, Emulator, read_tail
from scripts.emulated.isolation import ACCOUNT, REGION

_CDK = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
_ROLE = "PublisherRole"
_QUIET = ("--no-color", "--no-notices", "--progress", "events", "--ci")


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
    publisher_roles: dict[str, str]  # {publisher's name in lower case, without dashes: ARN}


def bootstrap(emulator: Emulator, state: Path) -> None:
    """Bootstrap the emulated account for the CDK.

    Raises:
        UnavailableError: cdk failed; the message has the end of its log.
    """
    _run_cdk(["bootstrap", f"aws://{ACCOUNT}/{REGION}"], emulator, state, cwd=state)


def deploy(emulator: Emulator, state: Path) -> Outputs:
    """Deploy every stack of the app; return their outputs.

    Raises:
        UnavailableError: cdk failed; the message has the end of its log.
    """
    outputs = state / "outputs.json"
    arguments = ["deploy", "--all", "--require-approval", "never", "--outputs-file", str(outputs)]
    arguments += ["--output", str(state / "cdk.out")]
    arguments += ["--context", "environment=local", "--context", f"endpoint_url={emulator.endpoint}"]
    _run_cdk(arguments, emulator, state, cwd=ROOT)
    return parse_outputs(outputs.read_text(encoding="utf-8"))


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
            publisher_roles={
                key.removeprefix(_ROLE).lower(): value for key, value in values.items() if key.startswith(_ROLE)
            },
        )
    except KeyError as error:
        raise UnavailableError(f"the stack has no output {error.args[0]!r}") from error


def _run_cdk(arguments: list[str], emulator: Emulator, state: Path, *, cwd: Path) -> None:
    """Run one command of the CDK; its output goes to a log."""
    log = state / f"cdk-{arguments[0]}.log"
    command = [str(ROOT / ".venv" / "bin" / "node"), str(_CDK), *arguments, *_QUIET]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=emulator.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status:
        raise UnavailableError(
            f"cdk {arguments[0]} failed; its log ends with:\n{read_tail(log)}",
            hint=f"the emulator's log ends with:\n{read_tail(emulator.log)}",
        )
