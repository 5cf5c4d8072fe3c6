"""Uploads an artifact in one PUT, with its SHA-256, and never over another artifact unless asked to."""

import base64
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, Self

from botocore.exceptions import ClientError

from lambdas.channel import caching
from lambdas.channel.errors import PermanentError, UsageError
from lambdas.channel.layout import ArtifactKey
from lambdas.indexer.artifacts.info import ArtifactInfo
from scripts.fairway.session import Session
from scripts.fairway.terminal import escape

MAX_PUT_BYTES: Final = 5 * 1024**3
"""PutObject's limit; only a single PUT carries a SHA-256 of the whole object."""


def upload_artifact(session: Session, file: Path, key: ArtifactKey, info: ArtifactInfo, *, replace: bool) -> None:
    """Upload a file; do nothing if the same bytes are already stored under the key.

    Raises:
        UsageError: the file is too large for one PUT.
        PermanentError: other bytes are stored under the key, or S3 denied the request.
    """
    if info.size > MAX_PUT_BYTES:
        raise UsageError(f"{str(file)!r} is larger than 5 GiB", hint="upload it with 'aws s3 cp'")
    client = session.aws.client("s3", region_name=session.region)
    condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
    digest = base64.b64encode(bytes.fromhex(info.sha256)).decode()
    with file.open("rb") as opened, _ProgressFile(session, str(key), info.size, opened) as body:
        try:
            client.put_object(
                Bucket=session.require_bucket(),
                Key=str(key),
                Body=body,  # type: ignore[arg-type]  # botocore calls only read, seek and tell
                ChecksumSHA256=digest,
                ContentType="application/octet-stream",
                CacheControl=caching.IMMUTABLE,
                **condition,
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                _raise_denied(key, code, error)
            stored = session.storage.head(str(key))
            if stored is None or (info.sha256 != stored.sha256 and info.md5 != stored.md5):
                raise PermanentError(
                    f"{key} is already published with other bytes",
                    hint="increase the build number, or use --replace in a mutable channel",
                ) from error
            session.note(f"{key}: already uploaded")


def _raise_denied(key: ArtifactKey, code: str, error: ClientError) -> NoReturn:
    raise PermanentError(
        f"S3 did not accept {key}: {code}", hint="check that your role may write to this channel"
    ) from error


class _ProgressFile:
    """A file that shows on a terminal how much of it has been read."""

    def __init__(self, session: Session, key: str, size: int, file: BinaryIO) -> None:
        self._file = file
        self._key = key
        self._size = size
        self._is_shown = sys.stderr.isatty() and not session.as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            print(file=sys.stderr)

    def read(self, amount: int = -1) -> bytes:
        """Read, and show the progress."""
        chunk = self._file.read(amount)
        if self._is_shown:
            share = 100 * self._file.tell() // max(1, self._size)
            print(f"\r{escape(self._key)}: {share} %", end="", file=sys.stderr, flush=True)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Change the position, as botocore does before it retries."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()
