"""Checks before ``scripts/deploy`` runs the CDK: credentials, account, bootstrapped regions, identity providers.

Each failure is an error and a hint in a line each, where the CDK would fail late or with a stack trace.
Changes nothing. What the caller may not read, the CDK checks again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import boto3
import botocore.session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from infra.config import EDGE_REGION, Configuration
from infra.console import print_error
from infra.parse_config import CONTEXT_KEYS, parse_configuration
from lambdas.channel.errors import AccessDeniedError, FairwayError, UnavailableError, UsageError

CONFIGURATION = Path(__file__).resolve().parent.parent / "cdk.json"
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"  # what the CDK itself reads; its default qualifier

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_REJECTED = frozenset({"AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"})


class Account(Protocol):
    """The AWS account of the caller's credentials."""

    def fetch_id(self) -> str:
        """Return the account's twelve digits."""

    def is_bootstrapped(self, region: str) -> bool:
        """Tell whether ``cdk bootstrap`` prepared a region; true if the caller may not know."""

    def list_oidc_providers(self) -> frozenset[str]:
        """Return the issuers, without scheme, that have an identity provider; none if the caller may not know."""

    def list_own_oidc_providers(self, stack: str, region: str) -> frozenset[str]:
        """Return those that a stack created."""


class AwsAccount:
    """The account, asked through AWS's API."""

    def __init__(self, session: boto3.Session) -> None:
        self._session = session

    def fetch_id(self) -> str:
        """Ask STS for the account."""
        return self._session.client("sts", region_name=EDGE_REGION).get_caller_identity()["Account"]

    def is_bootstrapped(self, region: str) -> bool:
        """Look up the parameter that ``cdk bootstrap`` creates."""
        try:
            self._session.client("ssm", region_name=region).get_parameter(Name=BOOTSTRAP_PARAMETER)
        except ClientError as error:
            return _code(error) != "ParameterNotFound"
        return True

    def list_oidc_providers(self) -> frozenset[str]:
        """List the account's identity providers."""
        try:
            answer = self._session.client("iam", region_name=EDGE_REGION).list_open_id_connect_providers()
        except ClientError as error:
            if _code(error) in _DENIED:
                return frozenset()
            raise
        return frozenset(_parse_provider(each["Arn"]) for each in answer["OpenIDConnectProviderList"])

    def list_own_oidc_providers(self, stack: str, region: str) -> frozenset[str]:
        """List the stack's resources; there are none if it does not exist."""
        client = self._session.client("cloudformation", region_name=region)
        try:
            pages = client.get_paginator("list_stack_resources").paginate(StackName=stack)
            return frozenset(
                _parse_provider(each["PhysicalResourceId"])
                for page in pages
                for each in page["StackResourceSummaries"]
                if each["ResourceType"] == "AWS::IAM::OIDCProvider" and each.get("PhysicalResourceId")
            )
        except ClientError as error:
            if _code(error) == "ValidationError":  # "Stack with id … does not exist"
                return frozenset()
            raise


def check_account(verb: str, context: Mapping[str, object], account: Account) -> None:
    """Check that a verb of ``scripts/deploy`` can begin.

    Raises:
        UsageError: a setting is invalid, the account is another one, or a region is not bootstrapped.
        BotoCoreError, ClientError: the account can't be asked.
    """
    configuration = parse_configuration(context)
    if configuration.is_emulated:
        return
    account_id = account.fetch_id()
    configuration = parse_configuration({**context, "default_account": account_id})
    if configuration.account != account_id:
        raise UsageError(
            f"the credentials are for account {account_id}, but environment {configuration.environment!r} is "
            f"deployed to {configuration.account}",
            hint="choose credentials for that account, for example with AWS_PROFILE",
        )
    if verb == "deploy":
        _check_bootstrapped(configuration, account)
        _check_oidc_providers(configuration, account)


def _check_bootstrapped(configuration: Configuration, account: Account) -> None:
    for region in sorted({configuration.region, EDGE_REGION}):
        if not account.is_bootstrapped(region):
            raise UsageError(
                f"region {region} of account {configuration.account} is not bootstrapped for the CDK",
                hint="run 'scripts/deploy bootstrap' once",
            )


def _check_oidc_providers(configuration: Configuration, account: Account) -> None:
    """Check that the stack would create no identity provider that another one has created."""
    issuers = {workload.issuer for publisher in configuration.publishers for workload in publisher.workloads}
    made = issuers - set(configuration.existing_oidc_providers)
    if not made:
        return
    taken = {issuer for issuer in made if issuer.removeprefix("https://") in account.list_oidc_providers()}
    if not taken:
        return
    own = account.list_own_oidc_providers(configuration.stack_name, configuration.region)
    for issuer in sorted(taken):
        if issuer.removeprefix("https://") not in own:
            raise UsageError(
                f"account {configuration.account} has an identity provider for {issuer} already, and can have only one",
                hint=f'add "{issuer}" to "existing_oidc_providers" of environment {configuration.environment!r}'
                " in cdk.json",
            )


def translate_error(error: BotoCoreError | ClientError, profiles: Sequence[str]) -> FairwayError:
    """Return the error for people. ``profiles`` are the names of the configured profiles."""
    if isinstance(error, ClientError):
        return _translate_answer(_code(error))
    if isinstance(error, ProfileNotFound):
        return UsageError(
            f"unknown AWS profile {error.kwargs['profile']!r}",
            hint=f"profiles are {', '.join(profiles)}" if profiles else "no profile is configured: run 'aws configure'",
        )
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return AccessDeniedError(
            "no AWS credentials found", hint="sign in (aws sso login, aws configure) or set AWS_PROFILE"
        )
    if isinstance(error, (SSOError, TokenRetrievalError)):
        return _session_expired()
    if isinstance(error, (ConfigParseError, InvalidConfigError)):
        return UsageError(
            f"invalid AWS configuration: {' '.join(str(error).split())}",
            hint="correct ~/.aws/config and ~/.aws/credentials, or the files that AWS_CONFIG_FILE and "
            "AWS_SHARED_CREDENTIALS_FILE name",
        )
    return UnavailableError(f"no answer from AWS: {type(error).__name__}", hint="check the network, and try again")


def _translate_answer(code: str) -> FairwayError:
    if code in _EXPIRED:
        return _session_expired()
    if code in _REJECTED:
        return AccessDeniedError(
            f"AWS rejected the credentials: {code}", hint="check the access key, or sign in with 'aws sso login'"
        )
    return UnavailableError(f"AWS answered {code}", hint="check the permissions of the credentials, and try again")


def _session_expired() -> FairwayError:
    return AccessDeniedError("the AWS session has expired", hint="sign in again, for example with 'aws sso login'")


def parse_arguments(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """Return the profile and the context values among the CDK's arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    parser.add_argument("-c", "--context", action="append", default=[])
    known, _ = parser.parse_known_args(arguments)
    pairs = (text.partition("=") for text in known.context)
    return known.profile, {name: value for name, separator, value in pairs if separator}


def read_context(overrides: Mapping[str, str]) -> dict[str, object]:
    """Return the settings of ``cdk.json`` and the command line that ``parse_configuration`` takes."""
    context: dict[str, object] = json.loads(CONFIGURATION.read_text(encoding="utf-8"))["context"] | dict(overrides)
    return {name: value for name, value in context.items() if name in CONTEXT_KEYS}


def main(arguments: Sequence[str]) -> int:
    """Check the account for a verb and the CDK's arguments; return an exit code."""
    verb, *rest = arguments
    profile, overrides = parse_arguments(rest)
    try:
        check_account(verb, read_context(overrides), AwsAccount(boto3.Session(profile_name=profile)))
    except FairwayError as error:
        return print_error(error)
    except (BotoCoreError, ClientError) as error:
        return print_error(translate_error(error, _list_profiles()))
    return 0


def _list_profiles() -> Sequence[str]:
    """Return the names of the configured profiles; none if the configuration is invalid."""
    try:
        return botocore.session.Session().available_profiles
    except BotoCoreError:
        return ()


def _parse_provider(arn: str) -> str:
    return arn.partition(":oidc-provider/")[2]


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
