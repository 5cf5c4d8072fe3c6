"""Storage: the bucket, and every permission on it.

Owns versioning, encryption, lifecycle, notifications, the bucket policy, and the functions' policies on
the bucket; a publisher's, and what is denied to everybody, come from ``permissions.py``. So these two
modules answer which role may touch which key. Knows of functions and of CloudFront only their names.

In S3 policies ``*`` also matches ``/``, and a denial overrides any grant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import Configuration, Publisher
from infra.nag_suppressions import suppress_rules, suppress_wildcards
from infra.permissions import (
    DELETING,
    READING,
    WRITING,
    Statement,
    bucket_arn,
    deny_unreadable_uploads,
    grant_publisher,
    object_arn,
    protect_access_document,
)
from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.layout import (
    ACCESS_KEY,
    ATTESTATIONS_SUFFIX,
    AUDIT_PREFIX,
    CARDS_PREFIX,
    CHANNEL_PREFIXES,
    DRAFTS_PREFIX,
    PATCH_INSTRUCTIONS,
    POLICY_KEY,
    PRIVATE_PREFIX,
    REJECTED_PREFIX,
    REPLACED_PREFIX,
    SHARD_INDEX,
    SHARDS_FOLDER,
    STALE_PREFIX,
    platforms,
)
from lambdas.indexer.outputs.registry import channel_filenames, removable_keys, subdir_filenames

CHANGES = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
EXPIRATIONS = ("s3:LifecycleExpiration:*",)

_LISTING = ("s3:ListBucket", "s3:ListBucketVersions")

_PRIVATE_DOCUMENTS = (POLICY_KEY, *(f"{prefix}*" for prefix in (*CHANNEL_PREFIXES, STALE_PREFIX)))


def _outputs() -> list[str]:
    """Return the keys of all outputs, of every file in the registry."""
    return [f"*/*/{name}" for name in subdir_filenames()] + [f"*/{name}" for name in channel_filenames()]


def _written_by_indexer() -> list[str]:
    """Return the keys that the indexer writes: the index and private documents, but no artifact."""
    tree = [f"*/*/{SHARD_INDEX}", f"*/*/{SHARDS_FOLDER}*", f"*/*/*{ATTESTATIONS_SUFFIX}.*"]
    # Attestations are publishers' files, but a publisher that overwrites or deletes them takes none of the accepted
    # ones away (CEP 50): the indexer writes the union of all of them.
    attestations = [f"*/*/*{extension}{ATTESTATIONS_SUFFIX}" for extension in extensions()]
    return [*_outputs(), *tree, *attestations, *_PRIVATE_DOCUMENTS]


def _uploads() -> list[str]:
    """Return the keys of uploads that can be rejected, at any depth, with extensions in upper or lower case.

    They are moved to the quarantine version by version, so that the previous upload of the same name is
    current again. Patterns distinguish case: of extensions, they have a ``?`` for each letter.
    """
    artifacts = [f"*{_mask(extension)}" for extension in extensions()]
    attestations = [f"{artifact}{_mask(ATTESTATIONS_SUFFIX)}" for artifact in artifacts]
    folders = [f"*/{name}" for name in sorted(platforms())]  # uploads to a subdir without its final slash
    return [*artifacts, *attestations, f"*/*/*{ATTESTATIONS_SUFFIX}.*", f"*{PATCH_INSTRUCTIONS}", *folders]


def _mask(suffix: str) -> str:
    return "".join("?" if character.isalpha() else character for character in suffix)


def _deleted_by_indexer(configuration: Configuration) -> list[str]:
    """Return the keys that the indexer deletes: uploads, garbage, and outputs that are not wanted any more."""
    return [
        *_uploads(),
        *removable_keys(is_size_limited=configuration.max_repodata_mib is not None),
        f"*/*/{SHARDS_FOLDER}*",
        f"{CARDS_PREFIX}*",
        f"{DRAFTS_PREFIX}*",
        f"{REJECTED_PREFIX}*",
        f"{STALE_PREFIX}*",
    ]


def notified_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the uploads that S3 notifies about."""
    return (*extensions(), ATTESTATIONS_SUFFIX, PATCH_INSTRUCTIONS)


def notified_events() -> dict[str, tuple[str, ...]]:
    """Return which events S3 notifies about: ``{suffix of a key: kinds of events}``.

    The slash in front of index files' names keeps suffixes from overlapping, which S3 rejects, and
    other names that end alike from raising events. Old versions of index files expire all the time,
    which changes nothing for readers.
    """
    index_files = dict.fromkeys((SHARD_INDEX, *subdir_filenames(), *channel_filenames()))
    return {
        **dict.fromkeys(notified_suffixes(), (*CHANGES, *EXPIRATIONS)),
        **dict.fromkeys((f"/{filename}" for filename in index_files), CHANGES),
    }


class Storage(Construct):
    """The bucket."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        emulated = configuration.is_emulated
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=configuration.bucket_name,
            versioned=True,
            # Not KMS: with SSE-S3, the ETag of a simple upload is its MD5, which saves reading the artifact.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=not emulated,  # the emulator speaks plain HTTP
            minimum_tls_version=None if emulated else 1.2,
            # Not RETAIN, which also keeps the bucket of a failed creation, whose name is then taken.
            removal_policy=(cdk.RemovalPolicy.DESTROY if emulated else cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE),
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="old-versions",
                    noncurrent_version_expiration=cdk.Duration.days(configuration.old_version_days),
                    expired_object_delete_marker=True,
                ),
                s3.LifecycleRule(id="abandoned-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(1)),
                s3.LifecycleRule(
                    id="rejected", prefix=REJECTED_PREFIX, expiration=cdk.Duration.days(configuration.rejected_days)
                ),
                s3.LifecycleRule(
                    id="replaced", prefix=REPLACED_PREFIX, expiration=cdk.Duration.days(configuration.rejected_days)
                ),
            ],
        )
        suppress_rules(
            self.bucket, {"AwsSolutions-S1": "readers use CloudFront, whose access log is the setting access_log"}
        )

    def notify(self, queue: sqs.IQueue) -> None:
        """Send the queue a message for each artifact, companion of one, or index file that is written or deleted."""
        bucket = self.bucket.node.default_child
        if not isinstance(bucket, s3.CfnBucket):  # a Bucket has no other default child
            raise TypeError(type(bucket))
        # Declared on the bucket resource: the CDK would deploy a function with permissions on every bucket.
        bucket.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(
                    event=event,
                    queue=queue.queue_arn,
                    filter=s3.CfnBucket.NotificationFilterProperty(
                        s3_key=s3.CfnBucket.S3KeyFilterProperty(
                            rules=[s3.CfnBucket.FilterRuleProperty(name="suffix", value=suffix)]
                        )
                    ),
                )
                for suffix, events in notified_events().items()
                for event in events
            ]
        )
        # S3 sends a test message when notifications are configured, so the queue's policy must exist by then.
        self.bucket.node.add_dependency(queue.node.find_child("Policy"))

    def grant_indexer(self, role: iam.Role) -> None:
        """Allow the indexer to read everything but the access document, and to write and delete its own keys.

        It may also delete uploads, because it moves rejected ones to the quarantine.
        """
        reading = [self._arn("*")]
        deleting = [self._arn(key) for key in _deleted_by_indexer(self._configuration)]
        writing = [self._arn(key) for key in _written_by_indexer()]
        self._allow(role, "Read", READING, reading)
        self._allow(role, "List", _LISTING, [self._arn()])
        self._allow(role, "Write", WRITING, writing)
        self._allow(role, "Delete", DELETING, deleting)
        # Rejected uploads and other tools' files are copied before they are removed, and S3 copies their tags, too.
        copies = [self._arn(f"{REJECTED_PREFIX}*"), self._arn(f"{REPLACED_PREFIX}*")]
        self._allow(role, "ReadTags", ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"], reading)
        self._allow(role, "CopyTags", ["s3:PutObjectTagging"], copies)
        self._deny(
            role,
            "DenyAccessDocument",
            [*READING, *WRITING, *DELETING],
            [self._arn(ACCESS_KEY), self._arn(f"{AUDIT_PREFIX}*")],
        )
        suppress_wildcards(
            role, {*reading, *writing, *deleting}, "channels, subdirs and filenames are not known at deployment"
        )

    def grant_authorizer(self, role: iam.Role) -> None:
        """Allow the authorizer to read the access document, and nothing else."""
        self._allow(role, "ReadAccessDocument", ["s3:GetObject"], [self._arn(ACCESS_KEY)])

    def grant_key_refresher(self, role: iam.Role) -> None:
        """Allow the key refresher to read and replace the access document, and nothing else."""
        self._allow(role, "ReplaceAccessDocument", ["s3:GetObject", "s3:PutObject"], [self._arn(ACCESS_KEY)])

    def grant_publisher(self, role: iam.Role, publisher: Publisher) -> None:
        """Allow a publisher what its settings grant.

        Raises:
            UsageError: it has more patterns than a role can hold.
        """
        statements = grant_publisher(self._configuration.bucket_name, publisher)
        for statement in statements:
            role.add_to_policy(_make_statement(statement))
        patterns = {arn for each in statements if not each.is_denial for arn in each.resources if arn != self._arn()}
        suppress_wildcards(
            role, patterns, "filenames in the publisher's channels are not known at deployment; .fairway/ is denied"
        )

    def deny_unreadable_uploads(self) -> None:
        """Deny uploads that readers could not GET, to everybody."""
        for statement in deny_unreadable_uploads(self._configuration.bucket_name):
            self.bucket.add_to_resource_policy(_make_statement(statement, iam.AnyPrincipal()))

    def protect_access_document(self, *, key_refresher: iam.IRole) -> None:
        """Deny replacing and deleting the access document, except by the operators that are configured."""
        for statement in protect_access_document(
            self._configuration.bucket_name,
            operators=self._configuration.operators,
            key_refresher=key_refresher.role_arn,
        ):
            self.bucket.add_to_resource_policy(_make_statement(statement, iam.AnyPrincipal()))

    def deny_serving_private_keys(self) -> None:
        """Deny CloudFront access to ``.fairway/``, even if the authorizer has a bug."""
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DenyServingPrivateKeys",
                effect=iam.Effect.DENY,
                principals=[iam.ServicePrincipal("cloudfront.amazonaws.com")],
                actions=["s3:GetObject"],
                resources=[self._arn(f"{PRIVATE_PREFIX}*")],
            )
        )

    def require_if_none_match(self, *, except_role: iam.IRole) -> None:
        """Deny uploads of artifacts without ``If-None-Match: *``, except by the indexer's role.

        The indexer copies rejected uploads to quarantine keys with the same extensions, and those copies
        carry no such header. It has no permission to write an artifact.
        """
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DenyOverwritingArtifacts",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self._arn(f"*{extension}") for extension in extensions()],
                conditions={
                    "Null": {"s3:if-none-match": "true"},
                    # Parts of a multipart upload can't carry the header; the completion request does.
                    "Bool": {"s3:ObjectCreationOperation": "true"},
                    "ArnNotEquals": {"aws:PrincipalArn": except_role.role_arn},
                },
            )
        )

    def _arn(self, key: str | None = None) -> str:
        """Return the ARN of keys, or of the bucket if no key is given."""
        bucket = self._configuration.bucket_name
        return bucket_arn(bucket) if key is None else object_arn(bucket, key)

    @staticmethod
    def _allow(role: iam.Role, sid: str, actions: Iterable[str], resources: Sequence[str]) -> None:
        role.add_to_policy(iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources)))

    @staticmethod
    def _deny(role: iam.Role, sid: str, actions: Iterable[str], resources: Sequence[str]) -> None:
        role.add_to_policy(
            iam.PolicyStatement(sid=sid, effect=iam.Effect.DENY, actions=list(actions), resources=list(resources))
        )


def _make_statement(statement: Statement, *principals: iam.IPrincipal) -> iam.PolicyStatement:
    """Return a statement for the CDK; one of a bucket's policy names principals."""
    return iam.PolicyStatement(
        sid=statement.sid,
        effect=iam.Effect.DENY if statement.is_denial else iam.Effect.ALLOW,
        principals=list(principals) or None,
        actions=list(statement.actions),
        resources=list(statement.resources) or None,
        not_resources=list(statement.except_resources) or None,
        conditions={
            operator: {key: value if isinstance(value, str) else list(value) for key, value in values.items()}
            for operator, values in statement.conditions.items()
        },
    )
