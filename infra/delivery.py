"""Delivery: CloudFront in front of the bucket, what it keeps and for how long, and the authorizer before it.

Owns cache rules, response headers and which function runs when. Who may read what, and which
answers are kept for ever, is decided in lambdas/authorizer.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from constructs import Construct

from infra.acknowledging import acknowledge_rules
from infra.config import Configuration
from infra.edge_functions import make_edge_functions
from infra.storage import Storage
from lambdas.channel.caching import IMMUTABLE_SECONDS, METADATA_SECONDS
from lambdas.channel.names import EXTENSIONS

ARTIFACT_PATTERNS = tuple(f"*{extension}" for extension in EXTENSIONS)
SHARD_PATTERNS = ("*/shards/*",)
ERROR_STATUSES = (400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504)  # all that CloudFront would keep for 10 s
ERROR_TTL = cdk.Duration.seconds(1)  # enough to break a stampede, too short to hide what was just published

METADATA_TTL = cdk.Duration.seconds(METADATA_SECONDS)
IMMUTABLE_TTL = cdk.Duration.seconds(IMMUTABLE_SECONDS)

# Pages are static: no script, no frame, nothing from elsewhere.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Delivery(Construct):
    """The edge."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration, storage: Storage) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self.functions = make_edge_functions(self, configuration)
        storage.allow_authorizing(self.functions.authorizer_role)
        self._origin = origins.S3BucketOrigin.with_origin_access_control(
            storage.bucket,
            origin_access_control=cloudfront.S3OriginAccessControl(
                self,
                "OriginAccess",
                origin_access_control_name=configuration.global_name,
                signing=cloudfront.Signing.SIGV4_ALWAYS,
            ),
            # LIST, so that S3 says 404 of a missing key; nothing lists, since the authorizer drops query
            # strings and never passes "/".
            origin_access_levels=[cloudfront.AccessLevel.READ, cloudfront.AccessLevel.LIST],
        )
        asking = cloudfront.EdgeLambda(
            event_type=cloudfront.LambdaEdgeEventType.VIEWER_REQUEST,
            function_version=self.functions.authorizer.current_version,
        )
        marking = cloudfront.EdgeLambda(
            event_type=cloudfront.LambdaEdgeEventType.ORIGIN_RESPONSE,
            function_version=self.functions.origin_response.current_version,
        )
        headers = self._make_headers()
        metadata = self._describe_behaviour(
            self._make_caching("Metadata", METADATA_TTL, compress=True), headers, [asking], compress=True
        )
        immutable = self._describe_behaviour(
            self._make_caching("Immutable", IMMUTABLE_TTL, compress=False), headers, [asking, marking], compress=False
        )
        domain = configuration.domain
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"Fairway: {configuration.name}",
            default_root_object="index.html",  # "/" itself would ask the bucket for its listing
            default_behavior=metadata,
            additional_behaviors=dict.fromkeys((*ARTIFACT_PATTERNS, *SHARD_PATTERNS), immutable),
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
        self,
        caching: cloudfront.CachePolicy,
        headers: cloudfront.ResponseHeadersPolicy,
        functions: list[cloudfront.EdgeLambda],
        *,
        compress: bool,
    ) -> cloudfront.BehaviorOptions:
        """Describe one way of serving.

        ``compress`` is for text. CloudFront goes by content type, and neither application/zstd nor
        application/octet-stream is on its list.
        """
        return cloudfront.BehaviorOptions(
            origin=self._origin,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
            cached_methods=cloudfront.CachedMethods.CACHE_GET_HEAD,
            cache_policy=caching,
            compress=compress,
            edge_lambdas=functions,
            response_headers_policy=headers,
            # Not a redirect: the credential would have crossed the wire in the clear by then.
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
        )

    def _make_headers(self) -> cloudfront.ResponseHeadersPolicy:
        """Declare headers for all that is served, whatever its status.

        Cache-Control is not among them: a policy can't tell a file from an error. Index files have one
        of their own, the origin-response function sets that of artifacts and shards, and S3's errors
        about index files have none: the edge keeps them for ``ERROR_TTL``, and clients ask again.
        """
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            response_headers_policy_name=self._configuration.global_name,
            comment="Fairway: all that is served",
            security_headers_behavior=self._describe_security(),
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
