"""The source of an artifact's bytes, the limits of reading it, and the result.

Owns the interface to the storage (:class:`ArtifactSource`), every limit, and that the hashes are those
of the bytes that were read. Independent of formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lambdas.channel.errors import VanishedError
from lambdas.indexer.artifacts.archives.tarball import TarRules
from lambdas.indexer.artifacts.budgets import ProcessorMeter

MIB = 1024 * 1024
PIECE_BYTES = 256 * 1024
RECIPES = ("info/recipe/meta.yaml", "info/recipe/meta.yaml.rendered", "info/meta.yaml")


class ArtifactSource(Protocol):
    """The bytes of one version of one artifact.

    ``md5`` and ``sha256`` are hex digests of the whole object that the storage verified, or None. Both
    reading methods raise VanishedError if the object is no longer the same version.
    """

    @property
    def size(self) -> int:
        """Bytes of the whole artifact."""

    @property
    def md5(self) -> str | None:
        """Hex digest, if the storage verified it."""

    @property
    def sha256(self) -> str | None:
        """Hex digest, if the storage verified it."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` up to, not including, ``stop``."""

    def stream(self) -> Iterator[bytes]:
        """Return all bytes, in pieces of moderate size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactLimits:
    """Every limit on the cost of reading one artifact."""

    max_artifact_bytes: int = 16 * 1024 * MIB
    max_at_once_bytes: int = 8 * MIB  # a .conda up to this size is read and checked whole
    max_whole_tar_bytes: int = 256 * MIB  # a .tar.bz2 up to this size is walked to its end
    max_walk_bytes: int = 1024 * MIB  # how far a larger one is searched for documents, decompressed
    max_central_directory_bytes: int = MIB
    max_zip_members: int = 64
    max_members: int = 500_000
    max_info_members: int = 50_000
    max_index_bytes: int = 256 * 1024  # info/index.json
    max_about_bytes: int = 2 * MIB
    max_run_exports_bytes: int = 256 * 1024
    max_paths_bytes: int = 64 * MIB
    max_recipe_bytes: int = 4 * MIB
    max_zstd_window_bytes: int = 128 * MIB  # the default of zstd's decoders: level 22 needs it
    max_info_bytes: int = 512 * MIB  # decompressed info-*.tar
    max_payload_bytes: int = 16 * 1024 * MIB  # decompressed pkg-*.tar, or .tar of a .tar.bz2
    max_ratio: int = 250  # decompressed to compressed
    info_ratio_free_bytes: int = 32 * MIB  # no ratio is required below these sizes
    payload_ratio_free_bytes: int = 128 * MIB
    max_cpu_seconds: float = 150.0  # of processor time for one artifact: 3 GiB out of bzip2

    def tar_rules(
        self, *, max_members: int, max_walk_bytes: int | None = None, has_info: bool = True, has_payload: bool = True
    ) -> TarRules:
        """Return the rules for a tar: which members to keep, and the limits."""
        return TarRules(
            wanted={
                "info/index.json": self.max_index_bytes,
                "info/about.json": self.max_about_bytes,
                "info/run_exports.json": self.max_run_exports_bytes,
                "info/paths.json": self.max_paths_bytes,
            },
            dispensable=frozenset({"info/about.json"}),
            welcome=dict.fromkeys(RECIPES, self.max_recipe_bytes),
            max_members=max_members,
            max_info_members=self.max_info_members,
            max_walk_bytes=max_walk_bytes,
            has_info=has_info,
            has_payload=has_payload,
        )

    def info_bound(self, compressed_bytes: int) -> int:
        """Return the most bytes that the info part may decompress to."""
        return min(self.max_info_bytes, max(self.info_ratio_free_bytes, self.max_ratio * compressed_bytes))

    def payload_bound(self, compressed_bytes: int) -> int:
        """Return the most bytes that the payload may decompress to."""
        return min(self.max_payload_bytes, max(self.payload_ratio_free_bytes, self.max_ratio * compressed_bytes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """The result of reading an artifact: content of members by name, and hashes (hex) of the file."""

    members: dict[str, bytes]
    md5: str
    sha256: str


class Hashes:
    """Computes both hashes in one pass."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Take the next piece."""
        self._md5.update(piece)
        self._sha256.update(piece)

    def read(self, source: ArtifactSource, meter: ProcessorMeter) -> Iterator[bytes]:
        """Yield the whole artifact while hashing it.

        Raises:
            VanishedError: the source did not deliver ``source.size`` bytes.
            LimitExceededError: the artifact or the run has no processor time left.
        """
        size = 0
        for piece in source.stream():
            size += len(piece)
            self.update(piece)
            meter.check()
            yield piece
        if size != source.size:
            raise VanishedError(f"read {size} of {source.size} bytes of the artifact")

    def finish(self, members: dict[str, bytes]) -> Contents:
        """Return the members with the hashes of the bytes so far."""
        return Contents(members=members, md5=self._md5.hexdigest(), sha256=self._sha256.hexdigest())


def read_range(source: ArtifactSource, start: int, stop: int) -> bytes:
    """Read exactly these bytes.

    Raises:
        VanishedError: the source delivered fewer.
    """
    content = source.read_range(start, stop)
    if len(content) != stop - start:
        raise VanishedError(f"read {len(content)} of the {stop - start} bytes of a range")
    return content
