"""Deployments in another region than CloudFront's, and several deployments in one account."""

import json
from collections import Counter

import pytest

from tests.infra.conftest import EVERYTHING, OTHER_REGION
from tests.infra.synthesis import (
    AUTHORIZER,
    INDEXER,
    KEY_REFRESHER,
    ORIGIN_RESPONSE,
    RECONCILER,
    Synthesis,
    read_settings,
    synthesise,
)

pytestmark = pytest.mark.xdist_group("synthesis")


def test_other_region__edge_functions_are_in_us_east_1(other_region: Synthesis) -> None:
    manifest = json.loads((other_region.folder / "manifest.json").read_text())
    regions = {
        artifact["properties"].get("stackName", name): artifact["environment"].rsplit("/", 1)[1]
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert regions == {
        "fairway-team": "eu-central-1",
        "fairway-team-eu-central-1-authorizer": "us-east-1",
        "fairway-team-eu-central-1-edge": "us-east-1",
    }
    for handler in (AUTHORIZER, ORIGIN_RESPONSE):
        assert other_region.function(handler)["Stack"] == "fairway-team-eu-central-1-authorizer"
    versions = other_region.resources("AWS::Lambda::Version")
    assert [each["Stack"] for each in versions] == ["fairway-team-eu-central-1-authorizer"] * 2
    for handler in (INDEXER, RECONCILER, KEY_REFRESHER):
        assert other_region.function(handler)["Stack"] == "fairway-team"


def test_other_region__bucket_and_authorizer_agree_on_the_region(other_region: Synthesis) -> None:
    bucket = "fairway-team-123456789012-eu-central-1"
    assert other_region.only("AWS::S3::Bucket")["Properties"]["BucketName"] == bucket
    settings = read_settings(other_region)
    assert settings["bucket"] == bucket
    assert settings["region"] == "eu-central-1"
    assert settings["origin_domain"] == f"{bucket}.s3.eu-central-1.amazonaws.com"


def test_other_region__monitoring_of_the_edge_is_in_us_east_1(other_region: Synthesis) -> None:
    edge = "fairway-team-eu-central-1-edge"
    assert {each["Stack"] for each in other_region.resources("AWS::Logs::Delivery")} == {edge}
    alarms = other_region.resources("AWS::CloudWatch::Alarm")
    assert {each["Stack"] for each in alarms if each["Properties"]["Namespace"] == "AWS/CloudFront"} == {edge}
    # The authorizer logs in the regions of its readers; both regions with a log group have an alarm.
    watched = [
        each["Stack"]
        for each in other_region.resources("AWS::Logs::MetricFilter")
        if "Authorizer" in each["Properties"]["MetricTransformations"][0]["MetricName"]
    ]
    assert sorted(watched) == ["fairway-team", edge]


@pytest.fixture(scope="session")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> list[Synthesis]:
    """Deployments in one account: two names in each of three regions."""
    settings = [
        EVERYTHING | OTHER_REGION | {"name": name, "region": region}
        for region in ("eu-central-1", "us-east-1", "us-west-2")
        for name in ("team", "lab")
    ]
    return [synthesise(tmp_path_factory.mktemp("deployment"), settings=each) for each in settings]


# The properties with physical names, and the resource types whose names are unique in an account.
NAMES = ("Name", *(f"{kind}Name" for kind in ("Alarm", "Bucket", "Dashboard", "Function", "LogGroup", "Queue", "Role")))


GLOBAL = ("AWS::CloudFront::", "AWS::IAM::", "AWS::CloudWatch::Dashboard", "AWS::Logs::Delivery", "AWS::S3::Bucket")


NAMED_BY_OTHERS = (
    "AWS::IAM::Policy",  # its name is unique in its role
    "AWS::IAM::OIDCProvider",  # one for each issuer in an account: existing_oidc_providers
    "AWS::Logs::MetricFilter",  # its name is unique in its log group, which it names
    "Custom::",  # has the name of another resource of the same deployment
)


def list_physical_names(synthesis: Synthesis) -> set[tuple[str, str, str]]:
    """Return the region (or "everywhere"), type and name of each named resource and stack."""
    manifest = json.loads((synthesis.folder / "manifest.json").read_text())
    names = set()
    for stack_id, artifact in manifest["artifacts"].items():
        if artifact["type"] != "aws:cloudformation:stack":
            continue
        stack, region = artifact["properties"].get("stackName", stack_id), artifact["environment"].rsplit("/", 1)[1]
        names.add((region, "AWS::CloudFormation::Stack", stack))
        for resource in synthesis.templates[stack]["Resources"].values():
            kind, properties = resource["Type"], resource.get("Properties", {})
            if kind.startswith(NAMED_BY_OTHERS):
                continue
            where = "everywhere" if kind.startswith(GLOBAL) else region
            configs = [properties, *(value for key, value in properties.items() if key.endswith("Config"))]
            names |= {
                (where, kind, config[key])
                for config in configs
                if isinstance(config, dict)
                for key in NAMES
                if isinstance(config.get(key), str)
            }
    return names


def test_several_deployments__share_no_name(deployments: list[Synthesis]) -> None:
    found = [list_physical_names(each) for each in deployments]
    kinds = {kind for names in found for _, kind, _ in names}
    assert kinds >= {
        "AWS::CloudFormation::Stack",
        "AWS::CloudFront::CachePolicy",
        "AWS::CloudFront::OriginAccessControl",
        "AWS::CloudFront::ResponseHeadersPolicy",
        "AWS::CloudWatch::Dashboard",
        "AWS::Logs::DeliverySource",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SSM::Parameter",
    }
    shared = [name for name, times in Counter(name for names in found for name in names).items() if times > 1]
    assert not shared


def test_several_deployments__alarms_use_their_own_metrics_alone(deployments: list[Synthesis]) -> None:
    metrics = Counter(
        json.dumps([stack_region(each, alarm["Stack"]), properties.get("Dimensions"), properties["MetricName"]])
        for each in deployments
        for alarm in each.resources("AWS::CloudWatch::Alarm")
        # A reference to a resource of the same stack is to the same deployment.
        if '"Ref"' not in json.dumps((properties := alarm["Properties"]).get("Dimensions", []))
        and "Fn::" not in json.dumps(properties.get("Dimensions", []))
    )
    assert len(metrics) > 2 * len(deployments)
    assert set(metrics.values()) == {1}
    for each in deployments:
        variables = each.function(INDEXER)["Properties"]["Environment"]["Variables"]
        (rejected,) = [
            alarm["Properties"]
            for alarm in each.resources("AWS::CloudWatch::Alarm")
            if alarm["Properties"]["MetricName"] == "RejectedUploads"
        ]
        assert rejected["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
        assert rejected["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


def stack_region(synthesis: Synthesis, stack: str) -> str:
    manifest = json.loads((synthesis.folder / "manifest.json").read_text())
    (environment,) = [
        artifact["environment"]
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack" and artifact["properties"].get("stackName", name) == stack
    ]
    return str(environment.rsplit("/", 1)[1])
