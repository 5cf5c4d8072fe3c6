"""Storage: the bucket, and every permission on it.

Owns versioning, encryption, lifecycle, notifications, the bucket policy, and the roles' policies on
the bucket, so that this module answers which role may touch which key. Knows of functions and of
CloudFront only their names.

In S3 policies ``*`` also matches ``/``, so that a channel's pattern could match keys below
``.fairway/``. Therefore the denials: a denial overrides any grant.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import Configuration, Publisher
from infra.nag_suppressions import suppress_rules, suppress_wildcards
from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import (
    ACCESS_KEY,
    ATTESTATIONS_SUFFIX,
    AUDIT_PREFIX,
    CARDS_PREFIX,
    CHANNEL_STATE_PREFIX,
    DRAFTS_PREFIX,
    GARBAGE_PREFIX,
    PATCH_INSTRUCTIONS,
    PATCHES_PREFIX,
    POLICY_KEY,
    PRIVATE_PREFIX,
    REJECTED_PREFIX,
    REPLACED_PREFIX,
    SHARD_INDEX,
    SHARDS_FOLDER,
    TABLES_PREFIX,
)
from lambdas.indexer.outputs.registry import channel_filenames, removable_keys, subdir_filenames

NOTIFIED_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")

_READING = ("s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectVersion", "s3:GetObjectVersionAttributes")
_LISTING = ("s3:ListBucket", "s3:ListBucketVersions")
_WRITING = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")

_PRIVATE_DOCUMENTS = (
    f"{CARDS_PREFIX}*",
    f"{CHANNEL_STATE_PREFIX}*",
    f"{DRAFTS_PREFIX}*",
    f"{GARBAGE_PREFIX}*",
    f"{PATCHES_PREFIX}*",
    POLICY_KEY,
    f"{TABLES_PREFIX}*",
    f"{REJECTED_PREFIX}*",
    f"{REPLACED_PREFIX}*",
)


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
    """Return the keys of uploads that can be rejected, at any depth, with extensions in upper case, too.

    They are moved to the quarantine version by version, so that the previous upload of the same name is
    current again.
    """
    suffixes = [suffix for each in notified_suffixes() for suffix in (each, each.upper())]
    return [*(f"*{suffix}" for suffix in suffixes), f"*/*/*{ATTESTATIONS_SUFFIX}.*"]


def _deleted_by_indexer() -> list[str]:
    """Return the keys that the indexer deletes: uploads, garbage, and outputs that are not wanted any more."""
    return [
        *_uploads(),
        *removable_keys(),
        f"*/*/{SHARDS_FOLDER}*",
        f"{CARDS_PREFIX}*",
        f"{DRAFTS_PREFIX}*",
        f"{REJECTED_PREFIX}*",
    ]


# The private keys about its channels that a publisher may read ({sid: prefix}), which ``fairway status`` does.
_READABLE_BY_PUBLISHERS = {"ReadCards": CARDS_PREFIX, "ReadRejections": REJECTED_PREFIX}
_FIRST_CHARS = string.ascii_lowercase + string.digits + "_"  # of a channel's name; private keys begin with another

# A role's inline policies may have 10,240 characters. The CDK moves statements that don't fit into managed
# policies of 6,144 characters each. The first statement stays inline, and each of the others must fit there.
_MAX_UPLOAD_CHARS = 7000
_MAX_STATEMENT_CHARS = 5500


def notified_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the keys that S3 notifies about."""
    return (*extensions(), ATTESTATIONS_SUFFIX, PATCH_INSTRUCTIONS)


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
            removal_policy=cdk.RemovalPolicy.DESTROY if emulated else cdk.RemovalPolicy.RETAIN,
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
        """Send the queue a message for each artifact, attestations file or patch file that is uploaded or deleted."""
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
                for suffix in notified_suffixes()
                for event in NOTIFIED_EVENTS
            ]
        )
        # S3 sends a test message when notifications are configured, so the queue's policy must exist by then.
        self.bucket.node.add_dependency(queue.node.find_child("Policy"))

    def grant_indexer(self, role: iam.Role) -> None:
        """Allow the indexer to read everything but the access document, and to write and delete its own keys.

        It may also delete uploads, because it moves rejected ones to the quarantine.
        """
        reading = [self._arn("*")]
        deleting = [self._arn(key) for key in _deleted_by_indexer()]
        writing = [self._arn(key) for key in _written_by_indexer()]
        uploads = [self._arn(key) for key in _uploads()]
        self._allow(role, "Read", _READING, reading)
        self._allow(role, "List", _LISTING, [self._arn()])
        self._allow(role, "Write", _WRITING, writing)
        self._allow(role, "Delete", ["s3:DeleteObject", "s3:DeleteObjectVersion"], deleting)
        # A rejected upload is copied to the quarantine, and S3 copies its tags, too.
        self._allow(role, "ReadTags", ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"], uploads)
        self._allow(role, "CopyTags", ["s3:PutObjectTagging"], [self._arn(f"{REJECTED_PREFIX}*")])
        self._deny(
            role,
            "DenyAccessDocument",
            [*_READING, *_WRITING, "s3:DeleteObject", "s3:DeleteObjectVersion"],
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
        """Allow a publisher to upload artifacts to its channels, and whatever else its settings grant.

        Raises:
            UsageError: it has more patterns than a role can hold.
        """
        suffixes: list[str] = list(extensions())
        if publisher.may_attest:
            suffixes += [extension + ATTESTATIONS_SUFFIX for extension in extensions()]
        subdirs = [f"{channel}/{subdir}" for channel in publisher.channels for subdir in publisher.subdirs]
        artifacts = [f"{subdir}/{artifact}" for subdir in subdirs for artifact in publisher.artifacts]
        uploads = [self._arn(artifact + suffix) for artifact in artifacts for suffix in suffixes]
        if publisher.may_patch:
            uploads += [self._arn(f"{subdir}/{PATCH_INSTRUCTIONS}") for subdir in subdirs]
        _require_room(publisher, uploads, _MAX_UPLOAD_CHARS)
        self._allow(role, "Upload", [*_WRITING, *(["s3:DeleteObject"] if publisher.may_delete else [])], uploads)
        patterns = set(uploads)
        if publisher.may_attest:
            patterns |= self._grant_attestation_copies(role, publisher, artifacts)
        if publisher.may_read:
            patterns |= self._grant_reading(role, publisher)
        self._deny(
            role,
            "DenyWritingPrivateKeys",
            [*_WRITING, "s3:DeleteObject", "s3:DeleteObjectVersion"],
            [self._arn(f"{PRIVATE_PREFIX}*")],
        )
        self._deny(role, "DenyAccessDocument", _READING, [self._arn(ACCESS_KEY), self._arn(f"{AUDIT_PREFIX}*")])
        suppress_wildcards(
            role, patterns, "filenames in the publisher's channels are not known at deployment; .fairway/ is denied"
        )

    def _grant_attestation_copies(self, role: iam.Role, publisher: Publisher, artifacts: Sequence[str]) -> set[str]:
        """Allow a publisher to create immutable copies of attestations; return the patterns.

        Some clients upload the copy first. It is named by its hash, and must not be replaced: the request has to
        have ``If-None-Match: *``, the only value that S3 accepts.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
        """
        copies = [
            self._arn(f"{artifact}{extension}{ATTESTATIONS_SUFFIX}.*")
            for artifact in artifacts
            for extension in extensions()
        ]
        _require_room(publisher, copies, _MAX_STATEMENT_CHARS)
        role.add_to_policy(
            iam.PolicyStatement(
                sid="CreateAttestationCopies",
                actions=["s3:PutObject"],
                resources=copies,
                conditions={"Null": {"s3:if-none-match": "false"}},
            )
        )
        return set(copies)

    def _grant_reading(self, role: iam.Role, publisher: Publisher) -> set[str]:
        """Allow a publisher to read and list its channels, their cards and their rejections; return the patterns."""
        channels = [f"{channel}/*" for channel in publisher.channels]
        private = {
            sid: [f"{prefix}{channel}" for channel in channels] for sid, prefix in _READABLE_BY_PUBLISHERS.items()
        }
        readable = {"Read": channels, **private}
        patterns: set[str] = set()
        for sid, keys in readable.items():
            reading = [self._arn(key) for key in keys]
            _require_room(publisher, reading, _MAX_STATEMENT_CHARS)
            self._allow(role, sid, ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes"], reading)
            patterns.update(reading)
        prefixes = [key for keys in readable.values() for key in keys]
        _require_room(publisher, prefixes, _MAX_STATEMENT_CHARS)
        self._allow(role, "List", ["s3:ListBucket"], [self._arn()], {"StringLike": {"s3:prefix": prefixes}})
        private_keys = [key for keys in private.values() for key in keys]
        self._deny(
            role,
            "DenyListingPrivateKeys",
            ["s3:ListBucket"],
            [self._arn()],
            {"StringLike": {"s3:prefix": [f"{PRIVATE_PREFIX}*"]}, "StringNotLike": {"s3:prefix": private_keys}},
        )
        if any(channel.startswith(("*", "?")) for channel in publisher.channels):
            # Such a glob also matches keys below .fairway/. A denial can leave keys out only by NotResource,
            # so this one denies all but public keys, by their first character, and the readable private keys.
            public_keys = [self._arn(f"{first}*") for first in _FIRST_CHARS]
            readable_arns = [*public_keys, *map(self._arn, private_keys)]
            _require_room(publisher, readable_arns, _MAX_STATEMENT_CHARS)
            self._deny(role, "DenyReadingPrivateKeys", _READING, except_resources=readable_arns)
        return patterns

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
        bucket = f"arn:aws:s3:::{self._configuration.bucket_name}"
        return bucket if key is None else f"{bucket}/{key}"

    @staticmethod
    def _allow(
        role: iam.Role,
        sid: str,
        actions: Iterable[str],
        resources: Sequence[str],
        conditions: dict[str, dict[str, list[str]]] | None = None,
    ) -> None:
        role.add_to_policy(
            iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources), conditions=conditions)
        )

    @staticmethod
    def _deny(
        role: iam.Role,
        sid: str,
        actions: Iterable[str],
        resources: Sequence[str] | None = None,
        conditions: dict[str, dict[str, list[str]]] | None = None,
        *,
        except_resources: Sequence[str] | None = None,
    ) -> None:
        """Deny actions on some resources, or on all except some."""
        role.add_to_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                actions=list(actions),
                resources=resources,
                not_resources=except_resources,
                conditions=conditions,
            )
        )


def _require_room(publisher: Publisher, patterns: Iterable[str], max_chars: int) -> None:
    """Check that patterns fit into one policy statement, before a deployment fails half-way.

    Raises:
        UsageError: they don't fit.
    """
    if sum(len(pattern) + len('"",') for pattern in patterns) > max_chars:
        raise UsageError(
            f"publisher {publisher.name!r} has more patterns than a role can hold",
            hint="split it into two publishers, or use fewer and wider globs for channels, subdirs and artifacts",
        )
