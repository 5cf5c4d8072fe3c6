"""The storages that the contract suite runs over, and what each of them knows.

No emulator enforces all of S3's rules, so S3's storage runs over two. A test that needs what one of them
lacks says so with the marker ``needs``, and runs on the others:

| rule of S3 | MiniStack 1.5 | fauxqs 2.4 | tests/contracts/test_multipart.py |
|---|---|---|---|
| conditional writes, also at the end of a multipart upload | yes | no | |
| versions, delete markers, requests that name or list versions | yes | no | |
| listings in the order of the keys' bytes | yes | no | |
| objects above 10 MiB in one request | yes | no | |
| no range of a copy source of at most 5 MiB | no | yes | yes |
| parts of at least 5 MiB, but the last | no | yes | |
| part checksums if and only if the upload was created with an algorithm | no | no | yes |
| signatures, IAM, bucket policies | yes | no | |
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import ObjectStorage
from lambdas.storage.s3 import S3Storage
from tests.memory import MemoryStorage

START_SECONDS = 60
LACKS = {
    "memory": frozenset[str](),
    "directory": frozenset({"versions"}),
    "ministack": frozenset[str](),
    "fauxqs": frozenset({"conditions", "versions", "version-requests", "key-order", "large-objects"}),
}
"""The storages, and what they lack of the argument of the marker ``needs``."""
EMULATED = ("ministack", "fauxqs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over the storages that know what it needs."""
    if "subject" in metafunc.fixturenames:
        needed = {str(what) for marker in metafunc.definition.iter_markers("needs") for what in marker.args}
        names = [
            pytest.param(name, marks=pytest.mark.emulator if name in EMULATED else ())
            for name, lacks in LACKS.items()
            if not needed & lacks
        ]
        metafunc.parametrize("subject", names, indirect=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A storage, and its capabilities beyond the protocol's minimum."""

    storage: ObjectStorage
    keeps_versions: bool
    vouches: bool
    """Whether it knows md5 (and perhaps sha256) of what it holds."""


@pytest.fixture(scope="session")
def emulator_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulated S3 on a free loopback port, for the duration of the tests."""
    from scripts.emulated.emulator import find_free_port, running_emulator

    state = tmp_path_factory.mktemp("emulator")
    with running_emulator(state, port=find_free_port(), keep=False) as emulator:
        yield emulator.endpoint


@pytest.fixture(scope="session")
def ministack_endpoint(emulator_endpoint: str) -> str:
    return emulator_endpoint


@pytest.fixture(scope="session")
def fauxqs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another emulated S3 on a free loopback port, for the duration of the tests."""
    from scripts.emulated.emulator import HOST, ROOT, find_free_port, guarded

    port = find_free_port()
    log = tmp_path_factory.mktemp("fauxqs") / "log"
    command = [str(ROOT / ".venv" / "bin" / "node"), str(Path(__file__).with_name("fauxqs.mjs")), str(port)]
    with log.open("wb") as output, guarded(command, {}, cwd=ROOT, output=output) as process:
        deadline = time.monotonic() + START_SECONDS
        while not log.read_bytes():
            assert process.poll() is None, "fauxqs exited while starting"
            assert time.monotonic() < deadline, "fauxqs did not start"
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"


def make_s3_storage(endpoint: str, *, keeps_versions: bool = True) -> S3Storage:
    """A new bucket, versioned where the emulator can."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=40, retries={"mode": "standard", "max_attempts": 3}),
    )
    bucket = f"contract-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    if keeps_versions:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Storage(bucket, client)


@pytest.fixture
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    keeps_versions = "versions" not in LACKS[request.param]
    if request.param == "memory":
        storage: ObjectStorage = MemoryStorage()
    elif request.param == "directory":
        storage = DirectoryStorage(tmp_path)
    else:
        endpoint = request.getfixturevalue(f"{request.param}_endpoint")
        storage = make_s3_storage(endpoint, keeps_versions=keeps_versions)
    return Subject(storage=storage, keeps_versions=keeps_versions, vouches=request.param != "directory")


@pytest.fixture
def storage(subject: Subject) -> ObjectStorage:
    return subject.storage
