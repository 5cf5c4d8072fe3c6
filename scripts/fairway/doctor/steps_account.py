"""The steps that look at the account: the stack, versions, and quotas."""

import shutil
import subprocess
from typing import Final

from lambdas.channel.errors import PermanentError
from scripts.fairway.doctor import quotas
from scripts.fairway.doctor.account import EDGE_REGION
from scripts.fairway.doctor.examination import Examination
from scripts.fairway.doctor.run import NotEnforced

CLIENTS: Final = ("conda", "mamba", "micromamba", "pixi", "rattler-build")
NEEDED_OUTPUTS: Final = ("BucketName", "ChannelUrl", "DistributionId", "FairwayVersion", "IndexerFunctionName")
_COMPLETE: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
_CLIENT_SECONDS: Final = 30


def check_stack(examination: Examination) -> str:
    """Find the stack's outputs, and check that it is deployed."""
    stack = examination.account.fetch_stack()
    if stack.status not in _COMPLETE:
        raise PermanentError(
            f"the stack {stack.name!r} is {stack.status}", hint="see its events in CloudFormation, and deploy again"
        )
    if missing := [name for name in NEEDED_OUTPUTS if name not in stack.outputs]:
        raise PermanentError(
            f"the stack {stack.name!r} has no output {missing[0]!r}", hint="deploy this version: scripts/deploy"
        )
    status = examination.account.fetch_distribution_status(stack.outputs["DistributionId"])
    if status != "Deployed":
        raise PermanentError(
            f"CloudFront is still deploying the distribution: {status}", hint="run 'fairway doctor' in some minutes"
        )
    return f"{stack.name}: {stack.outputs['ChannelUrl']}"


def check_versions(examination: Examination) -> str:
    """Compare the deployed version with the command's; say which runtime and which clients there are."""
    outputs = examination.account.fetch_stack().outputs
    deployed = outputs["FairwayVersion"]
    if deployed != examination.version:
        raise PermanentError(
            f"version {deployed} is deployed, but this command is {examination.version}",
            hint="deploy the command's version, or install the deployment's",
        )
    runtime = examination.account.fetch_runtime(outputs["IndexerFunctionName"])
    return "; ".join([f"Fairway {deployed}", f"runtime {runtime}", *find_clients()])


def check_quotas(examination: Examination) -> str:
    """Check that the account may run as many functions at once as the deployment needs."""
    account = examination.account
    if account.is_emulated:
        raise NotEnforced("no quotas")
    function = account.fetch_stack().outputs["IndexerFunctionName"]
    return check_concurrency_of(examination, account.fetch_max_concurrency(function))


def check_concurrency_of(examination: Examination, max_concurrency: int) -> str:
    """Check the concurrent executions in the bucket's region, and in CloudFront's."""
    account = examination.account
    return quotas.check_concurrency(
        region=account.region,
        limit=account.fetch_concurrency(account.region),
        max_concurrency=max_concurrency,
        edge_limits={region: account.fetch_concurrency(region) for region in {EDGE_REGION} - {account.region}},
    )


def find_clients() -> list[str]:
    """Return the names and versions of the conda clients on this machine."""
    found = []
    for client in filter(shutil.which, CLIENTS):
        try:
            done = subprocess.run(
                [client, "--version"], capture_output=True, text=True, check=True, timeout=_CLIENT_SECONDS
            )
        except (OSError, subprocess.SubprocessError):
            found.append(f"{client} does not run")
            continue
        lines = done.stdout.split("\n")
        found.append(f"{client} {lines[0].removeprefix(client).strip()}")
    return found
