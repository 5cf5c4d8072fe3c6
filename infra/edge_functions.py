"""The functions that CloudFront runs: the authorizer, and the function that sets headers of artifacts and shards.

Owns their roles, their log, and their region: CloudFront accepts functions from us-east-1 only. Which
function runs on which requests is in delivery.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra import bundling
from infra.config import EDGE_REGION, Configuration
from infra.functions import function_architecture, function_runtime, make_log_group
from infra.nag_suppressions import suppress_redundant_dependencies, suppress_rules, suppress_wildcards
from lambdas.authorizer.settings import AuthorizerSettings
from lambdas.channel.layout import NOTICES
from lambdas.indexer.outputs.registry import channel_filenames, subdir_filenames


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeFunctions:
    """Both functions, the authorizer's role, and their log."""

    authorizer: cloudfront.experimental.EdgeFunction
    authorizer_role: iam.Role
    origin_response: cloudfront.experimental.EdgeFunction
    log: logs.LogGroup  # in the stack's own region


def make_edge_functions(scope: Construct, configuration: Configuration) -> EdgeFunctions:
    """Declare both functions, from one zip."""
    home = _home_stack(scope, configuration)
    # A function at the edge writes to a log group of this name in the region where it runs. It may not
    # create groups, whose retention would be unlimited: only regions with a declared group keep its log.
    name = configuration.authorizer_log_name
    log_group = make_log_group(home, "AuthorizerLog", configuration, name=name)
    log = log_group if home is scope else make_log_group(scope, "AuthorizerLog", configuration, name=name)
    code = lambda_.Code.from_asset(str(bundling.build_authorizer(dataclasses.asdict(_make_settings(configuration)))))
    authorizer_role = _make_role(home, "AuthorizerRole", configuration, "Fairway: the authorizer")
    return EdgeFunctions(
        authorizer=_make_function(
            scope,
            "Authorizer",
            configuration,
            description="Fairway: decides who may read which channels",
            handler="lambdas.authorizer.handler.handle_viewer_request",
            code=code,
            role=authorizer_role,
            log_group=log_group,
        ),
        authorizer_role=authorizer_role,
        origin_response=_make_function(
            scope,
            "OriginResponse",
            configuration,
            description="Fairway: sets headers of artifacts and shards",
            handler="lambdas.authorizer.origin_response.handle_origin_response",
            code=code,
            # A role of its own, which may only log.
            role=_make_role(home, "OriginResponseRole", configuration, "Fairway: sets headers"),
            log_group=log_group,
        ),
        log=log,
    )


def _home_stack(scope: Construct, configuration: Configuration) -> Construct:
    """Return the scope of roles and log group: this one, or a stack in the edge's region."""
    if configuration.region == EDGE_REGION:
        return scope
    # EdgeFunction looks this stack up by its id and puts the functions into it.
    stack = cdk.Stack(
        cdk.Stage.of(scope),
        _home_stack_id(configuration),
        description="Fairway: the functions at the edge, which must be in this region",
        env=cdk.Environment(account=configuration.account, region=EDGE_REGION),
    )
    suppress_redundant_dependencies(stack)
    return stack


def _home_stack_id(configuration: Configuration) -> str:
    return f"{configuration.global_name}-authorizer"


def _make_settings(configuration: Configuration) -> AuthorizerSettings:
    return AuthorizerSettings(
        bucket=configuration.bucket_name,
        region=configuration.region,
        origin_domain=configuration.bucket_domain,
        public_channels=configuration.public_channels,
        channel_files=(*channel_filenames(), NOTICES),
        subdir_files=subdir_filenames(),
        endpoint_url=configuration.endpoint_url,
    )


def _make_role(home: Construct, construct_id: str, configuration: Configuration, description: str) -> iam.Role:
    """Declare the role of a function at the edge, with permission to write to its log."""
    role = iam.Role(
        home,
        construct_id,
        assumed_by=iam.CompositePrincipal(
            iam.ServicePrincipal("lambda.amazonaws.com"), iam.ServicePrincipal("edgelambda.amazonaws.com")
        ),
        description=description,
    )
    streams = f"arn:aws:logs:*:{configuration.account}:log-group:{configuration.authorizer_log_name}:*"
    role.add_to_policy(
        iam.PolicyStatement(sid="Log", actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[streams])
    )
    suppress_wildcards(role, [streams], "the function runs, and logs, in the regions near its readers")
    return role


def _make_function(
    scope: Construct,
    construct_id: str,
    configuration: Configuration,
    *,
    description: str,
    handler: str,
    code: lambda_.Code,
    role: iam.Role,
    log_group: logs.LogGroup,
) -> cloudfront.experimental.EdgeFunction:
    function = cloudfront.experimental.EdgeFunction(
        scope,
        construct_id,
        stack_id=_home_stack_id(configuration),
        description=description,
        code=code,
        handler=handler,
        runtime=function_runtime(configuration),
        # Lambda@Edge has no arm64; an emulator runs the function on this machine.
        architecture=function_architecture(configuration) if configuration.is_emulated else lambda_.Architecture.X86_64,
        role=role,
        memory_size=128,
        timeout=cdk.Duration.seconds(5),
        log_group=log_group,
        logging_format=lambda_.LoggingFormat.JSON,
        system_log_level_v2=lambda_.SystemLogLevel.WARN,  # at INFO, Lambda logs three lines for each request
        # A version can't be deleted while CloudFront has replicas of it, which takes hours to end.
        current_version_options=lambda_.VersionOptions(
            removal_policy=cdk.RemovalPolicy.DESTROY if configuration.is_emulated else cdk.RemovalPolicy.RETAIN
        ),
    )
    suppress_rules(
        function.lambda_, {"AwsSolutions-L1": "the same Python version as the indexer, because they share code"}
    )
    return function
