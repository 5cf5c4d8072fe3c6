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
    """Declare a log group that forgets in time and goes when the stack goes."""
    return logs.LogGroup(
        scope,
        construct_id,
        log_group_name=name,
        retention=find_retention(configuration.log_days),
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )


def find_retention(days: int) -> logs.RetentionDays:
    """Return the CDK's name for a number of days that configuration has checked."""
    names = {
        1: logs.RetentionDays.ONE_DAY,
        3: logs.RetentionDays.THREE_DAYS,
        5: logs.RetentionDays.FIVE_DAYS,
        7: logs.RetentionDays.ONE_WEEK,
        14: logs.RetentionDays.TWO_WEEKS,
        30: logs.RetentionDays.ONE_MONTH,
        60: logs.RetentionDays.TWO_MONTHS,
        90: logs.RetentionDays.THREE_MONTHS,
        120: logs.RetentionDays.FOUR_MONTHS,
        150: logs.RetentionDays.FIVE_MONTHS,
        180: logs.RetentionDays.SIX_MONTHS,
        365: logs.RetentionDays.ONE_YEAR,
        400: logs.RetentionDays.THIRTEEN_MONTHS,
        545: logs.RetentionDays.EIGHTEEN_MONTHS,
        731: logs.RetentionDays.TWO_YEARS,
        1096: logs.RetentionDays.THREE_YEARS,
        1827: logs.RetentionDays.FIVE_YEARS,
        2192: logs.RetentionDays.SIX_YEARS,
        2557: logs.RetentionDays.SEVEN_YEARS,
        2922: logs.RetentionDays.EIGHT_YEARS,
        3288: logs.RetentionDays.NINE_YEARS,
        3653: logs.RetentionDays.TEN_YEARS,
    }
    return names[days]


def grant_logging(role: iam.Role, log_group: logs.ILogGroup) -> None:
    """Let a function write to its own log group, which it need not create."""
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[log_group.log_group_arn],
        )
    )
