"""What all functions have in common: the machine they run on, and where they log.

Owns the difference between AWS and an emulator that runs functions on this very machine.
"""

from __future__ import annotations

import platform

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bundling import LAMBDA_ARM64, Target, find_host
from infra.config import Configuration


def find_target(configuration: Configuration) -> Target:
    """Return the machine that zips are built for."""
    return find_host() if configuration.is_emulated else LAMBDA_ARM64


def find_runtime(configuration: Configuration) -> lambda_.Runtime:
    """Return the Lambda runtime: AWS's, or this machine's Python where the emulator runs functions in it."""
    return lambda_.Runtime(f"python{find_target(configuration).python_version}", lambda_.RuntimeFamily.PYTHON)


def find_architecture(configuration: Configuration) -> lambda_.Architecture:
    """Return the processor: arm64 on AWS for its price, this machine's where it is emulated."""
    if configuration.is_emulated and platform.machine().lower() in ("x86_64", "amd64"):
        return lambda_.Architecture.X86_64
    return lambda_.Architecture.ARM_64


def make_log_group(
    scope: Construct, construct_id: str, configuration: Configuration, *, name: str | None = None
) -> logs.LogGroup:
    """Declare a log group with the configured retention, deleted with the stack."""
    group = logs.LogGroup(scope, construct_id, log_group_name=name, removal_policy=cdk.RemovalPolicy.DESTROY)
    resource = group.node.default_child
    if not isinstance(resource, logs.CfnLogGroup):  # what the CDK makes of a LogGroup
        raise TypeError(type(resource))
    # The CDK's enumeration has a name for each number of days, and no way from the number to the name.
    resource.retention_in_days = configuration.log_days
    return group


def grant_logging(role: iam.Role, log_group: logs.ILogGroup) -> None:
    """Let a function write to its own log group, which it need not create."""
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[log_group.log_group_arn],
        )
    )
