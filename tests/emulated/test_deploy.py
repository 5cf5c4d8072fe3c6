import json
import os
import subprocess
from pathlib import Path

import pytest

from lambdas.channel.errors import UnavailableError
from scripts.emulated import deploy as deploy_module
from scripts.emulated.deploy import bootstrap, parse_event, parse_outputs
from scripts.emulated.emulator import Emulator

VALUES = {
    "ChannelUrl": "https://d1.cloudfront.net",
    "BucketName": "bucket",
    "DistributionId": "E1",
    "QueueUrl": "queue",
    "DeadLetterQueueUrl": "dead",
    "EventBusName": "bus",
    "IndexerFunctionName": "indexer",
    "ReconcilerFunctionName": "reconciler",
    "PublishCommand": "aws s3 cp",
}


def test_parse_outputs__two_stacks() -> None:
    outputs = parse_outputs(json.dumps({"one": VALUES, "two": {"Other": "x"}}))
    assert (outputs.bucket, outputs.distribution_id, outputs.dead_letter_queue_url) == ("bucket", "E1", "dead")


def test_parse_outputs__missing_output() -> None:
    with pytest.raises(UnavailableError, match="no output 'BucketName'"):
        parse_outputs(json.dumps({"one": {key: value for key, value in VALUES.items() if key != "BucketName"}}))


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "fairway-local |  2/56 | 9:47:08 PM | CREATE_COMPLETE     | AWS::S3::Bucket | Storage/Bucket (Storage) \n",
            "2/56 CREATE_COMPLETE Storage/Bucket",
        ),
        (
            "fairway-local | 3/56 | 9:47:08 PM | CREATE_FAILED | AWS::S3::Bucket | Storage/Bucket (StorageB) denied",
            "3/56 CREATE_FAILED Storage/Bucket",
        ),
        ("fairway-local |  1/56 | 9:47:08 PM | CREATE_IN_PROGRESS | AWS::S3::Bucket | Storage/Bucket (StorageB)", None),
        ("fairway-local: deploying... [1/1]", None),
        ("", None),
    ],
)
def test_parse_event__end_of_a_resource(line: str, event: str | None) -> None:
    assert parse_event(line) == event


def run_script(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, timeout_seconds: float) -> list[str]:
    """Run a shell script in place of ``cdk bootstrap``; return the events that were reported."""
    root = folder / "root"
    (root / ".venv" / "bin").mkdir(parents=True)
    node = root / ".venv" / "bin" / "node"
    node.write_text(f"#!/bin/sh\n{script}\n")
    node.chmod(0o755)
    monkeypatch.setattr(deploy_module, "ROOT", root)
    (folder / "emulator.log").touch()
    with subprocess.Popen(["true"]) as process:
        emulator = Emulator(
            endpoint="http://127.0.0.1:1", log=folder / "emulator.log", environment=dict(os.environ), process=process
        )
    events: list[str] = []
    bootstrap(emulator, folder, timeout_seconds=timeout_seconds, report_event=events.append)
    return events


def test_bootstrap__reports_events_and_keeps_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'toolkit | 1/2 | 9:47 | CREATE_COMPLETE | AWS::S3::Bucket | Bucket (B)'; echo done"
    assert run_script(script, tmp_path, monkeypatch, timeout_seconds=60) == ["1/2 CREATE_COMPLETE Bucket"]
    assert (tmp_path / "cdk-bootstrap.log").read_text().splitlines()[-1] == "done"


def test_bootstrap__ends_at_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="cdk bootstrap did not end within 0 s"):
        run_script("echo begun; sleep 600 & wait", tmp_path, monkeypatch, timeout_seconds=0.3)


def test_bootstrap__failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="cdk bootstrap failed; its log ends with:\nno credentials"):
        run_script("echo no credentials; exit 1", tmp_path, monkeypatch, timeout_seconds=60)
