"""Synthesizes the stacks once for all tests of infra."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

# The CDK starts Node at import. Use the one of this environment, not one that happens to be installed.
_NODE = Path(sys.executable).with_name("node")
if _NODE.exists():
    os.environ.setdefault("JSII_NODE", str(_NODE))

from tests.infra.synthesis import Synthesis, synthesise  # noqa: E402 - see above

EVERYTHING: dict[str, Any] = {
    "name": "team",
    "account": "123456789012",
    "region": "us-east-1",
    "public_channels": ["open", "free-*"],
    "subdirs": {"team": ["linux-64", "win-64"], "dev-*": ["linux-64"]},
    "domain": "conda.example.com",
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0c0ffee0",
    "access_log": True,
    "alarm_email": "oncall@example.com",
    "docs_url": "https://git.example.com/fairway/docs/",
    "require_if_none_match": True,  # excludes mutable channels: OTHER_REGION has those
    "operators": ["arn:aws:iam::123456789012:role/operator", "arn:aws:iam::123456789012:user/admins/ada"],
    "publishers": [
        {"name": "release", "channels": ["team"], "principals": ["arn:aws:iam::123456789012:role/deployer"]},
        {
            "name": "ci",
            "channels": ["dev-*"],
            "subdirs": ["noarch", "linux-64"],
            "artifacts": ["tool-*"],
            "github": [{"repository": "example/tool", "branches": ["main"], "tags": ["v*"]}],
            "gitlab": [{"project": "group/tool", "branches": ["main"]}],
            "may_read": False,
            "may_delete": True,
            "may_attest": True,
            "may_patch": True,
        },
        {"name": "all", "channels": ["*"], "principals": ["arn:aws:iam::123456789012:role/operator"]},
        {"name": "some", "channels": ["play*"], "principals": ["arn:aws:iam::123456789012:role/operator"]},
    ],
}

OTHER_REGION: dict[str, Any] = {
    "region": "eu-central-1",
    "require_if_none_match": False,
    "mutable_channels": ["nightly-*"],
    "max_repodata_mib": 512,
}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The production environment of cdk.json, with an account."""
    return synthesise(tmp_path_factory.mktemp("plain"), account="123456789012")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """All settings that a deployment in us-east-1 can have."""
    return synthesise(tmp_path_factory.mktemp("full"), settings=EVERYTHING)


@pytest.fixture(scope="session")
def other_region(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """All settings, in another region than CloudFront's, and with mutable channels."""
    return synthesise(tmp_path_factory.mktemp("other_region"), settings=EVERYTHING | OTHER_REGION)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The local environment of cdk.json."""
    return synthesise(tmp_path_factory.mktemp("emulated"), environment="local", endpoint_url="http://127.0.0.1:4566")


@pytest.fixture(scope="session")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """A deployment for CloudFront's plans."""
    return synthesise(tmp_path_factory.mktemp("managed"), settings=EVERYTHING | {"managed_cache_policies": True})
