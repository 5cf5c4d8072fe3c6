"""Indexing: the queue and its dead-letter queue, the indexer and the reconciler, and the event bus.

Owns how events reach the functions, and the functions' environment. Their permissions on the bucket
are in storage.py, their code is in lambdas/indexer.
"""

from __future__ import annotations

import json
import math

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as event_sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import bundling
from infra.config import Configuration
from infra.functions import function_architecture, function_runtime, grant_logging, make_log_group, zip_target
from infra.nag_suppressions import suppress_rules

RECONCILER_TIMEOUT = cdk.Duration.minutes(15)  # Lambda's maximum
RECONCILER_RETRIES = 2  # Lambda's maximum
MAX_RECEIVES = 1000  # Amazon SQS's maximum
RETRIED_SECONDS = 24 * 3600  # before a message is a dead letter
MARGIN_SECONDS = 30
NAMESPACE = "Fairway"  # of metrics


class Indexing(Construct):
    """The path from a notification to an index."""

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
        self._visibility_seconds = (
            configuration.indexer_timeout_seconds + configuration.batch_window_seconds + MARGIN_SECONDS
        )
        self._max_receives = min(math.ceil(RETRIED_SECONDS / self._visibility_seconds), MAX_RECEIVES)
        self.dead_letters = self._make_dead_letters()
        self.queue = self._make_queue()
        self.bus = events.EventBus(self, "Events", description="Fairway: indexed and rejected uploads")
        self.role = self._make_role(distribution_id)
        self._environment = self._make_environment(distribution_id, channel_url)
        self._code = lambda_.Code.from_asset(str(bundling.build_indexer(zip_target(configuration))))
        self.indexer = self._make_indexer()
        self.reconciler = self._make_reconciler()

    def _make_dead_letters(self) -> sqs.Queue:
        return sqs.Queue(
            self,
            "DeadLetters",
            retention_period=cdk.Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not self._configuration.is_emulated,
        )

    def _make_queue(self) -> sqs.Queue:
        """Declare the queue, which accepts messages from the bucket alone."""
        configuration = self._configuration
        queue = sqs.Queue(
            self,
            "Queue",
            # Little more than the function's timeout, so that the messages of a crashed run are redelivered soon.
            # AWS advises six times the timeout, because messages may expire while the function is throttled.
            # The event source's maximum concurrency prevents that, and indexing twice is harmless.
            visibility_timeout=cdk.Duration.seconds(self._visibility_seconds),
            retention_period=cdk.Duration.days(14),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=not configuration.is_emulated,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=self._max_receives),
        )
        queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowBucketNotifications",
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[queue.queue_arn],
                conditions={
                    "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{configuration.bucket_name}"},
                    "StringEquals": {"aws:SourceAccount": configuration.account},
                },
            )
        )
        return queue

    def _make_indexer(self) -> lambda_.Function:
        """Declare the function that runs for batches of messages."""
        configuration = self._configuration
        indexer = self._make_function(
            "Indexer",
            "handle_queue",
            cdk.Duration.seconds(configuration.indexer_timeout_seconds),
            "Fairway: indexes uploads",
        )
        indexer.add_event_source(
            event_sources.SqsEventSource(
                self.queue,
                batch_size=configuration.batch_artifacts,
                max_batching_window=cdk.Duration.seconds(configuration.batch_window_seconds),
                max_concurrency=configuration.indexer_max_concurrency,
                report_batch_item_failures=True,
            )
        )
        return indexer

    @property
    def event_source_mapping(self) -> lambda_.CfnEventSourceMapping:
        """The resource that connects the queue with the indexer."""
        (mapping,) = [each for each in self.indexer.node.find_all() if isinstance(each, lambda_.CfnEventSourceMapping)]
        return mapping

    def _make_reconciler(self) -> lambda_.Function:
        """Declare the function that runs daily."""
        reconciler = self._make_function(
            "Reconciler",
            "handle_schedule",
            RECONCILER_TIMEOUT,
            "Fairway: reconciles every channel with the bucket once a day",
        )
        # A rule's retries are those of the delivery: Lambda itself runs a function again that has failed.
        reconciler.configure_async_invoke(retry_attempts=RECONCILER_RETRIES)
        all_channels = events.RuleTargetInput.from_object({})
        events.Rule(
            self,
            "Daily",
            schedule=events.Schedule.rate(cdk.Duration.days(1)),
            targets=[targets.LambdaFunction(reconciler, event=all_channels)],
        )
        return reconciler

    def _make_role(self, distribution_id: str) -> iam.Role:
        """Declare one role for both functions: they run the same code on the same keys."""
        role = iam.Role(
            self,
            "IndexerRole",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="Fairway: the indexer and the reconciler",
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="Invalidate",
                actions=["cloudfront:CreateInvalidation"],
                resources=[f"arn:aws:cloudfront::{self._configuration.account}:distribution/{distribution_id}"],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="Requeue",
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn, self.dead_letters.queue_arn],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(sid="PutEvents", actions=["events:PutEvents"], resources=[self.bus.event_bus_arn])
        )
        return role

    def _make_environment(self, distribution_id: str, channel_url: str) -> dict[str, str]:
        configuration = self._configuration
        environment = {
            "FAIRWAY_BUCKET": configuration.bucket_name,
            "FAIRWAY_CHANNEL_URL": channel_url,
            "FAIRWAY_DEAD_LETTERS_URL": self.dead_letters.queue_url,
            "FAIRWAY_DISTRIBUTION_ID": distribution_id,
            "FAIRWAY_EVENT_BUS": self.bus.event_bus_name,
            "FAIRWAY_MAX_REPODATA_MIB": str(configuration.max_repodata_mib or ""),
            "FAIRWAY_MAX_RECEIVES": str(self._max_receives),
            "FAIRWAY_MAX_SUBDIRS": str(configuration.max_subdirs),
            "FAIRWAY_MUTABLE_CHANNELS": ",".join(configuration.mutable_channels),
            "FAIRWAY_PUBLIC_CHANNELS": ",".join(configuration.public_channels),
            "FAIRWAY_OPTIONAL_OUTPUTS": ",".join(configuration.optional_outputs),
            "FAIRWAY_QUEUE_URL": self.queue.queue_url,
            "FAIRWAY_ROLE_ID": self.role.role_id,  # S3 names it in events that the role causes
            "FAIRWAY_SHARD_GRACE_DAYS": str(configuration.shard_grace_days),
            "FAIRWAY_SUBDIRS": json.dumps(dict(configuration.subdirs)),
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
            "POWERTOOLS_SERVICE_NAME": configuration.service,
        }
        if configuration.endpoint_url is not None:
            environment["AWS_ENDPOINT_URL"] = configuration.endpoint_url
            environment["FAIRWAY_DEFERRAL_SECONDS"] = "5"  # a person waits for it
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
            runtime=function_runtime(configuration),
            architecture=function_architecture(configuration),
            role=self.role,
            environment=self._environment,
            memory_size=configuration.indexer_memory_mib,
            timeout=timeout,
            log_group=log_group,
            # The indexer requeues deferred outputs in its own queue. Lambda would take 16 such messages in a row
            # for an endless loop and drop them. There is no loop: a run that writes a subdir's deferred outputs
            # requeues only other subdirs of its batch.
            # https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
            recursive_loop=lambda_.RecursiveLoop.ALLOW,
        )
        suppress_rules(
            function,
            {"AwsSolutions-L1": "the zip contains wheels for this Python version; another needs a new lock"},
        )
        return function
