"""The first run of the key refresher."""

import pytest

from tests.infra.synthesis import KEY_REFRESHER, Synthesis

pytestmark = pytest.mark.xdist_group("synthesis")


def test_key_refresher__creates_the_access_document_during_the_deployment(plain: Synthesis) -> None:
    first_run = plain.only("Custom::FairwayAccessDocument")
    role = plain.role_of(KEY_REFRESHER)
    grants = {
        policy["Id"]
        for policy in plain.resources("AWS::IAM::Policy")
        if {"Ref": role["Id"]} in policy["Properties"]["Roles"]
    }
    assert grants
    assert grants <= set(first_run["DependsOn"])
    assert plain.only("AWS::S3::Bucket")["Id"] in first_run["DependsOn"]
