"""``fairway doctor --before-deploy``: whether an account can take a deployment that is not there yet.

Reads the settings of ``cdk.json``, so it needs a checkout.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from lambdas.channel.errors import UsageError
from scripts.fairway.doctor import quotas
from scripts.fairway.doctor.account import EDGE_REGION, Account, AwsAccount
from scripts.fairway.doctor.run import Step
from scripts.fairway.session import Session

if TYPE_CHECKING:
    from infra.config import Configuration


def list_steps_before_deploy(session: Session, overrides: Mapping[str, str]) -> list[Step]:
    """Return the steps; ``overrides`` are values of the context, as with ``cdk deploy -c``.

    Raises:
        UsageError: this is no checkout, or a setting is invalid.
    """
    try:
        from infra import parse_config, preflight  # noqa: PLC0415 - not in the command's wheel
    except ImportError as error:
        raise UsageError(
            "--before-deploy reads cdk.json, which this installation of the command does not have",
            hint="run it in a checkout of Fairway, with its environment active",
        ) from error
    context = preflight.read_context(overrides)
    configuration = parse_config.parse_configuration(context)
    account = AwsAccount(session.aws, None, configuration.region)

    def check_account() -> str:
        asked = preflight.AwsAccount(session.aws)
        preflight.check_account("deploy", context, asked)
        return f"account {asked.fetch_id()}, bootstrapped in {', '.join(sorted({configuration.region, EDGE_REGION}))}"

    return [
        Step(name="account", run=check_account),
        Step(name="quotas", run=partial(check_quotas, account, configuration), needs=("account",)),
        Step(name="policies", run=partial(check_policies, account, configuration), needs=("account",)),
    ]


def check_quotas(account: Account, configuration: "Configuration") -> str:
    """Check that enough functions may run at once, in the bucket's region and in CloudFront's."""
    region = configuration.region
    return quotas.check_concurrency(
        region=region,
        limit=account.fetch_concurrency(region),
        max_concurrency=configuration.indexer_max_concurrency,
        edge_limits={other: account.fetch_concurrency(other) for other in {EDGE_REGION} - {region}},
    )


def check_policies(account: Account, configuration: "Configuration") -> str:
    """Check that CloudFront takes the policies of one more deployment."""
    return quotas.check_policies(account.count_policies(), managed_cache_policies=configuration.managed_cache_policies)
