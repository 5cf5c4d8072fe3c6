"""``fairway index``: index a directory, for file shares and air-gapped machines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import Channel, parse_channel, parse_subdir
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy, Report
from lambdas.indexer.outputs.subdir import list_unwanted
from lambdas.indexer.tree.subdir import Subdir, open_subdir
from lambdas.indexer.upkeep.listing import list_channels, list_subdirs
from lambdas.indexer.upkeep.rebuild import rebuild as rebuild_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.storage.directory import DirectoryStorage
from scripts.fairway.indexing import note_each, run_each, show_reports
from scripts.fairway.session import Session, debug_option, json_option

_PLATFORMS: Final = frozenset(
    {"noarch", "linux", "osx", "win", "freebsd", "zos", "emscripten", "wasi", "ios", "android"}
)


@click.command(
    epilog="""\b
Examples:
  fairway index /srv/conda/tools    one channel: DIR/noarch/*.conda, DIR/linux-64/*.conda
  fairway index /srv/conda          several channels: DIR/tools/noarch/*.conda, DIR/other/...
  fairway index --channel tools --url https://conda.example.com /mnt/disk

The outputs are the same as those of a deployed channel, byte for byte. Concurrent runs are safe.
Artifacts that cannot be indexed are moved to DIR/.fairway/rejected/, together with the reason.

Exit code 0 if every artifact could be read, 1 if not, 2 on a usage error. Rejected artifacts are
listed; they do not change the exit code.
"""
)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--channel", "name", default=None, help="Name of the channel, if it differs from the name of DIR.")
@click.option("--url", default="", help="Base URL of the channels, for links in feeds and pages.")
@click.option("--immutable", is_flag=True, help="Reject changed bytes under a filename that is already indexed.")
@click.option("--rebuild", is_flag=True, help="Rebuild the index: read every artifact again.")
@click.option("--current-repodata", is_flag=True, help="Also write current_repodata.json.")
@click.option("--bz2", is_flag=True, help="Also write the .bz2 encodings of outputs.")
@click.option("--remove-foreign", is_flag=True, help="Remove other tools' files that are outputs not written here.")
@json_option
@debug_option
def index(
    *,
    directory: Path,
    name: str | None,
    url: str,
    immutable: bool,
    rebuild: bool,
    current_repodata: bool,
    bz2: bool,
    remove_foreign: bool,
    as_json: bool,
) -> int:
    """Index a directory, without AWS."""
    session = Session(as_json=as_json)
    channel = parse_channel(name) if name else detect_channel(directory)
    storage = DirectoryStorage(directory, channel=channel)
    policy = Policy(
        mutable_channels=() if immutable else ("*",),
        outputs=Outputs(current_repodata=current_repodata, bz2=bz2, url=url.rstrip("/"), remove_foreign=remove_foreign),
    )
    indexer = Indexer(storage, SilentNotifier(), policy)
    channels = (
        [channel] if channel is not None else [one for one in list_channels(storage) if _has_subdirs(storage, one)]
    )
    if not any(_has_subdirs(storage, one) for one in channels):
        raise UsageError(
            f"no subdir in {str(directory)!r}",
            hint="put packages into DIR/SUBDIR/ (one channel) or DIR/CHANNEL/SUBDIR/, such as DIR/noarch/",
        )
    subdirs = [open_subdir(storage, found) for one in channels for found in list_subdirs(storage, one)]

    def run(subdir: Subdir) -> Iterator[Report]:
        if rebuild:
            yield rebuild_subdir(subdir, indexer, progress=session.note)
        else:
            session.note(f"{subdir}: reading")
            # Not deep: other folders of the directory are not lost uploads.
            yield from note_each(session, subdir, reconcile(subdir, indexer, deep=False))
        for key in list_unwanted(subdir, policy.outputs):
            session.note(f"{key}: a file of another tool; --remove-foreign removes it")

    reports = list(run_each(subdirs, run))
    indexer.invalidate_rejected()  # no cache: only the notes are removed
    return show_reports(session, reports)


class SilentNotifier:
    """A notifier that does nothing: the command prints a report, and a directory has no cache."""

    def publish_rejection(self, rejection: object) -> None:
        """Do nothing."""

    def invalidate(self, keys: Sequence[str]) -> None:
        """Do nothing."""


def detect_channel(directory: Path) -> Channel | None:
    """Return the channel that a directory is, or None if it contains channels.

    Raises:
        UsageError: it is a channel, but its name is invalid.
    """
    folders = [entry.name for entry in directory.iterdir() if entry.is_dir()]
    if not any(_is_subdir(folder) for folder in folders):
        return None
    try:
        return parse_channel(directory.resolve().name)
    except InvalidNameError as error:
        raise UsageError(f"{error}", hint="name the channel: --channel NAME") from error


def _has_subdirs(storage: DirectoryStorage, channel: Channel) -> bool:
    return any(_is_subdir(folder) for folder in storage.list_folders(ChannelLayout(channel=channel).prefix))


def _is_subdir(folder: str) -> bool:
    try:
        return parse_subdir(folder).partition("-")[0] in _PLATFORMS
    except InvalidNameError:
        return False
