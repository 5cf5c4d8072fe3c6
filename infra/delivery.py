"""Delivery: the CloudFront distribution of the bucket, its caching, and when the edge functions run.

Owns cache policies, response headers, and which function runs on which requests. Who may read what,
and which responses are immutable, is decided in lambdas/authorizer.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from constructs import Construct

from infra.config import Configuration
from infra.edge_functions import make_edge_functions
from infra.nag_suppressions import suppress_rules
from infra.storage import Storage
from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.caching import IMMUTABLE_SECONDS, METADATA_SECONDS
from lambdas.channel.layout import ATTESTATIONS_SUFFIX, SHARD_INDEX, immutable_suffixes

ERROR_STATUSES = (400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504)  # CloudFront would cache each for 10 s
ERROR_TTL = cdk.Duration.seconds(1)  # long enough against a stampede, too short to hide a new upload

METADATA_TTL = cdk.Duration.seconds(METADATA_SECONDS)
IMMUTABLE_TTL = cdk.Duration.seconds(IMMUTABLE_SECONDS)

# Pages are static: no scripts, no frames, nothing from other origins.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def metadata_patterns() -> list[str]:
    """Return the path patterns of what is named like a shard and is replaced: the shard index. They come first."""
    return [f"*/{SHARD_INDEX}"]


def immutable_patterns() -> list[str]:
    """Return the path patterns of artifacts and shards.

    CloudFront matches them with the viewer's URL, before the authorizer takes the token off. A pattern of a
    folder would also match a token, or a channel behind a token. These match the last part of a URL, which is
    that of the key, too.
    """
    return [f"*{suffix}" for suffix in immutable_suffixes()]


def attestations_patterns() -> list[str]:
    """Return the path patterns of attestations, which grow without changing their name."""
    return [f"*{extension}{ATTESTATIONS_SUFFIX}" for extension in extensions()]


class Delivery(Construct):
    """The edge."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration, storage: Storage) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        self.functions = make_edge_functions(self, configuration)
        storage.grant_authorizer(self.functions.authorizer_role)
        self._origin = origins.S3BucketOrigin.with_origin_access_control(
            storage.bucket,
            origin_access_control=cloudfront.S3OriginAccessControl(
                self,
                "OriginAccess",
                origin_access_control_name=configuration.global_name,
                signing=cloudfront.Signing.SIGV4_ALWAYS,
            ),
            # With LIST, S3 answers 404 for a missing key. No reader can list: the authorizer drops query strings
            # and never forwards "/".
            origin_access_levels=[cloudfront.AccessLevel.READ, cloudfront.AccessLevel.LIST],
        )
        authorizer = cloudfront.EdgeLambda(
            event_type=cloudfront.LambdaEdgeEventType.VIEWER_REQUEST,
            function_version=self.functions.authorizer.current_version,
        )
        origin_response = cloudfront.EdgeLambda(
            event_type=cloudfront.LambdaEdgeEventType.ORIGIN_RESPONSE,
            function_version=self.functions.origin_response.current_version,
        )
        headers = self._make_headers()
        metadata_caching, immutable_caching = self._choose_cache_policies()
        both = [authorizer, origin_response]
        # The managed policy keeps for a day what has no Cache-Control: the function sets one everywhere.
        metadata_functions = both if configuration.managed_cache_policies else [authorizer]
        metadata = self._make_behaviour(metadata_caching, headers, metadata_functions, compress=True)
        attestations = self._make_behaviour(metadata_caching, headers, both, compress=True)
        immutable = self._make_behaviour(immutable_caching, headers, both, compress=False)
        domain = configuration.domain
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"Fairway: {configuration.name}",
            default_root_object="index.html",  # "/" would list the bucket
            default_behavior=metadata,
            additional_behaviors={
                **dict.fromkeys(metadata_patterns(), metadata),
                **dict.fromkeys(immutable_patterns(), immutable),
                **dict.fromkeys(attestations_patterns(), attestations),
            },
            error_responses=[cloudfront.ErrorResponse(http_status=status, ttl=ERROR_TTL) for status in ERROR_STATUSES],
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            # With CloudFront's own certificate, AWS sets this and ignores the setting.
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if domain else None,
            domain_names=[domain] if domain else None,
            certificate=(
                acm.Certificate.from_certificate_arn(self, "Certificate", configuration.certificate_arn)
                if configuration.certificate_arn
                else None
            ),
        )
        storage.deny_serving_private_keys()
        self.channel_host = domain or self.distribution.distribution_domain_name
        self.channel_url = f"https://{self.channel_host}"
        self._suppress_findings()

    def _choose_cache_policies(self) -> tuple[cloudfront.ICachePolicy, cloudfront.ICachePolicy]:
        """Return the policies of metadata and of artifacts: our own, or AWS's for both.

        The managed policy has no upper bound of its own, and keeps everything for a second at least. Its cache
        key is the same: the path.

        Source: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html
        """
        if self._configuration.managed_cache_policies:
            managed = cloudfront.CachePolicy.CACHING_OPTIMIZED
            return managed, managed
        return (
            self._make_cache_policy("Metadata", METADATA_TTL, compress=True),
            self._make_cache_policy("Immutable", IMMUTABLE_TTL, compress=False),
        )

    def _make_cache_policy(self, name: str, max_ttl: cdk.Duration, *, compress: bool) -> cloudfront.CachePolicy:
        """Declare a cache policy with an upper bound, whatever Cache-Control says.

        A response without Cache-Control is kept as long as metadata in any behaviour: should the function
        that sets that of artifacts fail, nothing is kept for a year that may change.

        The cache key is the path as rewritten by the authorizer: no credential, no cookie, no query string.
        """
        return cloudfront.CachePolicy(
            self,
            f"{name}Caching",
            comment=f"Fairway: {name.lower()}",
            min_ttl=cdk.Duration.seconds(0),
            default_ttl=METADATA_TTL,
            max_ttl=max_ttl,
            cookie_behavior=cloudfront.CacheCookieBehavior.none(),
            header_behavior=cloudfront.CacheHeaderBehavior.none(),
            query_string_behavior=cloudfront.CacheQueryStringBehavior.none(),
            enable_accept_encoding_brotli=compress,
            enable_accept_encoding_gzip=compress,
        )

    def _make_behaviour(
        self,
        caching: cloudfront.ICachePolicy,
        headers: cloudfront.ResponseHeadersPolicy,
        functions: list[cloudfront.EdgeLambda],
        *,
        compress: bool,
    ) -> cloudfront.BehaviorOptions:
        """Return the options of a cache behaviour.

        ``compress`` applies to text. CloudFront decides by content type, and its list has neither
        application/zstd nor application/octet-stream.
        """
        return cloudfront.BehaviorOptions(
            origin=self._origin,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
            cached_methods=cloudfront.CachedMethods.CACHE_GET_HEAD,
            cache_policy=caching,
            compress=compress,
            edge_lambdas=functions,
            response_headers_policy=headers,
            # Not a redirect to https: the first request would have sent the credential in clear text.
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
        )

    def _make_headers(self) -> cloudfront.ResponseHeadersPolicy:
        """Declare the headers of all responses, whatever their status.

        Cache-Control is not among them, because a policy can't tell files from errors. Outputs carry their
        own, the origin-response function sets that of artifacts and shards, and S3's errors for outputs
        have none: CloudFront caches those for ``ERROR_TTL``.
        """
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            response_headers_policy_name=self._configuration.global_name,
            comment="Fairway: all responses",
            security_headers_behavior=self._make_security_headers(),
        )

    @staticmethod
    def _make_security_headers() -> cloudfront.ResponseSecurityHeadersBehavior:
        return cloudfront.ResponseSecurityHeadersBehavior(
            content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                content_security_policy=PAGE_POLICY, override=True
            ),
            content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
            frame_options=cloudfront.ResponseHeadersFrameOptions(
                frame_option=cloudfront.HeadersFrameOption.DENY, override=True
            ),
            # A page under /t/TOKEN/ must not send the token to the pages that it links to.
            referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
            ),
            strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                access_control_max_age=cdk.Duration.days(365), include_subdomains=False, override=True
            ),
        )

    def _suppress_findings(self) -> None:
        reasons = {
            "Annotation::@aws-cdk/aws-cloudfront-origins:listBucketSecurityRisk": (
                "the root object is set, and no behaviour forwards query strings to the bucket"
            ),
            "AwsSolutions-CFR1": "access depends on credentials, not on the reader's country",
            "AwsSolutions-CFR2": "a firewall costs money when idle; the authorizer denies by default",
            "AwsSolutions-CFR3": (
                "the standard log contains paths, and with them tokens; the setting access_log has a log without paths"
            ),
        }
        if not self._configuration.domain:
            reasons["AwsSolutions-CFR4"] = (
                "without a custom domain, CloudFront's certificate is used, and AWS decides its TLS versions"
            )
        suppress_rules(self.distribution, reasons)
