"""Alarms, the dashboard, and CloudFront's access log."""

import json
import re

import pytest

from infra.dashboard import EDGE_OUTCOMES
from infra.monitoring import ACCESS_LOG_FIELDS
from lambdas.indexer.queue.signals import FOREIGN_INDEX
from lambdas.key_refresher.refresh import ISSUERS_UNAVAILABLE
from tests.infra.synthesis import KEY_REFRESHER, ROOT, Synthesis

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


def test_alarms__names_are_the_deployments(plain: Synthesis, other_region: Synthesis) -> None:
    for synthesis, prefix in ((plain, "fairway-conda-us-east-1-"), (other_region, "fairway-team-eu-central-1-")):
        alarms = synthesis.resources("AWS::CloudWatch::Alarm")
        names = [alarm["Properties"]["AlarmName"] for alarm in alarms]
        assert all(name.startswith(prefix) for name in names)
        for stack in synthesis.templates:
            found = synthesis.resources("AWS::CloudWatch::Alarm", stack=stack)
            assert len({alarm["Properties"]["AlarmName"] for alarm in found}) == len(found)


def test_alarms__descriptions_link_to_their_rows(plain: Synthesis, full: Synthesis) -> None:
    """In a checkout by default, on the web if the deployment says where its docs are."""
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    for synthesis, docs in ((plain, "docs"), (full, "https://git.example.com/fairway/docs")):
        for alarm in synthesis.resources("AWS::CloudWatch::Alarm"):
            name = alarm["Properties"]["AlarmName"].rpartition("-")[2]
            assert alarm["Properties"]["AlarmDescription"].endswith(f"What to do: {docs}/operating.md#alarm-{name}")
            assert f'| <a id="alarm-{name}"></a>`{name}` |' in page


def test_alarms__each_has_a_row_and_each_row_an_alarm(plain: Synthesis, other_region: Synthesis) -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    rows = set(re.findall(r'^\| <a id="alarm-(\w+)"></a>`\1` \|', page, flags=re.MULTILINE))
    for synthesis in (plain, other_region):
        names = [each["Properties"]["AlarmName"] for each in synthesis.resources("AWS::CloudWatch::Alarm")]
        assert {name.rpartition("-")[2] for name in names} == rows


def _list_graphs(synthesis: Synthesis) -> dict[str, str]:
    """Return the dashboard's graphs: ``{title: everything in it}``."""
    body = synthesis.only("AWS::CloudWatch::Dashboard")["Properties"]["DashboardBody"]
    text = "".join(part if isinstance(part, str) else "X" for part in body["Fn::Join"][1])
    return {
        widget["properties"].get("title", "text"): json.dumps(widget["properties"])
        for widget in json.loads(text)["widgets"]
    }


def test_dashboard__graphs(full: Synthesis, plain: Synthesis) -> None:
    graphs = _list_graphs(full)
    for title, metric in (
        ("Publishes", "IndexedArtifacts"),
        ("Rejections and healing", "RejectedUploads"),
        ("Rejections and healing", "HealedIndexes"),
        ("Upload to visibility (s)", "VisibilitySeconds"),
        ("Edge decisions by outcome", "EdgeNoCredential401-fairway-team-us-east-1"),
        ("Cost: edge", "BytesDownloaded"),
        ("Cost: storage", "BucketSizeBytes"),
        ("Cost: functions (ms) and messages", "Duration"),
    ):
        assert metric in graphs[title]
    assert "access_log" in _list_graphs(plain)["text"]


def test_dashboard__shows_metrics_that_the_indexer_emits(plain: Synthesis) -> None:
    emitted = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lambdas/indexer").rglob("*.py"))
    shown = re.findall(r'"Fairway", "(\w+)", "service"', " ".join(_list_graphs(plain).values()))
    assert len(shown) > 8
    assert [name for name in shown if f'"{name}"' not in emitted] == []


def test_dashboard__an_output_links_to_it(plain: Synthesis) -> None:
    (stack,) = [template for template in plain.templates.values() if "ChannelUrl" in template.get("Outputs", {})]
    name = plain.only("AWS::CloudWatch::Dashboard")["Properties"]["DashboardName"]
    assert stack["Outputs"]["DashboardUrl"]["Value"].endswith(f"#dashboards/dashboard/{name}")


def test_edge_decisions__are_counted_in_the_access_log(full: Synthesis, other_region: Synthesis) -> None:
    for synthesis in (full, other_region):
        delivery = synthesis.only("AWS::Logs::DeliveryDestination")["Properties"]["DestinationResourceArn"]
        filters = {
            each["Properties"]["MetricTransformations"][0]["MetricName"].partition("-")[0]: each["Properties"]
            for each in synthesis.resources("AWS::Logs::MetricFilter")
            if each["Properties"]["LogGroupName"] == {"Ref": delivery["Fn::GetAtt"][0]}
        }
        assert filters["EdgeServed"]["FilterPattern"] == '{ $.sc-status = "2*" || $.sc-status = "3*" }'
        assert filters["EdgeDenied403"]["FilterPattern"] == '{ $.sc-status = "403" }'
        assert len(filters) == len(EDGE_OUTCOMES)


def test_saved_queries__name_the_deployment_and_its_logs(plain: Synthesis, full: Synthesis) -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    for synthesis, count in ((plain, 6), (full, 7)):
        queries = [each["Properties"] for each in synthesis.resources("AWS::Logs::QueryDefinition")]
        assert len(queries) == count
        for query in queries:
            folder, _, name = query["Name"].partition("/")
            assert folder.startswith("fairway-")
            assert f"| `{name}` |" in page
            groups = {each["Id"] for each in synthesis.resources("AWS::Logs::LogGroup")}
            assert {group["Ref"] for group in query["LogGroupNames"]} <= groups


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
