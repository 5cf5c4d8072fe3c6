"""``fairway list`` and ``fairway show``."""

import pytest

from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    bucket.publish("team", conda_package(name="hello", version="1.0"), conda_package(name="hello", version="2.0"))
    bucket.publish("team", conda_package(name="world", subdir="linux-64"), subdir="linux-64")
    return bucket


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["team"], ["noarch/hello-1.0-0.conda", "noarch/hello-2.0-0.conda", "linux-64/world-1.0-0.conda"]),
        (["team", "hello=2.*"], ["noarch/hello-2.0-0.conda"]),
        (["team", "*-1.0-0.conda"], ["noarch/hello-1.0-0.conda", "linux-64/world-1.0-0.conda"]),
        (["team/linux-64"], ["linux-64/world-1.0-0.conda"]),
    ],
)
def test_list__matching_artifacts(filled: Bucket, run_fairway: Run, arguments: list[str], keys: list[str]) -> None:
    result = run_fairway("list", *arguments, "--json")
    assert result.code == 0, result.err
    assert [one["key"] for one in result.document] == [f"team/{key}" for key in keys]
    assert [one["record"]["name"] for one in result.document] == [key.split("/")[1].split("-")[0] for key in keys]
    lines = run_fairway("list", *arguments).out.splitlines()
    assert [line.split()[0] for line in lines] == ["ARTIFACT", *(f"team/{key}" for key in keys)]


@pytest.mark.parametrize("arguments", [("team", "nothing"), ("nowhere",), ("team/osx-64",)])
def test_list__nothing_there(filled: Bucket, run_fairway: Run, arguments: tuple[str, ...]) -> None:
    result = run_fairway("list", *arguments)
    assert (result.code, result.out) == (2, "")
    assert "hint: " in result.err


def test_show__record_url_and_state(filled: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_URL", "https://conda.example.com")
    key = "team/noarch/hello-1.0-0.conda"
    document = run_fairway("show", key, "--json").document
    assert (document["key"], document["state"]) == (key, "indexed")
    assert document["url"] == f"https://conda.example.com/{key}"
    assert document["record"]["version"] == "1.0"
    assert '"version": "1.0"' in run_fairway("show", key).out


def test_show__yanked_artifact_by_spec(filled: Bucket, run_fairway: Run) -> None:
    run_fairway("yank", "team", "hello=1.0", "--reason", "crashes on start")
    filled.index("team/noarch/patch_instructions.json")
    assert [one["key"] for one in run_fairway("list", "team", "hello", "--json").document] == [
        "team/noarch/hello-2.0-0.conda"
    ]
    yanked, other = run_fairway("show", "team", "hello", "--json").document
    assert (yanked["state"], yanked["yanked"]["reason"], yanked["record"]) == ("yanked", "crashes on start", None)
    assert (other["state"], other["yanked"]) == ("indexed", None)
    assert "crashes on start" in run_fairway("show", "team", "hello").out


@pytest.mark.parametrize("arguments", [("team/noarch/nix-1.0-0.conda",), ("team",), ("team", "nothing")])
def test_show__nothing_there(filled: Bucket, run_fairway: Run, arguments: tuple[str, ...]) -> None:
    result = run_fairway("show", *arguments)
    assert (result.code, result.out) == (2, "")
