"""The authorizer's settings: baked into the zip, since Lambda@Edge knows no environment variables."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lambdas.channel.errors import InvalidDocumentError

DEFAULT_REFRESH_SECONDS = 30
DEFAULT_STALE_SECONDS = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizerSettings:
    """Where the access document is, and how long it is believed."""

    bucket: str
    region: str
    origin_domain: str
    """The bucket's regional domain name."""
    public_channels: tuple[str, ...] = ()
    """Globs of channels that the deployment makes public."""
    endpoint_url: str | None = None
    """An emulator's, plain http; None for S3 itself."""
    refresh_seconds: int = DEFAULT_REFRESH_SECONDS
    stale_seconds: int = DEFAULT_STALE_SECONDS


def parse_settings(body: bytes) -> AuthorizerSettings:
    """Read ``settings.json``.

    Raises:
        InvalidDocumentError: it lacks something.
    """
    try:
        raw = json.loads(body)
        return AuthorizerSettings(
            bucket=raw["bucket"],
            region=raw["region"],
            origin_domain=raw["origin_domain"],
            public_channels=tuple(raw.get("public_channels", ())),
            endpoint_url=raw.get("endpoint_url"),
            refresh_seconds=int(raw.get("refresh_seconds", DEFAULT_REFRESH_SECONDS)),
            stale_seconds=int(raw.get("stale_seconds", DEFAULT_STALE_SECONDS)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"settings.json can't be understood: {type(error).__name__} {error}") from error
