"""What ``cdk`` runs: one environment's stack, from the configuration in ``cdk.json``."""

from __future__ import annotations

import os
import sys

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.channel_stack import ChannelStack, EdgeStack
from infra.config import EDGE_REGION, Configuration, parse_configuration
from lambdas.channel.errors import FairwayError

SETTINGS = ("account", "endpoint_url", "environment", "environments", "name", "region")


def read_configuration(app: cdk.App) -> Configuration:
    """Read the configuration of the environment that was asked for.

    Raises:
        UsageError: it is not well formed.
    """
    context = {name: app.node.try_get_context(name) for name in SETTINGS}
    given = {name: value for name, value in context.items() if value is not None}
    return parse_configuration({**given, "default_account": os.environ.get("CDK_DEFAULT_ACCOUNT")})


def build(app: cdk.App) -> ChannelStack:
    """Declare everything.

    Raises:
        FairwayError: the configuration is not well formed, or a zip can't be built.
    """
    configuration = read_configuration(app)
    stack = ChannelStack(app, configuration=configuration)
    if configuration.region != EDGE_REGION:
        EdgeStack(app, configuration=configuration, distribution_id=stack.delivery.distribution.distribution_id)
    if not configuration.is_account_known:
        cdk.Annotations.of(stack).add_warning_v2(
            "fairway:unknown-account",
            f"no account is known: synthesised for {configuration.account}, fit for checking alone",
        )
    if not configuration.is_emulated:  # the emulator's stack lacks TLS, and nag rightly minds
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return stack


def run(app: cdk.App) -> int:
    """Synthesise, and return an exit code; what is wrong is said in a line, and what to do in another."""
    try:
        build(app)
    except FairwayError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for people
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201 - for people
        return 2
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(run(cdk.App()))
