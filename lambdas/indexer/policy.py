"""What the deployment has decided, kept in the bucket for the command.

The indexer writes down the settings it runs under when they differ from what is written, so that
``fairway reconcile`` and ``fairway rebuild`` judge uploads as the deployment does.
"""

from dataclasses import asdict
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import PRIVATE_PREFIX
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.settings import Settings
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.storage.protocol import CACHE_CONTROL_PRIVATE, ContentHeaders, ObjectStorage

POLICY_KEY: Final = f"{PRIVATE_PREFIX}policy.json"

_HEADERS: Final = ContentHeaders(content_type="application/json", cache_control=CACHE_CONTROL_PRIVATE)


def publish_settings(storage: ObjectStorage, settings: Settings) -> None:
    """Write down what the indexer runs under, if it is news."""
    body = encode_json(asdict(settings))
    stored = storage.get(POLICY_KEY)
    if stored is None or stored.body != body:
        storage.put(POLICY_KEY, body, headers=_HEADERS)


def fetch_settings(storage: ObjectStorage, *, bucket: str) -> Settings:
    """Read what the deployment runs under; defaults where it has not run yet.

    Raises:
        InvalidDocumentError: it can't be understood: another version wrote it.
    """
    stored = storage.get(POLICY_KEY)
    if stored is None:
        return Settings(bucket=bucket, policy=Policy(), event_bus=None, distribution_id=None, shard_grace_days=14)
    document: dict[str, Any] = decode_json(stored.body, what=POLICY_KEY)
    try:
        policy = document.pop("policy")
        return Settings(
            **document,
            policy=Policy(mutable_channels=tuple(policy["mutable_channels"]), outputs=Outputs(**policy["outputs"])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"{POLICY_KEY!r} is not understood: {error!r}", hint="update the command") from error
