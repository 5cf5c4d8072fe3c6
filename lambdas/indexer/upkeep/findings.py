"""The findings of a verification: values only. Pure."""

from dataclasses import dataclass
from enum import Enum


class Problem(Enum):
    """A kind of finding; each has a row in docs/operating.md."""

    ARTIFACT_WITHOUT_RECORD = "artifact-without-record"
    RECORD_WITHOUT_ARTIFACT = "record-without-artifact"
    ARTIFACT_UNREADABLE = "artifact-unreadable"
    HASH_MISMATCH = "hash-mismatch"
    SHARD_MISSING = "shard-missing"
    SHARD_BROKEN = "shard-broken"
    SHARD_NOT_FROM_CARDS = "shard-not-from-cards"
    CARDS_MISSING = "cards-missing"
    INDEX_MISSING = "index-missing"
    INDEX_BROKEN = "index-broken"
    INDEX_FOREIGN = "index-foreign"
    FOREIGN_PATCHES = "foreign-patches"
    NOT_VERIFIED = "not-verified"
    TOO_MANY_SUBDIRS = "too-many-subdirs"
    OUTPUT_MISSING = "output-missing"
    OUTPUT_BEHIND = "output-behind"
    OUTPUT_WRONG = "output-wrong"
    OUTPUT_UNWANTED = "output-unwanted"
    OUTPUT_TOO_LARGE = "output-too-large"
    ENCODINGS_DISAGREE = "encodings-disagree"
    ATTESTATIONS_WITHOUT_RECORD = "attestations-without-record"
    ATTESTATIONS_MISMATCH = "attestations-mismatch"
    PATCHES_NOT_IN_FORCE = "patches-not-in-force"
    UNREFERENCED_SHARD = "unreferenced-shard"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong or, if it is harmless, merely unusual."""

    problem: Problem
    key: str
    message: str
    is_harmless: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How closely to check."""

    read_artifacts: bool = False
    """Hash every artifact again."""
    now_ms: int
    grace_ms: int
    """Unreferenced shards younger than this are harmless."""
