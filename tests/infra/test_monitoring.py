"""Alarms, the dashboard, and CloudFront's access log."""

import pytest

from infra.monitoring import ACCESS_LOG_FIELDS
from lambdas.indexer.signals import FOREIGN_INDEX
from lambdas.key_refresher.refresh import ISSUERS_UNAVAILABLE
from tests.infra.synthesis import KEY_REFRESHER, Synthesis

pytestmark = pytest.mark.xdist_group("synthesis")


def test_alarms__metrics(plain: Synthesis) -> None:
    metrics = {each["Properties"]["MetricName"] for each in plain.resources("AWS::CloudWatch::Alarm")}
    assert metrics == {
        "5xxErrorRate",
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        "AuthorizerFailures-fairway-conda-us-east-1",
        "Errors",
        "FailedKeys",
        "ForeignIndexes",
        "IssuersUnavailable-fairway-conda-us-east-1",
        "RejectedUploads",
    }
    assert len(plain.resources("AWS::CloudWatch::Alarm")) == 11  # docs/deploying.md states the cost
    assert len(plain.resources("AWS::CloudWatch::Dashboard")) == 1


def test_alarms__unusable_access_document_within_the_hour(plain: Synthesis, other_region: Synthesis) -> None:
    for synthesis in (plain, other_region):
        key_refresher = synthesis.function(KEY_REFRESHER)
        (alarm,) = [
            each
            for each in synthesis.resources("AWS::CloudWatch::Alarm", stack=key_refresher["Stack"])
            if each["Properties"].get("Dimensions") == [{"Name": "FunctionName", "Value": {"Ref": key_refresher["Id"]}}]
        ]
        found = alarm["Properties"]
        assert (found["MetricName"], found["Statistic"], found["Period"]) == ("Errors", "Sum", 3600)
        assert (found["Threshold"], found["EvaluationPeriods"]) == (0, 1)
        assert found["ComparisonOperator"] == "GreaterThanThreshold"
        rules = [each["Properties"] for each in synthesis.resources("AWS::Events::Rule")]
        (hourly,) = [each for each in rules if each.get("ScheduleExpression") == "rate(1 hour)"]
        assert hourly["Targets"][0]["Arn"] == {"Fn::GetAtt": [key_refresher["Id"], "Arn"]}


def test_alarms__unreachable_issuers_are_counted_in_the_log(plain: Synthesis) -> None:
    group = plain.function(KEY_REFRESHER)["Properties"]["LoggingConfig"]["LogGroup"]
    (counted,) = [
        each["Properties"]
        for each in plain.resources("AWS::Logs::MetricFilter")
        if each["Properties"]["LogGroupName"] == group
    ]
    assert counted["FilterPattern"] == f'{{ $.code = "{ISSUERS_UNAVAILABLE}" }}'
    (alarm,) = [
        each["Properties"]
        for each in plain.resources("AWS::CloudWatch::Alarm")
        if each["Properties"]["MetricName"] == counted["MetricTransformations"][0]["MetricName"]
    ]
    assert alarm["Threshold"] == 3


def test_alarms__send_mail_if_configured(full: Synthesis, plain: Synthesis) -> None:
    topic = full.only("AWS::SNS::Topic")["Id"]
    assert full.only("AWS::SNS::Subscription")["Properties"]["Endpoint"] == "oncall@example.com"
    for alarm in full.resources("AWS::CloudWatch::Alarm"):
        assert alarm["Properties"]["AlarmActions"] == [{"Ref": topic}]
    statements = full.only("AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert {"Service": "cloudwatch.amazonaws.com"} in [each["Principal"] for each in statements]
    assert not plain.resources("AWS::SNS::Topic")


def test_alarms__foreign_index_mail_names_the_principal(full: Synthesis, plain: Synthesis) -> None:
    (rule,) = [each for each in full.resources("AWS::Events::Rule") if "EventBusName" in each["Properties"]]
    found = rule["Properties"]
    assert found["EventBusName"] == {"Ref": full.only("AWS::Events::EventBus")["Id"]}
    assert found["EventPattern"] == {"detail-type": [FOREIGN_INDEX]}
    (target,) = found["Targets"]
    topic = full.only("AWS::SNS::Topic")["Id"]
    assert target["Arn"] == {"Ref": topic}
    paths = target["InputTransformer"]["InputPathsMap"]
    assert set(paths.values()) == {"$.detail.principal", "$.detail.subdir"}
    assert all(f"<{name}>" in target["InputTransformer"]["InputTemplate"] for name in paths)
    statements = full.only("AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]["Statement"]
    (grant,) = [each for each in statements if each["Principal"] == {"Service": "events.amazonaws.com"}]
    assert (grant["Effect"], grant["Action"]) == ("Allow", "sns:Publish")
    assert not [each for each in plain.resources("AWS::Events::Rule") if "EventBusName" in each["Properties"]]


def test_access_log__has_no_field_that_could_hold_a_token(full: Synthesis) -> None:
    fields = full.only("AWS::Logs::Delivery")["Properties"]["RecordFields"]
    assert fields == list(ACCESS_LOG_FIELDS)
    for leak in ("cs-uri-stem", "cs-uri-query", "cs(Referer)", "cs(Cookie)", "cs-headers"):
        assert leak not in fields


def test_access_log__is_off_by_default(plain: Synthesis) -> None:
    assert not plain.resources("AWS::Logs::DeliverySource")
    assert "Logging" not in plain.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
