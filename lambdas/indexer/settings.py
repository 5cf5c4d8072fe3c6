"""The indexer's settings, read once from the environment; ``infra/indexing.py`` writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lambdas.indexer.model import Outputs, Policy

DEFERRAL_SECONDS: Final = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the deployment tells the function."""

    bucket: str
    policy: Policy
    event_bus: str | None
    distribution_id: str | None
    shard_grace_days: int
    queue_url: str | None = None
    """Where reminders go; without it, nothing is left for later."""
    deferral_seconds: int = DEFERRAL_SECONDS
    """How long what is left for later is left: once in this time it is written."""


def parse_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        KeyError: ``FAIRWAY_BUCKET`` is not set.
        ValueError: a number is none.
    """
    optional = _split(environment.get("FAIRWAY_OPTIONAL_OUTPUTS", ""))
    return Settings(
        bucket=environment["FAIRWAY_BUCKET"],
        policy=Policy(
            mutable_channels=_split(environment.get("FAIRWAY_MUTABLE_CHANNELS", "")),
            outputs=Outputs(
                current_repodata="current_repodata" in optional,
                bz2="bz2" in optional,
                url=environment.get("FAIRWAY_CHANNEL_URL", "").rstrip("/"),
            ),
        ),
        event_bus=environment.get("FAIRWAY_EVENT_BUS") or None,
        distribution_id=environment.get("FAIRWAY_DISTRIBUTION_ID") or None,
        shard_grace_days=int(environment.get("FAIRWAY_SHARD_GRACE_DAYS", "14")),
        queue_url=environment.get("FAIRWAY_QUEUE_URL") or None,
        deferral_seconds=int(environment.get("FAIRWAY_DEFERRAL_SECONDS", DEFERRAL_SECONDS)),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
