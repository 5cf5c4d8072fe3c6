"""The stacks as a whole: permissions, outputs, secrets."""

import pytest

from tests.infra.synthesis import Synthesis, as_list, find_values

pytestmark = pytest.mark.xdist_group("synthesis")


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_policies__grant_no_wildcard_actions(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    documents = [
        document
        for template in synthesis.templates.values()
        for resource in template["Resources"].values()
        for key in ("PolicyDocument", "AssumeRolePolicyDocument")
        for document in find_values(resource["Properties"], key)
    ]
    grants = [
        statement for document in documents for statement in document["Statement"] if statement["Effect"] == "Allow"
    ]
    assert len(grants) > 10
    assert not [action for grant in grants for action in as_list(grant["Action"]) if "*" in action]
    assert not [grant for grant in grants if grant.get("Resource") == "*"]


@pytest.mark.parametrize("which", ["plain", "full"])
def test_roles__carry_no_managed_policies(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    assert not list(find_values(list(synthesis.templates.values()), "ManagedPolicyArns"))


def test_outputs__are_complete(plain: Synthesis) -> None:
    (outputs,) = [template["Outputs"] for template in plain.templates.values() if "Outputs" in template]
    assert set(outputs) >= {
        "AuthorizerVersionArn",
        "BucketName",
        "ChannelUrl",
        "CreateTokenCommand",
        "DeadLetterQueueUrl",
        "DistributionId",
        "EventBusName",
        "FairwayVersion",
        "IndexerFunctionName",
        "InstallCommand",
        "NetrcCommand",
        "PublishCommand",
        "QueueUrl",
    }
    bucket = "fairway-conda-123456789012-us-east-1"
    assert outputs["PublishCommand"]["Value"] == f"aws s3 cp PACKAGE.conda s3://{bucket}/CHANNEL/noarch/"


def test_outputs__publish_command_is_accepted_by_the_bucket(full: Synthesis) -> None:
    (outputs,) = [template["Outputs"] for template in full.templates.values() if "Outputs" in template]
    # Works with both versions of the AWS CLI; "aws s3 cp --no-overwrite" needs version 2.
    assert outputs["PublishCommand"]["Value"] == (
        "aws s3api put-object --if-none-match '*' --bucket fairway-team-123456789012-us-east-1 "
        "--key CHANNEL/noarch/PACKAGE.conda --body PACKAGE.conda"
    )


def test_templates__hold_no_secrets(full: Synthesis) -> None:
    types = {resource["Type"] for template in full.templates.values() for resource in template["Resources"].values()}
    assert not types & {"AWS::IAM::AccessKey", "AWS::IAM::User", "AWS::SecretsManager::Secret"}
