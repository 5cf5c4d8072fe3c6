"""``fairway whoami``: the caller, the deployment, and what the caller may do there.

What a role may do is not stored anywhere that the role can read. Reading is tried with requests that change
nothing. Writing cannot be tried without writing: IAM's policy simulator answers if the caller may ask it, and
else the answer is "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

import click
from botocore.exceptions import ClientError

from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.layout import ACCESS_KEY
from lambdas.channel.names import Channel, parse_channel
from scripts.fairway.aws_errors import is_denial
from scripts.fairway.session import Session, with_session_and_url
from scripts.fairway.terminal import format_table

_MOST_CHANNELS: Final = 20  # of a deployment; each costs two requests
_ASSUMED_ROLE = re.compile(r"arn:([^:]+):sts::([0-9]+):assumed-role/([^/]+)/.*\Z")
_WRITING: Final = {"publish to": "s3:PutObject", "delete from": "s3:DeleteObject"}


class Answer(Enum):
    """Whether the caller may do something."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """One thing that the caller may do or not, and how that is known."""

    what: str
    answer: Answer
    source: str
    """``tried``, ``simulated``, why nothing has to be tried, or why it is unknown."""


@click.command(
    epilog="""\b
Examples:
  fairway whoami
  fairway whoami tools            for a role that may not list the channels
  fairway whoami --json

Reading is tried. Writing is simulated by IAM from the policies of the role, without the policy of the
bucket, if the caller may call iam:SimulatePrincipalPolicy; otherwise it is 'unknown'.
"""
)
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@with_session_and_url
def whoami(session: Session, channels: tuple[str, ...]) -> None:
    """Show the AWS account, the role, the deployment and what the role may do."""
    names = [parse_channel(name) for name in channels]
    identity = session.client("sts").get_caller_identity()
    arn = str(identity["Arn"])
    role = parse_role(arn)
    permissions = list(_find_permissions(session, role or arn, names)) if session.bucket else []
    document = {
        "account": identity["Account"],
        "arn": arn,
        "role": role,
        "deployment": None if session.deployment is None else session.deployment.name,
        "region": session.region,
        "bucket": session.bucket,
        "url": session.url,
        "permissions": [asdict(one) | {"answer": one.answer.value} for one in permissions],
    }
    lines = [
        f"account:     {document['account']}",
        f"identity:    {arn}",
        f"role:        {role or 'none: a user'}",
        f"deployment:  {document['deployment'] or 'not from fairway use'}",
        f"region:      {session.region}",
        f"bucket:      {session.bucket or 'none'}",
        f"URL:         {session.url or 'none'}",
    ]
    if permissions:
        rows = [(one.what, one.answer.value, one.source) for one in permissions]
        lines += ["", *format_table(("MAY", "", "KNOWN BY"), rows)]
    session.show(document, lines)
    if not session.bucket:
        raise UsageError("no deployment chosen", hint="run 'fairway use NAME --region REGION', or set FAIRWAY_BUCKET")


def parse_role(arn: str) -> str | None:
    """Return the ARN of the role of a session, or None for a user or the account itself.

    STS omits the path of a role, so the ARN is right for roles without one.
    """
    match = _ASSUMED_ROLE.match(arn)
    return None if match is None else f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}"


def _find_permissions(session: Session, principal: str, channels: list[Channel]) -> Iterator[Permission]:
    bucket, s3 = session.require_bucket(), session.client("s3")

    def may_list(prefix: str) -> Answer:
        return _try(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1))

    all_channels = may_list("")
    yield Permission(what="list the channels", answer=all_channels, source="tried")
    if not channels and all_channels == Answer.YES:
        channels = list(_list_channels(session))[:_MOST_CHANNELS]
    for channel in channels:
        yield Permission(what=f"read {channel}", answer=may_list(f"{channel}/"), source="tried")
        key = f"{channel}/noarch/example-1.0-0.conda"
        for what, action in _WRITING.items():
            yield _simulate(session, principal, f"{what} {channel}", action, key)
    may_read_access = _try(lambda: s3.head_object(Bucket=bucket, Key=ACCESS_KEY))
    yield Permission(what="read tokens and access rules", answer=may_read_access, source="tried")
    yield _simulate(session, principal, "change tokens and access rules", "s3:PutObject", ACCESS_KEY)
    if not channels:
        source = "no channel to try; name some: fairway whoami CHANNEL"
        yield Permission(what="publish", answer=Answer.UNKNOWN, source=source)


def _list_channels(session: Session) -> Iterator[Channel]:
    for name in session.storage.list_folders(""):
        try:
            yield parse_channel(name)
        except InvalidNameError:
            continue


def _try(request: Any) -> Answer:  # noqa: ANN401 - any request of boto3
    """Send a request that changes nothing; tell whether it was permitted."""
    try:
        request()
    except ClientError as error:
        if is_denial(error):
            return Answer.NO
        if error.response["Error"]["Code"] in {"404", "NoSuchKey"}:
            return Answer.YES  # only who may read is told that it is missing
        raise
    return Answer.YES


def _simulate(session: Session, principal: str, what: str, action: str, key: str) -> Permission:
    """Ask IAM's policy simulator."""
    arn = f"arn:{principal.split(':')[1]}:s3:::{session.require_bucket()}/{key}"
    if principal.endswith(":root"):  # its policies cannot be simulated: it has none
        return Permission(what=what, answer=Answer.YES, source="the account's root user")
    try:
        results: list[Mapping[str, Any]] = session.client("iam").simulate_principal_policy(
            PolicySourceArn=principal, ActionNames=[action], ResourceArns=[arn]
        )["EvaluationResults"]
    except ClientError as error:
        source = "may not ask IAM's simulator" if is_denial(error) else "IAM's simulator does not know the caller"
        return Permission(what=what, answer=Answer.UNKNOWN, source=source)
    is_allowed = all(result["EvalDecision"] == "allowed" for result in results)
    return Permission(what=what, answer=Answer.YES if is_allowed else Answer.NO, source="simulated")
