"""Indexing: the queue, its dead letters, the indexer and the reconciler, and the bus that announces.

Owns how events reach the functions and what the functions are given. What they may do in the bucket
is said in storage.py; what they do, in lambdas/indexer.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as event_sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import bundling
from infra.acknowledging import acknowledge_rules
from infra.config import Configuration
from infra.functions import find_architecture, find_runtime, find_target, grant_logging, make_log_group

RECONCILER_TIMEOUT = cdk.Duration.minutes(15)  # the most that Lambda gives
MAX_RECEIVES = 5
MARGIN_SECONDS = 30
NAMESPACE = "Fairway"  # of metrics


class Indexing(Construct):
    """From a notification to an index."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        configuration: Configuration,
        distribution_id: str,
        channel_url: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            retention_period=cdk.Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not configuration.is_emulated,
        )
        self.queue = sqs.Queue(
            self,
            "Queue",
            # Hardly more than the function's time: what a function that died had in hand comes again soon.
            # AWS advises six times as much, against messages that run out while the function is throttled;
            # the event source's bound on concurrency keeps it from that, and running twice does no harm.
            visibility_timeout=cdk.Duration.seconds(
                configuration.indexer_timeout_seconds + configuration.batch_window_seconds + MARGIN_SECONDS
            ),
            retention_period=cdk.Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not configuration.is_emulated,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=MAX_RECEIVES),
        )
        self.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="TheBucketNotifies",
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn],
                conditions={
                    "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{configuration.bucket_name}"},
                    "StringEquals": {"aws:SourceAccount": configuration.account},
                },
            )
        )
        self.bus = events.EventBus(self, "Announcements", description="Fairway tells what was indexed and refused")
        self.role = self._make_role(distribution_id)
        self._environment = self._describe_environment(distribution_id, channel_url)
        self._code = lambda_.Code.from_asset(str(bundling.build_indexer(find_target(configuration))))
        self.indexer = self._make_function(
            "Indexer",
            "handle_queue",
            cdk.Duration.seconds(configuration.indexer_timeout_seconds),
            "Fairway: indexes what is uploaded to the bucket",
        )
        self.indexer.add_event_source(
            event_sources.SqsEventSource(
                self.queue,
                batch_size=configuration.batch_artifacts,
                max_batching_window=cdk.Duration.seconds(configuration.batch_window_seconds),
                max_concurrency=configuration.indexer_max_concurrency,
                report_batch_item_failures=True,
            )
        )
        self.reconciler = self._make_function(
            "Reconciler",
            "handle_schedule",
            RECONCILER_TIMEOUT,
            "Fairway: once a day, makes the index say what is there",
        )
        events.Rule(
            self,
            "Daily",
            schedule=events.Schedule.rate(cdk.Duration.days(1)),
            targets=[
                targets.LambdaFunction(
                    self.reconciler,
                    event=events.RuleTargetInput.from_object({}),  # all channels
                    retry_attempts=2,
                )
            ],
        )

    def _make_role(self, distribution_id: str) -> iam.Role:
        """One role for both functions: they run the same code over the same keys."""
        role = iam.Role(
            self,
            "IndexerRole",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="Fairway: the indexer and the reconciler",
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="DropWhatIsOutdated",
                actions=["cloudfront:CreateInvalidation"],
                resources=[f"arn:aws:cloudfront::{self._configuration.account}:distribution/{distribution_id}"],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(sid="Remind", actions=["sqs:SendMessage"], resources=[self.queue.queue_arn])
        )
        role.add_to_policy(
            iam.PolicyStatement(sid="Announce", actions=["events:PutEvents"], resources=[self.bus.event_bus_arn])
        )
        return role

    def _describe_environment(self, distribution_id: str, channel_url: str) -> dict[str, str]:
        configuration = self._configuration
        environment = {
            "FAIRWAY_BUCKET": configuration.bucket_name,
            "FAIRWAY_CHANNEL_URL": channel_url,
            "FAIRWAY_DISTRIBUTION_ID": distribution_id,
            "FAIRWAY_EVENT_BUS": self.bus.event_bus_name,
            "FAIRWAY_MUTABLE_CHANNELS": ",".join(configuration.mutable_channels),
            "FAIRWAY_OPTIONAL_OUTPUTS": ",".join(configuration.optional_outputs),
            "FAIRWAY_QUEUE_URL": self.queue.queue_url,
            "FAIRWAY_SHARD_GRACE_DAYS": str(configuration.shard_grace_days),
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
            "POWERTOOLS_SERVICE_NAME": configuration.service,
        }
        if configuration.endpoint_url is not None:
            environment["AWS_ENDPOINT_URL"] = configuration.endpoint_url
            environment["FAIRWAY_DEFERRAL_SECONDS"] = "5"  # people wait for it
        return environment

    def _make_function(self, name: str, handler: str, timeout: cdk.Duration, description: str) -> lambda_.Function:
        configuration = self._configuration
        log_group = make_log_group(self, f"{name}Log", configuration)
        grant_logging(self.role, log_group)
        function = lambda_.Function(
            self,
            name,
            description=description,
            code=self._code,
            handler=f"lambdas.indexer.handler.{handler}",
            runtime=find_runtime(configuration),
            architecture=find_architecture(configuration),
            role=self.role,
            environment=self._environment,
            memory_size=configuration.indexer_memory_mib,
            timeout=timeout,
            log_group=log_group,
            # The indexer reminds itself through its queue. Whoever is reminded of a subdir reminds nobody of
            # it, but may of others in the same batch: where Lambda saw 16 in a row, it would drop messages.
            # https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
            recursive_loop=lambda_.RecursiveLoop.ALLOW,
        )
        acknowledge_rules(
            function,
            {"AwsSolutions-L1": "the zip carries wheels for one Python; a newer one comes with a new lock"},
        )
        return function
