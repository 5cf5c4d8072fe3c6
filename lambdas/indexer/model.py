"""What events, settings, the indexer and its outputs share: values only. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

from lambdas.channel.errors import FairwayError
from lambdas.channel.layout import ArtifactKey, SubdirLayout
from lambdas.channel.names import NOARCH, Channel, SubdirId, SubdirName
from lambdas.indexer.spliced.sizes import SIZES, Sizes

Status = Literal["indexed", "removed", "unchanged", "rejected"]

Mode = Literal["together", "alone", "final"]
"""How artifacts of a message are read.

together: beside those of other publishers. One that takes long is left to a run that reads it alone.
alone: one at a time, within the limits of one artifact.
final: as alone, after an earlier run alone exceeded a limit. One that exceeds it again is rejected.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubdirKeys:
    """What to inspect in one subdir."""

    artifacts: frozenset[ArtifactKey] = frozenset()
    attestations: frozenset[ArtifactKey] = frozenset()
    """Artifacts whose attestations changed."""
    patches: bool = False
    deferred: bool = False
    """Outputs that earlier runs deferred are due now."""
    whole: bool = False
    """Whatever the listing of the subdir shows to differ."""

    @property
    def filenames(self) -> frozenset[str]:
        """The artifacts to inspect, for themselves or for their attestations."""
        return frozenset(key.filename for key in self.artifacts | self.attestations)

    @property
    def is_follow_up(self) -> bool:
        """Whether no upload leads here, but an earlier run or a change of index files."""
        return not (self.artifacts or self.attestations or self.patches)

    def without(self, filenames: frozenset[str]) -> "SubdirKeys":
        """Return the same keys without those of some artifacts."""
        return replace(
            self,
            artifacts=frozenset(key for key in self.artifacts if key.filename not in filenames),
            attestations=frozenset(key for key in self.attestations if key.filename not in filenames),
        )

    def list_keys(self, subdir: SubdirId) -> list[str]:
        """Return the keys in messages that lead here."""
        layout = SubdirLayout(subdir=subdir)
        keys = [str(key) for key in self.artifacts] + [key.attestations for key in self.attestations]
        return (
            keys
            + [layout.patch_instructions] * self.patches
            + [layout.prefix] * self.deferred
            + [layout.whole] * self.whole
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """Which optional outputs are written, and the base URL that they show."""

    current_repodata: bool = False
    bz2: bool = False
    remove_foreign: bool = True
    """Whether files of other tools under the names of outputs that are not wanted are removed."""
    max_repodata_bytes: int | None = None
    """A larger ``repodata.json`` is removed, and its compressed form stays; None: there is no limit."""
    url: str = ""
    """Base URL of the channels, without a trailing slash; empty if unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on what outputs show, and on how large documents are written."""

    sizes: Sizes = SIZES
    max_rows: int = 1000
    """Of a page."""
    max_page_bytes: int = 2 * 1024 * 1024
    """Of the rows of a page: older ones are left out."""
    max_feed_items: int = 100
    max_feed_bytes: int = 512 * 1024
    """Of the items of a feed: older ones are left out."""
    max_shard_bytes: int = 16 * 1024 * 1024
    """Of a decompressed shard: conda reads no larger one."""

    max_kept_bytes: int = 64 * 1024 * 1024
    """Of memory for the cards that one commit reads, and as much again for new ones: a batch is cut into commits."""
    max_name_bytes: int = 192 * 1024 * 1024
    """Of memory for the cards of one name, as estimated: those of a real 16 MiB shard take less."""

    @property
    def kept_rows(self) -> int:
        """Newest rows that are kept: twice as many as pages show, so that many can be removed."""
        return 2 * self.max_rows


LIMITS: Final = Limits()
MAX_SUBDIRS: Final = 64
"""Of a channel, unless the configuration says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the deployment's configuration decides."""

    deployment: str = ""
    """Marks commits: the bucket's name, or empty for a directory."""
    mutable_channels: tuple[str, ...] = ()
    """Globs of channels whose artifacts may be replaced by other bytes."""
    max_subdirs: int = MAX_SUBDIRS
    """Of a channel."""
    outputs: Outputs = field(default_factory=Outputs)
    subdirs: Mapping[str, Sequence[SubdirName]] = field(default_factory=dict, hash=False)
    """``{channel or glob of channels: subdirs that have an index before their first artifact}``."""

    def list_declared(self, channel: Channel) -> list[SubdirId]:
        """Return the subdirs of a channel that have an index even if they have no artifact, ``noarch`` first."""
        names = {name for glob, names in self.subdirs.items() if fnmatchcase(channel, glob) for name in names}
        return [SubdirId(channel=channel, name=name) for name in (NOARCH, *sorted(names - {NOARCH}))]

    def list_declared_channels(self) -> list[Channel]:
        """Return the channels that exist before their first upload: those declared by name, not by a glob."""
        return [Channel(name) for name in self.subdirs if not set("*?") & set(name)]

    def is_mutable(self, channel: Channel) -> bool:
        """Tell whether artifacts of the channel may change under their names."""
        return any(fnmatchcase(channel, glob) for glob in self.mutable_channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """An upload that was rejected, and why: the document beside its bytes in the quarantine."""

    key: str
    id: str
    code: str
    message: str
    hint: str | None
    size: int
    etag: str
    uploaded_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result for one key."""

    key: str
    status: Status
    rejection: Rejection | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The results for one subdir."""

    outcomes: tuple[Outcome, ...]
    failures: Mapping[str, FairwayError]
    """``{key: error}``: keys that could not be inspected, to be tried again."""
    commits: int = 0
    conflicts: int = 0
    healed: str | None = None
    """Why the shard index had to be healed, if it had."""
