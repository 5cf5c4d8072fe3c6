"""``CHANNEL[/SUBDIR]``: what most commands take as their target."""

from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import ChannelLayout
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
        UsageError: the channel or the subdir does not exist, or the target is the key or URL of an object.
    """
    if target.startswith("s3://") or kind_of(target) is not None:
        raise UsageError(
            f"{target!r} is not CHANNEL or CHANNEL/SUBDIR",
            hint="leave out s3://BUCKET/; the filename of an artifact is a SPEC: CHANNEL FILENAME",
        )
    if is_channel(target):
        channel = parse_channel(target.rstrip("/"))
        _require_channel(storage, channel)
        return channel, [open_subdir(storage, subdir) for subdir in list_subdirs(storage, channel)]
    subdir = parse_subdir_id(target.rstrip("/"))
    _require_channel(storage, subdir.channel)
    existing = list(list_subdirs(storage, subdir.channel))
    if subdir not in existing:
        raise UsageError(
            f"subdir {str(subdir)!r} does not exist", hint=f"there is {', '.join(str(one) for one in existing)}"
        )
    return subdir.channel, [open_subdir(storage, subdir)]


def _require_channel(storage: ObjectStorage, channel: Channel) -> None:
    # A publisher may list its own channel, but not the bucket.
    if next(iter(storage.list_objects(ChannelLayout(channel=channel).prefix)), None) is None:
        raise UsageError(f"channel {channel!r} does not exist", hint="see 'fairway channel list'")
