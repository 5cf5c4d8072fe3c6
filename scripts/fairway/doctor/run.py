"""Runs the steps of ``fairway doctor`` one after another, and records what each used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from botocore.exceptions import ClientError

from lambdas.channel.errors import FairwayError
from scripts.fairway.aws_errors import explain
from scripts.fairway.doctor.clock import CLOCK, Clock
from scripts.fairway.doctor.meter import Meter
from scripts.fairway.doctor.report import Result, State


class NotEnforced(Exception):  # noqa: N818 - a result, no error
    """The emulator does not enforce what the step checks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step: ``run`` returns a summary, and raises an error if the step fails."""

    name: str
    run: Callable[[], str]
    needs: tuple[str, ...] = ()
    """Names of steps that must have passed."""
    indexed: int = 0
    """About how many runs of the indexer it leads to."""


def run_steps(
    steps: Sequence[Step], meter: Meter, *, note: Callable[[str], None], clock: Clock = CLOCK
) -> list[Result]:
    """Run the steps. One that fails stops those that need it, and no other."""
    results: dict[str, Result] = {}
    for step in steps:
        missing = [name for name in step.needs if results[name].state is not State.PASSED]
        if missing:
            detail = f"needs {missing[0]!r}, which did not pass"
            results[step.name] = Result(name=step.name, state=State.NOT_RUN, detail=detail)
            continue
        note(f"{step.name} …")
        results[step.name] = _run_step(step, meter, clock)
    return list(results.values())


def _run_step(step: Step, meter: Meter, clock: Clock) -> Result:
    started, before = clock.monotonic(), meter.copy()
    hint = None
    try:
        state, detail = State.PASSED, step.run()
    except NotEnforced as result:
        state, detail = State.NOT_ENFORCED, f"not enforced by this emulator: {result}"
    except Exception as error:  # noqa: BLE001 - whatever happened, cleaning comes last
        state = State.FAILED
        detail, hint = describe_error(error)
    usage = meter.usage_since(before, seconds=clock.monotonic() - started, indexed=step.indexed)
    return Result(name=step.name, state=state, detail=detail, hint=hint, usage=usage)


def describe_error(error: Exception) -> tuple[str, str | None]:
    """Return what an error says, with AWS's own reason, and what to do about it."""
    explained = explain(error) or error
    if not isinstance(explained, FairwayError):
        return f"unexpected {type(error).__name__}: {error}", "report this as a bug in Fairway"
    cause = error if isinstance(error, ClientError) else error.__cause__
    reason = cause.response.get("Error", {}).get("Message") if isinstance(cause, ClientError) else None
    return (f"{explained}: {reason}", explained.hint) if reason else (str(explained), explained.hint)
