"""When documents are segmented, and how they are cut into segments and parts. Pure.

docs/performance.md has the measurements behind the defaults.
"""

from dataclasses import dataclass

from lambdas.storage.protocol import MIN_PART_BYTES

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes of large documents and their parts, in bytes."""

    large: int = MIB
    """A document that is larger, uncompressed, is segmented."""
    large_uncompressed: int = 8 * MIB
    """The same limit for a document without a compressed encoding: there is nothing to compress again."""
    deferred: int = 16 * MIB
    """If ``repodata.json`` is larger, a commit writes its compressed encoding alone, and other files are deferred."""
    whole: int = 8 * MIB
    """A file up to this size is written in one request instead of five."""
    min_part: int = MIN_PART_BYTES
    max_part: int = 16 * MIB
    """Of a part that is uploaded; and the most that is read in one request."""
    segment_scale: float = 1.0
    """Scales the target size that each form of document states for its segments."""


SIZES = Sizes()
