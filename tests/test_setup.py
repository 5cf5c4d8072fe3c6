"""``scripts/setup``: what it leaves in the checkout, and that it mends what is gone."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Stands for Python, and for what a new environment has in its bin folder. Each run is noted.
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >>tools.log
case "$(basename "$0") $*" in
"python -c"*print*) echo "$FAIRWAY_PYTHON" ;;
"python -m venv"*) for tool in python uv; do mkdir -p "$4/bin"; cp "$FAIRWAY_PYTHON" "$4/bin/$tool"; done ;;
"uv venv"*) for folder in "$@"; do :; done
    rm -rf "$folder"
    for tool in python npm; do mkdir -p "$folder/bin"; cp "$FAIRWAY_PYTHON" "$folder/bin/$tool"; done ;;
"npm ci"*) mkdir -p node_modules/.bin; cp "$FAIRWAY_PYTHON" node_modules/.bin/cdk ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing set up, and with tools that only pretend."""
    for name in ("scripts/setup", "pyproject.toml", "requirements-dev.txt", "package-lock.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tool = tmp_path / "tools" / "python"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    return tmp_path


def set_up(checkout: Path) -> int:
    """Run the script; return how many tools it ran."""
    log = checkout / "tools.log"
    log.unlink(missing_ok=True)
    environment = os.environ | {"FAIRWAY_PYTHON": str(checkout / "tools" / "python")}
    subprocess.run([checkout / "scripts" / "setup"], env=environment, check=True, capture_output=True)
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_setup__cdk_is_among_the_commands_of_the_environment(checkout: Path) -> None:
    assert set_up(checkout)
    cdk = checkout / ".venv/bin/cdk"
    assert cdk.readlink() == Path("../../node_modules/.bin/cdk")
    assert os.access(cdk, os.X_OK)
    assert set_up(checkout) == 0


@pytest.mark.parametrize("gone", [".venv", "node_modules", ".venv/bin/cdk"])
def test_setup__mends_what_is_gone(checkout: Path, gone: str) -> None:
    set_up(checkout)
    path = checkout / gone
    path.unlink() if path.is_symlink() else shutil.rmtree(path)
    assert set_up(checkout)
    assert os.access(checkout / ".venv/bin/cdk", os.X_OK)
    assert set_up(checkout) == 0


def test_setup__cdk_runs_with_the_environment_active() -> None:
    """In this checkout, as ``. .venv/bin/activate`` leaves PATH; no other Node is near."""
    done = subprocess.run(
        ["cdk", "--version"],
        env={"PATH": f"{ROOT / '.venv/bin'}:/usr/bin:/bin", "HOME": os.environ["HOME"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    locked = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    assert done.stdout.startswith(locked["packages"]["node_modules/aws-cdk"]["version"])
