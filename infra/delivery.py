"""Delivery: CloudFront in front of the bucket, what it keeps and for how long, and the authorizer before it.

Owns cache rules, response headers and the authorizer's association with every behaviour. Who may
read what is decided in lambdas/authorizer.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra import bundling
from infra.acknowledging import acknowledge_patterns, acknowledge_rules, silence_redundant_dependencies
from infra.config import EDGE_REGION, Configuration
from infra.functions import find_architecture, find_runtime, make_log_group
from infra.storage import Storage

ARTIFACT_PATTERNS = ("*.conda", "*.tar.bz2")
SHARD_PATTERNS = ("*/shards/*",)
ERROR_STATUSES = (400, 403, 404, 500, 502, 503, 504)
ERROR_TTL = cdk.Duration.seconds(1)  # enough to break a stampede, too short to hide what was just published

METADATA_TTL = cdk.Duration.seconds(30)
IMMUTABLE_TTL = cdk.Duration.days(365)
IMMUTABLE = "public, max-age=31536000, immutable"

# Pages are static: no script, no frame, nothing from elsewhere.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

REFRESH_SECONDS = 30
STALE_SECONDS = 900


class Delivery(Construct):
    """The edge."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration, storage: Storage) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self.authorizer_role, self.authorizer = self._make_authorizer()
        storage.allow_authorizing(self.authorizer_role)
        self._origin = origins.S3BucketOrigin.with_origin_access_control(
            storage.bucket,
            # LIST, so that S3 says 404 of a missing key; nothing lists, since the authorizer drops query
            # strings and never passes "/".
            origin_access_levels=[cloudfront.AccessLevel.READ, cloudfront.AccessLevel.LIST],
        )
        headers = self._make_headers()
        caching = self._make_caching("Immutable", IMMUTABLE_TTL, compress=False)
        metadata = self._describe_behaviour(
            self._make_caching("Metadata", METADATA_TTL, compress=True), headers, compress=True
        )
        shards = self._describe_behaviour(caching, headers, compress=False)
        artifacts = self._describe_behaviour(caching, self._make_artifact_headers(), compress=False)
        domain = configuration.domain
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"Fairway: {configuration.name}",
            default_root_object="index.html",  # "/" itself would ask the bucket for its listing
            default_behavior=metadata,
            additional_behaviors=dict.fromkeys(ARTIFACT_PATTERNS, artifacts) | dict.fromkeys(SHARD_PATTERNS, shards),
            error_responses=[cloudfront.ErrorResponse(http_status=status, ttl=ERROR_TTL) for status in ERROR_STATUSES],
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            # With CloudFront's own certificate AWS sets this, and takes no word of ours.
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if domain else None,
            domain_names=[domain] if domain else None,
            certificate=(
                acm.Certificate.from_certificate_arn(self, "Certificate", configuration.certificate_arn)
                if configuration.certificate_arn
                else None
            ),
        )
        storage.deny_serving_private_keys()
        self.channel_url = f"https://{domain or self.distribution.distribution_domain_name}"
        self._acknowledge()

    def _make_authorizer(self) -> tuple[iam.Role, cloudfront.experimental.EdgeFunction]:
        configuration = self._configuration
        home = self._find_edge_scope()
        # A function at the edge logs in the region it happens to run in, to a group of this name. It may
        # not create groups: those would keep everything for ever. So its log is kept where a group is declared.
        name = configuration.authorizer_log_name
        log_group = make_log_group(home, "AuthorizerLog", configuration, name=name)
        self.authorizer_log = (
            log_group if home is self else make_log_group(self, "AuthorizerLog", configuration, name=name)
        )
        role = iam.Role(
            home,
            "AuthorizerRole",
            assumed_by=iam.CompositePrincipal(
                iam.ServicePrincipal("lambda.amazonaws.com"), iam.ServicePrincipal("edgelambda.amazonaws.com")
            ),
            description="Fairway: the authorizer",
        )
        streams = f"arn:aws:logs:*:{configuration.account}:log-group:{name}:*"
        role.add_to_policy(
            iam.PolicyStatement(sid="Log", actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[streams])
        )
        acknowledge_patterns(role, [streams], "runs, and logs, in whichever region is near the reader")
        code = bundling.build_authorizer(
            {
                "bucket": configuration.bucket_name,
                "endpoint_url": configuration.endpoint_url,
                "origin_domain": configuration.bucket_domain,
                "public_channels": list(configuration.public_channels),
                "refresh_seconds": REFRESH_SECONDS,
                "region": configuration.region,
                "stale_seconds": STALE_SECONDS,
            }
        )
        function = cloudfront.experimental.EdgeFunction(
            self,
            "Authorizer",
            stack_id=self._edge_stack_id,
            description="Fairway: decides who may read what",
            code=lambda_.Code.from_asset(str(code)),
            handler="lambdas.authorizer.handler.handle_viewer_request",
            runtime=find_runtime(configuration),
            # Lambda@Edge has no arm64; an emulator runs it here.
            architecture=find_architecture(configuration) if configuration.is_emulated else lambda_.Architecture.X86_64,
            role=role,
            memory_size=128,
            timeout=cdk.Duration.seconds(5),
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            system_log_level_v2=lambda_.SystemLogLevel.WARN,  # not three lines for each request
            # A version can't be deleted while CloudFront still has copies of it, which is for hours.
            current_version_options=lambda_.VersionOptions(
                removal_policy=cdk.RemovalPolicy.DESTROY if configuration.is_emulated else cdk.RemovalPolicy.RETAIN
            ),
        )
        acknowledge_rules(
            function.lambda_, {"AwsSolutions-L1": "the same Python as the indexer's: one version of the shared code"}
        )
        return role, function

    @property
    def _edge_stack_id(self) -> str:
        return f"{self._configuration.stack_name}-authorizer"

    def _find_edge_scope(self) -> Construct:
        """Return where the authorizer's own things go: here, or a stack in the edge's region."""
        configuration = self._configuration
        if configuration.region == EDGE_REGION:
            return self
        # EdgeFunction finds the stack by this name and puts the function into it.
        stack = cdk.Stack(
            cdk.Stage.of(self),
            self._edge_stack_id,
            description="Fairway: the authorizer, which CloudFront takes from this region alone",
            env=cdk.Environment(account=configuration.account, region=EDGE_REGION),
        )
        silence_redundant_dependencies(stack)
        return stack

    def _make_caching(self, name: str, ttl: cdk.Duration, *, compress: bool) -> cloudfront.CachePolicy:
        """Declare how long answers are kept where S3 says nothing, and under which key.

        The key is the path alone, as the authorizer leaves it: no credential, no cookie, no query string.
        """
        return cloudfront.CachePolicy(
            self,
            f"{name}Caching",
            comment=f"Fairway: {name.lower()}",
            min_ttl=cdk.Duration.seconds(0),
            default_ttl=ttl,
            max_ttl=IMMUTABLE_TTL,
            cookie_behavior=cloudfront.CacheCookieBehavior.none(),
            header_behavior=cloudfront.CacheHeaderBehavior.none(),
            query_string_behavior=cloudfront.CacheQueryStringBehavior.none(),
            enable_accept_encoding_brotli=compress,
            enable_accept_encoding_gzip=compress,
        )

    def _describe_behaviour(
        self, caching: cloudfront.CachePolicy, headers: cloudfront.ResponseHeadersPolicy, *, compress: bool
    ) -> cloudfront.BehaviorOptions:
        """Describe one way of serving, the authorizer before it.

        ``compress`` is for text. CloudFront goes by content type, and neither application/zstd nor
        application/octet-stream is on its list.
        """
        return cloudfront.BehaviorOptions(
            origin=self._origin,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
            cached_methods=cloudfront.CachedMethods.CACHE_GET_HEAD,
            cache_policy=caching,
            compress=compress,
            edge_lambdas=[
                cloudfront.EdgeLambda(
                    event_type=cloudfront.LambdaEdgeEventType.VIEWER_REQUEST,
                    function_version=self.authorizer.current_version,
                )
            ],
            response_headers_policy=headers,
            # Not a redirect: the credential would have crossed the wire in the clear by then.
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
        )

    def _make_headers(self) -> cloudfront.ResponseHeadersPolicy:
        """Declare headers for what the indexer writes, which has Cache-Control of its own."""
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            comment="Fairway: index files, shards and pages",
            security_headers_behavior=self._describe_security(),
        )

    def _make_artifact_headers(self) -> cloudfront.ResponseHeadersPolicy:
        """Declare headers for what publishers upload: ``aws s3 cp`` sets no Cache-Control.

        No override: the authorizer's refusals bring "no-store". S3's own 404 of an artifact gets the
        header too, since a policy can't tell; no conda client keeps a failed download.
        """
        return cloudfront.ResponseHeadersPolicy(
            self,
            "ArtifactHeaders",
            comment="Fairway: artifacts",
            security_headers_behavior=self._describe_security(),
            custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(
                custom_headers=[
                    cloudfront.ResponseCustomHeader(header="Cache-Control", value=IMMUTABLE, override=False)
                ]
            ),
        )

    @staticmethod
    def _describe_security() -> cloudfront.ResponseSecurityHeadersBehavior:
        return cloudfront.ResponseSecurityHeadersBehavior(
            content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                content_security_policy=PAGE_POLICY, override=True
            ),
            content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
            frame_options=cloudfront.ResponseHeadersFrameOptions(
                frame_option=cloudfront.HeadersFrameOption.DENY, override=True
            ),
            # A page under /t/TOKEN/ must not tell the token to where its links lead.
            referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
            ),
            strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                access_control_max_age=cdk.Duration.days(365), include_subdomains=False, override=True
            ),
        )

    def _acknowledge(self) -> None:
        reasons = {
            "Annotation::@aws-cdk/aws-cloudfront-origins:listBucketSecurityRisk": (
                "the root object is set, and query strings reach the bucket from no behaviour"
            ),
            "AwsSolutions-CFR1": "packages are for readers anywhere; where they are is no part of who they are",
            "AwsSolutions-CFR2": "a firewall costs by the hour even when idle; the authorizer denies by default",
            "AwsSolutions-CFR3": (
                "the old log has the path, and with it tokens; access_log turns on the new one, without the path"
            ),
        }
        if not self._configuration.domain:
            reasons["AwsSolutions-CFR4"] = (
                "without a domain of one's own CloudFront's certificate is served, and AWS sets its TLS versions"
            )
        acknowledge_rules(self.distribution, reasons)
