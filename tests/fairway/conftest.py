"""Runs the command with arguments, to its exit code and output, over a bucket in memory."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Policy
from lambdas.indexer.settings import parse_settings, publish_settings
from scripts.fairway import rebuild, reconcile
from scripts.fairway.main import main
from scripts.fairway.session import Session
from tests.fairway.buckets import Bucket, FakeAws
from tests.memory import MemoryStorage, RecordingNotifier


@dataclass
class Result:
    """The result of a run of the command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_deployment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the user's deployments, credentials or endpoints."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FAIRWAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture
def run_fairway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["fairway", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        code = caught.value.code
        return Result(code=code if isinstance(code, int) else 1, out=captured.out, err=captured.err)

    return run_command


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket that every command of the test uses."""
    storage, notifier = MemoryStorage(), RecordingNotifier()
    bucket = Bucket(storage, notifier, Indexer(storage, notifier, Policy(), sleep=lambda _: None))
    settings = parse_settings({"FAIRWAY_BUCKET": ""})
    publish_settings(storage, settings)
    monkeypatch.setattr(Session, "storage", storage)
    monkeypatch.setattr(Session, "aws", FakeAws(bucket))
    monkeypatch.setattr(Session, "caller", "arn:aws:iam::123456789012:user/ada")
    monkeypatch.setattr(Session, "now", property(lambda _: storage.clock_ms // 1000))
    for module in (rebuild, reconcile):
        monkeypatch.setattr(module, "connect_indexer", lambda _: (bucket.indexer, settings))
    monkeypatch.setenv("FAIRWAY_BUCKET", "bucket")
    return bucket
