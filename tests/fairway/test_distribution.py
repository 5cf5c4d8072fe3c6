"""The wheel: installed with its declared dependencies and nothing else, the command runs."""

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.builders import conda_package

ROOT = Path(__file__).resolve().parents[2]
LAMBDA_LIBRARIES = {"aws-lambda-powertools", "aws-xray-sdk"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and with links to its dependencies as this environment has them."""
    folder = tmp_path_factory.mktemp("distribution")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder / "dist"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel],
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    (information,) = packages.glob("*.dist-info")
    requirements = metadata.Distribution.at(information).requires or []
    for name in list_dependencies(requirements):
        for file in {file.parts[0] for file in metadata.files(name) or [] if file.parts[0] != ".."}:
            source = Path(str(metadata.distribution(name).locate_file(file)))
            if source.exists() and not (packages / file).exists():
                (packages / file).symlink_to(source)
    return folder / "venv/bin"


def list_dependencies(requirements: list[str]) -> set[str]:
    """Return the names of all distributions that the requirements lead to, on this Python."""
    found: set[str] = set()
    pending = [(requirement, {""}) for requirement in requirements]
    while pending:
        text, extras = pending.pop()
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if not wanted or name in found:
            continue
        found.add(name)
        pending += [(text, requirement.extras or {""}) for text in metadata.requires(name) or []]
    return found


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout; return what it prints."""
    done = subprocess.run(command, cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel__is_not_named_like_another_project(installed: Path, tmp_path: Path) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert run(installed / "fairway", "--version", cwd=tmp_path).split()[-1] == version[1]
    code = "from importlib.metadata import version; print(version('fairway-channel'))"
    assert run(installed / "python", "-c", code, cwd=tmp_path).strip() == version[1]


def test_wheel__has_no_lambda_libraries(installed: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import distributions; print(*(found.name for found in distributions()))"
    names = {canonicalize_name(name) for name in run(installed / "python", "-c", code, cwd=tmp_path).split()}
    assert {"boto3", "click", "msgpack"} <= names
    assert not names & LAMBDA_LIBRARIES


def test_wheel__every_command_has_help(installed: Path, tmp_path: Path) -> None:
    listed = run(installed / "fairway", "--help", cwd=tmp_path).partition("Commands:\n")[2]
    commands = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {"publish", "status", "index", "token"} <= set(commands)
    for command in commands:
        assert run(installed / "fairway", command, "--help", cwd=tmp_path).startswith(f"Usage: fairway {command} ")


def test_wheel__indexes_a_directory(installed: Path, tmp_path: Path) -> None:
    filename, body = conda_package()
    (tmp_path / "team/noarch").mkdir(parents=True)
    (tmp_path / "team/noarch" / filename).write_bytes(body)
    assert json.loads(run(installed / "fairway", "index", "--json", "team", cwd=tmp_path))["indexed"] == 1
    assert filename in (tmp_path / "team/noarch/repodata.json").read_text(encoding="utf-8")


def test_module__runs_from_a_checkout() -> None:
    shown = run(sys.executable, "-m", "scripts.fairway", "--version", cwd=ROOT)
    assert shown.startswith("fairway, version ")
