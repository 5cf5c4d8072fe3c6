"""The queue, the indexer and the reconciler."""

import pytest

from lambdas.indexer.settings import parse_settings
from tests.infra.synthesis import BUCKET, INDEXER, RECONCILER, Synthesis, as_list

pytestmark = pytest.mark.xdist_group("synthesis")


def test_indexer__environment_names_mutable_channels(other_region: Synthesis) -> None:
    assert (
        other_region.function(INDEXER)["Properties"]["Environment"]["Variables"]["FAIRWAY_MUTABLE_CHANNELS"]
        == "nightly-*"
    )


def test_indexer__environment(full: Synthesis) -> None:
    variables = full.function(INDEXER)["Properties"]["Environment"]["Variables"]
    assert variables["FAIRWAY_BUCKET"] == "fairway-team-123456789012-us-east-1"
    assert variables["FAIRWAY_CHANNEL_URL"] == "https://conda.example.com"
    assert variables["FAIRWAY_MUTABLE_CHANNELS"] == ""
    assert variables["FAIRWAY_PUBLIC_CHANNELS"] == "open,free-*"
    assert variables["FAIRWAY_OPTIONAL_OUTPUTS"] == ""
    assert variables["FAIRWAY_SHARD_GRACE_DAYS"] == "14"
    assert variables["FAIRWAY_DISTRIBUTION_ID"] == {"Ref": full.only("AWS::CloudFront::Distribution")["Id"]}
    assert variables["FAIRWAY_EVENT_BUS"] == {"Ref": full.only("AWS::Events::EventBus")["Id"]}
    (queue,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]]
    assert variables["FAIRWAY_QUEUE_URL"] == {"Ref": queue}
    (dead_letters,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if each["Id"] != queue]
    assert variables["FAIRWAY_DEAD_LETTERS_URL"] == {"Ref": dead_letters}
    (redriving,) = [each["Properties"] for each in full.resources("AWS::SQS::Queue") if each["Id"] == queue]
    assert variables["FAIRWAY_MAX_RECEIVES"] == str(redriving["RedrivePolicy"]["maxReceiveCount"])
    assert variables["FAIRWAY_ROLE_ID"] == {"Fn::GetAtt": [full.role_of(INDEXER)["Id"], "RoleId"]}
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Fairway"
    assert variables["POWERTOOLS_SERVICE_NAME"] == "fairway-team-indexer"
    assert "AWS_ENDPOINT_URL" not in variables
    assert variables == full.function(RECONCILER)["Properties"]["Environment"]["Variables"]


def test_queue__retries_for_a_day_then_keeps_dead_letters_for_14_days(plain: Synthesis) -> None:
    queues = {each["Id"]: each["Properties"] for each in plain.resources("AWS::SQS::Queue")}
    (queue,) = [each for each in queues.values() if "RedrivePolicy" in each]
    (dead_letters,) = [each for each in queues.values() if "RedrivePolicy" not in each]
    retried_seconds = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
    assert 24 * 3600 <= retried_seconds < 24 * 3600 + queue["VisibilityTimeout"]
    assert dead_letters["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_queue__visibility_timeout_is_a_little_longer_than_a_run(plain: Synthesis) -> None:
    (queue,) = [
        each["Properties"] for each in plain.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]
    ]
    window = plain.only("AWS::Lambda::EventSourceMapping")["Properties"]["MaximumBatchingWindowInSeconds"]
    held = plain.function(INDEXER)["Properties"]["Timeout"] + window
    assert held < queue["VisibilityTimeout"] <= held + 60


def test_queue__accepts_messages_from_this_bucket_alone_over_tls(full: Synthesis) -> None:
    policies = [each["Properties"] for each in full.resources("AWS::SQS::QueuePolicy")]
    statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
    (grant,) = [each for each in statements if each["Effect"] == "Allow"]
    assert grant["Principal"] == {"Service": "s3.amazonaws.com"}
    assert grant["Action"] == "sqs:SendMessage"
    assert grant["Condition"] == {
        "ArnEquals": {"aws:SourceArn": BUCKET},
        "StringEquals": {"aws:SourceAccount": "123456789012"},
    }
    denials = [each for each in statements if each["Effect"] == "Deny"]
    assert [each["Condition"] for each in denials] == [{"Bool": {"aws:SecureTransport": "false"}}] * len(policies)
    assert len(policies) == len(full.resources("AWS::SQS::Queue")) == 2


def test_queue__accepts_messages_from_the_indexer(full: Synthesis) -> None:
    (queue,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]]
    statements = full.statements(full.role_of(INDEXER))
    (grant,) = [each for each in statements if "sqs:SendMessage" in as_list(each["Action"])]
    (dead_letters,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if each["Id"] != queue]
    granted = [{"Fn::GetAtt": [name, "Arn"]} for name in (queue, dead_letters)]
    assert grant["Effect"] == "Allow"
    assert sorted(grant["Resource"], key=str) == sorted(granted, key=str)


def test_indexer__recursion_is_allowed(plain: Synthesis) -> None:
    """Lambda would take messages about several deferred outputs for a loop, and drop them after 16."""
    assert plain.function(INDEXER)["Properties"]["RecursiveLoop"] == "Allow"


def test_event_source__reports_partial_failures(plain: Synthesis) -> None:
    mapping = plain.only("AWS::Lambda::EventSourceMapping")["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == 1000
    assert mapping["MaximumBatchingWindowInSeconds"] == 1
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 4}


def test_reconciler__runs_daily_over_all_channels(plain: Synthesis) -> None:
    (rule,) = [
        each["Properties"]
        for each in plain.resources("AWS::Events::Rule")
        if each["Properties"]["ScheduleExpression"] == "rate(1 day)"
    ]
    (target,) = rule["Targets"]
    assert target["Input"] == "{}"
    assert target["Arn"] == {"Fn::GetAtt": [plain.function(RECONCILER)["Id"], "Arn"]}
    assert plain.function(RECONCILER)["Properties"]["Timeout"] == 900


def test_environment__declared_subdirs(full: Synthesis, plain: Synthesis) -> None:
    for synthesis, expected in (
        (full, {"team": ["linux-64", "win-64"], "dev-*": ["linux-64"]}),
        (plain, {}),
    ):
        for handler in (INDEXER, RECONCILER):
            variables = synthesis.function(handler)["Properties"]["Environment"]["Variables"]
            environment = {"FAIRWAY_BUCKET": "bucket", "FAIRWAY_SUBDIRS": variables["FAIRWAY_SUBDIRS"]}
            assert parse_settings(environment).policy.subdirs == expected
