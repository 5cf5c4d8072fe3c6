"""Why an upload may be rejected: every code. Programs and metrics use them; docs/rejections.md explains them."""

from enum import StrEnum


class RejectionCode(StrEnum):
    """A reason to reject an upload, in kebab case."""

    # The key
    INVALID_KEY = "invalid-key"
    FILENAME_TAKEN = "filename-taken"
    SHARD_FULL = "shard-full"
    TOO_MANY_SUBDIRS = "too-many-subdirs"
    INNER_NAME_MISMATCH = "inner-name-mismatch"

    # The object
    NOT_READABLE = "not-readable"

    # The archive
    ARCHIVE_AMBIGUOUS = "archive-ambiguous"
    ARCHIVE_BROKEN = "archive-broken"
    ARCHIVE_COMPRESSED = "archive-compressed"
    ARCHIVE_EMPTY = "archive-empty"
    ARCHIVE_ENCRYPTED = "archive-encrypted"
    ARCHIVE_TRUNCATED = "archive-truncated"
    ARCHIVE_WRONG_FORMAT = "archive-wrong-format"
    ARTIFACT_OVERSIZED = "artifact-oversized"
    COULD_NOT_BE_READ = "could-not-be-read"
    DECOMPRESSION_BOMB = "decompression-bomb"
    MEMBER_DUPLICATED = "member-duplicated"
    MEMBER_MISSING = "member-missing"
    MEMBER_NOT_A_FILE = "member-not-a-file"
    MEMBER_OVERSIZED = "member-oversized"
    MEMBER_PATH_UNSAFE = "member-path-unsafe"
    TOO_MANY_MEMBERS = "too-many-members"

    # Documents
    JSON_DUPLICATE_KEY = "json-duplicate-key"
    JSON_INVALID = "json-invalid"
    JSON_NOT_AN_OBJECT = "json-not-an-object"
    JSON_NOT_UTF8 = "json-not-utf8"
    JSON_NUMBER = "json-number"
    JSON_OVERSIZED = "json-oversized"
    JSON_TOO_DEEP = "json-too-deep"

    # The record
    BUILD_INVALID = "build-invalid"
    BUILD_MISMATCH = "build-mismatch"
    FIELD_INVALID = "field-invalid"
    FIELD_MISSING = "field-missing"
    NAME_INVALID = "name-invalid"
    NAME_MISMATCH = "name-mismatch"
    RUN_EXPORTS_INVALID = "run-exports-invalid"
    SCHEMA_UNSUPPORTED = "schema-unsupported"
    SERVER_KEY_FORGED = "server-key-forged"
    SPEC_INVALID = "spec-invalid"
    SUBDIR_INVALID = "subdir-invalid"
    SUBDIR_MISMATCH = "subdir-mismatch"
    TIMESTAMP_IN_FUTURE = "timestamp-in-future"
    VERSION_INVALID = "version-invalid"
    VERSION_MISMATCH = "version-mismatch"

    # Attestations
    ATTESTATIONS_EMPTY = "attestations-empty"
    ATTESTATIONS_FULL = "attestations-full"
    ATTESTATIONS_HASH_MISMATCH = "attestations-hash-mismatch"
    ATTESTATIONS_MALFORMED = "attestations-malformed"
    ATTESTATIONS_NOT_JSON = "attestations-not-json"
    ATTESTATIONS_TOO_LARGE = "attestations-too-large"
    ATTESTATIONS_TOO_MANY = "attestations-too-many"

    # Patch instructions
    PATCHES_MALFORMED = "patches-malformed"
    PATCHES_NOT_JSON = "patches-not-json"
    PATCHES_NOT_OBJECT = "patches-not-object"
    PATCHES_PROTECTED_FIELD = "patches-protected-field"
    PATCHES_TOO_LARGE = "patches-too-large"
    PATCHES_VERSION = "patches-version"
