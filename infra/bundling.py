"""Builds the functions' zips: without Docker, from locked requirements, reproducibly.

Owns what goes into a zip and what is left out of it. Knows the functions by their folders and imports
none of them. A zip's filename contains the hash of its inputs, so that the next synthesis reuses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import uv

from lambdas.channel.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ROOT / ".local" / "bundles"

AUTHORIZER_MAX_BYTES = 64 * 1024  # each cold start at the edge unpacks it

# The services that the indexer calls. botocore describes some 400 more, about 120 MB unpacked, and
# Lambda allows 250 MB in all.
_BOTOCORE_SERVICES = frozenset({"cloudfront", "events", "s3", "sqs", "sts"})
_BOTOCORE_DATA = frozenset({"_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json"})

# boto3's resources and examples: the functions use clients. Powertools' page for browsing an HTTP API.
# Packages' commands: their first line names the interpreter of the machine that built them.
_UNUSED_FOLDERS = frozenset(
    {"aws_lambda_powertools/event_handler/openapi/swagger_ui", "bin", "boto3/data", "boto3/examples"}
)
_UNUSED_FOLDER_NAMES = frozenset({"__pycache__", "tests"})
_UNUSED_SUFFIXES = frozenset({".c", ".h", ".pxd", ".pyc", ".pyi", ".pyx", ".typed"})

# The metadata that says a package's version and licence; the rest describes its installation.
_DIST_INFO_FILES = frozenset({"METADATA", "entry_points.txt"})

_KEPT_ZIPS = 10  # of each function: a concurrent synthesis may still read an older one

_OLDEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The machine that a function runs on."""

    python_version: str  # "3.13"
    wheel_platform: str | None  # uv's name for it; None is this machine


LAMBDA_ARM64 = Target(python_version="3.13", wheel_platform="aarch64-manylinux2014")


def host_target() -> Target:
    """Return this machine as a target: the emulator runs functions on it."""
    return Target(python_version=f"{sys.version_info.major}.{sys.version_info.minor}", wheel_platform=None)


def build_indexer(target: Target, *, root: Path = ROOT, bundles: Path = BUNDLES) -> Path:
    """Build the indexer's zip: its folder, shared folders, and its requirements."""
    return _keep_installed(bundles, "indexer", root, target, _read_sources(root, "channel", "storage", "indexer"))


def build_authorizer(settings: Mapping[str, object], *, root: Path = ROOT, bundles: Path = BUNDLES) -> Path:
    """Build the authorizer's zip: its folder, shared folders, and its settings at the root.

    Raises:
        UsageError: the zip is larger than ``AUTHORIZER_MAX_BYTES``.
    """
    content = json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n"
    sources = {**_read_sources(root, "channel", "access", "authorizer"), "settings.json": content}
    path = _keep(bundles, "authorizer", _describe(sources), lambda: sources)
    if path.stat().st_size > AUTHORIZER_MAX_BYTES:
        raise UsageError(
            f"the authorizer's zip has {path.stat().st_size} bytes, more than {AUTHORIZER_MAX_BYTES}",
            hint="each cold start at the edge unpacks it: remove code",
        )
    return path


def build_key_refresher(target: Target | None, *, root: Path = ROOT, bundles: Path = BUNDLES) -> Path:
    """Build the key refresher's zip: its folder, shared folders, and boto3 if a target is given."""
    sources = _read_sources(root, "channel", "access", "storage", "key_refresher")
    if target is None:
        return _keep(bundles, "key_refresher", _describe(sources), lambda: sources)
    return _keep_installed(bundles, "key_refresher", root, target, sources)


def _read_sources(root: Path, *folders: str) -> dict[str, bytes]:
    """Return ``{name in the zip: content}`` of folders of ``lambdas/``."""
    lambdas = root / "lambdas"
    paths = [lambdas / "__init__.py", *(path for folder in folders for path in _walk(lambdas / folder))]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _describe(files: Mapping[str, bytes]) -> Iterator[bytes]:
    for name in sorted(files):
        yield name.encode()
        yield files[name]


def _describe_host(target: Target) -> str:
    """Return what decides which wheels fit this machine; empty for any other target."""
    return "" if target.wheel_platform else f"{sys.platform}-{platform.machine()}"


def _keep_installed(bundles: Path, name: str, root: Path, target: Target, sources: Mapping[str, bytes]) -> Path:
    requirements = root / "requirements-indexer.txt"
    return _keep(
        bundles,
        name,
        [requirements.read_bytes(), repr((target, _describe_host(target))).encode(), *_describe(sources)],
        lambda: {**_install(requirements, target), **sources},
    )


def _keep(bundles: Path, name: str, inputs: Iterable[bytes], collect: Callable[[], Mapping[str, bytes]]) -> Path:
    """Return the zip for these inputs; build it if it does not exist."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for part in inputs:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    path = bundles / f"{name}-{digest.hexdigest()[:32]}.zip"
    if path.exists():
        path.touch()  # in use: not among the oldest
    else:
        files = collect()
        bundles.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=bundles, prefix=f".{name}-", delete=False) as unfinished:
            _write_zip(Path(unfinished.name), files)
        Path(unfinished.name).chmod(0o644)
        # A concurrent synthesis writes the same bytes, so the order of the renames does not matter.
        Path(unfinished.name).replace(path)
        print(f"bundling: {name} {path.stat().st_size / 1024:,.0f} KiB", file=sys.stderr)  # noqa: T201 - for people
        _delete_oldest(bundles, name)
    return path


def _delete_oldest(bundles: Path, name: str) -> None:
    ages = []
    for path in bundles.glob(f"{name}-*.zip"):
        with contextlib.suppress(FileNotFoundError):  # a concurrent synthesis deletes it, too
            ages.append((path.stat().st_mtime, path))
    for _, path in sorted(ages)[:-_KEPT_ZIPS]:
        path.unlink(missing_ok=True)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that the zip's bytes depend only on their names and contents."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _OLDEST_ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name], compresslevel=9)


def _install(requirements: Path, target: Target) -> dict[str, bytes]:
    """Install the locked requirements as wheels for the target; return ``{name: content}``.

    Raises:
        UsageError: the installation failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="fairway-bundle-"))
    try:
        command = [
            uv.find_uv_bin(), "pip", "install", "--quiet", "--target", str(folder), "--python", sys.executable,
            "--only-binary", ":all:", "--no-deps", "--require-hashes", "--requirement", str(requirements),
        ]  # fmt: skip
        if target.wheel_platform:
            command += ["--python-version", target.python_version, "--python-platform", target.wheel_platform]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, no outside input
        if finished.returncode:
            raise UsageError(
                f"the indexer's requirements can't be installed for {target.wheel_platform or 'this machine'}",
                hint=finished.stderr.strip(),
            )
        installed = [path.relative_to(folder).as_posix() for path in _walk(folder)]
        return {name: (folder / name).read_bytes() for name in select_needed(installed)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def select_needed(names: Iterable[str]) -> list[str]:
    """Return the files of installed packages that a function needs."""
    needed = [name for name in names if _is_needed(name)]
    # botocore has several descriptions of some services, and reads the newest.
    newest: dict[str, str] = {}
    for service, version in filter(None, map(_parse_service_file, needed)):
        newest[service] = max(version, newest.get(service, ""))
    return [name for name in needed if (parsed := _parse_service_file(name)) is None or newest[parsed[0]] == parsed[1]]


def _parse_service_file(name: str) -> tuple[str, str] | None:
    """Parse ``botocore/data/SERVICE/VERSION/FILE`` into service and version; None for any other name."""
    parts = name.split("/")
    return (parts[2], parts[3]) if parts[:2] == ["botocore", "data"] and len(parts) == 5 else None  # noqa: PLR2004


def _is_needed(name: str) -> bool:
    parts = name.split("/")
    folders = parts[:-1]
    if parts[-1].startswith(".") or PurePosixPath(name).suffix in _UNUSED_SUFFIXES:
        return False
    if not _UNUSED_FOLDER_NAMES.isdisjoint(folders):
        return False
    if any("/".join(folders[:depth]) in _UNUSED_FOLDERS for depth in range(1, len(folders) + 1)):
        return False
    if folders and folders[0].endswith(".dist-info"):
        return parts[1] in _DIST_INFO_FILES or "licenses" in folders or parts[1].startswith("LICENSE")
    if folders[:2] == ["botocore", "data"]:
        return parts[2] in (_BOTOCORE_SERVICES | _BOTOCORE_DATA)
    return True
