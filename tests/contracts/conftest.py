"""The storages that the contract suite runs over."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import ObjectStorage
from lambdas.storage.s3 import S3Storage
from tests.memory import MemoryStorage


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


def make_s3_storage(endpoint: str) -> S3Storage:
    """A new versioned bucket."""
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
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Storage(bucket, client)


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.emulator)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "memory":
        return Subject(storage=MemoryStorage(), keeps_versions=True, vouches=True)
    if request.param == "directory":
        return Subject(storage=DirectoryStorage(tmp_path), keeps_versions=False, vouches=False)
    storage = make_s3_storage(request.getfixturevalue("emulator_endpoint"))
    return Subject(storage=storage, keeps_versions=True, vouches=True)


@pytest.fixture
def storage(subject: Subject) -> ObjectStorage:
    return subject.storage
