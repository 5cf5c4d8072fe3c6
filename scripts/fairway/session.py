"""What every command shares: common options, the bucket, the caller, and the printing of results.

boto3 is imported when a command first needs AWS.
"""

from __future__ import annotations

import functools
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import AccessDeniedError, UsageError
from lambdas.storage.protocol import ObjectStorage
from scripts.fairway.bucket import ListedStorage
from scripts.fairway.terminal import print_lines

if TYPE_CHECKING:
    import boto3

_DEFAULT_REGION: Final = "us-east-1"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of the command."""

    bucket: str | None = None
    url: str | None = None
    as_json: bool = False

    @functools.cached_property
    def aws(self) -> boto3.Session:
        """The caller's AWS session.

        Raises:
            AccessDeniedError: there are no credentials.
        """
        import boto3  # noqa: PLC0415 - takes half a second, which 'fairway index' and '--help' do not need

        session = boto3.Session()
        if session.get_credentials() is None:
            raise AccessDeniedError(
                "no AWS credentials found", hint="sign in (aws sso login, aws configure) or set AWS_PROFILE"
            )
        return session

    @property
    def region(self) -> str:
        """The region of requests: the configured one, or else us-east-1."""
        return self.aws.region_name or _DEFAULT_REGION

    @functools.cached_property
    def storage(self) -> ObjectStorage:
        """The bucket.

        Raises:
            UsageError: no bucket was given.
        """
        return ListedStorage(self.require_bucket(), self.aws.client("s3", region_name=self.region))

    def require_bucket(self) -> str:
        """Return the bucket's name.

        Raises:
            UsageError: no bucket was given.
        """
        if not self.bucket:
            raise UsageError(
                "no bucket given", hint="use --bucket or set FAIRWAY_BUCKET to the output BucketName of 'cdk deploy'"
            )
        return self.bucket

    def require_url(self) -> str:
        """Return the base URL of the channels, without a trailing slash.

        Raises:
            UsageError: no URL was given.
        """
        if not self.url:
            raise UsageError(
                "no URL given", hint="use --url or set FAIRWAY_URL to the output ChannelUrl of 'cdk deploy'"
            )
        return self.url.rstrip("/")

    @functools.cached_property
    def caller(self) -> str:
        """The AWS identity of the caller, or the local user name if AWS does not tell."""
        try:
            return self.aws.client("sts", region_name=self.region).get_caller_identity()["Arn"]
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


def with_session(command: _Command) -> _Command:
    """Add the common options to a command, and pass them to it as a ``Session``."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("--url", envvar="FAIRWAY_URL", show_envvar=True, help="Base URL of the channels.")
    @click.option("--bucket", envvar="FAIRWAY_BUCKET", show_envvar=True, help="Name of the bucket.")
    @functools.wraps(command)
    def wrapped(*, bucket: str | None, url: str | None, as_json: bool, **arguments: Any) -> Any:  # noqa: ANN401 - click's
        return command(Session(bucket=bucket, url=url, as_json=as_json), **arguments)

    return wrapped  # type: ignore[return-value]  # the decorated function takes fewer arguments
