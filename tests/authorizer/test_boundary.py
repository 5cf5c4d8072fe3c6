"""The authorizer is the standard library, what both functions share, and itself; and it is small."""

import ast
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("lambdas/channel", "lambdas/access", "lambdas/authorizer")
MAX_ZIP_BYTES = 64 * 1024
SHELL = {"handler.py", "source.py"}  # the modules that do I/O
IMPURE = {
    "os",
    "time",
    "socket",
    "http.client",
    "urllib",
    "ssl",
    "subprocess",
    "random",
    "secrets",
    "boto3",
    "botocore",
}
SETTINGS = {"bucket": "b", "region": "us-east-1", "origin_domain": "d", "endpoint_url": "http://127.0.0.1:1"}


def find_modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def find_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", find_modules(*FOLDERS), ids=lambda path: path.name)
def test_imports__standard_library_and_own_folders(path: Path) -> None:
    for name in find_imports(path):
        top = name.partition(".")[0]
        own = name.startswith(("lambdas.channel.", "lambdas.access.", "lambdas.authorizer."))
        assert own or (top in sys.stdlib_module_names and top != "lambdas"), name


@pytest.mark.parametrize("path", find_modules(*FOLDERS), ids=lambda path: path.name)
def test_imports__pure_modules_do_no_io(path: Path) -> None:
    if path.name not in SHELL:
        names = find_imports(path)
        assert not (names | {name.partition(".")[0] for name in names}) & IMPURE


def test_imports__keykeeper_knows_neither_function() -> None:
    for path in find_modules("lambdas/key_refresher"):
        for name in find_imports(path):
            assert not name.startswith(("lambdas.indexer", "lambdas.authorizer", "scripts")), name


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Return a folder with what is in the zip, and nothing else."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "lambdas/__init__.py", tmp_path / "lambdas/__init__.py")
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    return tmp_path


def test_handler__runs_without_any_installed_package(unpacked: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(unpacked)!r})
before = set(sys.modules)
from lambdas.authorizer.handler import handle_viewer_request
loaded = set(sys.modules) - before
assert {{name.partition(".")[0] for name in loaded}} <= set(sys.stdlib_module_names) | {{"lambdas"}}, loaded
assert not loaded & {{"http.client", "ssl", "socket", "urllib", "email", "logging", "asyncio"}}, loaded
request = {{"uri": "/team/x", "method": "GET", "headers": {{}}, "querystring": ""}}
print(handle_viewer_request({{"Records": [{{"cf": {{"request": request}}}}]}}, None)["status"])
"""
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "503"


def test_zip__fits_its_budget(unpacked: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(unpacked.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(unpacked))
    assert 0 < len(packed.getvalue()) <= MAX_ZIP_BYTES
