"""The grammar of channels, subdirs, filenames and keys: parse, format.

Owns every rule about what a name may look like and where in the bucket a thing lives. Knows
nothing of what is inside an artifact. Standard library only: the authorizer carries it too.

Source: CEP 26 (identifying packages and channels in the conda ecosystem).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NewType

from lambdas.channel.errors import InvalidNameError

Channel = NewType("Channel", str)
Subdir = NewType("Subdir", str)
PackageName = NewType("PackageName", str)
Extension = Literal[".conda", ".tar.bz2"]

NOARCH = Subdir("noarch")
PRIVATE_PREFIX = ".fairway/"
ACCESS_KEY = ".fairway/access.json"
AUDIT_PREFIX = ".fairway/audit/"
REJECTED_PREFIX = ".fairway/rejected/"
SIGNATURES_SUFFIX = ".sigs"
PATCH_INSTRUCTIONS = "patch_instructions.json"
RESERVED_CHANNELS = frozenset({"t", "label"})

MAX_CHANNEL_CHARS = 128
MAX_SUBDIR_CHARS = 32
MAX_FIELD_CHARS = 64  # name, version, build string: each
MAX_FILENAME_CHARS = 211

EXTENSIONS: tuple[Extension, ...] = (".conda", ".tar.bz2")

_CHANNEL = re.compile(r"[a-z0-9_][a-z0-9_.-]*\Z")
_SUBDIR = re.compile(r"(?:noarch|[a-z0-9]+-[a-z0-9]+)\Z")
_NAME = re.compile(r"(?:[a-z0-9]|[a-z0-9_](?!_))[._-]?(?:[a-z0-9]+(?:\.|-|_|\Z))*\Z")
_VIRTUAL_NAME = re.compile(r"__[a-z0-9]")
_VERSION = re.compile(r"[A-Za-z0-9._+!]+\Z")
_BUILD = re.compile(r"[A-Za-z0-9_.+]+\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class SubdirId:
    """One subdir of one channel: what one index covers."""

    channel: Channel
    subdir: Subdir

    def __str__(self) -> str:
        """Format as in keys and URLs: ``CHANNEL/SUBDIR``."""
        return f"{self.channel}/{self.subdir}"

    def key(self, filename: str) -> str:
        """Return the key of a file of this subdir."""
        return f"{self.channel}/{self.subdir}/{filename}"

    def private_key(self, collection: str, name: str = "") -> str:
        """Return the key of something kept about this subdir where no reader may look."""
        return f"{PRIVATE_PREFIX}{collection}/{self.channel}/{self.subdir}/{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A filename, taken apart: ``NAME-VERSION-BUILD.EXTENSION``."""

    name: PackageName
    version: str
    build: str
    extension: Extension

    @property
    def stem(self) -> str:
        """The filename without its extension."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def filename(self) -> str:
        """The filename."""
        return self.stem + self.extension


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactKey:
    """Where an artifact lives."""

    path: SubdirId
    distribution: Distribution

    @property
    def filename(self) -> str:
        """The last part of the key."""
        return self.distribution.filename

    def __str__(self) -> str:
        """Format as the S3 key."""
        return self.path.key(self.filename)


def parse_channel(text: str) -> Channel:
    """Check the name of a channel: one path component.

    Raises:
        InvalidNameError: the grammar is broken, or the name is reserved.

    Source: CEP 26, channel base URLs; ``t`` and ``label`` mean other things in conda's URLs.
    """
    if len(text) > MAX_CHANNEL_CHARS or not _CHANNEL.match(text):
        message = f"invalid channel name {text!r}"
        raise InvalidNameError(
            message,
            hint="use a-z, 0-9, '_', '.' and '-', at most 128 characters, not starting with '.' or '-'",
        )
    if text in RESERVED_CHANNELS or text == NOARCH:
        message = f"reserved channel name {text!r}"
        raise InvalidNameError(message, hint="'t', 'label' and 'noarch' mean other things in a channel's URL")
    return Channel(text)


def parse_subdir(text: str) -> Subdir:
    """Check the name of a subdir: ``noarch`` or ``OS-ARCHITECTURE``.

    Raises:
        InvalidNameError: the grammar is broken.

    Source: CEP 26, subdirs.
    """
    if len(text) > MAX_SUBDIR_CHARS or not _SUBDIR.match(text):
        message = f"invalid subdir {text!r}"
        raise InvalidNameError(message, hint="a subdir is 'noarch' or like 'linux-64': a-z and 0-9 around one '-'")
    return Subdir(text)


def parse_subdir_id(text: str) -> SubdirId:
    """Parse ``CHANNEL/SUBDIR``.

    Raises:
        InvalidNameError: it is not of that form.
    """
    channel, separator, subdir = text.partition("/")
    if not separator:
        message = f"not a CHANNEL/SUBDIR: {text!r}"
        raise InvalidNameError(message)
    return SubdirId(channel=parse_channel(channel), subdir=parse_subdir(subdir))


def parse_package_name(text: str) -> PackageName:
    """Check the name of a package.

    Raises:
        InvalidNameError: illegal characters, too long, or a virtual package's name.

    Source: CEP 26, package names; virtual packages must not be published as artifacts.
    """
    if _VIRTUAL_NAME.match(text):
        message = f"virtual package name {text!r}"
        raise InvalidNameError(message, hint="names with two leading underscores stand for facts of a machine")
    if len(text) > MAX_FIELD_CHARS or not _NAME.match(text):
        message = f"invalid package name {text!r}"
        raise InvalidNameError(
            message, hint="use lower-case letters, digits, and single '.', '-' or '_' between them, at most 64"
        )
    return PackageName(text)


def parse_version(text: str) -> str:
    """Check the characters and length of a version, which may have upper case: clients ignore the case.

    Raises:
        InvalidNameError: illegal characters, or too long.

    Source: CEP 26, package versions; CEP 33 (version literals).
    """
    if len(text) > MAX_FIELD_CHARS or not _VERSION.match(text):
        message = f"invalid version {text!r}"
        raise InvalidNameError(message, hint="use digits, letters, '.', '_', '+' and '!', at most 64")
    return text


def parse_build(text: str) -> str:
    """Check the characters and length of a build string.

    Raises:
        InvalidNameError: illegal characters, or too long.

    Source: CEP 26, build strings.
    """
    if len(text) > MAX_FIELD_CHARS or not _BUILD.match(text):
        message = f"invalid build string {text!r}"
        raise InvalidNameError(message, hint="use letters, digits, '_', '.' and '+', at most 64")
    return text


def find_extension(filename: str) -> Extension | None:
    """Return the artifact extension that the filename ends with, if any."""
    return next((extension for extension in EXTENSIONS if filename.endswith(extension)), None)


def is_artifact_like(filename: str) -> bool:
    """Tell whether somebody meant an artifact, or its signatures: by the extension, whatever its case."""
    return find_extension(filename.lower().removesuffix(SIGNATURES_SUFFIX)) is not None


def parse_filename(filename: str) -> Distribution:
    """Take an artifact's filename apart.

    Raises:
        InvalidNameError: it is not ``NAME-VERSION-BUILD`` with ``.conda`` or ``.tar.bz2``.

    Source: CEP 26, filenames.
    """
    extension = find_extension(filename)
    if extension is None:
        message = f"not an artifact's filename: {filename!r}"
        raise InvalidNameError(message, hint="artifacts end in .conda or .tar.bz2")
    if len(filename) > MAX_FILENAME_CHARS:
        message = f"filename longer than {MAX_FILENAME_CHARS} characters: {filename!r}"
        raise InvalidNameError(message)
    parts = filename[: -len(extension)].rsplit("-", 2)
    if len(parts) != 3:  # noqa: PLR2004 - name, version, build
        message = f"not NAME-VERSION-BUILD{extension}: {filename!r}"
        raise InvalidNameError(message, hint="rename the file to what its info/index.json says")
    name, version, build = parts
    return Distribution(
        name=parse_package_name(name), version=parse_version(version), build=parse_build(build), extension=extension
    )


def parse_artifact_key(key: str) -> ArtifactKey:
    """Take an artifact's S3 key apart: ``CHANNEL/SUBDIR/FILENAME``.

    Raises:
        InvalidNameError: wrong depth, or a part that breaks its grammar.
    """
    parts = key.split("/")
    if len(parts) != 3:  # noqa: PLR2004 - channel, subdir, filename
        message = f"key is not CHANNEL/SUBDIR/FILENAME: {key!r}"
        raise InvalidNameError(message, hint="upload to s3://BUCKET/CHANNEL/SUBDIR/, for instance .../team/noarch/")
    channel, subdir, filename = parts
    path = SubdirId(channel=parse_channel(channel), subdir=parse_subdir(subdir))
    return ArtifactKey(path=path, distribution=parse_filename(filename))
