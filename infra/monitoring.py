"""Monitoring: alarms, alarm mail, and CloudFront's access log.

An alarm means that a person has to act. What recovers by itself is on the dashboard (``dashboard.py``) only.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.config import Configuration
from infra.dashboard import EDGE_OUTCOMES, Dashboard, edge_decisions
from infra.functions import make_log_group
from infra.indexing import NAMESPACE, Indexing
from infra.key_refreshing import REFRESH_INTERVAL, KeyRefreshing
from infra.metrics import FIVE_MINUTES, cloudfront_metric, indexer_metrics
from infra.saved_queries import SavedQueries, save_outcomes_query
from lambdas.indexer.queue.signals import FOREIGN_INDEX
from lambdas.key_refresher.refresh import ISSUERS_UNAVAILABLE

# All fields that CloudFront offers, except those that may contain a token (cs-uri-stem, cs-uri-query,
# cs(Referer), cs(Cookie)) or a host name (x-host-header).
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

DOCUMENTED_IN = "operating.md"


class Alarms(Construct):
    """The alarms of one region, and their mail topic."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self.alarms: list[cloudwatch.Alarm] = []
        self._topic = self._make_topic(configuration) if configuration.alarm_email else None

    def add(self, name: str, metric: cloudwatch.IMetric, *, above: float, message: str, periods: int = 1) -> None:
        """Add an alarm for a metric above a threshold for a number of periods; missing data is no alarm.

        Its name is that of the deployment and its own; its description links to its row in the docs.
        """
        row = f"{self._configuration.docs_url}/{DOCUMENTED_IN}#alarm-{name}"
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            alarm_name=f"{self._configuration.global_name}-{name}",
            alarm_description=f"Fairway: {message}. What to do: {row}",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=above,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if self._topic is not None:
            alarm.add_alarm_action(actions.SnsAction(self._topic))
            alarm.add_ok_action(actions.SnsAction(self._topic))
        self.alarms.append(alarm)

    def mail_foreign_indexes(self, bus: events.IEventBus) -> None:
        """Send mail that names the principal: a CloudWatch alarm can only name its metric."""
        if self._topic is None:
            return
        text = (
            f"Fairway: {events.EventField.from_path('$.detail.principal')} has written or deleted the shard index of"
            f" {events.EventField.from_path('$.detail.subdir')}, the second foreign change within an hour. It was"
            " checked and healed. Only the indexer may write index files: find the tool that does, and take the"
            " permission away."
        )
        rule = events.Rule(
            self,
            "ForeignIndexMail",
            event_bus=bus,
            event_pattern=events.EventPattern(detail_type=[FOREIGN_INDEX]),
        )
        rule.add_target(targets.SnsTopic(self._topic, message=events.RuleTargetInput.from_text(text)))

    def _make_topic(self, configuration: Configuration) -> sns.Topic:
        topic = sns.Topic(self, "Mail", display_name=f"Fairway {configuration.name}", enforce_ssl=True)
        topic.add_subscription(subscriptions.EmailSubscription(str(configuration.alarm_email)))
        # The policy that enforces TLS replaces the default one, which would allow the account's alarms.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowAlarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": configuration.account}},
            )
        )
        return topic


class Monitoring(Construct):
    """Alarms, the dashboard and saved queries, in the bucket's region."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        alarms: Alarms,
        indexing: Indexing,
        key_refreshing: KeyRefreshing,
        authorizer_log: logs.ILogGroup,
        distribution_id: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        errors = [
            indexing.indexer.metric_errors(period=FIVE_MINUTES, statistic="Sum"),
            indexing.reconciler.metric_errors(period=FIVE_MINUTES, statistic="Sum"),
            key_refreshing.key_refresher.metric_errors(period=REFRESH_INTERVAL, statistic="Sum"),
        ]
        alarms.mail_foreign_indexes(indexing.bus)
        self._add_alarms(
            alarms,
            dead=indexing.dead_letters.metric_approximate_number_of_messages_visible(
                period=FIVE_MINUTES, statistic="Maximum"
            ),
            oldest=indexing.queue.metric_approximate_age_of_oldest_message(period=FIVE_MINUTES, statistic="Maximum"),
            errors=errors,
            unreachable=self._count_unreachable_issuers(key_refreshing.log),
        )
        Dashboard(
            self,
            "Dashboard",
            configuration=configuration,
            alarms=alarms.alarms,
            indexing=indexing,
            errors=errors,
            distribution_id=distribution_id,
        )
        if not configuration.is_emulated:  # the emulator has no saved queries
            SavedQueries(
                self,
                "Queries",
                configuration=configuration,
                indexing=indexing,
                key_refreshing=key_refreshing,
                authorizer_log=authorizer_log,
            )

    def _add_alarms(
        self,
        alarms: Alarms,
        *,
        dead: cloudwatch.Metric,
        oldest: cloudwatch.Metric,
        errors: list[cloudwatch.Metric],
        unreachable: cloudwatch.Metric,
    ) -> None:
        """Add the alarms; ``errors`` are those of the indexer, the reconciler and the key refresher."""
        indexer, reconciler, key_refresher = errors
        (rejected,) = self._count("RejectedUploads")
        (failed,) = self._count("FailedKeys", period=cdk.Duration.minutes(30))
        (foreign,) = self._count("ForeignIndexes")
        alarms.add(
            "DeadLetters",
            dead,
            above=0,
            message="uploads could not be indexed; fix the cause, then redrive the dead-letter queue",
        )
        alarms.add("IndexerErrors", indexer, above=0, message="the indexer crashed or timed out")
        alarms.add("ReconcilerErrors", reconciler, above=0, message="the daily reconciliation failed")
        # Longer than a retry takes, so that a single retry raises no alarm.
        alarms.add("OldestMessage", oldest, above=3600, message="an upload has been waiting for more than an hour")
        # A message that was received more than three times no longer counts as the oldest one.
        alarms.add("FailedKeys", failed, above=0, periods=2, message="an upload has kept failing for an hour")
        alarms.add(
            "ForeignIndexes",
            foreign,
            above=0,
            message="another tool wrote or deleted a shard index, the second time within an hour;"
            " the mail about it, and 'foreign index again' in the indexer's log, name the principal",
        )
        # The authorizer logs these failures in the regions of its readers; this alarm sees them for all readers.
        alarms.add("KeyRefresherErrors", key_refresher, above=0, message="the access document is missing or malformed")
        # Keys are trusted for a week, so an issuer that does not answer for an hour is no problem yet.
        alarms.add(
            "IssuersUnavailable", unreachable, above=3, message="an issuer's keys could not be refreshed for hours"
        )
        alarms.add("RejectedUploads", rejected, above=0, message="an upload was rejected; see 'fairway rejected list'")

    def _count(self, *names: str, period: cdk.Duration = FIVE_MINUTES) -> list[cloudwatch.Metric]:
        return indexer_metrics(self._configuration, *names, period=period)

    def _count_unreachable_issuers(self, log_group: logs.ILogGroup) -> cloudwatch.Metric:
        """Count the runs in which an issuer did not answer."""
        name = f"IssuersUnavailable-{self._configuration.global_name}"
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
    """The alarm on CloudFront's metrics, which exist in us-east-1 only."""

    def __init__(self, scope: Construct, construct_id: str, *, alarms: Alarms, distribution_id: str) -> None:
        super().__init__(scope, construct_id)
        alarms.add(
            "ServerErrors",
            cloudfront_metric("5xxErrorRate", distribution_id, "Average", region=None),
            above=1,  # percent
            periods=2,
            message="the authorizer or the bucket does not answer readers",
        )


class AuthorizerMonitoring(Construct):
    """The alarm on failures that the edge functions log in one region.

    They log in the regions of their readers, and at most two regions have an alarm. Therefore the key
    refresher checks the access document every hour, too.
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
            cloudwatch.Metric(namespace=NAMESPACE, metric_name=name, period=FIVE_MINUTES, statistic="Sum"),
            above=0,
            message="an edge function failed, or the access document is unreadable or malformed",
        )


class AccessLog(Construct):
    """CloudFront's access log, without paths, because a path may contain a token."""

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
        delivery.add_resource_dependency(source)  # the delivery names the source without a reference
        self._count_decisions(configuration, log_group)
        save_outcomes_query(self, configuration, log_group)

    def _count_decisions(self, configuration: Configuration, log_group: logs.ILogGroup) -> None:
        """Count the decisions at the edge by outcome, from lines that are logged anyway."""
        for outcome, metric in edge_decisions(configuration).items():
            statuses = " || ".join(f'$.sc-status = "{status}"' for status in EDGE_OUTCOMES[outcome])
            logs.MetricFilter(
                self,
                outcome,
                log_group=log_group,
                filter_pattern=logs.FilterPattern.literal(f"{{ {statuses} }}"),
                metric_namespace=NAMESPACE,
                metric_name=metric.metric_name,
                metric_value="1",
            )
