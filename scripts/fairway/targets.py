"""``CHANNEL[/SUBDIR]``: what most commands take as their target."""

from lambdas.channel.errors import UsageError
from lambdas.channel.names import Channel, parse_channel, parse_subdir_id
from lambdas.indexer.tree.subdir import Subdir, open_subdir
from lambdas.indexer.upkeep.listing import list_subdirs
from lambdas.storage.protocol import ObjectStorage


def is_channel(target: str) -> bool:
    """Tell whether ``CHANNEL[/SUBDIR]`` is a whole channel."""
    return "/" not in target.rstrip("/")


def resolve_target(storage: ObjectStorage, target: str) -> tuple[Channel, list[Subdir]]:
    """Return the channel and the subdirs that ``CHANNEL[/SUBDIR]`` stands for.

    Raises:
        InvalidNameError: the channel or the subdir has an invalid name.
        UsageError: the channel does not exist.
    """
    if not is_channel(target):
        subdir = parse_subdir_id(target.rstrip("/"))
        return subdir.channel, [open_subdir(storage, subdir)]
    channel = parse_channel(target.rstrip("/"))
    if channel not in storage.list_folders(""):
        raise UsageError(f"channel {channel!r} does not exist", hint="see 'fairway channel list'")
    return channel, [open_subdir(storage, subdir) for subdir in list_subdirs(storage, channel)]
