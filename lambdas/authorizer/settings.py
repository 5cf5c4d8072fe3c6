"""The authorizer's settings: stored in the zip, because Lambda@Edge has no environment variables."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lambdas.channel.errors import InvalidDocumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizerSettings:
    """Where the access document is, how long it is trusted, and what belongs to an index.

    ``settings.json`` has the same fields.
    """

    bucket: str
    region: str
    origin_domain: str
    """The bucket's regional domain name."""
    public_channels: tuple[str, ...] = ()
    """Globs of channels that the deployment makes public."""
    channel_files: tuple[str, ...] = ()
    """The names of a channel's index files."""
    subdir_files: tuple[str, ...] = ()
    """The names of a subdir's index files."""
    endpoint_url: str | None = None
    """An emulator's, plain http; None for S3 itself."""
    refresh_seconds: int = 30
    """How long the document is trusted without asking S3 again."""
    stale_seconds: int = 900
    """How long the document is trusted while S3 does not answer."""


def parse_settings(body: bytes) -> AuthorizerSettings:
    """Parse ``settings.json``.

    Raises:
        InvalidDocumentError: a setting is missing, unknown or malformed.
    """
    try:
        raw = json.loads(body)
        lists = {name: tuple(raw.get(name, ())) for name in ("public_channels", "channel_files", "subdir_files")}
        return AuthorizerSettings(**{**raw, **lists})
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"settings.json is malformed: {type(error).__name__} {error}") from error
