"""A bucket in memory with an indexer, for tests of the commands."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report
from lambdas.indexer.queue.index_keys import index_batch
from tests.memory import MemoryStorage, RecordingNotifier

DAY_MS = 86_400_000


@dataclass
class Bucket:
    """A bucket with an indexer that gets the events of uploads when ``index`` is called."""

    storage: MemoryStorage
    notifier: RecordingNotifier
    indexer: Indexer

    def upload(self, channel: str, *packages: tuple[str, bytes], subdir: str = "noarch") -> list[str]:
        keys = [f"{channel}/{subdir}/{filename}" for filename, _ in packages]
        for key, (_, body) in zip(keys, packages, strict=True):
            self.storage.upload(key, body)
        return keys

    def index(self, *keys: str) -> list[Report]:
        return index_keys(self.indexer, keys)

    def publish(self, channel: str, *packages: tuple[str, bytes], subdir: str = "noarch") -> list[str]:
        keys = self.upload(channel, *packages, subdir=subdir)
        self.index(*keys)
        return keys

    def list_keys(self, prefix: str) -> list[str]:
        return [key for key in self.storage.list_keys() if key.startswith(prefix)]


@dataclass
class FakeAws:
    """A fake of boto3's session and S3 client: stores what the command uploads, and indexes it."""

    bucket: Bucket
    region_name: str = "us-east-1"
    meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_: None))

    def client(self, service: str, **_: object) -> "FakeAws":
        assert service == "s3"
        return self

    def put_object(self, *, Key: str, Body: Any, ChecksumSHA256: str, **more: str) -> None:  # noqa: ANN401, N803 - boto3's
        body = Body.read()
        assert hashlib.sha256(body).digest() == base64.b64decode(ChecksumSHA256)
        if more.get("IfNoneMatch") == "*" and self.bucket.storage.head(Key) is not None:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.bucket.storage.upload(Key, body)
        self.bucket.index(Key)


def index_keys(indexer: Indexer, keys: Iterable[str]) -> list[Report]:
    """Process the events of some keys, as the handler does."""
    return list(index_batch(indexer, keys).subdirs.values())
