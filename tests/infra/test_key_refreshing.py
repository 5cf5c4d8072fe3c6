"""The first run of the key refresher."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.synthesis import KEY_REFRESHER, Synthesis, as_list, find_values

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


@pytest.mark.parametrize("name", ["plain", "full", "other_region", "emulated"])
def test_deployment__writes_to_the_bucket_last(request: pytest.FixtureRequest, name: str) -> None:
    """A first deployment that fails earlier leaves an empty bucket, which CloudFormation can delete."""
    synthesis: Synthesis = request.getfixturevalue(name)
    first_run = synthesis.only("Custom::FairwayAccessDocument")
    mapping = synthesis.only("AWS::Lambda::EventSourceMapping")
    assert first_run["Id"] in mapping["DependsOn"]
    resources = synthesis.templates[first_run["Stack"]]["Resources"]
    before = list_dependencies(resources, mapping["Id"])
    later = {resources[each]["Type"] for each in resources.keys() - before}
    assert "AWS::CloudFront::Distribution" not in later
    assert later <= {
        "AWS::CDK::Metadata",
        "AWS::Events::Rule",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Logs::LogGroup",
        "AWS::SQS::QueuePolicy",
    }


def list_dependencies(resources: Mapping[str, Any], start: str) -> set[str]:
    """Return the resources that one depends on, directly or not, and check that there is no circle."""
    found: dict[str, set[str]] = {}

    def visit(name: str, path: tuple[str, ...]) -> set[str]:
        assert name not in path, " -> ".join((*path, name))
        if name not in found:
            resource = resources[name]
            direct = set(as_list(resource.get("DependsOn", [])))
            direct |= {str(each) for each in find_values(resource, "Ref")}
            direct |= {str(each[0]) for each in find_values(resource, "Fn::GetAtt")}
            direct &= resources.keys()
            found[name] = direct.union(*(visit(each, (*path, name)) for each in direct))
        return found[name]

    for name in resources:
        visit(name, ())
    return found[start]
