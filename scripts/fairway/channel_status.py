"""``fairway status`` of channels: what exceeds their limits."""

from collections.abc import Sequence

from lambdas.channel.errors import UsageError
from lambdas.channel.names import Channel, parse_channel
from lambdas.indexer.change.subdir_limit import describe_excess, list_indexed_subdirs
from lambdas.indexer.settings import fetch_settings
from lambdas.indexer.upkeep.listing import list_channels
from scripts.fairway.session import Session
from scripts.fairway.terminal import format_table


def show_channels(session: Session, names: Sequence[str]) -> int:
    """Show the number of subdirs of some channels, or of all if none is named; return the exit code.

    It is 1 if a channel has more than the deployment allows.

    Raises:
        InvalidNameError: a name is invalid.
        UsageError: a channel does not exist.
    """
    storage = session.storage
    max_subdirs = fetch_settings(storage, bucket=session.require_bucket()).policy.max_subdirs
    channels: list[Channel] = [parse_channel(name.rstrip("/")) for name in names] or sorted(list_channels(storage))
    subdirs = {channel: list_indexed_subdirs(storage, channel) for channel in channels}
    if missing := [channel for channel in channels if names and not subdirs[channel]]:
        raise UsageError(f"channel {missing[0]!r} does not exist", hint="see 'fairway channel list'")
    excesses = {channel: describe_excess(found, max_subdirs=max_subdirs) for channel, found in subdirs.items()}
    rows = [(channel, f"{len(found)} of {max_subdirs}") for channel, found in subdirs.items()]
    lines = format_table(("CHANNEL", "SUBDIRS"), rows)
    lines += [f"{channel}: too many subdirs: {excess}" for channel, excess in excesses.items() if excess is not None]
    session.show(
        [
            {"channel": channel, "subdirs": len(found), "max_subdirs": max_subdirs, "excess": excesses[channel]}
            for channel, found in subdirs.items()
        ],
        lines,
    )
    return 1 if any(excess is not None for excess in excesses.values()) else 0
