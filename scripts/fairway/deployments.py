"""Deployments: which one a command manages, and the file that remembers them.

``fairway use NAME`` reads the outputs of the stack and writes them to ``config.json`` in the user's
configuration folder:

    {"current": "conda",
     "deployments": {"conda": {"region": "eu-central-1", "stack": "fairway-conda",
                               "bucket": "fairway-conda-123456789012-eu-central-1", "url": "https://…"}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from lambdas.channel.errors import AccessDeniedError, InvalidDocumentError, UsageError
from scripts.fairway.aws_errors import is_denial

STACK_PREFIX: Final = "fairway-"  # of the stacks that infra/ declares
Outputs = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """Where one deployment is."""

    name: str
    region: str
    stack: str
    bucket: str
    url: str
    """Base URL of the channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The deployments that ``fairway use`` has remembered, by their names."""

    current: str | None = None
    deployments: Mapping[str, Deployment] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The bucket and the URL that a command uses, and the deployment if it is known."""

    bucket: str | None = None
    url: str | None = None
    deployment: Deployment | None = None


def config_path() -> Path:
    """Return the path of the file: in ``$XDG_CONFIG_HOME``, or in ``~/.config``."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "fairway" / "config.json"


def read_config() -> Config:
    """Read the file; an empty configuration if it is missing.

    Raises:
        InvalidDocumentError: it is unreadable or malformed.
    """
    path = config_path()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        deployments = {name: Deployment(name=name, **entry) for name, entry in raw["deployments"].items()}
        return Config(current=raw["current"], deployments=deployments)
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidDocumentError(
            f"invalid configuration file {str(path)!r}", hint="delete it, then run 'fairway use NAME --region REGION'"
        ) from error


def write_config(config: Config) -> Path:
    """Replace the file atomically; return its path.

    Raises:
        UsageError: it cannot be written.
    """
    path = config_path()
    deployments = {
        name: {key: value for key, value in asdict(deployment).items() if key != "name"}
        for name, deployment in sorted(config.deployments.items())
    }
    body = json.dumps({"current": config.current, "deployments": deployments}, indent=2) + "\n"
    fresh = path.with_suffix(f".{os.getpid()}")  # another shell may do the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(body, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {str(path)!r}: {error.strerror}", hint="set XDG_CONFIG_HOME to a folder that you may write"
        ) from error
    return path


def choose(*, bucket: str | None, url: str | None, named: Deployment | None, config: Config) -> Choice:
    """Return what a command uses. Pure.

    ``named`` is the deployment that ``--deployment`` or ``FAIRWAY_DEPLOYMENT`` names. Without it, the
    current one applies, unless a bucket is given: then a deployment applies only if the bucket is its own.

    Raises:
        UsageError: the bucket is not that of the named deployment.
    """
    if named is not None and bucket not in {None, named.bucket}:
        raise UsageError(
            f"the bucket {bucket!r} is not that of the deployment {named.name!r}",
            hint="give either --bucket (FAIRWAY_BUCKET) or --deployment (FAIRWAY_DEPLOYMENT)",
        )
    if named is None and bucket is not None:
        named = next((one for one in config.deployments.values() if one.bucket == bucket), None)
    elif named is None and config.current is not None:
        named = config.deployments.get(config.current)
    if named is None:
        return Choice(bucket=bucket, url=url)
    return Choice(bucket=named.bucket, url=url or named.url, deployment=named)


def fetch_deployment(cloudformation: Any, name: str, *, region: str) -> Deployment:  # noqa: ANN401 - boto3's client
    """Return a deployment from the outputs of its stack, ``fairway-NAME``.

    The name of the stack itself is accepted as well.

    Raises:
        UsageError: there is no such stack in the region, or it is not one of Fairway.
    """
    stacks = [STACK_PREFIX + name, *([name] if name.startswith(STACK_PREFIX) else [])]
    for stack in stacks:
        outputs = fetch_outputs(cloudformation, stack)
        if outputs is None:
            continue
        if not {"BucketName", "ChannelUrl"} <= outputs.keys():
            raise UsageError(
                f"the stack {stack!r} has no outputs of Fairway", hint="has it been deployed? see scripts/deploy"
            )
        return Deployment(
            name=stack.removeprefix(STACK_PREFIX),
            region=region,
            stack=stack,
            bucket=outputs["BucketName"],
            url=outputs["ChannelUrl"],
        )
    raise UsageError(
        f"there is no stack {stacks[0]!r} in {region}",
        hint="NAME is the setting 'name' of the deployment ('conda' by default), REGION its 'region'",
    )


def fetch_outputs(cloudformation: Any, stack: str) -> Outputs | None:  # noqa: ANN401 - boto3's client
    """Return the outputs of a stack, or None if there is no such stack.

    Raises:
        AccessDeniedError: the caller may not read it; publishers may not.
    """
    try:
        answer = cloudformation.describe_stacks(StackName=stack)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":  # "Stack with id … does not exist"
            return None
        if is_denial(error):
            raise AccessDeniedError(
                f"access denied: cloudformation:DescribeStacks on {stack!r}",
                hint="set FAIRWAY_BUCKET and FAIRWAY_URL instead: 'cdk deploy' prints both",
            ) from None
        raise
    return _parse_outputs(answer["Stacks"][0])


def _parse_outputs(stack: Mapping[str, Any]) -> Outputs:
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}
