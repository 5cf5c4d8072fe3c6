import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_s3 as s3

from infra.app import build, run
from tests.infra.synthesis import ROOT

pytestmark = pytest.mark.xdist_group("synthesis")


@pytest.mark.parametrize(
    ("context", "error", "hint"),
    [
        (
            {"environment": "nowhere"},
            "error: unknown environment 'nowhere'\n",
            "hint: cdk.json has local, production; choose one with -c environment=NAME\n",
        ),
        (
            {"environment": "local", "endpoint_url": "https://s3.amazonaws.com"},
            "error: environments.local.endpoint_url is not on this machine: 'https://s3.amazonaws.com'\n",
            "hint: give an emulator's URL, such as http://127.0.0.1:4566\n",
        ),
    ],
)
def test_run__prints_an_error_and_a_hint(
    capsys: pytest.CaptureFixture[str],
    context: dict[str, str],
    error: str,
    hint: str,
) -> None:
    stored = json.loads((ROOT / "cdk.json").read_text())["context"]
    assert run(cdk.App(context=stored | context)) == 2
    assert capsys.readouterr().err == error + hint


def test_build__finding_that_is_not_suppressed(tmp_path: Path) -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"account": "123456789012"}
    app = cdk.App(context=context, outdir=str(tmp_path))
    s3.Bucket(build(app), "PlainBucket")
    with pytest.raises(RuntimeError, match="AwsSolutions-S1"):
        app.synth()
