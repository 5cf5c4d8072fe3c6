"""What every command shares: common options, the deployment, the caller, and the printing of results.

boto3 is imported when a command first needs AWS.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import UsageError
from lambdas.storage.parallel import THREADS
from lambdas.storage.protocol import ObjectStorage
from scripts.fairway.aws_errors import no_credentials, note_requests
from scripts.fairway.bucket import ListedStorage
from scripts.fairway.deployments import Deployment, choose, fetch_deployment, read_config
from scripts.fairway.terminal import print_lines

if TYPE_CHECKING:
    import boto3

_DEFAULT_REGION: Final = "us-east-1"
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
_ATTEMPTS: Final = 4
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of the command."""

    bucket: str | None = None
    url: str | None = None
    as_json: bool = False
    deployment: Deployment | None = None
    """The deployment that has the bucket, if ``fairway use`` knows it."""

    @functools.cached_property
    def aws(self) -> boto3.Session:
        """The caller's AWS session.

        Raises:
            AccessDeniedError: there are no credentials.
        """
        # boto3 takes half a second, which 'fairway index' and '--help' do not need.
        import boto3  # noqa: PLC0415
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        core = botocore.session.Session()
        retries: Any = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        core.set_default_client_config(
            Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries=retries,
                max_pool_connections=2 * THREADS,
            )
        )
        if region := os.environ.get("AWS_REGION"):  # botocore reads only AWS_DEFAULT_REGION
            core.set_config_variable("region", region)
        session = boto3.Session(botocore_session=core)
        note_requests(session.events)
        if session.get_credentials() is None:
            raise no_credentials()
        return session

    def client(self, service: str) -> Any:  # noqa: ANN401 - each service has another type
        """Return a client of an AWS service in the region of the deployment.

        Raises:
            UsageError: the configured endpoint or region is malformed.
        """
        client: Callable[..., Any] = self.aws.client
        try:
            urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).port  # noqa: B018 - an error if it is malformed
            return client(service, region_name=self.region)
        except ValueError as error:  # botocore has no type of its own for it
            raise UsageError(
                f"invalid AWS endpoint or region: {error}", hint="check AWS_ENDPOINT_URL and AWS_REGION"
            ) from error

    @property
    def region(self) -> str:
        """The region of requests: the deployment's, or else the configured one, or else us-east-1."""
        if self.deployment is not None:
            return self.deployment.region
        return self.aws.region_name or _DEFAULT_REGION

    @functools.cached_property
    def storage(self) -> ObjectStorage:
        """The bucket.

        Raises:
            UsageError: no bucket was given.
        """
        return ListedStorage(self.require_bucket(), self.client("s3"))

    def require_bucket(self) -> str:
        """Return the bucket's name.

        Raises:
            UsageError: no bucket was given.
        """
        if not self.bucket:
            raise UsageError(
                "no bucket given",
                hint="run 'fairway use NAME --region REGION' once, or set FAIRWAY_BUCKET to the output BucketName of "
                "'cdk deploy'",
            )
        return self.bucket

    def require_url(self) -> str:
        """Return the base URL of the channels, without a trailing slash.

        Raises:
            UsageError: no URL was given.
        """
        if not self.url:
            raise UsageError(
                "no URL given",
                hint="run 'fairway use NAME --region REGION' once, or set FAIRWAY_URL to the output ChannelUrl of "
                "'cdk deploy'",
            )
        return self.url.rstrip("/")

    @functools.cached_property
    def caller(self) -> str:
        """The AWS identity of the caller, or the local user name if AWS does not tell."""
        try:
            return str(self.client("sts").get_caller_identity()["Arn"])
        except (BotoCoreError, ClientError):
            return f"local user {getpass.getuser()}"

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return int(time.time())

    def show(self, document: object, lines: str | Iterable[str]) -> None:
        """Print the result: one JSON document, or lines of text for people."""
        if self.as_json:
            print(json.dumps(document, indent=2))
        else:
            print_lines(lines)

    def note(self, text: str) -> None:
        """Print progress to stderr, unless the result is printed as JSON."""
        if not self.as_json:
            print_lines(text, file=sys.stderr)


def open_session(*, deployment: str | None, bucket: str | None, url: str | None, as_json: bool) -> Session:
    """Return the session of a command, with the bucket and URL of the chosen deployment.

    A deployment that ``fairway use`` does not know is looked up in the configured region.

    Raises:
        UsageError: there is no such deployment, or the bucket is that of another one.
    """
    config = read_config()
    named = None if deployment is None else config.deployments.get(deployment)
    if deployment is not None and named is None:
        lookup = Session()
        named = fetch_deployment(lookup.client("cloudformation"), deployment, region=lookup.region)
    choice = choose(bucket=bucket, url=url, named=named, config=config)
    return Session(bucket=choice.bucket, url=choice.url, deployment=choice.deployment, as_json=as_json)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result and errors as JSON.")
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Print the traceback of an error."
)  # main() looks for it, because an error may come before options are parsed


def with_session(command: _Command) -> _Command:
    """Add the common options to a command, and pass them to it as a ``Session``."""
    return _add_options(command, takes_url=False)


def with_session_and_url(command: _Command) -> _Command:
    """Add the common options and ``--url``, for a command that prints URLs."""
    return _add_options(command, takes_url=True)


def _add_options(command: _Command, *, takes_url: bool) -> _Command:
    @functools.wraps(command)
    def wrapped(**arguments: Any) -> Any:  # noqa: ANN401 - click's
        context = click.get_current_context()
        deployment, bucket = arguments.pop("deployment"), arguments.pop("bucket")
        url = arguments.pop("url") if takes_url else os.environ.get("FAIRWAY_URL") or None
        if _is_option(context, "deployment"):  # it overrides the variables
            bucket = bucket if _is_option(context, "bucket") else None
            url = url if takes_url and _is_option(context, "url") else None
        session = open_session(deployment=deployment, bucket=bucket, url=url, as_json=arguments.pop("as_json"))
        return command(session, **arguments)

    options = [
        click.option(
            "--deployment",
            envvar="FAIRWAY_DEPLOYMENT",
            show_envvar=True,
            metavar="NAME",
            help="Name of the deployment, instead of the one that 'fairway use' set.",
        ),
        click.option("--bucket", envvar="FAIRWAY_BUCKET", show_envvar=True, help="Name of the bucket."),
        json_option,
        debug_option,
    ]
    if takes_url:
        options.insert(
            2, click.option("--url", envvar="FAIRWAY_URL", show_envvar=True, help="Base URL of the channels.")
        )
    for add in reversed(options):
        wrapped = add(wrapped)
    return wrapped  # type: ignore[return-value]  # the decorated function takes fewer arguments


def _is_option(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
