"""The indexer's settings: read from the environment, and kept in the bucket for the command.

``infra/indexing.py`` writes the environment. The indexer stores the settings in the bucket if they
changed, so that ``fairway reconcile`` and ``fairway rebuild`` judge uploads as the deployment does.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from lambdas.channel import caching
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import POLICY_KEY
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.index_files import get_file, get_replaceable
from lambdas.storage.protocol import ContentHeaders, ObjectStorage

DEFERRAL_SECONDS: Final = 60
MAX_SUBDIRS: Final = Policy().max_subdirs
SHARD_GRACE_DAYS: Final = 14
MIB: Final = 1024 * 1024
OPTIONAL_OUTPUTS: Final = ("current_repodata", "bz2")

_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=caching.NO_STORE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the deployment tells the function."""

    bucket: str
    policy: Policy = field(default_factory=Policy)
    event_bus: str | None = None
    distribution_id: str | None = None
    shard_grace_days: int = SHARD_GRACE_DAYS
    queue_url: str | None = None
    """The queue that the indexer sends messages to; without it, nothing is deferred."""
    deferral_seconds: int = DEFERRAL_SECONDS
    """Deferred outputs are written, and subdirs with foreign index files checked, once in this time."""
    role_id: str | None = None
    """The unique ID of the indexer's role, by which it knows events of its own; None: it knows none."""
    dead_letters_url: str | None = None
    """The dead-letter queue."""
    max_receives: int = 0
    """After as many, a message is a dead letter; 0: never."""
    public_channels: tuple[str, ...] | None = None
    """Globs of channels that the deployment makes public, for the command; None if an older version stored this."""


def parse_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment.

    Raises:
        KeyError: ``FAIRWAY_BUCKET`` is not set.
        ValueError: a number is malformed.
    """
    optional = _split(environment.get("FAIRWAY_OPTIONAL_OUTPUTS", ""))
    return Settings(
        bucket=environment["FAIRWAY_BUCKET"],
        policy=Policy(
            deployment=environment["FAIRWAY_BUCKET"],
            mutable_channels=_split(environment.get("FAIRWAY_MUTABLE_CHANNELS", "")),
            max_subdirs=int(environment.get("FAIRWAY_MAX_SUBDIRS", MAX_SUBDIRS)),
            outputs=Outputs(
                **{name: name in optional for name in OPTIONAL_OUTPUTS},
                max_repodata_bytes=int(environment.get("FAIRWAY_MAX_REPODATA_MIB") or 0) * MIB or None,
                url=environment.get("FAIRWAY_CHANNEL_URL", "").rstrip("/"),
            ),
            subdirs=json.loads(environment.get("FAIRWAY_SUBDIRS") or "{}"),
        ),
        event_bus=environment.get("FAIRWAY_EVENT_BUS") or None,
        distribution_id=environment.get("FAIRWAY_DISTRIBUTION_ID") or None,
        shard_grace_days=int(environment.get("FAIRWAY_SHARD_GRACE_DAYS", SHARD_GRACE_DAYS)),
        queue_url=environment.get("FAIRWAY_QUEUE_URL") or None,
        public_channels=_split(environment.get("FAIRWAY_PUBLIC_CHANNELS", "")),
        deferral_seconds=int(environment.get("FAIRWAY_DEFERRAL_SECONDS", DEFERRAL_SECONDS)),
        role_id=environment.get("FAIRWAY_ROLE_ID") or None,
        dead_letters_url=environment.get("FAIRWAY_DEAD_LETTERS_URL") or None,
        max_receives=int(environment.get("FAIRWAY_MAX_RECEIVES", "0")),
    )


def publish_settings(storage: ObjectStorage, settings: Settings) -> None:
    """Store the settings if they changed."""
    body = encode_json(asdict(settings))
    stored, _ = get_replaceable(storage, POLICY_KEY)
    if stored != body:
        storage.put(POLICY_KEY, body, headers=_HEADERS)


def fetch_settings(storage: ObjectStorage, *, bucket: str) -> Settings:
    """Read what the deployment runs under.

    Raises:
        InvalidDocumentError: the settings are missing or unreadable: defaults might publish what the
            deployment would not.
    """
    try:
        stored = get_file(storage, POLICY_KEY)
    except InvalidDocumentError as error:
        raise InvalidDocumentError(
            f"unreadable settings: {error}", hint="the indexer stores them again within a day, or when it starts"
        ) from error
    if stored is None:
        raise InvalidDocumentError(
            f"missing settings {POLICY_KEY!r}", hint="the indexer stores them again within a day, or when it starts"
        )
    try:
        document: dict[str, Any] = decode_json(stored.body, what=POLICY_KEY)
        policy = document.pop("policy")
        public = document.pop("public_channels", None)
        return Settings(
            **document,
            public_channels=None if public is None else tuple(public),
            policy=Policy(
                deployment=policy.get("deployment", bucket),
                mutable_channels=tuple(policy["mutable_channels"]),
                max_subdirs=policy.get("max_subdirs", MAX_SUBDIRS),
                outputs=Outputs(**policy["outputs"]),
                subdirs=policy.get("subdirs", {}),
            ),
        )
    except (InvalidDocumentError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(
            f"unreadable settings {POLICY_KEY!r}: {error!r}", hint="update the command"
        ) from error


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
