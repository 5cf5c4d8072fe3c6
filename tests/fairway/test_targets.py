"""``CHANNEL[/SUBDIR]``, the target of most commands."""

import pytest

from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@pytest.mark.parametrize("command", ["verify", "reconcile", "rebuild", "unyank"])
def test_resolve_target__invalid_name(bucket: Bucket, run_fairway: Run, command: str) -> None:
    more = ["foo"] if command == "unyank" else []
    assert run_fairway(command, "Team", *more).code == 2
    assert run_fairway(command, "team/Noarch", *more).code == 2


@pytest.mark.parametrize("command", ["verify", "reconcile", "rebuild", "list", "yank", "unyank"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "channel 'nowhere' does not exist"),
        ("nowhere/noarch", "channel 'nowhere' does not exist"),
        ("team/osx-64", "subdir 'team/osx-64' does not exist"),
    ],
)
def test_resolve_target__missing(bucket: Bucket, run_fairway: Run, command: str, target: str, message: str) -> None:
    bucket.publish("team", conda_package())
    more = {"yank": ["foo", "--reason", "x"], "unyank": ["foo"]}.get(command, [])
    result = run_fairway(command, target, *more)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}\nhint: ")
    assert not bucket.list_keys("nowhere")
    assert not bucket.list_keys("team/osx-64")


def test_rebuild__accepted_key_is_missing(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("team", conda_package())
    result = run_fairway("rebuild", "team", "--accept-bytes", "team/noarch/nix-1.0-0.conda")
    assert result.code == 2
    assert result.err.startswith("error: there is no artifact 'team/noarch/nix-1.0-0.conda'")


@pytest.mark.parametrize("target", ["team/noarch/foo-1.0-0.conda", "foo-1.0-0.conda", "s3://bucket/team"])
def test_resolve_target__key_or_url_of_an_object(bucket: Bucket, run_fairway: Run, target: str) -> None:
    bucket.publish("team", conda_package())
    result = run_fairway("list", target)
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {target!r} is not CHANNEL or CHANNEL/SUBDIR")
