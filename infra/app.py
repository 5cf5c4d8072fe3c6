"""The CDK app: declares one environment's stacks from the configuration in ``cdk.json``."""

from __future__ import annotations

import os
import sys

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.channel_stack import ChannelStack, EdgeStack
from infra.config import EDGE_REGION, Configuration
from infra.console import print_error
from infra.parse_config import CONTEXT_KEYS, parse_configuration
from lambdas.channel.errors import FairwayError


def read_configuration(app: cdk.App) -> Configuration:
    """Read the configuration of the selected environment.

    Raises:
        UsageError: a setting is invalid.
    """
    context = {name: app.node.try_get_context(name) for name in CONTEXT_KEYS}
    given = {name: value for name, value in context.items() if value is not None}
    return parse_configuration({**given, "default_account": os.environ.get("CDK_DEFAULT_ACCOUNT")})


def build(app: cdk.App) -> ChannelStack:
    """Declare the stacks.

    Raises:
        FairwayError: a setting is invalid, or a zip can't be built.
    """
    configuration = read_configuration(app)
    stack = ChannelStack(app, configuration=configuration)
    if configuration.region != EDGE_REGION:
        EdgeStack(app, configuration=configuration, distribution_id=stack.delivery.distribution.distribution_id)
    if not configuration.is_account_known:
        cdk.Annotations.of(stack).add_warning_v2(
            "fairway:unknown-account",
            f"no AWS account known: synthesized for {configuration.account}, which can be checked but not deployed",
        )
    if not configuration.is_emulated:  # the emulator's stack has no TLS
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return stack


def run(app: cdk.App) -> int:
    """Synthesize the stacks and return an exit code; print an error and its hint in a line each."""
    try:
        build(app)
    except FairwayError as error:
        return print_error(error)
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(run(cdk.App()))
