"""KeyRefreshing: the scheduled function that refreshes issuers' public keys in the access document.

Owns its schedule, log and environment; its permissions on the bucket are in storage.py. The first
deployment runs it once, to create an empty access document: without one, the authorizer answers 503.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IConstruct

from infra import bundling
from infra.config import Configuration
from infra.functions import function_architecture, function_runtime, grant_logging, make_log_group
from infra.nag_suppressions import suppress_rules

REFRESH_INTERVAL = cdk.Duration.hours(1)


class KeyRefreshing(Construct):
    """The key refresher."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration) -> None:
        super().__init__(scope, construct_id)
        self.role = iam.Role(
            self,
            "KeyRefresherRole",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="Fairway: the key refresher",
        )
        self.log = make_log_group(self, "KeyRefresherLog", configuration)
        grant_logging(self.role, self.log)
        environment = {"FAIRWAY_BUCKET": configuration.bucket_name}
        if configuration.endpoint_url is not None:
            environment["AWS_ENDPOINT_URL"] = configuration.endpoint_url
        # AWS's runtime has boto3; the interpreter in which an emulator runs functions may not.
        boto3_target = bundling.host_target() if configuration.is_emulated else None
        self.key_refresher = lambda_.Function(
            self,
            "KeyRefresher",
            description="Fairway: checks the access document and refreshes issuers' keys in it",
            code=lambda_.Code.from_asset(str(bundling.build_key_refresher(boto3_target))),
            handler="lambdas.key_refresher.handler.handle_event",
            runtime=function_runtime(configuration),
            architecture=function_architecture(configuration),
            role=self.role,
            environment=environment,
            memory_size=256,
            timeout=cdk.Duration.minutes(2),
            log_group=self.log,
            retry_attempts=0,  # the next hour tries again
        )
        suppress_rules(
            self.key_refresher, {"AwsSolutions-L1": "the same Python version as the indexer, because they share code"}
        )
        events.Rule(
            self,
            "Hourly",
            schedule=events.Schedule.rate(REFRESH_INTERVAL),
            targets=[targets.LambdaFunction(self.key_refresher)],
        )

    def run_at_deployment(self, *after: IConstruct) -> IConstruct:
        """Have CloudFormation call the key refresher once, after these constructs were created."""
        first_run = cdk.CustomResource(
            self,
            "AccessDocument",
            service_token=self.key_refresher.function_arn,
            resource_type="Custom::FairwayAccessDocument",
        )
        first_run.node.add_dependency(self.role, *after)
        return first_run
