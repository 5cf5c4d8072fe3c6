"""Inspects many keys of one folder by a short listing, where that takes fewer requests than one for each key.

A burst of uploads is mostly new artifacts with neighbouring keys. S3 bills a listing of a page like a dozen HEAD
requests, and answers it in about the time of two. What the pages don't reach is left to single requests.
"""

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final

from lambdas.storage.protocol import PAGE_OBJECTS, ObjectStorage, ObjectVersion

KEYS_PER_PAGE: Final = 32
"""A page is worth as many requests for single keys."""


def list_many(storage: ObjectStorage, keys: Collection[str]) -> dict[str, list[ObjectVersion]]:
    """Return what a listing tells of keys of one folder, the newest version of each first.

    At most one page is listed for every ``KEYS_PER_PAGE`` keys, none for fewer keys. Keys that the pages
    don't reach are missing from the result; a key that never was there has no versions.
    """
    pages = len(keys) // KEYS_PER_PAGE
    if not pages:
        return {}
    wanted = sorted(keys, key=str.encode)
    found: dict[str, list[ObjectVersion]] = {key: [] for key in wanted}
    folder = wanted[0].rpartition("/")[0]
    last = ""
    listed = 0
    for version in islice(storage.list_versions(f"{folder}/", after=wanted[0][:-1]), pages * PAGE_OBJECTS):
        listed += 1
        last = version.info.key
        if last.encode() > wanted[-1].encode():
            return found
        if last in found:
            found[last].append(version)
    if listed < pages * PAGE_OBJECTS:
        return found
    return {key: versions for key, versions in found.items() if key.encode() < last.encode()}


def current_etag(versions: Iterable[ObjectVersion]) -> str | None:
    """Return the ETag that readers get; None if the object is deleted or never was."""
    newest = next(iter(versions), None)
    return None if newest is None or newest.is_deletion else newest.info.etag
