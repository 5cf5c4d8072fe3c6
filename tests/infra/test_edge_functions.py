"""The functions at the edge."""

import re
import zipfile

import pytest

from lambdas.indexer.outputs.registry import channel_filenames, subdir_filenames
from tests.infra.synthesis import AUTHORIZER, BUCKET, ORIGIN_RESPONSE, Synthesis, allows, as_list, read_settings

pytestmark = pytest.mark.xdist_group("synthesis")


def test_authorizer__zip_contains_its_settings(full: Synthesis) -> None:
    assert read_settings(full) == {
        "bucket": "fairway-team-123456789012-us-east-1",
        "channel_files": [*channel_filenames(), "notices.json"],
        "endpoint_url": None,
        "origin_domain": "fairway-team-123456789012-us-east-1.s3.us-east-1.amazonaws.com",
        "public_channels": ["open", "free-*"],
        "refresh_seconds": 30,
        "region": "us-east-1",
        "stale_seconds": 900,
        "subdir_files": [*subdir_filenames()],
    }


def test_authorizer__endpoint_of_the_emulator(emulated: Synthesis) -> None:
    assert read_settings(emulated)["endpoint_url"] == "http://127.0.0.1:4566"


@pytest.mark.parametrize("handler", [AUTHORIZER, ORIGIN_RESPONSE])
def test_edge_functions__limits_of_viewer_requests(plain: Synthesis, handler: str) -> None:
    properties = plain.function(handler)["Properties"]
    assert properties["MemorySize"] == 128
    assert properties["Timeout"] == 5
    assert not {"Environment", "Layers", "VpcConfig", "DeadLetterConfig", "TracingConfig"} & set(properties)


@pytest.mark.parametrize("handler", [AUTHORIZER, ORIGIN_RESPONSE])
def test_edge_functions__roles_trust_the_edge(full: Synthesis, handler: str) -> None:
    trust = full.role_of(handler)["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    services = {service for each in trust for service in as_list(each["Principal"]["Service"])}
    assert services == {"lambda.amazonaws.com", "edgelambda.amazonaws.com"}


def test_edge_functions__share_a_small_zip(full: Synthesis) -> None:
    code = full.function(AUTHORIZER)["Properties"]["Code"]
    assert full.function(ORIGIN_RESPONSE)["Properties"]["Code"] == code
    path = full.folder / f"asset.{code['S3Key']}"
    assert path.stat().st_size <= 64 * 1024
    with zipfile.ZipFile(path) as archive:
        assert {"lambdas/authorizer/handler.py", "lambdas/authorizer/origin_response.py"} <= set(archive.namelist())


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_origin_response__may_log_and_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    role = synthesis.role_of(ORIGIN_RESPONSE)
    assert role["Id"] != synthesis.role_of(AUTHORIZER)["Id"]
    (statement,) = synthesis.statements(role)
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert re.fullmatch(
        r"arn:aws:logs:\*:\d{12}:log-group:/fairway/[a-z]+/[a-z0-9-]+/authorizer:\*", statement["Resource"]
    )
    for resource in (f"{BUCKET}/.fairway/access.json", f"{BUCKET}/team/noarch/tool-1-0.conda"):
        assert not allows([statement], "s3:GetObject", resource)
