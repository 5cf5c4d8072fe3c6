"""Boundaries that the imports show: pure modules do no I/O, and the authorizer is small and standard library only.

The floors of the layout (which folder may import which) are import-linter's contracts, in pyproject.toml.
"""

import ast
import functools
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AUTHORIZER_FOLDERS = ("lambdas/channel", "lambdas/access", "lambdas/authorizer")
MAX_ZIP_BYTES = 64 * 1024
AUTHORIZER_SHELL = {"handler.py", "source.py"}  # the modules that do I/O
IMPURE = {
    "asyncio",
    "aws_lambda_powertools",
    "boto3",
    "botocore",
    "concurrent",
    "http.client",
    "http.server",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uuid",
}
SETTINGS = {"bucket": "b", "region": "us-east-1", "origin_domain": "d", "endpoint_url": "http://127.0.0.1:1"}


def list_modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def format_path(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


@functools.cache
def parse_module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def list_imports(path: Path) -> set[str]:
    """Return every name that a module imports, in functions too: of ``from a import b``, both ``a`` and ``a.b``."""
    names = set()
    for node in ast.walk(parse_module(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def list_impure(path: Path) -> set[str]:
    """Return what a module, or a module of Fairway's that it imports, imports of the impure."""
    pending, seen, impure = [path], set(), set()
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in list_imports(module):
            parts = name.split(".")
            prefixes = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
            impure |= {f"{format_path(module)} imports {each}" for each in prefixes & IMPURE}
            if (ROOT / f"{'/'.join(parts)}.py").exists():
                pending.append(ROOT / f"{'/'.join(parts)}.py")
    return impure


def says_pure(path: Path) -> bool:
    return re.search(r"\bPure\b", ast.get_docstring(parse_module(path)) or "") is not None


PURE_MODULES = [path for path in list_modules("lambdas") if says_pure(path)]


def test_pure_modules__are_many() -> None:
    assert len(PURE_MODULES) > 25


@pytest.mark.parametrize("path", PURE_MODULES, ids=format_path)
def test_imports__pure_modules_do_no_io(path: Path) -> None:
    assert not list_impure(path)


@pytest.mark.parametrize(
    ("source", "impure"),
    [
        ("import os", True),
        ("import os.path", True),
        ("from os import path", True),
        ("from urllib import request", True),
        ("from urllib.parse import quote", False),
        ("from lambdas.storage.s3 import S3Storage", True),
        ("from lambdas.storage import s3", True),
        ("from lambdas.channel.names import NOARCH", False),
        ("def f():\n    import time", True),
    ],
)
def test_find_impure__follows_imports(tmp_path: Path, source: str, *, impure: bool) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert bool(list_impure(path)) == impure


@pytest.mark.parametrize("path", list_modules(*AUTHORIZER_FOLDERS), ids=format_path)
def test_imports__of_the_authorizer_are_standard_library_and_own_folders(path: Path) -> None:
    for name in list_imports(path):
        top = name.partition(".")[0]
        own = f"{name}.".startswith(("lambdas.channel.", "lambdas.access.", "lambdas.authorizer."))
        assert own or (top in sys.stdlib_module_names and top != "lambdas"), name


@pytest.mark.parametrize("path", list_modules(*AUTHORIZER_FOLDERS), ids=format_path)
def test_imports__of_the_authorizer_do_io_in_its_shell_alone(path: Path) -> None:
    if path.name not in AUTHORIZER_SHELL:
        assert not list_impure(path)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Return a folder with what is in the zip, and nothing else."""
    for folder in AUTHORIZER_FOLDERS:
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
