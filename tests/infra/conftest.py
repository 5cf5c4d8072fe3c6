"""Synthesises the stacks once for all tests of infra."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

# Before anything imports the CDK, which starts Node there and then: ours, not whichever is installed.
_NODE = Path(sys.executable).with_name("node")
if _NODE.exists():
    os.environ.setdefault("JSII_NODE", str(_NODE))

from tests.infra.synthesis import Synthesis, synthesise  # noqa: E402 - see above

EVERYTHING: dict[str, Any] = {
    "name": "team",
    "account": "123456789012",
    "region": "us-east-1",
    "public_channels": ["open", "free-*"],
    "domain": "conda.example.com",
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0c0ffee0",
    "access_log": True,
    "alarm_email": "oncall@example.com",
    "require_if_none_match": True,  # for which no channel may be mutable: abroad has those
    "publishers": [
        {"name": "release", "channels": ["team"], "principals": ["arn:aws:iam::123456789012:role/deployer"]},
        {
            "name": "ci",
            "channels": ["*-dev"],
            "subdirs": ["noarch", "linux-*"],
            "artifacts": ["tool-*"],
            "github": [{"repository": "example/tool", "branches": ["main"], "tags": ["v*"]}],
            "gitlab": [{"project": "group/tool", "branches": ["main"]}],
            "may_read": False,
            "may_delete": True,
            "may_attest": True,
            "may_patch": True,
        },
        {"name": "all", "channels": ["*"], "principals": ["arn:aws:iam::123456789012:role/operator"]},
        {"name": "some", "channels": ["*y"], "principals": ["arn:aws:iam::123456789012:role/operator"]},
    ],
}

ABROAD: dict[str, Any] = {
    "region": "eu-central-1",
    "require_if_none_match": False,
    "mutable_channels": ["nightly-*"],
}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """What cdk.json has for production, with an account."""
    return synthesise(tmp_path_factory.mktemp("plain"), account="123456789012")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Every switch on."""
    return synthesise(tmp_path_factory.mktemp("full"), settings=EVERYTHING)


@pytest.fixture(scope="session")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Every switch on, but that channels are mutable, in a region that is not CloudFront's."""
    return synthesise(tmp_path_factory.mktemp("abroad"), settings=EVERYTHING | ABROAD)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """What cdk.json has for an emulator."""
    return synthesise(tmp_path_factory.mktemp("emulated"), environment="local", endpoint_url="http://127.0.0.1:4566")
