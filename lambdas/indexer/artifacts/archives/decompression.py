"""Decompresses untrusted data within limits.

Owns what bzip2 and zstd have in common: consecutive streams, damage, and bombs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.artifact_source import PIECE_BYTES
from lambdas.indexer.artifacts.budgets import ProcessorMeter

AGAIN = "upload the file again"
HEAD_BYTES = 18  # the longest header of a zstd frame
MAX_STREAMS = 20_000  # parallel compressors make a stream of every 900 kB

_FORMATS = {  # magic numbers of files that are uploaded by mistake
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\xfd7zXZ": "an xz file",
    b"<": "a web page or XML",
    b"{": "a JSON document",
}


class Budget:
    """Counts decompressed bytes and processor time."""

    def __init__(self, what: str, max_bytes: int, meter: ProcessorMeter) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._meter = meter

    def take(self, count: int) -> None:
        """Count.

        Raises:
            RejectedError: ``decompression-bomb``.
            LimitExceededError: the artifact or the run has no processor time left.
        """
        self._left -= count
        if self._left < 0:
            raise RejectedError(
                RejectionCode.DECOMPRESSION_BOMB, f"{self._what} decompresses to more than {self._max_bytes} bytes"
            )
        self._meter.check()


class Decompressor(Protocol):
    """The common interface of the decompressors of bzip2 and zstd."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether it can return nothing more without more input."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take data, return at most ``max_length`` bytes."""


def decompress(
    pieces: Iterator[bytes],
    start: Callable[[bytes], Decompressor],
    failure: type[Exception],
    name: str,
    budget: Budget,
) -> Iterator[bytes]:
    """Yield the content of consecutive compressed streams; ``start`` makes a decompressor, given the first bytes.

    Raises:
        RejectedError: ``archive-broken``, ``archive-truncated``, ``decompression-bomb``.
        LimitExceededError: the artifact or the run has no processor time left.
    """
    decompressor: Decompressor | None = None
    streams = 0
    for received in pieces:
        data = received
        while data:
            if decompressor is None:
                data = _fill_head(data, pieces)
                decompressor = start(data)
                streams += 1
                if streams > MAX_STREAMS:
                    raise RejectedError(
                        RejectionCode.DECOMPRESSION_BOMB, f"{name} has more than {MAX_STREAMS} compressed streams"
                    )
            done = False
            while not done:
                try:
                    piece = decompressor.decompress(data, PIECE_BYTES)
                except failure as error:
                    raise RejectedError(
                        RejectionCode.ARCHIVE_BROKEN, f"{name} is damaged: {error}", hint=AGAIN
                    ) from error
                data = b""
                budget.take(len(piece))
                if piece:
                    yield piece
                done = decompressor.eof or decompressor.needs_input
            if decompressor.eof:
                data = decompressor.unused_data
                decompressor = None
    if decompressor is not None:
        raise RejectedError(RejectionCode.ARCHIVE_TRUNCATED, f"{name} ends early: the file is truncated", hint=AGAIN)


def _fill_head(data: bytes, pieces: Iterator[bytes]) -> bytes:
    """Return the beginning of a stream with enough bytes for its header, unless it is shorter."""
    while len(data) < HEAD_BYTES and (more := next(pieces, b"")):
        data += more
    return data


def describe_format(head: bytes) -> str:
    """Return what kind of file it is, given its first 512 bytes."""
    if head[257:262] == b"ustar":
        return "an uncompressed tar archive"
    return next((name for magic, name in _FORMATS.items() if head.startswith(magic)), "something else")
