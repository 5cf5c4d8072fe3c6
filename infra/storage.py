"""Storage: the bucket that is the database, and every right that anybody has in it.

Owns versions, encryption, lifecycle, notifications, and the bucket's and its users' policies, so
that one page answers who may touch which key. Knows nothing of functions or of CloudFront but their
names.

In S3's policies ``*`` matches ``/`` too, and a channel's pattern could reach below ``.fairway/``:
hence the denials, which win over any grant.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.acknowledging import acknowledge_patterns, acknowledge_rules
from infra.config import Configuration, Publisher
from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import (
    ACCESS_KEY,
    ATTESTATIONS_SUFFIX,
    AUDIT_PREFIX,
    PATCH_INSTRUCTIONS,
    PRIVATE_PREFIX,
    REJECTED_PREFIX,
)

NOTIFIED_SUFFIXES = (*extensions, ATTESTATIONS_SUFFIX, PATCH_INSTRUCTIONS)
NOTIFIED_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")

_READING = ("s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectVersion", "s3:GetObjectVersionAttributes")
_LISTING = ("s3:ListBucket", "s3:ListBucketVersions")
_WRITING = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")

# What the indexer makes; it never writes an artifact, nor who may read what.
_INDEX_KEYS = (
    "*/*/repodata*.json*",
    "*/*/current_repodata.json*",
    "*/*/repodata_shards.msgpack.zst",
    "*/*/shards/*",
    "*/*/run_exports.json*",
    "*/*/index.html",
    "*/*/*.sigs.*",
    "*/channeldata.json",
    "*/rss.xml",
    "*/index.html",
    f"{PRIVATE_PREFIX}cards/*",
    f"{PRIVATE_PREFIX}channeldata/*",
    f"{PRIVATE_PREFIX}garbage/*",
    f"{PRIVATE_PREFIX}patches/*",
    f"{PRIVATE_PREFIX}policy.json",
    f"{PRIVATE_PREFIX}tables/*",
    f"{REJECTED_PREFIX}*",
)
# What it sets aside, with all versions: the earlier upload under the same name is current again.
# At any depth, and in capitals: what is named like an artifact is set aside wherever it was uploaded to.
_UPLOADED_KEYS = tuple(f"*{suffix}" for each in NOTIFIED_SUFFIXES for suffix in (each, each.upper()))
_PERISHABLE_KEYS = (
    "*/*/shards/*",
    "*/*/repodata_from_packages.json*",
    f"{PRIVATE_PREFIX}cards/*",
    f"{REJECTED_PREFIX}*",
)

# What publishers may read of what is kept about their channels: ``fairway status`` does.
_LEGIBLE = {"LookAtCards": f"{PRIVATE_PREFIX}cards/", "LookAtRefusals": REJECTED_PREFIX}
_FIRST_CHARS = string.ascii_lowercase + string.digits + "_"  # of a channel's name; what is private begins otherwise

# A role's own policies may have 10,240 characters. The CDK moves what is beyond into managed ones, of
# 6,144 each, statement by statement: the first is the role's own, and each of the others must fit there.
_MAX_UPLOAD_CHARS = 7000
_MAX_STATEMENT_CHARS = 5500


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
            # Not KMS: only so is the ETag of a simple upload its md5, which saves reading the artifact.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=not emulated,  # the emulator speaks plain HTTP, and the policy rightly refuses that
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
            ],
        )
        acknowledge_rules(
            self.bucket,
            {"AwsSolutions-S1": "readers come through CloudFront, and its log is a setting"},
        )

    def notify(self, queue: sqs.IQueue) -> None:
        """Send the queue a message for each artifact, attestation or patch that comes or goes."""
        bucket = self.bucket.node.default_child
        if not isinstance(bucket, s3.CfnBucket):  # what the CDK makes of a Bucket
            raise TypeError(type(bucket))
        # Declared on the bucket itself: the CDK's own way takes a function with rights on every bucket.
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
                for suffix in NOTIFIED_SUFFIXES
                for event in NOTIFIED_EVENTS
            ]
        )
        # S3 tries the queue when it is told of it, so the queue's policy must stand by then.
        self.bucket.node.add_dependency(queue.node.find_child("Policy"))

    def allow_indexing(self, role: iam.Role) -> None:
        """Let the indexer read everything but the access rules and their history, and write and delete its own."""
        reading = [self._arn("*")]
        deleting = [self._arn(key) for key in (*_UPLOADED_KEYS, *_PERISHABLE_KEYS)]
        writing = [self._arn(key) for key in _INDEX_KEYS]
        uploaded = [self._arn(key) for key in _UPLOADED_KEYS]
        self._allow(role, "Look", _READING, reading)
        self._allow(role, "List", _LISTING, [self._arn()])
        self._allow(role, "WriteIndex", _WRITING, writing)
        self._allow(role, "Delete", ["s3:DeleteObject", "s3:DeleteObjectVersion"], deleting)
        # What is set aside is copied, and a copy takes the upload's tags along.
        self._allow(role, "ReadTags", ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"], uploaded)
        self._allow(role, "CopyTags", ["s3:PutObjectTagging"], [self._arn(f"{REJECTED_PREFIX}*")])
        self._deny(
            role,
            "NeverTouchAccessRules",
            [*_READING, *_WRITING, "s3:DeleteObject", "s3:DeleteObjectVersion"],
            [self._arn(ACCESS_KEY), self._arn(f"{AUDIT_PREFIX}*")],
        )
        acknowledge_patterns(
            role, {*reading, *writing, *deleting}, "keys contain channel, subdir and filename, which nobody knows yet"
        )

    def allow_authorizing(self, role: iam.Role) -> None:
        """Let the authorizer read one object."""
        self._allow(role, "ReadAccessRules", ["s3:GetObject"], [self._arn(ACCESS_KEY)])

    def allow_key_refreshing(self, role: iam.Role) -> None:
        """Let the key refresher read and replace one object."""
        self._allow(role, "ReplaceAccessRules", ["s3:GetObject", "s3:PutObject"], [self._arn(ACCESS_KEY)])

    def allow_publishing(self, role: iam.Role, publisher: Publisher) -> None:
        """Let a publisher upload artifacts, and what else is granted, to its channels alone.

        Raises:
            UsageError: its patterns are too many for one role.
        """
        suffixes: list[str] = list(extensions)
        if publisher.may_attest:
            suffixes += [extension + ATTESTATIONS_SUFFIX for extension in extensions]
        subdirs = [f"{channel}/{subdir}" for channel in publisher.channels for subdir in publisher.subdirs]
        artifacts = [f"{subdir}/{artifact}" for subdir in subdirs for artifact in publisher.artifacts]
        uploads = [self._arn(artifact + suffix) for artifact in artifacts for suffix in suffixes]
        if publisher.may_patch:
            uploads += [self._arn(f"{subdir}/{PATCH_INSTRUCTIONS}") for subdir in subdirs]
        _require_room(publisher, uploads, _MAX_UPLOAD_CHARS)
        self._allow(role, "Upload", [*_WRITING, *(["s3:DeleteObject"] if publisher.may_delete else [])], uploads)
        patterns = set(uploads)
        if publisher.may_read:
            patterns |= self._allow_looking(role, publisher)
        self._deny(
            role,
            "NothingPrivate",
            [*_WRITING, "s3:DeleteObject", "s3:DeleteObjectVersion"],
            [self._arn(f"{PRIVATE_PREFIX}*")],
        )
        self._deny(role, "NoAccessRules", _READING, [self._arn(ACCESS_KEY), self._arn(f"{AUDIT_PREFIX}*")])
        acknowledge_patterns(
            role, patterns, "the publisher's own channels; filenames are not known beforehand, and .fairway is denied"
        )

    def _allow_looking(self, role: iam.Role, publisher: Publisher) -> set[str]:
        """Let a publisher read and list its channels, and of what is kept about them what its command asks for.

        Returns the patterns.
        """
        looks = {"Look": [f"{channel}/*" for channel in publisher.channels]}
        looks |= {sid: [f"{prefix}{look}" for look in looks["Look"]] for sid, prefix in _LEGIBLE.items()}
        patterns: set[str] = set()
        for sid, keys in looks.items():
            reading = [self._arn(key) for key in keys]
            _require_room(publisher, reading, _MAX_STATEMENT_CHARS)
            self._allow(role, sid, ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes"], reading)
            patterns.update(reading)
        prefixes = [key for keys in looks.values() for key in keys]
        _require_room(publisher, prefixes, _MAX_STATEMENT_CHARS)
        self._allow(role, "List", ["s3:ListBucket"], [self._arn()], {"StringLike": {"s3:prefix": prefixes}})
        legible = [key for sid in _LEGIBLE for key in looks[sid]]
        self._deny(
            role,
            "ListNothingPrivate",
            ["s3:ListBucket"],
            [self._arn()],
            {"StringLike": {"s3:prefix": [f"{PRIVATE_PREFIX}*"]}, "StringNotLike": {"s3:prefix": legible}},
        )
        if any(channel.startswith(("*", "?")) for channel in publisher.channels):
            # Such a glob reaches below .fairway/ too. What is not denied is said by how it begins: a
            # denial can't leave anything out of what it names.
            public = [self._arn(f"{first}*") for first in _FIRST_CHARS]
            undenied = [*public, *map(self._arn, legible)]
            _require_room(publisher, undenied, _MAX_STATEMENT_CHARS)
            self._deny(role, "ReadNothingPrivate", _READING, but=undenied)
        return patterns

    def deny_serving_private_keys(self) -> None:
        """Keep CloudFront out of what is nobody's to read, whatever the authorizer lets through."""
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="NeverServePrivateKeys",
                effect=iam.Effect.DENY,
                principals=[iam.ServicePrincipal("cloudfront.amazonaws.com")],
                actions=["s3:GetObject"],
                resources=[self._arn(f"{PRIVATE_PREFIX}*")],
            )
        )

    def forbid_overwriting(self, *, but: iam.IRole) -> None:
        """Refuse any upload of an artifact that does not say ``If-None-Match: *``, but the indexer's.

        The indexer writes no artifact to where readers look, but sets them aside under names that end
        the same way, by copies that carry no such header: it stands outside.
        """
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="NeverOverwriteArtifacts",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self._arn(f"*{extension}") for extension in extensions],
                conditions={
                    "Null": {"s3:if-none-match": "true"},
                    # The parts of a multipart upload can't carry the header; its completion does.
                    "Bool": {"s3:ObjectCreationOperation": "true"},
                    "ArnNotEquals": {"aws:PrincipalArn": but.role_arn},
                },
            )
        )

    def _arn(self, key: str | None = None) -> str:
        """Return the ARN of the bucket or of keys; the name is known, so templates show it plainly."""
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
        but: Sequence[str] | None = None,
    ) -> None:
        """Deny some resources, or all ``but`` these."""
        role.add_to_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                actions=list(actions),
                resources=resources,
                not_resources=but,
                conditions=conditions,
            )
        )


def _require_room(publisher: Publisher, patterns: Iterable[str], max_chars: int) -> None:
    """Find patterns that would fail a deployment half-way.

    Raises:
        UsageError: they are too many for one statement of a policy.
    """
    if sum(len(pattern) + len('"",') for pattern in patterns) > max_chars:
        raise UsageError(
            f"publisher {publisher.name!r} has more patterns than a role can hold",
            hint="make it two publishers, or let fewer channels, subdirs and artifacts be named by wider globs",
        )
