"""Reads a ``.tar.bz2`` in one pass that computes the hashes and walks the tar inside.

Source: CEP 35 (file formats of artifacts).
"""

from __future__ import annotations

import bz2
import re
from itertools import chain

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.artifact_source import (
    ArtifactLimits,
    ArtifactSource,
    Contents,
    Hashes,
    read_range,
)
from lambdas.indexer.artifacts.archives.decompression import AGAIN, Budget, decompress, describe_format
from lambdas.indexer.artifacts.archives.tarball import read_members
from lambdas.indexer.artifacts.budgets import Reading

_HEAD_BYTES = 512
_DECOMPRESSOR_BYTES = 8 * 1024 * 1024  # bzip2 itself, and pieces on their way
_START = re.compile(rb"BZh[1-9]")
_END_MAGIC = 0x177245385090
_END_BYTES = 11  # 48 bits of magic, 32 of checksum, up to 7 of padding


def fetch_tar_bz2(source: ArtifactSource, limits: ArtifactLimits, reading: Reading) -> Contents:
    """Read the wanted members and both hashes.

    Raises:
        RejectedError: the archive is damaged, hostile, or not what its name says.
        VanishedError: the artifact changed meanwhile.
        UnavailableError: passed on from the source.
        LimitExceededError: there is no processor time left.
        MoreMemoryNeededError: more memory has to be reserved.
    """
    whole = source.size <= limits.max_whole_tar_bytes
    hashes = Hashes()
    pieces = hashes.read(source, reading.meter)
    head = b""
    while len(head) < _HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    if not _START.match(head):
        raise RejectedError(
            RejectionCode.ARCHIVE_WRONG_FORMAT,
            f"a .tar.bz2 is a bzip2 file, and this is {describe_format(head)}",
            hint="make the file with conda-build or cph; don't rename another one",
        )
    name = "the bzip2 data"
    budget = Budget(name, limits.payload_bound(source.size), reading.meter)
    reading.memory.use("decompressor", _DECOMPRESSOR_BYTES)
    tar = decompress(chain([head], pieces), lambda _: bz2.BZ2Decompressor(), OSError, name, budget)
    max_walk_bytes = None if whole else limits.max_walk_bytes
    rules = limits.tar_rules(max_members=limits.max_members, max_walk_bytes=max_walk_bytes)
    members = read_members(tar, rules, reading.memory)
    if not whole:
        _check_end(read_range(source, source.size - _END_BYTES, source.size))
        if source.md5 and source.sha256:
            return Contents(members=members, md5=source.md5, sha256=source.sha256)
    for _ in pieces:
        pass
    return hashes.finish(members)


def _check_end(tail: bytes) -> None:
    """Check that a file ends like bzip2 data: magic, checksum, zero bits up to the next byte."""
    bits = int.from_bytes(tail, "big")
    for padding in range(8):
        magic = (bits >> (32 + padding)) & ((1 << 48) - 1)
        if magic == _END_MAGIC and not bits & ((1 << padding) - 1):
            return
    raise RejectedError(RejectionCode.ARCHIVE_TRUNCATED, "the bzip2 data ends early: the file is truncated", hint=AGAIN)
