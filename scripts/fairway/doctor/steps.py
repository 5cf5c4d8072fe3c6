"""The steps of ``fairway doctor``, in order: a row per step."""

from collections.abc import Callable
from functools import partial
from typing import Final

from lambdas.channel.errors import DeadlineError
from scripts.fairway.doctor import steps_access, steps_account, steps_channel
from scripts.fairway.doctor.cleaning import clean
from scripts.fairway.doctor.examination import Examination
from scripts.fairway.doctor.run import Step

# (name, what it does, steps that must have passed, about how many runs of the indexer it leads to)
STEPS: Final[tuple[tuple[str, Callable[[Examination], str], tuple[str, ...], int], ...]] = (
    ("stack", steps_account.check_stack, (), 0),
    ("versions", steps_account.check_versions, ("stack",), 0),
    ("quotas", steps_account.check_quotas, ("stack",), 0),
    ("earlier-run", clean, (), 0),
    ("token", steps_access.create_token, ("earlier-run",), 0),
    ("unauthenticated", steps_access.check_unauthenticated, ("token",), 0),
    ("upload-policy", steps_access.check_upload_policy, ("earlier-run",), 0),
    ("publish", steps_channel.check_publish, ("earlier-run",), 1),
    ("install", steps_channel.check_install, ("token", "publish"), 0),
    ("headers", steps_channel.check_headers, ("token", "publish"), 0),
    ("quarantine", steps_channel.check_quarantine, ("publish",), 2),
    ("yank", steps_channel.check_yank, ("token", "publish"), 2),
    ("delete", steps_channel.check_delete, ("publish",), 1),
    ("splice", steps_channel.check_splice, ("token", "publish"), 10),
    ("revoke", steps_access.check_revoke, ("token",), 0),
    ("clean", clean, (), 5),
)


def list_steps(examination: Examination) -> list[Step]:
    """Return all steps; cleaning comes last, whatever the others' results are."""
    return [
        Step(name=name, run=partial(_run_in_time, run, examination), needs=needs, indexed=indexed)
        for name, run, needs, indexed in STEPS
    ]


def _run_in_time(run: Callable[[Examination], str], examination: Examination) -> str:
    """Run a step if there is time left; cleaning has its own time."""
    if run is not clean and examination.clock.monotonic() >= examination.deadline:
        raise DeadlineError("no time was left to begin", hint="use a longer --timeout, and see which steps were slow")
    return run(examination)
