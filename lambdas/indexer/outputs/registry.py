"""The registry of outputs: one row for each file that clients and people read. Pure.

Writing, verifying, permissions (``infra/``), the edge's list of index files and deletion all walk these
rows. Adding an output is one module that says what is in it, and one row here. A row stays when its
output is retired, with ``is_wanted=never``: existing files of that name are then removed.
"""

import bz2
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lambdas.channel import caching
from lambdas.channel.names import Channel, SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.model import Limits, Outputs
from lambdas.indexer.outputs.channeldata import ChanneldataForm
from lambdas.indexer.outputs.current_repodata import make_current_repodata
from lambdas.indexer.outputs.feed import format_feed
from lambdas.indexer.outputs.form import ShardForm
from lambdas.indexer.outputs.pages import format_channel_page, format_subdir_page
from lambdas.indexer.outputs.repodata import RepodataForm
from lambdas.indexer.outputs.run_exports import RunExportsForm
from lambdas.indexer.spliced.segments import Form
from lambdas.indexer.tree.encoding import FLAT_LEVEL, compress, encode_json
from lambdas.indexer.tree.shard_index import ShardIndex
from lambdas.storage.protocol import ContentHeaders

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
RSS: Final = "application/rss+xml; charset=utf-8"


def in_every_deployment(_outputs: Outputs) -> bool:
    """Want an encoding, or an output of a channel, everywhere."""
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """One encoding of an output: a file beside the plain one, with a suffix."""

    suffix: str
    encode: Callable[[bytes], bytes]
    content_type: str | None = None
    """None: the output's own."""
    is_wanted: Callable[[Outputs], bool] = in_every_deployment


PLAIN: Final = Encoding(suffix="", encode=lambda body: body)
ZSTD: Final = Encoding(
    suffix=".zst", encode=lambda body: compress(body, level=FLAT_LEVEL), content_type="application/zstd"
)
BZIP2: Final = Encoding(
    suffix=".bz2", encode=bz2.compress, content_type="application/x-bzip2", is_wanted=lambda outputs: outputs.bz2
)
FLAT_ENCODINGS: Final = (BZIP2, ZSTD, PLAIN)  # in the order in which they are written (invariant 1)


class RepodataContents(Protocol):
    """What outputs of a subdir are rendered from: the records of repodata.json."""

    @property
    def subdir(self) -> SubdirId:
        """The subdir."""

    @property
    def total(self) -> int:
        """The number of records."""

    @property
    def limits(self) -> Limits:
        """Bounds on what is shown."""

    def newest(self) -> Iterator[tuple[str, Record]]:
        """Yield the newest records, with their filenames: as many as pages show, or all of few."""

    def document(self) -> Mapping[str, Any]:
        """Return repodata.json as a JSON value: large where the subdir is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelContents:
    """What outputs of a channel are rendered from."""

    channel: Channel
    merged: Mapping[str, Any]
    """As ``channeldata.merge_parts`` has it, with at least the newest names."""
    total: int
    """The number of names."""
    url: str
    """Base URL of the channels; empty if unknown."""
    limits: Limits


def always(_outputs: Outputs, _index: ShardIndex) -> bool:
    """Want an output in every subdir."""
    return True


def never(_outputs: Outputs, _index: ShardIndex) -> bool:
    """Want an output nowhere: it is retired, and files of its name are removed."""
    return False


def where_patched(_outputs: Outputs, index: ShardIndex) -> bool:
    """Want an output in subdirs with patch instructions in force."""
    return index.patches_sha256 is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class SubdirOutput:
    """A file of every subdir, in one encoding or several."""

    name: str
    content_type: str
    encodings: Sequence[Encoding] = (PLAIN,)
    form: ShardForm | None = None
    """Set for a document that is updated entry by entry."""
    render: Callable[[RepodataContents], bytes] | None = None
    """Set for a document that is made from the records of repodata.json."""
    is_unpatched: bool = False
    """The document shows records before patches."""
    is_wanted: Callable[[Outputs, ShardIndex], bool] = always
    prompt_suffixes: frozenset[str] = frozenset()
    """Encodings that each commit writes, even in large subdirs; the others are deferred there."""
    limited_suffixes: frozenset[str] = frozenset()
    """Encodings that are removed above the size that the operator allows (``size_limit``)."""

    def filenames(self) -> tuple[str, ...]:
        """Return the names of all files that this output can have."""
        return tuple(self.name + encoding.suffix for encoding in self.encodings)

    def wanted_filenames(self, outputs: Outputs, index: ShardIndex) -> tuple[str, ...]:
        """Return the names of the files that this deployment writes, in the order in which it does."""
        if not self.is_wanted(outputs, index):
            return ()
        return tuple(self.name + encoding.suffix for encoding in self.encodings if encoding.is_wanted(outputs))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelOutput:
    """A file of every channel."""

    name: str
    content_type: str
    form: Form | None = None
    """Set for the document that is updated entry by entry."""
    render: Callable[[ChannelContents], bytes] | None = None
    is_wanted: Callable[[Outputs], bool] = in_every_deployment


REPODATA: Final = SubdirOutput(
    name="repodata.json",
    content_type=JSON,
    encodings=FLAT_ENCODINGS,
    form=RepodataForm(),
    prompt_suffixes=frozenset({ZSTD.suffix}),
    limited_suffixes=frozenset({PLAIN.suffix}),
)
RUN_EXPORTS: Final = SubdirOutput(
    name="run_exports.json", content_type=JSON, encodings=FLAT_ENCODINGS, form=RunExportsForm()
)
FROM_PACKAGES: Final = SubdirOutput(
    name="repodata_from_packages.json",
    content_type=JSON,
    encodings=FLAT_ENCODINGS,
    form=RepodataForm(),
    is_unpatched=True,
    is_wanted=where_patched,
)
CURRENT_REPODATA: Final = SubdirOutput(
    name="current_repodata.json",
    content_type=JSON,
    encodings=FLAT_ENCODINGS,
    render=lambda contents: encode_json(make_current_repodata(contents.document())),
    is_wanted=lambda outputs, _: outputs.current_repodata,
)
SUBDIR_PAGE: Final = SubdirOutput(
    name="index.html",
    content_type=HTML,
    render=lambda contents: format_subdir_page(
        contents.subdir, contents.newest(), total=contents.total, limits=contents.limits
    ),
)

SUBDIR_OUTPUTS: tuple[SubdirOutput, ...] = (REPODATA, RUN_EXPORTS, FROM_PACKAGES, CURRENT_REPODATA, SUBDIR_PAGE)
"""In the order in which they are written (invariant 1)."""

CHANNELDATA: Final = ChannelOutput(name="channeldata.json", content_type=JSON, form=ChanneldataForm())
FEED: Final = ChannelOutput(
    name="rss.xml",
    content_type=RSS,
    render=lambda contents: format_feed(contents.channel, contents.merged, url=contents.url, limits=contents.limits),
)
CHANNEL_PAGE: Final = ChannelOutput(
    name="index.html",
    content_type=HTML,
    render=lambda contents: format_channel_page(
        contents.channel, contents.merged, url=contents.url, total=contents.total, limits=contents.limits
    ),
)

CHANNEL_OUTPUTS: tuple[ChannelOutput, ...] = (CHANNELDATA, FEED, CHANNEL_PAGE)
"""In the order in which they are written."""


def subdir_filenames() -> tuple[str, ...]:
    """Return the name of every file that is an output of a subdir, wanted or not."""
    return tuple(filename for output in SUBDIR_OUTPUTS for filename in output.filenames())


def channel_filenames() -> tuple[str, ...]:
    """Return the name of every file that is an output of a channel, wanted or not."""
    return tuple(output.name for output in CHANNEL_OUTPUTS)


def removable_keys(*, is_size_limited: bool = False) -> tuple[str, ...]:
    """Return the patterns of keys (``*/*/FILENAME``) of every file that some deployment or commit doesn't want.

    ``is_size_limited`` says that the operator limits the size of files.
    """
    subdirs = [
        f"*/*/{output.name}{encoding.suffix}"
        for output in SUBDIR_OUTPUTS
        for encoding in output.encodings
        if output.is_wanted is not always
        or encoding.is_wanted is not in_every_deployment
        or (is_size_limited and encoding.suffix in output.limited_suffixes)
    ]
    channels = [f"*/{output.name}" for output in CHANNEL_OUTPUTS if output.is_wanted is not in_every_deployment]
    return (*subdirs, *channels)


def wanted_subdir_filenames(outputs: Outputs, index: ShardIndex) -> tuple[str, ...]:
    """Return the names of the files of a subdir that this deployment writes, in the order in which it does."""
    return tuple(filename for output in SUBDIR_OUTPUTS for filename in output.wanted_filenames(outputs, index))


def form_of(output: SubdirOutput) -> ShardForm:
    """Return the form of an output that is updated entry by entry.

    Raises:
        TypeError: it is rendered.
    """
    if output.form is None:
        raise TypeError(f"{output.name!r} is rendered, not updated entry by entry")
    return output.form


def headers_of(filename: str) -> ContentHeaders:
    """Return how a file of a subdir is served.

    Raises:
        KeyError: it is not an output.
    """
    return ContentHeaders(content_type=_content_types()[filename], cache_control=caching.METADATA)


def channel_headers(output: ChannelOutput) -> ContentHeaders:
    """Return how a file of a channel is served."""
    return ContentHeaders(content_type=output.content_type, cache_control=caching.METADATA)


def _content_types() -> dict[str, str]:
    return {
        output.name + encoding.suffix: encoding.content_type or output.content_type
        for output in SUBDIR_OUTPUTS
        for encoding in output.encodings
    }
