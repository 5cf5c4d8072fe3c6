"""Artifact kinds: one row for each file format that can be published. Pure; standard library only.

A row says how a kind is named and where its records go. How its bytes are read is one row in
``lambdas/indexer/artifacts/read.py``, which the authorizer does not carry.

Source: CEP 26 (filenames), CEP 36 (sections of repodata), CEP 48 (sections under ``v3``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.names import PackageName, parse_build, parse_package_name, parse_version

MAX_FILENAME_CHARS: Final = 211


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactKind:
    """One file format of artifacts."""

    extension: str
    """With its dot, such as ``.conda``."""
    section: str | None
    """Top-level section of repodata and run_exports; None if records of this kind exist under ``v3`` alone."""
    v3_section: str
    """Section under ``v3`` of repodata (CEP 48), whose keys are stems."""
    split_stem: Callable[[str], tuple[str, str, str] | None]
    """Split a filename without its extension into name, version and build; None if it has another form."""
    form: str
    """How a stem is spelled, for messages."""
    content_type: str = "application/octet-stream"
    """What the edge answers, whatever the upload said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """An artifact's filename, parsed."""

    name: PackageName
    version: str
    build: str
    stem: str
    """The filename without its extension."""
    kind: ArtifactKind

    @property
    def filename(self) -> str:
        """The filename."""
        return self.stem + self.kind.extension


def split_conda_stem(stem: str) -> tuple[str, str, str] | None:
    """Split ``NAME-VERSION-BUILD``."""
    parts = stem.rsplit("-", 2)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None  # noqa: PLR2004 - name, version, build


CONDA: Final = ArtifactKind(
    extension=".conda",
    section="packages.conda",
    v3_section="conda",
    split_stem=split_conda_stem,
    form="NAME-VERSION-BUILD",
)
TAR_BZ2: Final = ArtifactKind(
    extension=".tar.bz2",
    section="packages",
    v3_section="tar.bz2",
    split_stem=split_conda_stem,
    form="NAME-VERSION-BUILD",
    content_type="application/x-bzip2",
)

ARTIFACT_KINDS: tuple[ArtifactKind, ...] = (CONDA, TAR_BZ2)


def extensions() -> tuple[str, ...]:
    """Return the extension of every kind."""
    return tuple(kind.extension for kind in ARTIFACT_KINDS)


def flat_sections() -> tuple[str, ...]:
    """Return the top-level sections of repodata, in the order of their names."""
    return tuple(sorted(kind.section for kind in ARTIFACT_KINDS if kind.section is not None))


def v3_kinds() -> tuple[ArtifactKind, ...]:
    """Return every kind in the order of its section under ``v3``."""
    return tuple(sorted(ARTIFACT_KINDS, key=lambda kind: kind.v3_section))


def v3_section(kind: ArtifactKind) -> str:
    """Return how a kind's section under ``v3`` is named where sections of both levels stand side by side."""
    return f"v3.{kind.v3_section}"


def kind_of(filename: str) -> ArtifactKind | None:
    """Return the kind that a filename's extension names, if any."""
    return next((kind for kind in ARTIFACT_KINDS if filename.endswith(kind.extension)), None)


def parse_filename(filename: str) -> Distribution:
    """Parse an artifact's filename.

    Raises:
        InvalidNameError: the extension is unknown, or the stem has another form than its kind's.

    Source: CEP 26, filenames.
    """
    kind = kind_of(filename)
    if kind is None:
        raise InvalidNameError(
            f"not an artifact's filename: {filename!r}", hint=f"artifacts end in {' or '.join(extensions())}"
        )
    if len(filename) > MAX_FILENAME_CHARS:
        raise InvalidNameError(f"filename longer than {MAX_FILENAME_CHARS} characters: {filename!r}")
    stem = filename.removesuffix(kind.extension)
    parts = kind.split_stem(stem)
    if parts is None:
        raise InvalidNameError(
            f"not {kind.form}{kind.extension}: {filename!r}", hint="rename the file to what its info/index.json says"
        )
    name, version, build = parts
    return Distribution(
        name=parse_package_name(name),
        version=parse_version(version),
        build=parse_build(build),
        stem=stem,
        kind=kind,
    )


def name_of(filename: str) -> str:
    """Return the package name in a filename that was checked before; "" if it has none. Fast: 100,000 take 0.1 s."""
    kind = kind_of(filename)
    return "" if kind is None else stem_name(filename.removesuffix(kind.extension), kind)


def stem_name(stem: str, kind: ArtifactKind) -> str:
    """Return the package name in a stem that was checked before; "" if it has none."""
    parts = kind.split_stem(stem)
    return "" if parts is None else parts[0]


def guess_package(path: str) -> str | None:
    """Return the package whose artifact, or companion of one, a file may be; None if it can't be either.

    A filename that contains an artifact's extension anywhere, in any case, counts (``.conda.sigs``,
    ``.CONDA``). The answer is "" if no name can be told: a pattern other than ``*`` does not match it.
    """
    filename = path.rpartition("/")[2]
    lower = filename.lower()
    found = [(lower.rfind(kind.extension), kind) for kind in ARTIFACT_KINDS]
    end, kind = max(found, key=lambda item: item[0])
    return None if end < 0 else stem_name(filename[:end], kind)


def as_conda(filename: str) -> str | None:
    """Return the ``.conda`` filename of the same package as a ``.tar.bz2``; None for any other kind."""
    if not filename.endswith(TAR_BZ2.extension):
        return None
    return filename.removesuffix(TAR_BZ2.extension) + CONDA.extension


def as_tar_bz2(filename: str) -> str | None:
    """Return the ``.tar.bz2`` filename of the same package as a ``.conda``; None for any other kind."""
    if not filename.endswith(CONDA.extension):
        return None
    return filename.removesuffix(CONDA.extension) + TAR_BZ2.extension
