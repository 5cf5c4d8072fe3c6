"""``CHANNEL[/SUBDIR]``, the target of most commands."""

import pytest

from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@pytest.mark.parametrize("command", ["verify", "reconcile", "rebuild", "unyank"])
def test_resolve_target__invalid_name(bucket: Bucket, run_fairway: Run, command: str) -> None:
    more = ["foo"] if command == "unyank" else []
    assert run_fairway(command, "Team", *more).code == 2
    assert run_fairway(command, "team/Noarch", *more).code == 2
