"""Lists the channels, subdirs and artifacts of a storage."""

from collections.abc import Iterator

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.names import (
    NOARCH,
    Channel,
    Subdir,
    SubdirId,
    is_artifact_like,
    parse_channel,
    parse_subdir,
)
from lambdas.storage.protocol import ObjectInfo, ObjectStorage


def list_channels(storage: ObjectStorage) -> Iterator[Channel]:
    """Yield every channel of the storage."""
    for name in storage.list_folders(""):
        if _is_channel(name):
            yield Channel(name)  # any other is somebody else's folder, or our own


def list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirId]:
    """Yield every subdir of a channel, ``noarch`` first, whether or not it is there yet."""
    yield SubdirId(channel=channel, subdir=NOARCH)
    for name in storage.list_folders(f"{channel}/"):
        if _is_subdir(name) and name != NOARCH:
            yield SubdirId(channel=channel, subdir=Subdir(name))


def list_artifacts(storage: ObjectStorage, path: SubdirId) -> Iterator[ObjectInfo]:
    """Yield what lies directly in a subdir and is named like an artifact or its signatures."""
    return (info for filename, info in list_files(storage, path) if is_artifact_like(filename))


def list_files(storage: ObjectStorage, path: SubdirId) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield what lies directly in a subdir, by filename.

    The listing jumps over nothing: shards lie in the same folder, and are passed over.
    """
    prefix = path.key("")
    for info in storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if "/" not in filename:
            yield filename, info


def _is_channel(folder: str) -> bool:
    try:
        parse_channel(folder)
    except InvalidNameError:
        return False
    return True


def _is_subdir(folder: str) -> bool:
    try:
        parse_subdir(folder)
    except InvalidNameError:
        return False
    return True
