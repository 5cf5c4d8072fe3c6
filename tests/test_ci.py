"""CI, the hooks and the scripts run the same checks, on every Python that the project supports."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def read_yaml(name: str) -> Any:  # noqa: ANN401 - YAML
    """Return a YAML document with all scalars as strings, so that ``on`` stays a word and 3.10 is not 3.1."""
    return yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - strings only


def supported_pythons() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"])
    assert bounds is not None
    versions = [f"3.{minor}" for minor in range(int(bounds[1]), int(bounds[2]))]
    prefix = "Programming Language :: Python :: "
    assert [one.removeprefix(prefix) for one in project["classifiers"] if one.startswith(prefix)] == versions
    return versions


@pytest.fixture(scope="module")
def workflow() -> Any:  # noqa: ANN401 - YAML
    return read_yaml(".github/workflows/ci.yml")


def test_workflow__runs_ci_on_every_supported_python(workflow: Any) -> None:  # noqa: ANN401 - YAML
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"] == {"python": supported_pythons()}
    python = next(step for step in job["steps"] if step.get("id") == "python")
    assert python["with"] == {"python-version": "${{ matrix.python }}"}
    run = job["steps"][-1]
    assert run["run"] == ".ci/run"
    assert run["env"] == {"FAIRWAY_PYTHON": "${{ steps.python.outputs.python-path }}"}
    assert set(workflow["on"]) == {"push", "pull_request"}


def test_workflow__has_least_permissions_and_pinned_actions(workflow: Any) -> None:  # noqa: ANN401 - YAML
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    used = [step for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step["uses"]) for step in used)
    checkout = next(step for step in used if step["uses"].startswith("actions/checkout@"))
    assert checkout["with"] == {"persist-credentials": "false"}


def test_ci__runs_all_checks_and_all_tests() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.startswith("sc")]
    assert commands == ["scripts/check", "scripts/test"]


def test_hooks__are_the_checks_of_the_script() -> None:
    script = (ROOT / "scripts/check").read_text(encoding="utf-8")
    checks = re.findall(r"^check_(\w+)\(\) \{$", script, re.MULTILINE)
    assert f"${{checks:-{' '.join(checks)}}}" in script, "without arguments, the script runs every check"
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    hooks = {hook["id"]: hook for hook in local["hooks"]}
    assert list(hooks) == checks
    for check, hook in hooks.items():
        assert (hook["entry"], hook["language"]) == (f"scripts/check {check}", "system")
        assert hook["pass_filenames"] == "false"


def test_check__unknown_check() -> None:
    done = subprocess.run([ROOT / "scripts/check", "spelling"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: unknown argument spelling\nhint: scripts/check --help\n"
