"""Monitoring: what a person should be told of, and where to look first.

Owns alarms, the dashboard, the mail, and CloudFront's access log. An alarm here is something that
needs a person; what heals by itself is on the dashboard alone.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.config import EDGE_REGION, Configuration
from infra.functions import make_log_group
from infra.indexing import NAMESPACE, Indexing
from infra.key_refreshing import EVERY, KeyRefreshing
from lambdas.key_refresher.refresh import ISSUERS_UNAVAILABLE

# Of what CloudFront knows of a request, all but what could hold a token or says where it leads: no
# cs-uri-stem (a token may be in the path), cs-uri-query, cs(Referer), cs(Cookie), x-host-header.
ACCESS_LOG_FIELDS = (
    "date",
    "time",
    "x-edge-location",
    "sc-bytes",
    "c-ip",
    "cs-method",
    "sc-status",
    "cs(User-Agent)",
    "x-edge-result-type",
    "x-edge-request-id",
    "cs-protocol",
    "cs-bytes",
    "time-taken",
    "ssl-protocol",
    "ssl-cipher",
    "x-edge-response-result-type",
    "cs-protocol-version",
    "time-to-first-byte",
    "x-edge-detailed-result-type",
    "sc-content-type",
    "sc-content-len",
    "sc-range-start",
    "sc-range-end",
)

_FIVE_MINUTES = cdk.Duration.minutes(5)


class Alarms(Construct):
    """Alarms of one region, and whom they mail."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration) -> None:
        super().__init__(scope, construct_id)
        self.alarms: list[cloudwatch.Alarm] = []
        self._topic = self._make_topic(configuration) if configuration.alarm_email else None

    def add(self, name: str, metric: cloudwatch.IMetric, *, above: float, what: str, periods: int = 1) -> None:
        """Alarm when a metric is above a number for so many periods; silence is good news."""
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            alarm_description=f"Fairway: {what}",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=above,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if self._topic is not None:
            alarm.add_alarm_action(actions.SnsAction(self._topic))
            alarm.add_ok_action(actions.SnsAction(self._topic))
        self.alarms.append(alarm)

    def _make_topic(self, configuration: Configuration) -> sns.Topic:
        topic = sns.Topic(self, "Mail", display_name=f"Fairway {configuration.name}", enforce_ssl=True)
        topic.add_subscription(subscriptions.EmailSubscription(str(configuration.alarm_email)))
        # With a policy of its own (for TLS), a topic no longer trusts its account's alarms by default.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsMail",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": configuration.account}},
            )
        )
        return topic


class Monitoring(Construct):
    """What indexing does, in the region of the bucket."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        alarms: Alarms,
        indexing: Indexing,
        key_refreshing: KeyRefreshing,
        distribution_id: str,
    ) -> None:
        super().__init__(scope, construct_id)
        waiting = indexing.queue.metric_approximate_number_of_messages_visible(
            period=_FIVE_MINUTES, statistic="Maximum"
        )
        oldest = indexing.queue.metric_approximate_age_of_oldest_message(period=_FIVE_MINUTES, statistic="Maximum")
        dead = indexing.dead_letters.metric_approximate_number_of_messages_visible(
            period=_FIVE_MINUTES, statistic="Maximum"
        )
        errors = indexing.indexer.metric_errors(period=_FIVE_MINUTES, statistic="Sum")
        misses = indexing.reconciler.metric_errors(period=_FIVE_MINUTES, statistic="Sum")
        unfit = key_refreshing.key_refresher.metric_errors(period=EVERY, statistic="Sum")
        stale = self._count_unreachable_issuers(configuration, key_refreshing.log)
        refused = _count_of_ours("RejectedUploads", configuration)
        alarms.add("DeadLetters", dead, above=0, what="uploads could not be indexed; redrive them once mended")
        alarms.add("IndexerErrors", errors, above=0, what="the indexer crashed or ran out of time")
        alarms.add("ReconcilerErrors", misses, above=0, what="the daily repair did not finish")
        # Longer than one retry takes, or else each retry would alarm.
        alarms.add("OldestMessage", oldest, above=3600, what="an upload has waited for more than an hour")
        # The authorizer tells too, but in the region near its reader: here it is seen wherever readers are.
        alarms.add("KeyRefresherErrors", unfit, above=0, what="the access document is missing, or can't be understood")
        # Keys are believed for a week; an issuer that does not answer for an hour is nothing yet.
        alarms.add("IssuersUnavailable", stale, above=3, what="an issuer's keys could not be refreshed for hours")
        alarms.add("RejectedUploads", refused, above=0, what="an upload was refused: fairway rejected list")

        dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=configuration.global_name,
            default_interval=cdk.Duration.days(1),
        )
        artifacts = ("IndexedArtifacts", "RemovedArtifacts", "RejectedUploads")
        counts = [_count_of_ours(name, configuration) for name in artifacts]
        swaps = [_count_of_ours(name, configuration) for name in ("Commits", "CommitConflicts")]
        durations = [
            indexing.indexer.metric_duration(period=_FIVE_MINUTES, statistic=statistic, label=statistic)
            for statistic in ("p50", "p99", "Maximum")
        ]
        dashboard.add_widgets(
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms.alarms), width=24, height=2)
        )
        dashboard.add_widgets(
            _graph("Queue", [waiting, dead], right=[oldest]),
            _graph("Artifacts", counts),
            _graph("Commits", swaps),
        )
        dashboard.add_widgets(
            _graph("Indexer (ms)", durations),
            _graph("Errors", [errors, misses, unfit]),
            _graph(
                "Edge",
                [_count_of_edge("Requests", distribution_id, "Sum")],
                right=[_count_of_edge(f"{kind}ErrorRate", distribution_id, "Average") for kind in ("4xx", "5xx")],
            ),
        )

    def _count_unreachable_issuers(self, configuration: Configuration, log_group: logs.ILogGroup) -> cloudwatch.Metric:
        """Count the runs in which some issuer did not answer."""
        name = f"IssuersUnavailable-{configuration.global_name}"
        logs.MetricFilter(
            self,
            "IssuersUnavailable",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.string_value("$.code", "=", ISSUERS_UNAVAILABLE),
            metric_namespace=NAMESPACE,
            metric_name=name,
            metric_value="1",
        )
        return cloudwatch.Metric(namespace=NAMESPACE, metric_name=name, period=cdk.Duration.hours(6), statistic="Sum")


class EdgeMonitoring(Construct):
    """What CloudFront does; its numbers are kept in one region alone."""

    def __init__(self, scope: Construct, construct_id: str, *, alarms: Alarms, distribution_id: str) -> None:
        super().__init__(scope, construct_id)
        alarms.add(
            "ServerErrors",
            _count_of_edge("5xxErrorRate", distribution_id, "Average", region=None),
            above=1,  # percent
            periods=2,
            what="the authorizer or the bucket does not answer readers",
        )


class AuthorizerMonitoring(Construct):
    """What the edge's functions say of themselves in one region: a failure, or an unreadable access document.

    They log where they run, near their readers, and two regions at most are watched so: what the access
    document is like, the key refresher looks at every hour too.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        alarms: Alarms,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        name = f"AuthorizerFailures-{configuration.global_name}"
        logs.MetricFilter(
            self,
            "Failures",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.exists("$.code"),
            metric_namespace=NAMESPACE,
            metric_name=name,
            metric_value="1",
        )
        alarms.add(
            "AuthorizerFailures",
            cloudwatch.Metric(namespace=NAMESPACE, metric_name=name, period=_FIVE_MINUTES, statistic="Sum"),
            above=0,
            what="a function at the edge failed, or can't read or understand the access document",
        )


class AccessLog(Construct):
    """Who read how much, and with what answer: without the path, since a token may be in it."""

    def __init__(
        self, scope: Construct, construct_id: str, *, configuration: Configuration, distribution_id: str
    ) -> None:
        super().__init__(scope, construct_id)
        name = configuration.global_name
        log_group = make_log_group(self, "Log", configuration, name=f"/aws/vendedlogs/fairway/{name}")
        source = logs.CfnDeliverySource(
            self,
            "Source",
            name=name,
            log_type="ACCESS_LOGS",
            resource_arn=f"arn:aws:cloudfront::{configuration.account}:distribution/{distribution_id}",
        )
        destination = logs.CfnDeliveryDestination(
            self,
            "Destination",
            name=name,
            destination_resource_arn=log_group.log_group_arn,
            output_format="json",
        )
        delivery = logs.CfnDelivery(
            self,
            "Delivery",
            delivery_source_name=name,
            delivery_destination_arn=destination.attr_arn,
            record_fields=list(ACCESS_LOG_FIELDS),
        )
        delivery.add_resource_dependency(source)  # named, not referred to


def _count_of_ours(name: str, configuration: Configuration) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=name,
        dimensions_map={"service": configuration.service},
        period=_FIVE_MINUTES,
        statistic="Sum",
    )


def _count_of_edge(
    name: str, distribution_id: str, statistic: str, *, region: str | None = EDGE_REGION
) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/CloudFront",
        metric_name=name,
        dimensions_map={"DistributionId": distribution_id, "Region": "Global"},
        period=_FIVE_MINUTES,
        statistic=statistic,
        region=region,
    )


def _graph(
    title: str, left: list[cloudwatch.Metric], *, right: list[cloudwatch.Metric] | None = None
) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(left), right=list(right or ()), width=8, height=6)
