"""The bucket as the command's user sees it, who may list a part of it alone.

S3 says 403 of what is missing to whoever may not list the whole bucket. A publisher may list its own
channels, and the listing tells what is missing from what is denied (invariant 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lambdas.channel.errors import AccessDeniedError
from lambdas.storage.protocol import ObjectInfo, StoredObject
from lambdas.storage.s3 import S3Storage

_Found = TypeVar("_Found", ObjectInfo, StoredObject)


class ListedStorage(S3Storage):
    """An S3 bucket; a 403 is "not there" where a listing says so."""

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Look at an object."""
        return self._look(key, lambda: super(ListedStorage, self).head(key, version=version))

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Read an object."""
        return self._look(key, lambda: super(ListedStorage, self).get(key, version=version))

    def _look(self, key: str, look: Callable[[], _Found | None]) -> _Found | None:
        try:
            return look()
        except AccessDeniedError as denied:
            try:
                listed = any(info.key == key for info in self.list_objects(key))
            except AccessDeniedError:
                raise denied from None
            # It may have come between the two.
            return look() if listed else None
