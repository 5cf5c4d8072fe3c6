"""The operator's limit on the size of ``repodata.json``. Pure.

A file above the limit is removed, and its compressed form stays. It is written again only once it would be
smaller than four fifths of the limit, so that a channel around it does not gain and lose the file again and
again; between the two, ``fairway verify`` warns. What counts is the size in the metadata of the compressed
form, which tells it of a missing file too: where it is not known, nothing is removed, and the file is written.
"""

from dataclasses import dataclass
from typing import Final

from lambdas.storage.protocol import ObjectInfo

PLAIN_SIZE: Final = "fairway-plain-size"
"""Metadata of a compressed file: the size of the plain one, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeLimit:
    """A limit in bytes."""

    max_bytes: int

    @property
    def warning_bytes(self) -> int:
        """The size above which a file is warned of if it exists, and not written if it does not."""
        return self.max_bytes * 4 // 5

    def removes(self, compressed: ObjectInfo | None) -> bool:
        """Tell whether an existing file is to be removed."""
        size = parse_plain_size(compressed)
        return size is not None and size > self.max_bytes

    def keeps_away(self, compressed: ObjectInfo | None) -> bool:
        """Tell whether a missing file stays away."""
        size = parse_plain_size(compressed)
        return size is not None and size > self.warning_bytes


def parse_plain_size(compressed: ObjectInfo | None) -> int | None:
    """Return the size of the plain file that the compressed one has in its metadata, if it has one."""
    text = "" if compressed is None else compressed.metadata.get(PLAIN_SIZE, "")
    return int(text) if text.isascii() and text.isdigit() else None
