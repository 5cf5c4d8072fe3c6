"""Which paths of the CDN to invalidate for some keys. Pure."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

MAX_PATHS: Final = 20
"""Above this many keys, whole folders are named."""
MAX_FOLDERS: Final = 5
"""Above this many folders, everything is named: 15 wildcards may be in progress at once, over all runs."""
_SAFE: Final = "/!$'(),"  # the edge caches by the path as viewers write it; RFC 1738 calls these safe


def plan_paths(keys: Sequence[str]) -> list[str]:
    """Return the paths to invalidate: each key's own or, if they are many, whole folders.

    A wildcard is one path, and 1,000 paths a month are free.

    Source: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html
    """
    if len(keys) <= MAX_PATHS:
        return [f"/{quote(key, safe=_SAFE)}" for key in keys]
    folders = sorted({key.rpartition("/")[0] for key in keys})
    return [f"/{quote(folder, safe=_SAFE)}/*" for folder in folders] if len(folders) <= MAX_FOLDERS else ["/*"]
