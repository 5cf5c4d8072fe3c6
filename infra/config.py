"""The configuration of a deployment: its values, their defaults, and the names derived from them.

``parse_config.py`` reads it from ``cdk.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lambdas.indexer.settings import MAX_SUBDIRS, SHARD_GRACE_DAYS

EDGE_REGION = "us-east-1"  # where CloudFront's functions, certificates and log deliveries must be


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """CI jobs that may assume a role with their identity tokens."""

    issuer: str  # https://…, as in the token's ``iss``
    audience: str  # the token's ``aud``
    subjects: tuple[str, ...]  # patterns of the token's ``sub``, with ``*`` and ``?``

    @property
    def provider(self) -> str:
        """The issuer as IAM names it: without the scheme."""
        return self.issuer.removeprefix("https://")


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """A role that may upload artifacts to some channels."""

    name: str
    channels: tuple[str, ...]  # names, or prefixes with a final "*"
    subdirs: tuple[str, ...] = ("*",)  # names, or "*"
    artifacts: tuple[str, ...] = ("*",)  # filenames without their extension, or prefixes with a final "*"
    principals: tuple[str, ...] = ()  # ARNs
    workloads: tuple[Workload, ...] = ()
    may_read: bool = True  # the channels' objects, cards and rejections in the bucket
    may_delete: bool = False
    may_attest: bool = False  # upload ARTIFACT.sigs
    may_patch: bool = False  # upload patch_instructions.json


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """The settings of one deployment, with their defaults."""

    environment: str
    account: str
    name: str = "conda"
    region: str = EDGE_REGION
    endpoint_url: str | None = None  # an emulator's; None for AWS
    public_channels: tuple[str, ...] = ()  # globs
    mutable_channels: tuple[str, ...] = ()  # globs
    subdirs: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (channel or glob, subdirs that exist from the start)
    domain: str | None = None
    certificate_arn: str | None = None
    managed_cache_policies: bool = False  # for CloudFront's plans, which take no others
    access_log: bool = False
    alarm_email: str | None = None
    docs_url: str = "docs"  # where alarms say that their page is: a folder of the checkout, or a URL
    publishers: tuple[Publisher, ...] = ()
    operators: tuple[str, ...] = ()  # ARNs; the only ones that may delete or write the access document
    existing_oidc_providers: tuple[str, ...] = ()  # issuers with a provider in the account
    require_if_none_match: bool = False
    optional_outputs: tuple[str, ...] = ()
    max_subdirs: int = MAX_SUBDIRS  # of a channel
    max_repodata_mib: int | None = None  # a larger repodata.json is removed
    shard_grace_days: int = SHARD_GRACE_DAYS
    old_version_days: int = 30
    rejected_days: int = 90
    log_days: int = 90
    indexer_memory_mib: int = 1769  # one full core, according to AWS
    indexer_timeout_seconds: int = 300
    indexer_max_concurrency: int = 4  # new accounts may run 10 functions at once, those at the edge included
    batch_artifacts: int = 1000
    batch_window_seconds: int = 1
    is_account_known: bool = field(default=True, compare=False)

    @property
    def is_emulated(self) -> bool:
        """Whether the stack is deployed to an emulator on this machine."""
        return self.endpoint_url is not None

    @property
    def stack_name(self) -> str:
        """The name of the stack, unique in an account and region."""
        return f"fairway-{self.name}"

    @property
    def global_name(self) -> str:
        """The name of resources that must be unique in the account, or in the edge's region."""
        return f"{self.stack_name}-{self.region}"

    @property
    def service(self) -> str:
        """The value of the metrics' dimension ``service``, unique in a region."""
        return f"{self.stack_name}-indexer"

    @property
    def bucket_name(self) -> str:
        """The name of the bucket, known before it exists, because the authorizer's zip contains it."""
        return f"fairway-{self.name}-{self.account}-{self.region}"

    @property
    def dashboard_url(self) -> str:
        """The URL of the dashboard in the console."""
        console = f"https://{self.region}.console.aws.amazon.com/cloudwatch/home?region={self.region}"
        return f"{console}#dashboards/dashboard/{self.global_name}"

    @property
    def authorizer_log_name(self) -> str:
        """The name of the authorizer's log group in every region, which contains the bucket's region."""
        return f"/fairway/{self.name}/{self.region}/authorizer"

    @property
    def bucket_domain(self) -> str:
        """The bucket's regional host name."""
        return f"{self.bucket_name}.s3.{self.region}.amazonaws.com"
