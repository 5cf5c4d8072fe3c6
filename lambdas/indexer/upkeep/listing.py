"""Lists the channels, subdirs and files of a storage."""

from collections.abc import Iterator

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import NOARCH, Channel, SubdirId, SubdirName, parse_channel, parse_subdir
from lambdas.indexer.tree.subdir import Subdir
from lambdas.storage.protocol import ObjectInfo, ObjectStorage


def list_channels(storage: ObjectStorage) -> Iterator[Channel]:
    """Yield every channel of the storage; other folders are passed over."""
    for name in storage.list_folders(""):
        if is_channel(name):
            yield Channel(name)


def list_subdirs(storage: ObjectStorage, channel: Channel) -> Iterator[SubdirId]:
    """Yield every subdir of a channel, ``noarch`` first, even if that does not exist yet."""
    yield SubdirId(channel=channel, name=NOARCH)
    for name in storage.list_folders(ChannelLayout(channel=channel).prefix):
        if is_subdir(name) and name != NOARCH:
            yield SubdirId(channel=channel, name=SubdirName(name))


def list_files(subdir: Subdir) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the files directly in a subdir, by filename.

    The storage lists the shards too, which are in a folder of the subdir: they are passed over.
    """
    prefix = subdir.layout.prefix
    for info in subdir.storage.list_objects(prefix):
        filename = info.key[len(prefix) :]
        if "/" not in filename:
            yield filename, info


def is_channel(folder: str) -> bool:
    """Tell whether a folder of the bucket can be a channel."""
    try:
        parse_channel(folder)
    except InvalidNameError:
        return False
    return True


def is_subdir(folder: str) -> bool:
    """Tell whether a folder of a channel can be a subdir."""
    try:
        parse_subdir(folder)
    except InvalidNameError:
        return False
    return True
