"""``fairway copy`` and ``fairway move``: publish artifacts of one channel to another one.

S3 copies the bytes, and the indexer of the deployment indexes the copy like any upload: its record has an
``indexed_timestamp`` of its own (CEP 47). Attestations are not copied: they are for one channel (CEP 27).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from lambdas.channel.errors import ConflictError, PermanentError, UsageError, VanishedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import Channel, SubdirId, parse_channel
from lambdas.storage.protocol import IfAbsent
from scripts.fairway.catalog import Entry, find_entries, no_match
from scripts.fairway.session import Session, with_session
from scripts.fairway.specs import SPEC_HELP
from scripts.fairway.status import State, wait_for_state
from scripts.fairway.targets import resolve_target
from scripts.fairway.terminal import format_table
from scripts.fairway.upload import has_bytes
from scripts.fairway.waiting import with_timeout, with_wait


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway copy staging hello=1.0 --to tools
  fairway copy staging/linux-64 'hello=1.*' --to tools --wait

Artifacts that are already in the other channel, byte for byte, are left as they are. Attestations
(.sigs) are not copied: they are for one channel.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--to", "destination", required=True, metavar="CHANNEL", help="Channel to copy to.")
@with_wait("the copies can be installed")
@with_session
def copy(session: Session, target: str, spec: str, *, destination: str, wait: float | None) -> None:
    """Copy artifacts to another channel, inside S3."""
    _, keys = _copy(session, target, spec, destination)
    if wait is not None:
        wait_for_state(session, keys, State.INDEXED, timeout_seconds=wait)
    _show(session, keys, "copied")


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway move staging hello=1.0 --to tools
  fairway move staging '*' --to tools --timeout 600

The artifacts are copied; when the copies can be installed, the originals are removed. If that takes
longer than the timeout, nothing is removed, and the command can be repeated. Lock files that name the
originals no longer work.
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--to", "destination", required=True, metavar="CHANNEL", help="Channel to move to.")
@with_timeout
@with_session
def move(session: Session, target: str, spec: str, *, destination: str, timeout: float) -> None:
    """Move artifacts to another channel, inside S3."""
    entries, keys = _copy(session, target, spec, destination)
    wait_for_state(session, keys, State.INDEXED, timeout_seconds=timeout)
    remove_artifacts(session, [entry.key for entry in entries])
    _show(session, keys, "moved")


def remove_artifacts(session: Session, keys: Sequence[ArtifactKey]) -> None:
    """Delete the current versions of artifacts; the bucket keeps them for some time."""
    for key in keys:
        info = session.storage.head(str(key))
        if info is not None:
            session.storage.delete(replace(info, version=None))


def _copy(session: Session, target: str, spec: str, destination: str) -> tuple[list[Entry], list[ArtifactKey]]:
    """Copy what matches; return the originals and the keys of the copies."""
    channel = parse_channel(destination)
    source, subdirs = resolve_target(session.storage, target)
    if source == channel:
        raise UsageError(f"{target!r} is in the channel {channel!r}", hint="give another channel with --to")
    entries = list(find_entries(subdirs, spec))
    if not entries:
        raise no_match(target, spec)
    return entries, [_copy_one(session, entry, channel) for entry in entries]


def _copy_one(session: Session, entry: Entry, channel: Channel) -> ArtifactKey:
    """Copy one artifact; do nothing if the same bytes are already there.

    Raises:
        PermanentError: other bytes are there.
        VanishedError: the original is gone.
    """
    key = replace(entry.key, subdir=SubdirId(channel=channel, name=entry.key.subdir.name))
    info = session.storage.head(str(entry.key))
    if info is None:
        raise VanishedError(f"{entry.key} was deleted", hint="repeat the command in a minute")
    try:
        session.storage.copy(info, str(key), metadata={}, condition=IfAbsent())
    except ConflictError as error:
        stored = session.storage.head(str(key))
        hashes = {"sha256": str(entry.record["sha256"]), "md5": str(entry.record.get("md5"))}
        if stored is None or not has_bytes(session.storage, key, stored, **hashes):
            raise PermanentError(
                f"{key} is already published with other bytes", hint="increase the build number"
            ) from error
        session.note(f"{key}: already there")
    return key


def _show(session: Session, keys: Sequence[ArtifactKey], state: str) -> None:
    rows = [(str(key), state) for key in keys]
    session.show([{"key": key, "state": state} for key, state in rows], format_table(("ARTIFACT", "STATE"), rows))
