"""What ``cdk`` runs: one environment's stack, from the configuration in ``cdk.json``."""

from __future__ import annotations

import os
import sys

import aws_cdk as cdk

from infra.channel_stack import ChannelStack
from infra.config import Configuration, parse_configuration
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
    return ChannelStack(app, configuration=read_configuration(app))


def main() -> None:
    """Synthesise; say in one line each what is wrong and what to do."""
    app = cdk.App()
    try:
        build(app)
    except FairwayError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for people
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201 - for people
        sys.exit(2)
    app.synth()


if __name__ == "__main__":
    main()
