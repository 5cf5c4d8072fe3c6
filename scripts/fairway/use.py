"""``fairway use``: choose the deployment that commands manage."""

from __future__ import annotations

from dataclasses import asdict, replace

import click

from lambdas.channel.errors import UsageError
from scripts.fairway.deployments import Config, Deployment, config_path, fetch_deployment, read_config, write_config
from scripts.fairway.session import Session, debug_option, json_option
from scripts.fairway.terminal import format_table


@click.command(
    epilog="""\b
Examples:
  fairway use conda --region eu-central-1
  fairway use conda                        the region of the last time, or that of AWS_REGION
  fairway use                              list the known deployments

NAME is the setting 'name' of the deployment. Its bucket and URL are outputs of the stack
'fairway-NAME'; reading them needs cloudformation:DescribeStacks. They are kept in
$XDG_CONFIG_HOME/fairway/config.json (by default ~/.config/fairway/config.json).

Without that permission, set FAIRWAY_BUCKET and FAIRWAY_URL instead. --deployment takes precedence over
the variables, and the variables over 'fairway use'.
"""
)
@click.argument("name", required=False)
@click.option("--region", default=None, help="AWS region of the deployment.")
@json_option
@debug_option
def use(*, name: str | None, region: str | None, as_json: bool) -> None:
    """Choose the deployment that commands manage, or list the known ones."""
    config = read_config()
    session = Session(as_json=as_json)
    if name is None:
        if region is not None:
            raise UsageError("no deployment given", hint="give its NAME; 'fairway use' lists the known ones")
        _show_known(session, config)
    else:
        found = _look_up(config.deployments.get(name), name, region)
        write_config(replace(config, current=found.name, deployments={**config.deployments, found.name: found}))
        _show_deployment(session, found)


def _look_up(known: Deployment | None, name: str, region: str | None) -> Deployment:
    where = region or (known.region if known is not None else None)
    lookup = Session()
    if where is None:
        where = lookup.aws.region_name
    if where is None:
        raise UsageError("no region given", hint="use --region, or set AWS_REGION")
    there = Session(deployment=Deployment(name=name, region=where, stack="", bucket="", url=""))
    return fetch_deployment(there.client("cloudformation"), name, region=where)


def _show_known(session: Session, config: Config) -> None:
    rows = [
        ("*" if name == config.current else "", name, one.region, one.bucket, one.url)
        for name, one in config.deployments.items()
    ]
    lines = format_table(("", "NAME", "REGION", "BUCKET", "URL"), rows)
    session.show(
        {"current": config.current, "deployments": [asdict(one) for one in config.deployments.values()]},
        lines if rows else "no known deployments; 'fairway use NAME --region REGION' adds one",
    )


def _show_deployment(session: Session, found: Deployment) -> None:
    lines = [
        f"using {found.name!r} in {found.region}",
        f"  bucket: {found.bucket}",
        f"  URL:    {found.url}",
        f"written to {config_path()}",
    ]
    session.show(asdict(found), lines)
