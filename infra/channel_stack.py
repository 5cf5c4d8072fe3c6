"""The stacks: connect the constructs with each other; declare no resource themselves."""

from __future__ import annotations

from importlib.metadata import version

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.config import EDGE_REGION, Configuration
from infra.delivery import Delivery
from infra.indexing import Indexing
from infra.key_refreshing import KeyRefreshing
from infra.monitoring import AccessLog, Alarms, AuthorizerMonitoring, EdgeMonitoring, Monitoring
from infra.nag_suppressions import suppress_cross_region_functions, suppress_redundant_dependencies
from infra.publishing import Publishing
from infra.storage import Storage


class ChannelStack(cdk.Stack):
    """One deployment: a bucket, the functions that index it, and the distribution that serves it."""

    def __init__(self, scope: Construct, *, configuration: Configuration) -> None:
        super().__init__(
            scope,
            configuration.stack_name,
            description="Fairway: a serverless conda channel",
            env=cdk.Environment(account=configuration.account, region=configuration.region),
            cross_region_references=configuration.region != EDGE_REGION,
            # The emulator rejects the roles that cdk bootstrap creates, so the caller's credentials are used there.
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
        self.storage.grant_indexer(self.indexing.role)
        self.storage.grant_key_refresher(self.key_refreshing.role)
        self.storage.notify(self.indexing.queue)
        self.storage.deny_unreadable_uploads()
        if configuration.operators:
            self.storage.protect_access_document(key_refresher=self.key_refreshing.role)
        if configuration.require_if_none_match:
            self.storage.require_if_none_match(except_role=self.indexing.role)
        self._monitor(configuration)
        self._write_last()
        self._print_outputs(configuration)
        suppress_redundant_dependencies(self)
        suppress_cross_region_functions(self)

    def _write_last(self) -> None:
        """Create what writes to the bucket after everything else.

        If the first deployment fails, CloudFormation deletes what it has created, and it can delete only an
        empty bucket.
        """
        writers = (self.indexing, self.key_refreshing)
        others = [child for child in self.node.children if child not in writers]
        first_run = self.key_refreshing.run_at_deployment(*others)
        self.indexing.event_source_mapping.node.add_dependency(*others, first_run)

    def _monitor(self, configuration: Configuration) -> None:
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
            monitor_edge(self, configuration=configuration, alarms=alarms, distribution_id=distribution_id)
        Monitoring(
            self,
            "Monitoring",
            configuration=configuration,
            alarms=alarms,
            indexing=self.indexing,
            key_refreshing=self.key_refreshing,
            authorizer_log=self.delivery.functions.log,
            distribution_id=distribution_id,
        )

    def _print_outputs(self, configuration: Configuration) -> None:
        delivery, indexing, bucket = self.delivery, self.indexing, configuration.bucket_name
        publish = f"aws s3 cp PACKAGE.conda s3://{bucket}/CHANNEL/noarch/"
        if configuration.require_if_none_match:  # aws s3 cp --no-overwrite exists in version 2 of the AWS CLI only
            destination = f"--bucket {bucket} --key CHANNEL/noarch/PACKAGE.conda"
            publish = f"aws s3api put-object --if-none-match '*' {destination} --body PACKAGE.conda"
        outputs = {
            "FairwayVersion": (version("fairway-channel"), "the version of Fairway that is deployed"),
            "ChannelUrl": (delivery.channel_url, "base URL of the channels"),
            "BucketName": (bucket, "the bucket for uploads"),
            "DashboardUrl": (configuration.dashboard_url, "the dashboard: alarms, publishes, latency, costs"),
            "DistributionId": (delivery.distribution.distribution_id, "the CloudFront distribution"),
            "DistributionDomainName": (
                delivery.distribution.distribution_domain_name,
                "the target for your domain's DNS record",
            ),
            "EventBusName": (indexing.bus.event_bus_name, "the event bus for rejections"),
            "QueueUrl": (indexing.queue.queue_url, "the indexer's queue"),
            "DeadLetterQueueUrl": (indexing.dead_letters.queue_url, "messages that failed repeatedly"),
            "IndexerFunctionName": (indexing.indexer.function_name, "the function that indexes uploads"),
            "ReconcilerFunctionName": (
                indexing.reconciler.function_name,
                "the function that reconciles all channels daily",
            ),
            "AuthorizerVersionArn": (delivery.functions.authorizer.edge_arn, "the version of the authorizer in use"),
            "CreateTokenCommand": (f"fairway token create me --channel '*' --bucket {bucket}", "create a token"),
            "PublishCommand": (publish, "publish an artifact"),
            "NetrcCommand": (
                f"echo 'machine {delivery.channel_host} login token password TOKEN' >>~/.netrc",
                "give clients the token",
            ),
            "InstallCommand": (f"conda install -c {delivery.channel_url}/CHANNEL PACKAGE", "install a package"),
        }
        for name, role in self.publishing.roles.items():
            outputs[f"PublisherRole{name.title().replace('-', '')}"] = (role.role_arn, f"the role of publisher {name}")
        for name, (value, description) in outputs.items():
            cdk.CfnOutput(self, name, value=value, description=description)


class EdgeStack(cdk.Stack):
    """What must be in CloudFront's region, for a deployment in another region; deployed after that."""

    def __init__(self, scope: Construct, *, configuration: Configuration, distribution_id: str) -> None:
        super().__init__(
            scope,
            f"{configuration.global_name}-edge",
            description="Fairway: metrics and logs of CloudFront",
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
        monitor_edge(self, configuration=configuration, alarms=alarms, distribution_id=distribution_id)
        suppress_redundant_dependencies(self)
        suppress_cross_region_functions(self)


def monitor_edge(scope: Construct, *, configuration: Configuration, alarms: Alarms, distribution_id: str) -> None:
    """Monitor CloudFront, in its own region."""
    EdgeMonitoring(scope, "EdgeMonitoring", alarms=alarms, distribution_id=distribution_id)
    if configuration.access_log:
        AccessLog(scope, "AccessLog", configuration=configuration, distribution_id=distribution_id)
