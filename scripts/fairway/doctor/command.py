"""``fairway doctor``: the command."""

import click

from lambdas.channel.errors import UsageError
from scripts.fairway.doctor.before_deploy import list_steps_before_deploy
from scripts.fairway.doctor.cleaning import CLEANING_SECONDS
from scripts.fairway.doctor.connect import connect
from scripts.fairway.doctor.meter import Meter
from scripts.fairway.doctor.report import format_results, is_healthy, to_json
from scripts.fairway.doctor.run import Step, run_steps
from scripts.fairway.doctor.steps import list_steps
from scripts.fairway.session import Session, with_session_and_url


@click.command(
    epilog="""\b
Examples:
  fairway doctor
  fairway doctor --json | jq '.steps[] | select(.state == "failed")'
  fairway doctor --clean
  fairway doctor --before-deploy -c environment=production

It publishes to the channel 'fairway-doctor', which is reserved for it, reads it through the URL with a
token of its own, and deletes everything again: every version of every object, and the token. The history
of access ('fairway audit') keeps its entries. If it is interrupted, the next run, or --clean, deletes
what is left.

It needs the rights of an operator, and s3:ListBucketVersions and s3:DeleteObjectVersion;
docs/operating.md lists them. No conda client is needed. A run takes about five minutes, most of them
spent waiting for caches, and costs less than a cent.

Exit code 0 if all steps passed, 1 if not, 2 on a usage error. What an emulator does not enforce is no
failure.
"""
)
@click.option(
    "--before-deploy", is_flag=True, help="Check, before the first deployment, whether the account can take it."
)
@click.option(
    "-c", "--context", "overrides", multiple=True, metavar="NAME=VALUE", help="As for cdk, with --before-deploy."
)
@click.option("--clean", "only_clean", is_flag=True, help="Only delete what an interrupted run left behind.")
@click.option(
    "--timeout", default=600, show_default=True, metavar="SECONDS", type=click.IntRange(min=CLEANING_SECONDS + 60),
    help="Longest duration, cleaning included.",
)  # fmt: skip
@with_session_and_url
def doctor(session: Session, *, before_deploy: bool, overrides: tuple[str, ...], only_clean: bool, timeout: int) -> int:
    """Try everything that a deployment does, and clean up."""
    meter = Meter()
    steps = _choose_steps(
        session, meter, before_deploy=before_deploy, overrides=overrides, only_clean=only_clean, timeout=timeout
    )
    try:
        results = run_steps(steps, meter, note=session.note)
    except KeyboardInterrupt:
        session.note("interrupted: 'fairway doctor --clean', or the next run, deletes what is left")
        raise
    session.show(to_json(results), format_results(results))
    return 0 if is_healthy(results) else 1


def _choose_steps(
    session: Session, meter: Meter, *, before_deploy: bool, overrides: tuple[str, ...], only_clean: bool, timeout: int
) -> list[Step]:
    if before_deploy:
        if only_clean:
            raise UsageError("--clean and --before-deploy exclude each other", hint="give one of them")
        pairs = [text.partition("=") for text in overrides]
        if invalid := [name for name, separator, _ in pairs if not separator]:
            raise UsageError(f"invalid context {invalid[0]!r}", hint="write it as NAME=VALUE")
        return list_steps_before_deploy(session, {name: value for name, _, value in pairs})
    if overrides:
        raise UsageError("--context is only used with --before-deploy", hint="leave it out")
    steps = list_steps(connect(session, meter, timeout_seconds=timeout))
    return [step for step in steps if step.name == "clean"] if only_clean else steps
