"""Cleaning: after an interruption anywhere, and when something can't be deleted."""

import contextlib

import pytest

from lambdas.channel.errors import AccessDeniedError
from scripts.fairway.doctor.cleaning import PREFIXES
from scripts.fairway.doctor.report import State
from scripts.fairway.doctor.steps import STEPS
from tests.fairway.doctor.deployment import Deployment

NAMES = [name for name, *_ in STEPS]
WRITES = {"put", "copy", "delete", "splice"}


class Interruption:
    """Ctrl+C after the n-th write of a step."""

    def __init__(self, deployment: Deployment, step: str, number: int) -> None:
        self._deployment = deployment
        self._step = step
        self._left = number
        self.has_happened = False

    def __call__(self, kind: str, _key: str, when: str) -> None:
        is_wanted = self._deployment.notes and self._step in [note.removesuffix(" …") for note in self._steps()]
        if self.has_happened or when != "after" or kind not in WRITES or self._deployment.is_indexer_running:
            return
        if is_wanted:
            self._left -= 1
            if self._left < 0:
                self.has_happened = True
                raise KeyboardInterrupt

    def _steps(self) -> list[str]:
        started = [note for note in self._deployment.notes if note.endswith(" …")]
        return started[-1:]


@pytest.mark.parametrize("number", [0, 1, 5])
@pytest.mark.parametrize("step", NAMES)
def test_clean__after_an_interruption(deployment: Deployment, step: str, number: int) -> None:
    interruption = Interruption(deployment, step, number)
    deployment.bucket.fault = interruption
    try:
        deployment.examine()
    except KeyboardInterrupt:
        pass
    else:
        assert not interruption.has_happened  # the step has fewer writes
    deployment.bucket.fault = None
    results = deployment.examine()
    assert {name: result.detail for name, result in results.items() if result.state is not State.PASSED} == {}
    assert deployment.leftovers() == []
    assert deployment.access.tokens == ()
    deployment.sleep(120)  # whatever the indexer still had to do
    assert deployment.leftovers() == []


@pytest.mark.parametrize("step", NAMES)
def test_clean__alone_after_an_interruption(deployment: Deployment, step: str) -> None:
    """As ``--clean`` does."""
    deployment.bucket.fault = Interruption(deployment, step, 0)
    with contextlib.suppress(KeyboardInterrupt):
        deployment.examine()
    deployment.bucket.fault = None
    assert deployment.examine("clean")["clean"].state is State.PASSED
    assert deployment.leftovers() == []
    deployment.sleep(120)
    assert deployment.leftovers() == []


def test_clean__deletes_versions_and_delete_markers(deployment: Deployment) -> None:
    for prefix in PREFIXES:
        deployment.bucket.upload(f"{prefix}noarch/a", b"1")
        deployment.bucket.upload(f"{prefix}noarch/a", b"2")
        deployment.bucket.remove(f"{prefix}noarch/a")
    assert deployment.examine("clean")["clean"].detail == f"deleted {3 * len(PREFIXES)} versions"
    assert deployment.leftovers() == []


def test_clean__deletion_is_denied(deployment: Deployment) -> None:
    deployment.bucket.upload("fairway-doctor/noarch/a-1-0.conda", b"1")

    def deny(kind: str, _key: str, _when: str) -> None:
        if kind == "delete":
            raise AccessDeniedError("S3 answered 403", hint="may you do this?")

    deployment.bucket.fault = deny
    result = deployment.examine("clean")["clean"]
    assert (result.state, result.detail, result.hint) == (State.FAILED, "S3 answered 403", "may you do this?")


def test_clean__something_writes_again(deployment: Deployment) -> None:
    def write() -> None:
        deployment.bucket.upload("fairway-doctor/noarch/a.txt", b"1")

    deployment.on_sleep = write
    write()
    result = deployment.examine("clean")["clean"]
    assert result.state is State.FAILED
    assert "came again while they were deleted, such as 'fairway-doctor/noarch/a.txt'" in result.detail


def test_clean__indexer_is_down(deployment: Deployment) -> None:
    deployment.examine("earlier-run", "token", "publish")
    deployment.is_indexing = False
    result = deployment.examine("clean")["clean"]
    assert result.state is State.FAILED
    assert "still not: the index of deleted artifacts is empty" in result.detail
    deployment.is_indexing = True
    assert deployment.examine("clean")["clean"].state is State.PASSED
    assert deployment.leftovers() == []


@pytest.mark.parametrize("late", [1, 15, 60, 74, 76, 79, 90])
def test_clean__late_event(deployment: Deployment, late: int) -> None:
    """An index that a late event makes again is deleted once no message about it is on the way."""
    deployment.bucket.upload("fairway-doctor/linux-64/a-1-0.conda", b"1")
    deployment.queue.append((deployment.seconds + late, "fairway-doctor/linux-64/"))
    assert deployment.examine("clean")["clean"].state is State.PASSED
    assert deployment.leftovers() == []
    deployment.sleep(120)
    deployment.sleep(120)
    assert deployment.leftovers() == []
