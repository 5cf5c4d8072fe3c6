"""The bucket as a user of the command sees it: a publisher may list only its own channels.

Without permission to list the whole bucket, S3 answers 403 instead of 404 for a missing key. The listing
of the publisher's own channel tells a missing key from a denied one (invariant 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from lambdas.channel.errors import AccessDeniedError
from lambdas.storage.protocol import ObjectInfo, StoredObject
from lambdas.storage.s3 import S3Storage
from scripts.fairway.aws_errors import is_denial

_Result = TypeVar("_Result", ObjectInfo, StoredObject)


class ListedStorage(S3Storage):
    """An S3 bucket in which a 403 means "missing" if a listing confirms it."""

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo | None:
        """Return the metadata of an object, or None if it is missing."""
        return self._request(key, lambda: super(ListedStorage, self).head(key, version=version))

    def get(self, key: str, *, version: str | None = None) -> StoredObject | None:
        """Return an object, or None if it is missing."""
        return self._request(key, lambda: super(ListedStorage, self).get(key, version=version))

    def _request(self, key: str, request: Callable[[], _Result | None]) -> _Result | None:
        try:
            return request()
        except AccessDeniedError as denied:
            try:
                is_listed = any(info.key == key for info in self.list_objects(key))
            except AccessDeniedError as listing:
                cause = listing.__cause__
                if isinstance(cause, ClientError) and not is_denial(cause):
                    raise  # HeadObject has no body: only the listing says that the session has expired
                raise denied from denied.__cause__
            # The object may have been written between the two requests.
            return request() if is_listed else None
