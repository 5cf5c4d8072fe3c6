"""``--wait`` always ends."""

import pytest

from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@pytest.mark.parametrize("command", ["yank", "unyank"])
def test_wait__ends_at_the_timeout(bucket: Bucket, run_fairway: Run, command: str) -> None:
    bucket.publish("team", conda_package(name="hello"))
    reason = ("--reason", "broken") if command == "yank" else ()
    if command == "unyank":
        run_fairway("yank", "team", "hello", "--reason", "broken")
        bucket.index("team/noarch/patch_instructions.json")
    result = run_fairway(command, "team", "hello", *reason, "--wait", "--timeout", "0")  # no indexer runs
    assert result.code == 1
    assert result.err.startswith("error: timed out after 0 s: team/noarch/hello-1.0-0.conda is ")


@pytest.mark.parametrize("arguments", [("status", "team/noarch/hello-1.0-0.conda"), ("unyank", "team", "hello")])
def test_wait__timeout_alone_is_a_usage_error(bucket: Bucket, run_fairway: Run, arguments: tuple[str, ...]) -> None:
    result = run_fairway(*arguments, "--timeout", "5")
    assert (result.code, result.err) == (2, "error: --timeout without --wait\nhint: add --wait\n")


def test_wait__of_status_says_that_it_timed_out(bucket: Bucket, run_fairway: Run) -> None:
    (key,) = bucket.upload("team", conda_package(name="hello"))  # no indexer runs
    result = run_fairway("status", key, "--wait", "--timeout", "0.01")
    assert result.code == 1
    assert result.err == "timed out after 0.01 s: 1 of 1 uploads are not indexed yet\n"
    assert "waiting" in result.out


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_wait__without_an_end_is_a_usage_error(bucket: Bucket, run_fairway: Run, seconds: str) -> None:
    (key,) = bucket.upload("team", conda_package(name="hello"))
    for arguments in (("status", key, "--wait"), ("move", "team", "hello", "--to", "other")):
        result = run_fairway(*arguments, "--timeout", seconds)
        assert (result.code, result.out) == (2, "")
        assert "'--timeout'" in result.err
