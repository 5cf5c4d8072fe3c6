"""``fairway index``: the same index over a directory, for file shares and air-gapped disks."""

from pathlib import Path
from typing import Final

import click

from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.names import Channel, parse_channel, parse_subdir
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.upkeep.listing import list_channels, list_subdirs
from lambdas.indexer.upkeep.reconcile import rebuild as rebuild_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.storage.directory import DirectoryStorage
from scripts.fairway.indexing import show_reports
from scripts.fairway.session import Session

_PLATFORMS: Final = frozenset(
    {"noarch", "linux", "osx", "win", "freebsd", "zos", "emscripten", "wasi", "ios", "android"}
)


@click.command(
    epilog="""\b
Examples:
  fairway index /srv/conda/tools                 a channel: DIR/noarch/*.conda, DIR/linux-64/*.conda
  fairway index /srv/conda                       several: DIR/tools/noarch/*.conda, DIR/other/...
  fairway index --channel tools --url https://conda.example.com /mnt/disk

The outputs are those of a deployed channel, byte for byte. Two runs at once do no harm. What may
not be indexed is moved to DIR/.fairway/rejected/, beside a reason.

Exit code 0 if everything could be read, 1 if not, 2 for wrong usage. Rejected artifacts are listed,
and are no error.
"""
)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--channel", "name", default=None, help="DIR is this channel, whatever it is called.")
@click.option("--url", default="", help="The address that channels hang under, for links in feeds and pages.")
@click.option("--immutable", is_flag=True, help="Refuse other bytes under a filename that is indexed already.")
@click.option("--rebuild", is_flag=True, help="Read every artifact again.")
@click.option("--current-repodata", is_flag=True, help="Also write current_repodata.json.")
@click.option("--bz2", is_flag=True, help="Also write .bz2 variants.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def index(
    *,
    directory: Path,
    name: str | None,
    url: str,
    immutable: bool,
    rebuild: bool,
    current_repodata: bool,
    bz2: bool,
    as_json: bool,
) -> int:
    """Index a directory: the same outputs as a deployed channel, without AWS."""
    session = Session(as_json=as_json)
    channel = parse_channel(name) if name else find_channel(directory)
    storage = DirectoryStorage(directory, channel=channel)
    policy = Policy(
        mutable_channels=() if immutable else ("*",),
        outputs=Outputs(current_repodata=current_repodata, bz2=bz2, url=url.rstrip("/")),
    )
    indexer = Indexer(storage, Silence(), policy)
    reports = []
    for one in [channel] if channel is not None else list(list_channels(storage)):
        for path in list_subdirs(storage, one):
            session.note(f"{path}: reading")
            if rebuild:
                reports.append(rebuild_subdir(storage, indexer, path))
            else:
                # Folders of a directory are their owner's: what lies there is nobody's lost upload.
                reports.extend(reconcile(storage, indexer, path, deep=False))
    return show_reports(session, reports)


class Silence:
    """An notifier that tells nobody: whoever runs the command sees its report."""

    def publish_rejection(self, rejection: object) -> None:
        """Tell nobody."""

    def invalidate(self, keys: list[str]) -> None:
        """Tell nobody."""


def find_channel(directory: Path) -> Channel | None:
    """Return the channel that a directory is, or None where it holds channels.

    Raises:
        UsageError: it is a channel, and its name is none.
    """
    folders = [entry.name for entry in directory.iterdir() if entry.is_dir()]
    if not any(_is_subdir(folder) for folder in folders):
        return None
    try:
        return parse_channel(directory.resolve().name)
    except InvalidNameError as error:
        raise UsageError(f"{error}", hint="say what the channel is called: --channel NAME") from error


def _is_subdir(folder: str) -> bool:
    try:
        return parse_subdir(folder).partition("-")[0] in _PLATFORMS
    except InvalidNameError:
        return False
