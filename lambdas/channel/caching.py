"""How long responses may be cached: every Cache-Control value (invariant 12). Pure; standard library only."""

from typing import Final

METADATA_SECONDS: Final = 30
IMMUTABLE_SECONDS: Final = 365 * 24 * 3600

METADATA: Final = f"public, max-age={METADATA_SECONDS}"
IMMUTABLE: Final = f"public, max-age={IMMUTABLE_SECONDS}, immutable"
NO_CACHE: Final = "no-cache"
NO_STORE: Final = "no-store"
