"""``fairway copy``, ``fairway move`` and ``fairway remove``."""

from typing import Any

import pytest

from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

SOURCE, COPY = "staging/noarch/hello-1.0-0.conda", "tools/noarch/hello-1.0-0.conda"


@pytest.fixture
def live(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket whose indexer runs after each copy and each deletion."""
    storage = bucket.storage

    def after(name: str, index: int) -> None:
        method = getattr(storage, name)

        def run(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - any of the storage's
            method(*arguments, **options)
            bucket.index(arguments[index] if isinstance(arguments[index], str) else arguments[index].key)

        monkeypatch.setattr(storage, name, run)

    bucket.publish("staging", conda_package(name="hello"), conda_package(name="world"))
    storage.clock_ms += 60_000
    after("copy", 1)
    after("delete", 0)
    return bucket


def list_keys(run_fairway: Run, channel: str) -> list[str]:
    return [one["key"] for one in run_fairway("list", channel, "--json").document]


def test_copy__same_bytes_and_a_timestamp_of_its_own(live: Bucket, run_fairway: Run) -> None:
    result = run_fairway("copy", "staging", "hello", "--to", "tools", "--wait", "--json")
    assert result.code == 0, result.err
    assert result.document == [{"key": COPY, "state": "copied"}]
    old, new = (run_fairway("show", key, "--json").document["record"] for key in (SOURCE, COPY))
    assert new["sha256"] == old["sha256"]
    assert new["indexed_timestamp"] == live.storage.clock_ms != old["indexed_timestamp"]
    again = run_fairway("copy", "staging", "hello", "--to", "tools")
    assert (again.code, again.err) == (0, f"{COPY}: already there\n")


def test_copy__other_bytes_are_there(live: Bucket, run_fairway: Run) -> None:
    live.publish("tools", conda_package(name="hello", depends=["other"]))
    before = live.storage.get(COPY)
    result = run_fairway("copy", "staging", "hello", "--to", "tools")
    assert result.code == 1
    assert result.err.startswith(f"error: {COPY} is already published with other bytes\nhint: ")
    assert live.storage.get(COPY) == before


def test_copy__yanked_artifacts_are_not_copied(live: Bucket, run_fairway: Run) -> None:
    run_fairway("yank", "staging", "hello", "--reason", "broken")
    live.index("staging/noarch/patch_instructions.json")
    assert run_fairway("copy", "staging", "*", "--to", "tools").code == 0
    assert list_keys(run_fairway, "tools") == ["tools/noarch/world-1.0-0.conda"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("staging", "nothing", "--to", "tools"),
        ("nowhere", "hello", "--to", "tools"),
        ("staging", "hello", "--to", "staging"),
        ("staging", "hello", "--to", "Tools"),
        ("staging", "hello"),
    ],
)
@pytest.mark.parametrize("command", ["copy", "move"])
def test_copy__usage_errors(live: Bucket, run_fairway: Run, command: str, arguments: tuple[str, ...]) -> None:
    assert run_fairway(command, *arguments).code == 2


def test_move__removes_the_original_when_the_copy_is_indexed(live: Bucket, run_fairway: Run) -> None:
    assert run_fairway("move", "staging", "hello", "--to", "tools").code == 0
    assert list_keys(run_fairway, "staging") == ["staging/noarch/world-1.0-0.conda"]
    assert list_keys(run_fairway, "tools") == [COPY]


def test_move__keeps_the_original_if_the_copy_is_not_indexed_in_time(bucket: Bucket, run_fairway: Run) -> None:
    bucket.publish("staging", conda_package(name="hello"))
    result = run_fairway("move", "staging", "hello", "--to", "tools", "--timeout", "0")
    assert result.code == 1
    assert result.err.startswith("error: timed out after 0 s")
    assert bucket.storage.head(SOURCE) is not None


def test_remove__asks_and_explains_yank(live: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unasked = run_fairway("remove", "staging", "hello")
    assert unasked.code == 2
    assert "fairway yank" in unasked.err
    assert live.storage.head(SOURCE) is not None
    monkeypatch.setattr("scripts.fairway.terminal.click.confirm", lambda question, err: "1 artifact" not in question)
    monkeypatch.setattr("sys.stdin", _Terminal())
    assert run_fairway("remove", "staging", "hello").code == 2
    assert live.storage.head(SOURCE) is not None
    monkeypatch.setattr("scripts.fairway.terminal.click.confirm", lambda question, err: "1 artifact" in question)
    assert run_fairway("remove", "staging", "hello").code == 0
    assert live.storage.head(SOURCE) is None


def test_remove__yes_and_wait(live: Bucket, run_fairway: Run) -> None:
    result = run_fairway("remove", "staging", "hello=1.0", "--yes", "--wait", "--json")
    assert result.document == [{"key": SOURCE, "state": "removed"}]
    assert list_keys(run_fairway, "staging") == ["staging/noarch/world-1.0-0.conda"]
    assert [one.is_deletion for one in live.storage.list_history(SOURCE)] == [True, False]  # it can be restored


def test_remove__nothing_matches(live: Bucket, run_fairway: Run) -> None:
    assert run_fairway("remove", "staging", "nothing", "--yes").code == 2
    assert run_fairway("remove", "nowhere", "hello", "--yes").code == 2


class _Terminal:
    def isatty(self) -> bool:
        return True
