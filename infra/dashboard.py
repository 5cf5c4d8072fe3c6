"""The dashboard: what publishers, readers and the bill see of a deployment."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.config import EDGE_REGION, Configuration
from infra.indexing import NAMESPACE, Indexing
from infra.metrics import FIVE_MINUTES, cloudfront_metric, indexer_metrics

# {outcome of an edge decision: the status codes that readers get, as patterns of the access log's field}
EDGE_OUTCOMES = {
    "Served": ("2*", "3*"),
    "InvalidRequest400": ("400",),
    "NoCredential401": ("401",),
    "Denied403": ("403",),
    "Missing404": ("404",),
    "Failed5xx": ("5*",),
}

_DAY = cdk.Duration.days(1)
_COLUMNS = 3


class Dashboard(Construct):
    """One dashboard for a deployment, in the bucket's region."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        alarms: Sequence[cloudwatch.IAlarm],
        indexing: Indexing,
        errors: Sequence[cloudwatch.Metric],
        distribution_id: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self._indexing = indexing
        self._distribution_id = distribution_id
        dashboard = cloudwatch.Dashboard(
            self, "Dashboard", dashboard_name=configuration.global_name, default_interval=_DAY
        )
        dashboard.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=24, height=2))
        graphs = [*self._publishing_graphs(), *self._indexer_graphs(errors), *self._edge_graphs(), *self._cost_graphs()]
        for start in range(0, len(graphs), _COLUMNS):
            dashboard.add_widgets(*graphs[start : start + _COLUMNS])

    def _publishing_graphs(self) -> list[cloudwatch.IWidget]:
        latency = [
            metric
            for statistic in ("p50", "p99", "Maximum")
            for metric in indexer_metrics(self._configuration, "VisibilitySeconds", statistic=statistic)
        ]
        return [
            _graph("Publishes", self._count("IndexedArtifacts", "RemovedArtifacts")),
            _graph("Rejections and healing", self._count("RejectedUploads", "HealedIndexes", "ForeignIndexes")),
            _graph("Upload to visibility (s)", latency),
        ]

    def _indexer_graphs(self, errors: Sequence[cloudwatch.Metric]) -> list[cloudwatch.IWidget]:
        queue, dead_letters = self._indexing.queue, self._indexing.dead_letters
        waiting = queue.metric_approximate_number_of_messages_visible(period=FIVE_MINUTES, statistic="Maximum")
        dead = dead_letters.metric_approximate_number_of_messages_visible(period=FIVE_MINUTES, statistic="Maximum")
        oldest = queue.metric_approximate_age_of_oldest_message(period=FIVE_MINUTES, statistic="Maximum")
        return [
            _graph("Queue and dead letters", [waiting, dead], right=[oldest]),
            _graph("Commits", self._count("Commits", "CommitConflicts", "FailedKeys")),
            _graph("Errors", errors),
        ]

    def _edge_graphs(self) -> list[cloudwatch.IWidget]:
        rates = [self._cloudfront(f"{kind}ErrorRate", "Average") for kind in ("4xx", "5xx")]
        decisions: cloudwatch.IWidget = cloudwatch.TextWidget(
            markdown="**Edge decisions by outcome** need the setting `access_log`; without it, CloudFront counts 4xx"
            " and 5xx only.",
            width=8,
            height=6,
        )
        if self._configuration.access_log:
            decisions = _graph("Edge decisions by outcome", list(edge_decisions(self._configuration).values()))
        durations = [
            self._indexing.indexer.metric_duration(period=FIVE_MINUTES, statistic=statistic, label=statistic)
            for statistic in ("p50", "p99", "Maximum")
        ]
        return [
            _graph("Edge", [self._cloudfront("Requests", "Sum")], right=rates),
            decisions,
            _graph("Indexer (ms)", durations),
        ]

    def _cost_graphs(self) -> list[cloudwatch.IWidget]:
        """Graph what the bill grows with: requests and bytes at the edge, storage, and the functions' time."""
        functions = (self._indexing.indexer, self._indexing.reconciler)
        return [
            _graph(
                "Cost: edge",
                [self._cloudfront("Requests", "Sum")],
                right=[self._cloudfront("BytesDownloaded", "Sum")],
            ),
            _graph(
                "Cost: storage",
                [self._bucket("BucketSizeBytes", "StandardStorage")],
                right=[self._bucket("NumberOfObjects", "AllStorageTypes")],
            ),
            _graph(
                "Cost: functions (ms) and messages",
                [each.metric_duration(period=FIVE_MINUTES, statistic="Sum") for each in functions],
                right=[self._indexing.queue.metric_number_of_messages_received(period=FIVE_MINUTES, statistic="Sum")],
            ),
        ]

    def _count(self, *names: str) -> list[cloudwatch.Metric]:
        return indexer_metrics(self._configuration, *names)

    def _cloudfront(self, name: str, statistic: str) -> cloudwatch.Metric:
        return cloudfront_metric(name, self._distribution_id, statistic)

    def _bucket(self, name: str, storage_type: str) -> cloudwatch.Metric:
        """Return one of S3's free metrics, of which there is one value a day."""
        return cloudwatch.Metric(
            namespace="AWS/S3",
            metric_name=name,
            dimensions_map={"BucketName": self._configuration.bucket_name, "StorageType": storage_type},
            period=_DAY,
            statistic="Average",
        )


def edge_decisions(configuration: Configuration) -> dict[str, cloudwatch.Metric]:
    """Return the metrics of decisions at the edge by outcome, which the access log is counted into."""
    return {
        outcome: cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=f"Edge{outcome}-{configuration.global_name}",
            label=outcome,
            period=FIVE_MINUTES,
            statistic="Sum",
            region=EDGE_REGION,
        )
        for outcome in EDGE_OUTCOMES
    }


def _graph(
    title: str, left: Sequence[cloudwatch.IMetric], *, right: Sequence[cloudwatch.IMetric] = ()
) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(left), right=list(right), width=8, height=6)
