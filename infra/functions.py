"""Common properties of all functions: runtime, architecture, logs.

Owns the difference between AWS and an emulator, which runs functions on this machine.
"""

from __future__ import annotations

import platform

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bundling import LAMBDA_ARM64, Target, host_target
from infra.config import Configuration


def zip_target(configuration: Configuration) -> Target:
    """Return the machine that zips are built for."""
    return host_target() if configuration.is_emulated else LAMBDA_ARM64


def function_runtime(configuration: Configuration) -> lambda_.Runtime:
    """Return the Lambda runtime: of the Python on AWS, or on this machine for an emulator."""
    return lambda_.Runtime(f"python{zip_target(configuration).python_version}", lambda_.RuntimeFamily.PYTHON)


def function_architecture(configuration: Configuration) -> lambda_.Architecture:
    """Return the architecture: arm64 on AWS for its price, this machine's for an emulator."""
    if configuration.is_emulated and platform.machine().lower() in ("x86_64", "amd64"):
        return lambda_.Architecture.X86_64
    return lambda_.Architecture.ARM_64


def make_log_group(
    scope: Construct, construct_id: str, configuration: Configuration, *, name: str | None = None
) -> logs.LogGroup:
    """Declare a log group with the configured retention; it is deleted with the stack."""
    group = logs.LogGroup(scope, construct_id, log_group_name=name, removal_policy=cdk.RemovalPolicy.DESTROY)
    resource = group.node.default_child
    if not isinstance(resource, logs.CfnLogGroup):  # a LogGroup has no other default child
        raise TypeError(type(resource))
    # The CDK's enumeration has names only, so the number of days is set on the resource.
    resource.retention_in_days = configuration.log_days
    return group


def grant_logging(role: iam.Role, log_group: logs.ILogGroup) -> None:
    """Allow a function to write to its own log group, but not to create one."""
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[log_group.log_group_arn],
        )
    )
