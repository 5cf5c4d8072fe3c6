"""The stack: wires the roles of the architecture to each other; declares no resource itself."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from infra.config import Configuration
from infra.delivery import Delivery
from infra.indexing import Indexing
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
            # The emulator refuses the roles that cdk bootstrap makes; there, the caller's own rights do.
            synthesizer=cdk.CliCredentialsStackSynthesizer() if configuration.is_emulated else None,
            termination_protection=not configuration.is_emulated,
        )
        storage = Storage(self, "Storage", configuration=configuration)
        delivery = Delivery(self, "Delivery", configuration=configuration, storage=storage)
        indexing = Indexing(
            self,
            "Indexing",
            configuration=configuration,
            distribution_id=delivery.distribution.distribution_id,
            channel_url=delivery.channel_url,
        )
        publishing = Publishing(self, "Publishing", configuration=configuration, storage=storage)
        storage.allow_indexing(indexing.role)
        storage.notify(indexing.queue)
        if configuration.require_if_none_match:
            storage.forbid_overwriting(but=indexing.role)

        bucket = configuration.bucket_name
        no_overwrite = " --no-overwrite" if configuration.require_if_none_match else ""
        self._print("ChannelUrl", delivery.channel_url, "channels are one level below")
        self._print("BucketName", bucket, "where artifacts are uploaded to")
        self._print("DistributionId", delivery.distribution.distribution_id, "CloudFront's")
        self._print("EventBusName", indexing.bus.event_bus_name, "where refusals are announced")
        self._print("QueueUrl", indexing.queue.queue_url, "what waits to be indexed")
        self._print("DeadLetterQueueUrl", indexing.dead_letters.queue_url, "what could not be indexed")
        self._print("IndexerFunctionName", indexing.indexer.function_name, "the indexer")
        self._print("AuthorizerVersionArn", delivery.authorizer.edge_arn, "the authorizer that decides now")
        self._print(
            "CreateTokenCommand",
            f"fairway token create me --channel '*' --bucket {bucket}",
            "next: a token to read with",
        )
        self._print(
            "PublishCommand",
            f"aws s3 cp{no_overwrite} PACKAGE.conda s3://{bucket}/CHANNEL/noarch/",
            "then: publish",
        )
        self._print(
            "InstallCommand", f"conda install -c {delivery.channel_url}/t/TOKEN/CHANNEL PACKAGE", "then: install"
        )
        for name, role in publishing.roles.items():
            self._print(f"PublisherRole{name.title().replace('-', '')}", role.role_arn, f"what {name} takes")

    def _print(self, name: str, value: str, description: str) -> None:
        """Print a value at the end of a deployment, under this very name."""
        cdk.CfnOutput(self, name, value=value, description=description)
