"""The stacks: wire the roles of the architecture to each other; declare no resource themselves."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.acknowledging import acknowledge_providers, silence_redundant_dependencies
from infra.config import EDGE_REGION, Configuration
from infra.delivery import Delivery
from infra.indexing import Indexing
from infra.key_refreshing import KeyRefreshing
from infra.monitoring import AccessLog, Alarms, AuthorizerMonitoring, EdgeMonitoring, Monitoring
from infra.publishing import Publishing
from infra.storage import Storage


class ChannelStack(cdk.Stack):
    """One Fairway: a bucket, what indexes it, and what serves it."""

    def __init__(self, scope: Construct, *, configuration: Configuration) -> None:
        super().__init__(
            scope,
            configuration.stack_name,
            description="Fairway: a serverless conda channel",
            env=cdk.Environment(account=configuration.account, region=configuration.region),
            cross_region_references=configuration.region != EDGE_REGION,
            # The emulator refuses the roles that cdk bootstrap makes; there, the caller's own rights do.
            synthesizer=cdk.CliCredentialsStackSynthesizer() if configuration.is_emulated else None,
        )
        self.storage = Storage(self, "Storage", configuration=configuration)
        self.delivery = Delivery(self, "Delivery", configuration=configuration, storage=self.storage)
        self.indexing = Indexing(
            self,
            "Indexing",
            configuration=configuration,
            distribution_id=self.delivery.distribution.distribution_id,
            channel_url=self.delivery.channel_url,
        )
        self.key_refreshing = KeyRefreshing(self, "KeyRefreshing", configuration=configuration)
        self.publishing = Publishing(self, "Publishing", configuration=configuration, storage=self.storage)
        self.storage.allow_indexing(self.indexing.role)
        self.storage.allow_key_refreshing(self.key_refreshing.role)
        self.key_refreshing.run_at_deployment(self.storage)
        self.storage.notify(self.indexing.queue)
        if configuration.require_if_none_match:
            self.storage.forbid_overwriting(but=self.indexing.role)
        self._watch(configuration)
        self._print_outputs(configuration)
        silence_redundant_dependencies(self)
        acknowledge_providers(self)

    def _watch(self, configuration: Configuration) -> None:
        distribution_id = self.delivery.distribution.distribution_id
        alarms = Alarms(self, "Alarms", configuration=configuration)
        AuthorizerMonitoring(
            self,
            "AuthorizerMonitoring",
            configuration=configuration,
            alarms=alarms,
            log_group=self.delivery.functions.log,
        )
        if configuration.region == EDGE_REGION:
            watch_edge(self, configuration=configuration, alarms=alarms, distribution_id=distribution_id)
        Monitoring(
            self,
            "Monitoring",
            configuration=configuration,
            alarms=alarms,
            indexing=self.indexing,
            key_refreshing=self.key_refreshing,
            distribution_id=distribution_id,
        )

    def _print_outputs(self, configuration: Configuration) -> None:
        delivery, indexing, bucket = self.delivery, self.indexing, configuration.bucket_name
        publish = f"aws s3 cp PACKAGE.conda s3://{bucket}/CHANNEL/noarch/"
        if configuration.require_if_none_match:  # not aws s3 cp --no-overwrite, which version 1 lacks
            where = f"--bucket {bucket} --key CHANNEL/noarch/PACKAGE.conda"
            publish = f"aws s3api put-object --if-none-match '*' {where} --body PACKAGE.conda"
        outputs = {
            "ChannelUrl": (delivery.channel_url, "channels are one level below"),
            "BucketName": (bucket, "where artifacts are uploaded to"),
            "DistributionId": (delivery.distribution.distribution_id, "CloudFront's"),
            "DistributionDomainName": (delivery.distribution.distribution_domain_name, "what your domain points to"),
            "EventBusName": (indexing.bus.event_bus_name, "where rejections are announced"),
            "QueueUrl": (indexing.queue.queue_url, "what waits to be indexed"),
            "DeadLetterQueueUrl": (indexing.dead_letters.queue_url, "what could not be indexed"),
            "IndexerFunctionName": (indexing.indexer.function_name, "the indexer"),
            "ReconcilerFunctionName": (indexing.reconciler.function_name, "the daily repair"),
            "AuthorizerVersionArn": (delivery.functions.authorizer.edge_arn, "the authorizer that decides now"),
            "CreateTokenCommand": (f"fairway token create me --channel '*' --bucket {bucket}", "a token to read with"),
            "PublishCommand": (publish, "publish"),
            "InstallCommand": (f"conda install -c {delivery.channel_url}/t/TOKEN/CHANNEL PACKAGE", "install"),
        }
        for name, role in self.publishing.roles.items():
            outputs[f"PublisherRole{name.title().replace('-', '')}"] = (role.role_arn, f"the role of publisher {name}")
        for name, (value, description) in outputs.items():
            cdk.CfnOutput(self, name, value=value, description=description)


class EdgeStack(cdk.Stack):
    """What can only be in CloudFront's own region, for a channel that is elsewhere; comes after it."""

    def __init__(self, scope: Construct, *, configuration: Configuration, distribution_id: str) -> None:
        super().__init__(
            scope,
            f"{configuration.global_name}-edge",
            description="Fairway: what CloudFront measures and logs",
            env=cdk.Environment(account=configuration.account, region=EDGE_REGION),
            cross_region_references=True,
        )
        alarms = Alarms(self, "Alarms", configuration=configuration)
        AuthorizerMonitoring(
            self,
            "AuthorizerMonitoring",
            configuration=configuration,
            alarms=alarms,
            log_group=logs.LogGroup.from_log_group_name(self, "AuthorizerLog", configuration.authorizer_log_name),
        )
        watch_edge(self, configuration=configuration, alarms=alarms, distribution_id=distribution_id)
        silence_redundant_dependencies(self)
        acknowledge_providers(self)


def watch_edge(scope: Construct, *, configuration: Configuration, alarms: Alarms, distribution_id: str) -> None:
    """Watch CloudFront, from its own region."""
    EdgeMonitoring(scope, "EdgeMonitoring", alarms=alarms, distribution_id=distribution_id)
    if configuration.access_log:
        AccessLog(scope, "AccessLog", configuration=configuration, distribution_id=distribution_id)
