"""Uploads an artifact with its SHA-256, and never over another artifact unless asked to."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from botocore.exceptions import ClientError

from lambdas.channel import caching
from lambdas.channel.errors import ConflictError, PermanentError
from lambdas.channel.layout import ArtifactKey
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.protocol import ContentHeaders, ObjectInfo, ObjectStorage
from scripts.fairway.progress import Progress
from scripts.fairway.session import Session

MAX_PUT_BYTES: Final = 5 * 1024**3
"""PutObject's limit. A single PUT carries the SHA-256 of the whole object, so that the indexer need not read it."""
PART_BYTES: Final = 16 * 1024**2
MAX_PARTS: Final = 10_000  # of a multipart upload
_HEADERS: Final = ContentHeaders(content_type="application/octet-stream", cache_control=caching.IMMUTABLE)
_LOST: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


def upload_artifact(session: Session, file: Path, key: ArtifactKey, info: ArtifactInfo, *, replace: bool) -> None:
    """Upload a file; do nothing if the same bytes are already stored under the key.

    Raises:
        PermanentError: other bytes are stored under the key.
        ConflictError: they were written during the upload, and ``replace`` allows that.
    """
    upload = _upload_whole if info.size <= MAX_PUT_BYTES else _upload_parts
    try:
        upload(session, file, key, info, replace=replace)
    except ConflictError as error:
        if replace:
            raise
        stored = session.storage.head(str(key))
        if stored is None or not has_bytes(session.storage, key, stored, sha256=info.sha256, md5=info.md5):
            raise PermanentError(
                f"{key} is already published with other bytes",
                hint="increase the build number, or use --replace in a mutable channel",
            ) from error
        session.note(f"{key}: already uploaded")


def _upload_whole(session: Session, file: Path, key: ArtifactKey, info: ArtifactInfo, *, replace: bool) -> None:
    """Upload in one PUT."""
    condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
    client = session.client("s3")
    with file.open("rb") as opened, Progress(str(key), info.size, is_shown=not session.as_json) as progress:
        body = _ProgressFile(opened, progress)
        client.meta.events.register("before-sign.s3.PutObject", body.stop_sending)
        client.meta.events.register("before-send.s3.PutObject", body.start_sending)
        try:
            client.put_object(
                Bucket=session.require_bucket(),
                Key=str(key),
                Body=body,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(info.sha256)).decode(),
                ContentType=_HEADERS.content_type,
                CacheControl=_HEADERS.cache_control,
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                raise ConflictError(f"{key} is already stored") from error
            raise


def _upload_parts(session: Session, file: Path, key: ArtifactKey, info: ArtifactInfo, *, replace: bool) -> None:
    """Upload in parts; the condition holds when they are completed.

    The current object is looked up before the upload, so that ``replace`` never overwrites a later one.
    """
    base = session.storage.head(str(key))
    if base is not None and not replace:  # found before gigabytes are sent
        raise ConflictError(f"{key} is already stored")
    part_bytes = max(PART_BYTES, -(-info.size // MAX_PARTS))
    with file.open("rb") as opened, Progress(str(key), info.size, is_shown=not session.as_json) as progress:
        session.storage.splice(str(key), _read_parts(opened, part_bytes, progress), base=base, headers=_HEADERS)


def _read_parts(file: BinaryIO, part_bytes: int, progress: Progress) -> Iterator[bytes]:
    while part := file.read(part_bytes):
        yield part
        progress.advance_to(file.tell())


def has_bytes(storage: ObjectStorage, key: ArtifactKey, stored: ObjectInfo, *, sha256: str, md5: str) -> bool:
    """Tell whether the stored object has these hashes, according to S3 or to the index."""
    if sha256 == stored.sha256 or md5 == stored.md5:
        return True
    subdir, name = open_subdir(storage, key.subdir), key.distribution.name
    index = subdir.fetch_commit().index
    cards = (subdir.fetch_cards(index, [name]).get(name) or {}) if name in index.shards else {}
    card = cards.get(key.filename)
    return card is not None and card.etag == stored.etag and card.sha256 == sha256


class _ProgressFile:
    """A file that reports how much of it has been sent.

    Over plain HTTP, botocore reads it to sign each request before it sends it.
    """

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._is_sending = False

    def stop_sending(self, **_: object) -> None:
        """Show no progress from now on."""
        self._is_sending = False

    def start_sending(self, **_: object) -> None:
        """Show the progress from now on."""
        self._is_sending = True

    def read(self, amount: int = -1) -> bytes:
        """Read, and show the progress."""
        chunk = self._file.read(amount)
        if self._is_sending:
            self._progress.advance_to(self._file.tell())
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Change the position, as botocore does before it retries."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()
