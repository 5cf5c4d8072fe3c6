"""``fairway publish``: check packages with the indexer's code, upload them, and wait for the indexer.

``aws s3 cp`` publishes as well. This command finds mistakes before it uploads anything, and sends the
SHA-256 with the bytes, so that the indexer does not have to compute it.
"""

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from lambdas.channel.artifact_kinds import TAR_BZ2, kind_of, parse_filename
from lambdas.channel.errors import InvalidNameError, RejectedError, UsageError, VanishedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import Channel, SubdirId, parse_channel, parse_subdir
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.artifacts.record import make_record
from scripts.fairway.convert import convert_to_conda
from scripts.fairway.session import Session, with_session_and_url
from scripts.fairway.status import State, format_statuses, wait_for
from scripts.fairway.terminal import format_table
from scripts.fairway.upload import upload_artifact
from scripts.fairway.waiting import with_wait

CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that passed the checks."""

    file: Path
    key: ArtifactKey
    info: ArtifactInfo
    record: Mapping[str, Any]


class FileSource:
    """The bytes of a file: an ``ArtifactSource``."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.size = file.stat().st_size
        self.md5: str | None = None
        self.sha256: str | None = None

    def read_range(self, start: int, stop: int) -> bytes:
        """Read a range.

        Raises:
            VanishedError: the file has become shorter.
        """
        with self._file.open("rb") as file:
            file.seek(start)
            found = file.read(stop - start)
        if len(found) != stop - start:
            raise VanishedError(f"{str(self._file)!r} changed while it was being read")
        return found

    def stream(self) -> Iterator[bytes]:
        """Read the file in chunks."""
        with self._file.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@click.command(
    epilog="""\b
Examples:
  fairway publish -c tools dist/hello-1.0-0.conda
  fairway publish -c tools --wait output/noarch/*.conda output/linux-64/*.conda
  fairway publish -c tools --dry-run --json hello-1.0-0.conda | jq .record
  fairway publish -c tools --as-conda old/*.tar.bz2

Each package is uploaded to the subdir that its info/index.json names. If one of the files is invalid,
nothing is uploaded. A file that is already in the channel, byte for byte, counts as uploaded. Without
-c, the last argument is the channel.

Exit code 0 if everything was uploaded (with --wait: and can be installed), 1 if not, 2 on a usage
error.
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("-c", "--channel", default=None, help="Channel to publish to.")
@click.option("--dry-run", is_flag=True, help="Check the files and print their records; upload nothing.")
@with_wait("every package can be installed; print the records and the command that installs them")
@click.option("--as-conda", is_flag=True, help="Convert .tar.bz2 files to .conda first: smaller and faster to install.")
@click.option("--replace", is_flag=True, help="Replace artifacts that have other bytes, in mutable channels.")
@with_session_and_url
def publish(
    session: Session,
    files: tuple[Path, ...],
    channel: str | None,
    *,
    dry_run: bool,
    wait: float | None,
    as_conda: bool,
    replace: bool,
) -> int:
    """Check packages, upload them, and wait for the indexer."""
    if dry_run and (wait is not None or replace):
        raise UsageError("--dry-run uploads nothing", hint="leave out --wait and --replace")
    name, files = parse_arguments(channel, files)
    with tempfile.TemporaryDirectory(prefix="fairway-") as folder:
        if as_conda:
            files = tuple(_convert(session, file, Path(folder)) for file in files)
        return _publish(session, files, name, dry_run=dry_run, wait=wait, replace=replace)


def parse_arguments(channel: str | None, files: Sequence[Path]) -> tuple[Channel, tuple[Path, ...]]:
    """Return the channel and the files; without ``--channel``, the last argument is the channel.

    Raises:
        UsageError: a file is in the place of the channel, or missing.
        InvalidNameError: the name of the channel is invalid.
    """
    if channel is None:
        *files, last = files
        channel = str(last)
    if kind_of(channel) is not None or Path(channel).is_file():
        raise UsageError(
            f"no channel given: {channel!r} is a file", hint="name the channel: fairway publish -c CHANNEL FILE..."
        )
    name = parse_channel(channel)
    if not files:
        raise UsageError("no file given", hint=f"fairway publish -c {name} FILE...")
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no file {str(file)!r}", hint="give packages: .conda or .tar.bz2 files")
    return name, tuple(files)


def _convert(session: Session, file: Path, folder: Path) -> Path:
    """Convert a ``.tar.bz2`` into a ``.conda``; return other files unchanged."""
    if kind_of(file.name) is not TAR_BZ2:
        return file
    session.note(f"{file}: converting to .conda")
    return convert_to_conda(file, folder)


def _publish(
    session: Session,
    files: Sequence[Path],
    channel: Channel,
    *,
    dry_run: bool,
    wait: float | None,
    replace: bool,
) -> int:
    candidates, rejected = [], []
    for file in files:
        try:
            candidates.append(check_file(file, channel))
        except (RejectedError, InvalidNameError) as error:
            rejected.append((file, error))
    if rejected:
        _show_rejected(session, rejected)
        return 1
    if dry_run:
        checked = [{"key": str(one.key), "record": one.record, "state": "checked"} for one in candidates]
        _show(session, checked, *_format_records([one.record for one in candidates]))
        return 0
    for one in candidates:
        upload_artifact(session, one.file, one.key, one.info, replace=replace)
    if wait is None:
        _show(session, [{"key": str(one.key), "record": one.record, "state": "uploaded"} for one in candidates])
        return 0
    found = wait_for(
        session,
        [one.key for one in candidates],
        timeout_seconds=wait,
        sha256s={one.key: one.info.sha256 for one in candidates},
    )
    document = [one.to_json() for one in found]
    records = [one.record for one in found if one.record is not None]
    lines = [*format_statuses(found), *_format_records(records)]
    if installable := [one.key for one, status in zip(candidates, found, strict=True) if status.state == State.INDEXED]:
        lines += ["", f"install: {format_install(session.url, installable)}"]
    session.show(document[0] if len(document) == 1 else document, lines)
    return 0 if all(one.state == State.INDEXED for one in found) else 1


def format_install(url: str | None, keys: Sequence[ArtifactKey]) -> str:
    """Return the command that installs some artifacts of one channel."""
    channel = f"{url.rstrip('/') if url else '$FAIRWAY_URL'}/{keys[0].subdir.channel}"
    distributions = [key.distribution for key in keys]
    specs: dict[str, list[str]] = {}  # {name: what all its artifacts have in common: version and build, if anything}
    for one in distributions:
        exact = [one.version, one.build]
        known = specs.setdefault(one.name, exact)
        if known != exact:
            specs[one.name] = exact[:1] if known[:1] == exact[:1] else []
    return f"conda install -c {channel} {' '.join('='.join([name, *exact]) for name, exact in specs.items())}"


def check_file(file: Path, channel: Channel) -> Candidate:
    """Read and validate a file as the indexer does.

    Raises:
        RejectedError: the indexer would reject it.
        InvalidNameError: its filename or its subdir is invalid.
    """
    distribution = parse_filename(file.name)
    info = read_artifact(FileSource(file), distribution)
    subdir = info.index.get("subdir")
    if not isinstance(subdir, str):
        raise RejectedError(
            RejectionCode.FIELD_MISSING,
            "info/index.json has no 'subdir'",
            hint="upload it with 'aws s3 cp' to the subdir it was built for",
        )
    key = ArtifactKey(subdir=SubdirId(channel=channel, name=parse_subdir(subdir)), distribution=distribution)
    return Candidate(
        file=file, key=key, info=info, record=make_record(info, key, last_modified_ms=time.time_ns() // 10**6)
    )


def _show(session: Session, rows: list[dict[str, Any]], *more: str) -> None:
    table = format_table(
        ("UPLOAD", "STATE", "SHA-256"), [(row["key"], row["state"], row["record"]["sha256"]) for row in rows]
    )
    session.show(rows[0] if len(rows) == 1 else rows, [*table, *more])


def _format_records(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return [line for record in records for line in json.dumps(record, indent=2, sort_keys=True).splitlines()]


def _show_rejected(session: Session, rejected: list[tuple[Path, RejectedError | InvalidNameError]]) -> None:
    rows = [
        {
            "file": str(file),
            "code": error.code if isinstance(error, RejectedError) else "invalid-name",
            "message": str(error),
            "hint": error.hint,
        }
        for file, error in rejected
    ]
    lines = []
    for row in rows:
        lines.append(f"{row['file']}: {row['message']} [{row['code']}]")
        if row["hint"]:
            lines.append(f"  hint: {row['hint']}")
    session.show({"rejected": rows}, lines)
