"""Permissions on the bucket that depend on settings, as policy statements. Pure: no CDK.

Owns what a publisher may do, and what the bucket's policy denies to everybody. ``storage.py`` attaches
the statements to roles and to the bucket.

In S3 policies ``*`` also matches ``/``. A publisher's globs have it at their end only, so that whatever a
pattern matches begins with the literal part of a channel's name. The glob ``*`` has no such part and
matches keys below ``.fairway/`` and in the channel of ``fairway doctor``: therefore the denials, which
override any grant.

Source: IAM JSON policy elements, condition operators (a negated operator also matches a missing key);
Amazon S3 actions and condition keys.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from infra.config import Publisher
from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import (
    ACCESS_KEY,
    ATTESTATIONS_SUFFIX,
    AUDIT_PREFIX,
    CARDS_PREFIX,
    PATCH_INSTRUCTIONS,
    PRIVATE_PREFIX,
    REJECTED_PREFIX,
)
from lambdas.channel.names import DOCTOR_CHANNEL

READING: Final = ("s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectVersion", "s3:GetObjectVersionAttributes")
WRITING: Final = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
DELETING: Final = ("s3:DeleteObject", "s3:DeleteObjectVersion")

READABLE_CLASSES: Final = ("STANDARD", "INTELLIGENT_TIERING")
"""The storage classes that an upload may name. Readers can GET from them at once, and they have no minimum size."""

# The private keys about its channels that a publisher may read ({sid: prefix}), which ``fairway status`` does.
_READABLE_BY_PUBLISHERS: Final = {"ReadCards": CARDS_PREFIX, "ReadRejections": REJECTED_PREFIX}
_FIRST_CHARS: Final = string.ascii_lowercase + string.digits + "_"  # of a channel; private keys begin with another

# A role's inline policies may have 10,240 characters. The CDK moves statements that don't fit into managed
# policies of 6,144 characters each. The first statement stays inline, and each of the others must fit there.
_MAX_UPLOAD_CHARS: Final = 7000
_MAX_STATEMENT_CHARS: Final = 5500

Conditions = Mapping[str, Mapping[str, str | Sequence[str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One statement of a policy; its resources are ARNs."""

    sid: str
    is_denial: bool = False
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ()
    except_resources: tuple[str, ...] = ()
    """Instead of ``resources``: all but these."""
    conditions: Conditions = field(default_factory=dict)


def bucket_arn(bucket: str) -> str:
    """Return the ARN of a bucket."""
    return f"arn:aws:s3:::{bucket}"


def object_arn(bucket: str, key: str) -> str:
    """Return the ARN of a key, or of all keys that a pattern matches."""
    return f"{bucket_arn(bucket)}/{key}"


def deny_unreadable_uploads(bucket: str) -> tuple[Statement, ...]:
    """Deny uploads that readers could not GET: archived, or encrypted with a key that CloudFront lacks.

    The bucket's default, no header at all, passes, and so do parts, which carry no class. CopyObject and
    CreateMultipartUpload are ``s3:PutObject``, too. ``Null … false`` means that the header is present;
    without it the negated operators would match every request that lacks the header.

    Source: Actions, resources, and condition keys for Amazon S3: ``s3:x-amz-storage-class``,
    ``s3:x-amz-server-side-encryption``, ``s3:x-amz-server-side-encryption-customer-algorithm``.
    """
    storage_class, encryption = "s3:x-amz-storage-class", "s3:x-amz-server-side-encryption"
    conditions: dict[str, Conditions] = {
        "DenyArchivedUploads": {
            "Null": {storage_class: "false"},
            "StringNotEquals": {storage_class: READABLE_CLASSES},
        },
        "DenyKmsUploads": {"Null": {encryption: "false"}, "StringNotEquals": {encryption: "AES256"}},
        "DenyCustomerKeyUploads": {"Null": {f"{encryption}-customer-algorithm": "false"}},
    }
    return tuple(
        Statement(
            sid=sid,
            is_denial=True,
            actions=("s3:PutObject",),
            resources=(object_arn(bucket, "*"),),
            conditions=condition,
        )
        for sid, condition in conditions.items()
    )


def protect_access_document(bucket: str, *, operators: Sequence[str], key_refresher: str) -> tuple[Statement, ...]:
    """Deny everybody but the operators to delete the access document, and all but them and a role to write it.

    ``aws:PrincipalArn`` of a session is the ARN of its role.
    """
    resources = (object_arn(bucket, ACCESS_KEY),)
    return (
        Statement(
            sid="DenyDeletingAccessDocument",
            is_denial=True,
            actions=DELETING,
            resources=resources,
            conditions={"ArnNotEquals": {"aws:PrincipalArn": tuple(operators)}},
        ),
        Statement(
            sid="DenyWritingAccessDocument",
            is_denial=True,
            actions=("s3:PutObject",),
            resources=resources,
            conditions={"ArnNotEquals": {"aws:PrincipalArn": (*operators, key_refresher)}},
        ),
    )


def grant_publisher(bucket: str, publisher: Publisher) -> tuple[Statement, ...]:
    """Allow a publisher to upload artifacts to its channels, and whatever else its settings grant.

    Raises:
        UsageError: it has more patterns than a role can hold.
    """
    suffixes: list[str] = list(extensions())
    if publisher.may_attest:
        suffixes += [extension + ATTESTATIONS_SUFFIX for extension in extensions()]
    subdirs = [f"{channel}/{subdir}" for channel in publisher.channels for subdir in publisher.subdirs]
    artifacts = [f"{subdir}/{artifact}" for subdir in subdirs for artifact in publisher.artifacts]
    keys = [f"{artifact}{suffix}" for artifact in artifacts for suffix in suffixes]
    if publisher.may_patch:
        keys += [f"{subdir}/{PATCH_INSTRUCTIONS}" for subdir in subdirs]
    uploads = tuple(object_arn(bucket, key) for key in keys)
    _require_room(publisher, uploads, _MAX_UPLOAD_CHARS)
    return (
        Statement(
            sid="Upload",
            actions=(*WRITING, *(("s3:DeleteObject",) if publisher.may_delete else ())),
            resources=uploads,
        ),
        *(_grant_attestation_copies(bucket, publisher, artifacts) if publisher.may_attest else ()),
        *(_grant_reading(bucket, publisher) if publisher.may_read else ()),
        Statement(
            sid="DenyWritingReservedKeys",
            is_denial=True,
            actions=(*WRITING, *DELETING),
            resources=(object_arn(bucket, f"{PRIVATE_PREFIX}*"), object_arn(bucket, f"{DOCTOR_CHANNEL}/*")),
        ),
        Statement(
            sid="DenyAccessDocument",
            is_denial=True,
            actions=READING,
            resources=(object_arn(bucket, ACCESS_KEY), object_arn(bucket, f"{AUDIT_PREFIX}*")),
        ),
    )


def _grant_attestation_copies(bucket: str, publisher: Publisher, artifacts: Sequence[str]) -> Iterable[Statement]:
    """Allow a publisher to create immutable copies of attestations, which some clients upload first.

    A copy is named by its hash, and must not be replaced: the request has to have ``If-None-Match: *``, the
    only value that S3 accepts.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    copies = tuple(
        object_arn(bucket, f"{artifact}{extension}{ATTESTATIONS_SUFFIX}.*")
        for artifact in artifacts
        for extension in extensions()
    )
    _require_room(publisher, copies, _MAX_STATEMENT_CHARS)
    yield Statement(
        sid="CreateAttestationCopies",
        actions=("s3:PutObject",),
        resources=copies,
        conditions={"Null": {"s3:if-none-match": "false"}},
    )


def _grant_reading(bucket: str, publisher: Publisher) -> Iterable[Statement]:
    """Allow a publisher to read and list its channels, their cards and their rejections."""
    channels = [f"{channel}/*" for channel in publisher.channels]
    private = {sid: [f"{prefix}{channel}" for channel in channels] for sid, prefix in _READABLE_BY_PUBLISHERS.items()}
    readable = {"Read": channels, **private}
    for sid, keys in readable.items():
        reading = tuple(object_arn(bucket, key) for key in keys)
        _require_room(publisher, reading, _MAX_STATEMENT_CHARS)
        actions = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes")
        yield Statement(sid=sid, actions=actions, resources=reading)
    prefixes = tuple(key for keys in readable.values() for key in keys)
    private_keys = tuple(key for keys in private.values() for key in keys)
    _require_room(publisher, prefixes, _MAX_STATEMENT_CHARS)
    yield Statement(
        sid="List",
        actions=("s3:ListBucket",),
        resources=(bucket_arn(bucket),),
        conditions={"StringLike": {"s3:prefix": prefixes}},
    )
    yield Statement(
        sid="DenyListingPrivateKeys",
        is_denial=True,
        actions=("s3:ListBucket",),
        resources=(bucket_arn(bucket),),
        conditions={
            "StringLike": {"s3:prefix": [f"{PRIVATE_PREFIX}*"]},
            "StringNotLike": {"s3:prefix": private_keys},
        },
    )
    if "*" in publisher.channels:
        # It also matches keys below .fairway/. A denial can leave keys out only by NotResource, so this one
        # denies all but public keys, by their first character, and the readable private keys.
        keys = [*(f"{first}*" for first in _FIRST_CHARS), *private_keys]
        readable_arns = tuple(object_arn(bucket, key) for key in keys)
        _require_room(publisher, readable_arns, _MAX_STATEMENT_CHARS)
        yield Statement(sid="DenyReadingPrivateKeys", is_denial=True, actions=READING, except_resources=readable_arns)


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
