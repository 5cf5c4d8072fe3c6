"""The grammar of names: channels, subdirs, packages, versions, build strings. Pure; standard library only.

Source: CEP 26 (identifying packages and channels in the conda ecosystem).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from lambdas.channel.errors import InvalidNameError

Channel = NewType("Channel", str)
SubdirName = NewType("SubdirName", str)
PackageName = NewType("PackageName", str)

NOARCH = SubdirName("noarch")
RESERVED_CHANNELS = frozenset({"t", "label"})
DOCTOR_CHANNEL = Channel("fairway-doctor")
"""Reserved for ``fairway doctor``, which deletes everything in it: no publisher may write here."""

MAX_CHANNEL_CHARS = 128
MAX_SUBDIR_CHARS = 32
MAX_FIELD_CHARS = 64  # name, version, build string: each

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
    name: SubdirName

    def __str__(self) -> str:
        """Format as in keys and URLs: ``CHANNEL/SUBDIR``."""
        return f"{self.channel}/{self.name}"


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


def parse_subdir(text: str) -> SubdirName:
    """Check the name of a subdir: ``noarch`` or ``OS-ARCHITECTURE``.

    Raises:
        InvalidNameError: the grammar is broken.

    Source: CEP 26, subdirs.
    """
    if not is_subdir_name(text):
        message = f"invalid subdir {text!r}"
        raise InvalidNameError(message, hint="a subdir is 'noarch' or like 'linux-64': a-z and 0-9 around one '-'")
    return SubdirName(text)


def is_subdir_name(text: str) -> bool:
    """Tell whether this is the name of a subdir."""
    return len(text) <= MAX_SUBDIR_CHARS and _SUBDIR.match(text) is not None


def parse_subdir_id(text: str) -> SubdirId:
    """Parse ``CHANNEL/SUBDIR``.

    Raises:
        InvalidNameError: it is not of that form.
    """
    channel, separator, subdir = text.partition("/")
    if not separator:
        message = f"not a CHANNEL/SUBDIR: {text!r}"
        raise InvalidNameError(message)
    return SubdirId(channel=parse_channel(channel), name=parse_subdir(subdir))


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
