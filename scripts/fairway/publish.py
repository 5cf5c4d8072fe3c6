"""``fairway publish``: check packages with the indexer's own code, upload them, wait.

``aws s3 cp`` does the same job. This command finds mistakes before anything is uploaded, and sends
the SHA-256 along, so that the indexer needn't read the artifact again to learn it.
"""

import base64
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import click
from botocore.exceptions import ClientError

from lambdas.channel.errors import InvalidNameError, PermanentError, RejectedError, UsageError, VanishedError
from lambdas.channel.names import ArtifactKey, Channel, SubdirId, parse_channel, parse_filename, parse_subdir
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.artifacts.record import make_record
from scripts.fairway.convert import convert_to_conda
from scripts.fairway.session import Session, format_table, with_session
from scripts.fairway.status import State, format_statuses, wait_for

CHUNK_BYTES: Final = 1024 * 1024
MAX_PUT_BYTES: Final = 5 * 1024**3
"""PutObject's limit; only a single PUT carries a SHA-256 of the whole object."""
CACHE_CONTROL: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that may be published."""

    file: Path
    key: ArtifactKey
    info: "ArtifactInfo"
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
            VanishedError: the file became shorter.
        """
        with self._file.open("rb") as file:
            file.seek(start)
            found = file.read(stop - start)
        if len(found) != stop - start:
            raise VanishedError(f"{str(self._file)!r} changed while it was read")
        return found

    def stream(self) -> Iterator[bytes]:
        """Read the file in chunks."""
        with self._file.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@click.command(
    epilog="""\b
Examples:
  fairway publish dist/hello-1.0-0.conda tools
  fairway publish --wait output/noarch/*.conda output/linux-64/*.conda tools
  fairway publish --dry-run --json hello-1.0-0.conda tools | jq .record
  fairway publish --as-conda old/*.tar.bz2 tools

The subdir is the one in the package's info/index.json. Nothing is uploaded if one of the files is
bad. What is there already, byte for byte, counts as uploaded.

Exit code 0 if all was uploaded (with --wait: and is installable), 1 if not, 2 for wrong usage.
"""
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("channel")
@click.option("--dry-run", is_flag=True, help="Only check, and print the records as they would be.")
@click.option("--wait", is_flag=True, help="Wait until every package is installable, and print the records.")
@click.option("--timeout", default=300.0, show_default=True, metavar="SECONDS", help="With --wait: how long.")
@click.option("--as-conda", is_flag=True, help="Turn .tar.bz2 files into .conda first: smaller, quicker to install.")
@click.option("--replace", is_flag=True, help="Let other bytes replace an artifact: for channels that are mutable.")
@with_session
def publish(
    session: Session,
    files: tuple[Path, ...],
    channel: str,
    *,
    dry_run: bool,
    wait: bool,
    timeout: float,
    as_conda: bool,
    replace: bool,
) -> int:
    """Check packages, upload them, and wait until they can be installed."""
    name = parse_channel(channel)
    with tempfile.TemporaryDirectory(prefix="fairway-") as folder:
        if as_conda:
            files = tuple(_convert(session, file, Path(folder)) for file in files)
        return _publish(session, files, name, dry_run=dry_run, wait=wait, timeout=timeout, replace=replace)


def _convert(session: Session, file: Path, folder: Path) -> Path:
    """Convert a ``.tar.bz2`` into a ``.conda``; return other files unchanged."""
    if not file.name.endswith(".tar.bz2"):
        return file
    session.note(f"{file}: converting to .conda")
    return convert_to_conda(file, folder)


def _publish(
    session: Session,
    files: Sequence[Path],
    channel: Channel,
    *,
    dry_run: bool,
    wait: bool,
    timeout: float,
    replace: bool,
) -> int:
    candidates, refused = [], []
    for file in files:
        try:
            candidates.append(check_file(file, channel))
        except (RejectedError, InvalidNameError) as error:
            refused.append((file, error))
    if refused:
        _show_refused(session, refused)
        return 1
    if dry_run:
        checked = [{"key": str(one.key), "record": one.record, "state": "checked"} for one in candidates]
        _show(session, checked, *(_format(one.record) for one in candidates))
        return 0
    for one in candidates:
        _upload(session, one, replace=replace)
    if not wait:
        _show(session, [{"key": str(one.key), "record": one.record, "state": "uploaded"} for one in candidates])
        return 0
    found = wait_for(
        session,
        [one.key for one in candidates],
        timeout_seconds=timeout,
        sha256s={one.key: one.info.sha256 for one in candidates},
    )
    document = [one.to_json() for one in found]
    records = [one.record for one in found if one.record is not None]
    session.show(
        document[0] if len(document) == 1 else document, "\n".join([format_statuses(found), *map(_format, records)])
    )
    return 0 if all(one.state == State.INDEXED for one in found) else 1


def check_file(file: Path, channel: Channel) -> Candidate:
    """Read and validate a file as the indexer will.

    Raises:
        RejectedError: the indexer would refuse it.
        InvalidNameError: its name, or its subdir's, is none.
    """
    distribution = parse_filename(file.name)
    info = read_artifact(FileSource(file), distribution)
    subdir = info.index.get("subdir")
    if not isinstance(subdir, str):
        raise RejectedError(
            "subdir-missing",
            "info/index.json has no 'subdir', so it is not known where the package belongs",
            hint="upload it with 'aws s3 cp' to the subdir that you know it is for",
        )
    path = SubdirId(channel=channel, subdir=parse_subdir(subdir))
    key = ArtifactKey(path=path, distribution=distribution)
    return Candidate(
        file=file, key=key, info=info, record=make_record(info, key, last_modified_ms=time.time_ns() // 10**6)
    )


def _upload(session: Session, candidate: Candidate, *, replace: bool) -> None:
    """Upload in one PUT with the SHA-256, never over another artifact unless asked to.

    Raises:
        UsageError: the file is too large for one PUT.
        PermanentError: the name is taken by other bytes, or the cloud says no.
    """
    size = candidate.info.size
    if size > MAX_PUT_BYTES:
        raise UsageError(f"{str(candidate.file)!r} is larger than 5 GiB", hint="upload it with 'aws s3 cp'")
    client = session.aws.client("s3", region_name=session.region)
    condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
    digest = base64.b64encode(bytes.fromhex(candidate.info.sha256)).decode()
    with candidate.file.open("rb") as file, _WatchedFile(session, candidate, file) as body:
        try:
            client.put_object(
                Bucket=session.require_bucket(),
                Key=str(candidate.key),
                Body=body,  # type: ignore[arg-type]  # read, seek and tell are all that is asked of it
                ChecksumSHA256=digest,
                ContentType="application/octet-stream",
                CacheControl=CACHE_CONTROL,
                **condition,
            )
        except ClientError as error:
            _explain(session, candidate, error)


def _explain(session: Session, candidate: Candidate, error: Any) -> None:  # noqa: ANN401 - a ClientError
    """Raise what an answer means, or return where the same bytes are there already."""
    code = error.response["Error"]["Code"]
    if code in {"PreconditionFailed", "ConditionalRequestConflict"}:
        there = session.storage.head(str(candidate.key))
        if there is not None and (candidate.info.sha256 == there.sha256 or candidate.info.md5 == there.md5):
            session.note(f"{candidate.key}: there already")
            return
        raise PermanentError(
            f"{candidate.key} is published already, with other bytes",
            hint="raise the build number; in a mutable channel, --replace",
        ) from error
    raise PermanentError(
        f"S3 did not take {candidate.key}: {code}", hint="may your role write to this channel?"
    ) from error


class _WatchedFile:
    """A file that tells on a terminal how much of it was read."""

    def __init__(self, session: Session, candidate: Candidate, file: Any) -> None:  # noqa: ANN401 - a binary file
        self._file = file
        self._key = str(candidate.key)
        self._size = candidate.info.size
        self._loud = sys.stderr.isatty() and not session.as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loud:
            print(file=sys.stderr)

    def read(self, amount: int = -1) -> bytes:
        """Read, and say how far it is."""
        chunk: bytes = self._file.read(amount)
        if self._loud:
            share = 100 * self._file.tell() // max(1, self._size)
            print(f"\r{self._key}: {share} %", end="", file=sys.stderr, flush=True)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as botocore does before it sends again."""
        moved: int = self._file.seek(offset, whence)
        return moved

    def tell(self) -> int:
        """Tell where it is."""
        at: int = self._file.tell()
        return at


def _show(session: Session, rows: list[dict[str, Any]], *more: str) -> None:
    table = format_table(
        ("UPLOAD", "STATE", "SHA-256"), [(row["key"], row["state"], row["record"]["sha256"]) for row in rows]
    )
    session.show(rows[0] if len(rows) == 1 else rows, "\n".join([table, *more]))


def _format(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True)


def _show_refused(session: Session, refused: list[tuple[Path, RejectedError | InvalidNameError]]) -> None:
    session.show(
        {
            "rejected": [
                {
                    "file": str(file),
                    "code": getattr(error, "code", "invalid-name"),
                    "message": str(error),
                    "hint": error.hint,
                }
                for file, error in refused
            ]
        },
        "\n".join(
            f"{file}: {error} [{getattr(error, 'code', 'invalid-name')}]"
            + (f"\n  hint: {error.hint}" if error.hint else "")
            for file, error in refused
        ),
    )
