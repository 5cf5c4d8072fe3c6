"""The bound on the subdirs of a channel: each has outputs of its own, and is read by those of the channel.

It is checked before the first commit of a subdir, so that the other publishes of a channel cost nothing.
Indexers that begin subdirs at the same moment may exceed it by a few. Subdirs that have a commit stay.
"""

import sys
from typing import Final

from lambdas.channel.errors import RejectedError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import NOARCH, Channel, SubdirId, SubdirName, is_subdir_name
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.parallel import THREADS, in_parallel
from lambdas.storage.protocol import ObjectStorage

_MAX_NAMED: Final = 10


class TooManySubdirsError(RejectedError):
    """The uploads to a subdir are rejected, because its channel has as many as it may."""


def require_room(storage: ObjectStorage, subdir: SubdirId, *, max_subdirs: int) -> None:
    """Check that a channel may have another subdir; ``noarch`` always may be.

    Raises:
        TooManySubdirsError: it may not.
        UnavailableError: passed on from the storage.
    """
    if subdir.name == NOARCH:
        return
    found = list_indexed_subdirs(storage, subdir.channel, at_most=max_subdirs)
    if len(found) >= max_subdirs and subdir.name not in found:
        raise TooManySubdirsError(
            RejectionCode.TOO_MANY_SUBDIRS,
            f"the channel {subdir.channel!r} has {max_subdirs} subdirs, which is the most it may have",
            hint="upload to one of them, or have the operator increase the setting max_subdirs",
        )


def list_indexed_subdirs(storage: ObjectStorage, channel: Channel, *, at_most: int = sys.maxsize) -> list[SubdirName]:
    """Return the subdirs of a channel that have a commit; of many, ``at_most`` or a few more."""
    folders = storage.list_folders(ChannelLayout(channel=channel).prefix)
    subdirs = [SubdirId(channel=channel, name=SubdirName(name)) for name in folders if is_subdir_name(name)]
    found: list[SubdirName] = []
    for start in range(0, len(subdirs), THREADS):
        if len(found) >= at_most:
            break
        some = subdirs[start : start + THREADS]
        etags = in_parallel(lambda one: open_subdir(storage, one).fetch_etag(), some)
        found += [one.name for one, etag in zip(some, etags, strict=True) if etag is not None]
    return found


def describe_excess(names: list[SubdirName], *, max_subdirs: int) -> str | None:
    """Say which subdirs exceed the limit, in the order of their names; None if none does."""
    excess = sorted(set(names) - {NOARCH})[max(0, max_subdirs - (NOARCH in names)) :]
    if not excess:
        return None
    named = ", ".join(excess[:_MAX_NAMED]) + (", …" if len(excess) > _MAX_NAMED else "")
    return f"{len(names)} subdirs, {len(excess)} more than {max_subdirs}: {named}"
