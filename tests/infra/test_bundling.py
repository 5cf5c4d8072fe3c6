import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import bundling
from infra.bundling import (
    LAMBDA_ARM64,
    build_authorizer,
    build_indexer,
    build_key_refresher,
    host_target,
    select_needed,
)
from lambdas.channel.errors import UsageError

pytestmark = pytest.mark.xdist_group("bundles")  # one worker installs the requirements for all

SETTINGS = {"bucket": "b", "region": "r"}
AARCH64 = 183  # e_machine of an ELF file


@pytest.fixture(scope="session")
def for_lambda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_indexer(LAMBDA_ARM64, bundles=tmp_path_factory.mktemp("arm64"))


@pytest.fixture(scope="session")
def for_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_indexer(host_target(), bundles=tmp_path_factory.mktemp("host"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with next to nothing in it."""
    for name in ("__init__.py", "channel/__init__.py", "authorizer/__init__.py", "authorizer/handler.py"):
        path = tmp_path / "lambdas" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


def read_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_build_indexer__is_reproducible(for_lambda: Path, tmp_path: Path) -> None:
    again = build_indexer(LAMBDA_ARM64, bundles=tmp_path)
    assert again.name == for_lambda.name
    assert again.read_bytes() == for_lambda.read_bytes()


def test_build_indexer__contains_wheels_for_the_target(for_lambda: Path) -> None:
    with zipfile.ZipFile(for_lambda) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        assert libraries
        for name in libraries:
            header = archive.read(name)[:20]
            assert header[:4] == b"\x7fELF"
            assert int.from_bytes(header[18:20], "little") == AARCH64, name
            assert "cpython-313-" in name or ".abi3." in name


def test_build_indexer__contains_no_unused_files(for_lambda: Path) -> None:
    names = read_names(for_lambda)
    assert not [name for name in names if name.endswith((".pyc", ".pyi", "/RECORD", "/INSTALLER"))]
    assert not [name for name in names if {"__pycache__", "tests", "bin"} & set(name.split("/")[:-1])]
    services = {name.split("/")[2] for name in names if name.startswith("botocore/data/") and name.count("/") > 2}
    assert services == {"cloudfront", "events", "s3", "sqs", "sts"}
    assert not [name for name in names if name.startswith(("lambdas/authorizer", "infra", "scripts", "tests"))]


def test_build_indexer__stays_small(for_lambda: Path) -> None:
    with zipfile.ZipFile(for_lambda) as archive:
        unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
    assert for_lambda.stat().st_size <= 6 * 1024 * 1024
    assert unpacked_bytes <= 20 * 1024 * 1024


def test_build_indexer__runs_on_its_own(for_host: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(for_host) as archive:
        archive.extractall(tmp_path)
    script = f"""
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{str(tmp_path)!r}]
import boto3
for service in ("s3", "events", "cloudfront", "sqs", "sts"):
    boto3.client(service, region_name="us-east-1")
import lambdas.indexer.handler as handler
assert handler.__file__.startswith({str(tmp_path)!r}), handler.__file__
assert boto3.__file__.startswith({str(tmp_path)!r}), boto3.__file__
print(handler.handle_queue.__name__, handler.handle_schedule.__name__)
"""
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["handle_queue", "handle_schedule"]


def test_build_indexer__wrong_hash_in_the_lock(tree: Path) -> None:
    (tree / "lambdas" / "indexer").mkdir()
    (tree / "requirements-indexer.txt").write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UsageError, match="can't be installed") as caught:
        build_indexer(host_target(), root=tree, bundles=tree / "bundles")
    assert caught.value.hint
    assert not (tree / "bundles").exists()


def test_build_authorizer__contains_its_folders_and_settings_alone(tmp_path: Path) -> None:
    path = build_authorizer(SETTINGS, bundles=tmp_path)
    names = read_names(path)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("settings.json")) == SETTINGS
    assert all(
        name in ("settings.json", "lambdas/__init__.py")
        or name.startswith(("lambdas/access/", "lambdas/authorizer/", "lambdas/channel/"))
        for name in names
    )
    assert "lambdas/authorizer/handler.py" in names


def test_build_authorizer__stays_within_its_budget(tmp_path: Path) -> None:
    assert build_authorizer(SETTINGS, bundles=tmp_path).stat().st_size <= 64 * 1024


def test_build_authorizer__too_large(tree: Path) -> None:
    (tree / "lambdas" / "authorizer" / "big.py").write_bytes(os.urandom(70_000))
    with pytest.raises(UsageError, match="more than 65536"):
        build_authorizer(SETTINGS, root=tree, bundles=tree / "bundles")


def test_build_authorizer__does_not_depend_on_dates_modes_or_leftovers(tree: Path) -> None:
    first = build_authorizer(SETTINGS, root=tree, bundles=tree / "first")
    handler = tree / "lambdas" / "authorizer" / "handler.py"
    os.utime(handler, (0, 0))
    handler.chmod(0o600)
    leftover = tree / "lambdas" / "authorizer" / "__pycache__" / "handler.cpython-313.pyc"
    leftover.parent.mkdir()
    leftover.write_bytes(b"leftover")
    second = build_authorizer(SETTINGS, root=tree, bundles=tree / "second")
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())
    with zipfile.ZipFile(second) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
        assert archive.namelist() == sorted(archive.namelist())


def test_build_authorizer__reuses_a_zip(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_authorizer(SETTINGS, root=tree, bundles=tree)
    monkeypatch.setattr(bundling, "_write_zip", None)  # would fail if it were called
    assert build_authorizer(SETTINGS, root=tree, bundles=tree) == first


def test_build_authorizer__keeps_recently_used_zips(tree: Path) -> None:
    first = build_authorizer(SETTINGS, root=tree, bundles=tree)
    for number in range(30):
        latest = build_authorizer({"number": number}, root=tree, bundles=tree)
        os.utime(latest, (number, number))
        build_authorizer(SETTINGS, root=tree, bundles=tree)
    kept = set(tree.glob("authorizer-*.zip"))
    assert {first, latest} <= kept
    assert len(kept) == 10


@pytest.mark.parametrize("change", ["source", "settings"])
def test_build_authorizer__rebuilds_after_a_change(tree: Path, change: str) -> None:
    first = build_authorizer(SETTINGS, root=tree, bundles=tree)
    if change == "source":
        (tree / "lambdas" / "channel" / "__init__.py").write_text("# other\n")
    settings = SETTINGS | {"region": "other"} if change == "settings" else SETTINGS
    second = build_authorizer(settings, root=tree, bundles=tree)
    assert second != first
    assert second.read_bytes() != first.read_bytes()


def test_build_key_refresher__without_boto3_for_the_runtime(tmp_path: Path) -> None:
    names = read_names(build_key_refresher(None, bundles=tmp_path))
    assert "lambdas/key_refresher/handler.py" in names
    assert {name.split("/")[0] for name in names} == {"lambdas"}
    assert {name.split("/")[1] for name in names} == {"__init__.py", "access", "channel", "key_refresher", "storage"}


def test_build_key_refresher__with_boto3_for_a_target(tmp_path: Path) -> None:
    assert "boto3/__init__.py" in read_names(build_key_refresher(host_target(), bundles=tmp_path))


def test_select_needed__keeps_the_newest_description_of_a_service() -> None:
    names = [
        "botocore/data/s3/2006-03-01/service-2.json.gz",
        "botocore/data/cloudfront/2014-05-31/service-2.json.gz",
        "botocore/data/cloudfront/2020-05-31/service-2.json.gz",
        "botocore/data/ec2/2016-11-15/service-2.json.gz",
        "botocore/data/endpoints.json",
    ]
    assert select_needed(names) == [names[0], names[2], names[4]]


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("msgpack/_cmsgpack.cpython-313-aarch64-linux-gnu.so", True),
        ("msgpack/_cmsgpack.pyx", False),
        ("bin/jp.py", False),
        ("six-1.17.0.dist-info/METADATA", True),
        ("six-1.17.0.dist-info/RECORD", False),
        ("six-1.17.0.dist-info/licenses/LICENSE", True),
        (".lock", False),
        ("six.py", True),
    ],
)
def test_select_needed__files_that_a_function_reads(name: str, *, needed: bool) -> None:
    assert select_needed([name]) == ([name] if needed else [])
