"""Saved queries of CloudWatch Logs Insights, by which operators find the lines that matter."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.config import Configuration
from infra.indexing import Indexing
from infra.key_refreshing import KeyRefreshing

_LATEST = "| sort @timestamp desc | limit 100"
_ERRORS = f"fields @timestamp, message, key, subdir, exception | filter level = 'ERROR' {_LATEST}"
_REJECTIONS = f"fields @timestamp, key, code, reason | filter message = 'rejected' {_LATEST}"
_HEALING = f"fields @timestamp, subdir, reason | filter message = 'healed' {_LATEST}"
_ONE_UPLOAD = f"fields @timestamp, level, message, key, reason, exception | filter key like 'FILENAME' {_LATEST}"
_SLOW_RUNS = (
    "filter @type = 'REPORT' | fields @timestamp, @duration, @maxMemoryUsed / 1e6 as megabytes"
    " | sort @duration desc | limit 20"
)
_AUTHORIZER = f"fields @timestamp, code, @message | filter ispresent(code) {_LATEST}"
_OUTCOMES = "stats count() as requests by `sc-status` | sort requests desc"


class SavedQueries(Construct):
    """Queries over the functions' logs, in the bucket's region.

    They are in the folder of the deployment's name, under "Saved and sample queries" of Logs Insights.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        indexing: Indexing,
        key_refreshing: KeyRefreshing,
        authorizer_log: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        indexer, reconciler = indexing.indexer.log_group, indexing.reconciler.log_group
        for name, query, groups in (
            ("errors", _ERRORS, (indexer, reconciler, key_refreshing.log)),
            ("rejections", _REJECTIONS, (indexer, reconciler)),
            ("healing", _HEALING, (indexer, reconciler)),
            ("one-upload", _ONE_UPLOAD, (indexer, reconciler)),
            ("slow-runs", _SLOW_RUNS, (indexer, reconciler)),
            ("authorizer-failures", _AUTHORIZER, (authorizer_log,)),
        ):
            save_query(self, configuration, name, query, groups)


def save_outcomes_query(scope: Construct, configuration: Configuration, access_log: logs.ILogGroup) -> None:
    """Save the query that counts responses to readers by status, in the access log's region."""
    save_query(scope, configuration, "responses-by-status", _OUTCOMES, (access_log,))


def save_query(
    scope: Construct, configuration: Configuration, name: str, query: str, groups: Sequence[logs.ILogGroup]
) -> None:
    """Declare one saved query."""
    logs.CfnQueryDefinition(
        scope,
        f"Query-{name}",
        name=f"{configuration.global_name}/{name}",
        query_string=query,
        log_group_names=[group.log_group_name for group in groups],
    )
