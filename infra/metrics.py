"""Metrics that alarms and the dashboard share."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from infra.config import EDGE_REGION, Configuration
from infra.indexing import NAMESPACE

FIVE_MINUTES = cdk.Duration.minutes(5)


def indexer_metrics(
    configuration: Configuration, *names: str, period: cdk.Duration = FIVE_MINUTES, statistic: str = "Sum"
) -> list[cloudwatch.Metric]:
    """Return metrics that the indexer emits."""
    return [
        cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={"service": configuration.service},
            period=period,
            statistic=statistic,
        )
        for name in names
    ]


def cloudfront_metric(
    name: str, distribution_id: str, statistic: str, *, region: str | None = EDGE_REGION
) -> cloudwatch.Metric:
    """Return a metric of a distribution; CloudFront's metrics exist in its own region only."""
    return cloudwatch.Metric(
        namespace="AWS/CloudFront",
        metric_name=name,
        dimensions_map={"DistributionId": distribution_id, "Region": "Global"},
        period=FIVE_MINUTES,
        statistic=statistic,
        region=region,
    )
