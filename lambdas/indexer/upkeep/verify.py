"""Verifies a subdir and a channel: whether all files agree with each other and with the artifacts.

Reads everything and writes nothing. Trusts no metadata that it can compute.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError, RejectedError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import NOARCH, Channel, PackageName, SubdirName
from lambdas.indexer.change.subdir_limit import describe_excess
from lambdas.indexer.model import LIMITS, MAX_SUBDIRS, Limits, Outputs
from lambdas.indexer.outputs.channel import fetch_etags
from lambdas.indexer.outputs.channeldata import ChannelPart, apply_to_part, make_entry, make_part, merge_parts
from lambdas.indexer.outputs.registry import CHANNELDATA, REPODATA, ZSTD
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.spliced.files import is_large
from lambdas.indexer.tree.index_files import head_file
from lambdas.indexer.tree.patches import PatchInstructions
from lambdas.indexer.tree.shards import Shard, make_shard
from lambdas.indexer.tree.subdir import BrokenIndexError, Commit, ForeignIndexError, Subdir, open_subdir
from lambdas.indexer.upkeep.findings import Depth, Finding, Problem
from lambdas.indexer.upkeep.listing import list_subdirs
from lambdas.indexer.upkeep.verify_outputs import ExpectedDocuments, check_channel_outputs, check_subdir_outputs
from lambdas.indexer.upkeep.verify_tree import TreeVerifier, check_patches, list_unreferenced
from lambdas.storage.protocol import ObjectStorage

_NAMES_AT_ONCE: Final = 500
_DEFERRAL_MS: Final = 15 * 60 * 1000  # deferred outputs are written by then

Progress = Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class ChannelView:
    """What the subdirs of a channel say together: gathered while each is verified."""

    outputs: Outputs
    """Which optional outputs the deployment writes, and the base URL that they show."""
    limits: Limits = LIMITS
    max_subdirs: int = MAX_SUBDIRS
    etags: dict[str, str | None] = field(default_factory=dict)
    """Which commit of each subdir was verified."""
    parts: list[ChannelPart] = field(default_factory=list)
    is_complete: bool = True
    """Whether every shard could be read."""
    is_young: bool = False
    """Whether one of the commits is so recent that outputs may be deferred."""
    is_deferred: bool = False
    """Whether that was in a large subdir, where a commit defers the channel's outputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Contents:
    """What the shards of a subdir say."""

    expected: ExpectedDocuments
    entries: Mapping[PackageName, dict[str, Any] | None]
    is_complete: bool


def verify_subdir(
    subdir: Subdir, depth: Depth, view: ChannelView, *, progress: Progress = lambda _: None
) -> Iterator[Finding]:
    """Yield everything that is wrong with one subdir; add what it says of its channel to the view."""
    progress(f"{subdir}: listing")
    tree = TreeVerifier(subdir, depth)
    try:
        commit = subdir.fetch_commit()
    except ForeignIndexError as error:
        view.is_complete = False
        problem = Problem.INDEX_BROKEN if isinstance(error, BrokenIndexError) else Problem.INDEX_FOREIGN
        yield Finding(problem=problem, key=subdir.layout.shard_index, message=str(error))
        return
    if commit.etag is None:
        if tree.has_artifacts or subdir.id.name == NOARCH:
            message = f"no index, and {tree.artifact_count} artifacts"
            yield Finding(problem=Problem.INDEX_MISSING, key=subdir.layout.prefix, message=message)
        return
    yield from check_patches(subdir, commit)
    contents = yield from _verify_tree(subdir, commit, tree, view.limits, progress)
    progress(f"{subdir}: outputs")
    compressed = head_file(subdir.storage, subdir.layout.file(REPODATA.name + ZSTD.suffix))
    is_current = compressed is not None and compressed.metadata.get(COMMIT) == commit.sha256
    is_young = compressed is not None and is_current and depth.now_ms - compressed.last_modified_ms <= _DEFERRAL_MS
    is_deferred = is_young and is_large(compressed)
    yield from check_subdir_outputs(
        subdir,
        commit,
        view.outputs,
        contents.expected,
        is_complete=contents.is_complete,
        is_deferred=is_deferred,
    )
    yield from list_unreferenced(subdir, commit, depth)
    view.etags[subdir.id.name] = commit.etag
    view.parts.append(apply_to_part(make_part(subdir.id.name), contents.entries))
    view.is_complete = view.is_complete and contents.is_complete
    view.is_young = view.is_young or is_young
    view.is_deferred = view.is_deferred or is_deferred


def _verify_tree(
    subdir: Subdir, commit: Commit, tree: TreeVerifier, limits: Limits, progress: Progress
) -> Generator[Finding, None, _Contents]:
    """Verify shards and cards in batches; return what they say."""
    patches: PatchInstructions | None = None
    try:
        patches = subdir.fetch_patches(commit.index.patches_sha256)
    except (InvalidDocumentError, RejectedError) as error:
        key = subdir.layout.patches_in_force(str(commit.index.patches_sha256))
        yield Finding(problem=Problem.FOREIGN_PATCHES, key=key, message=str(error))
    expected = ExpectedDocuments(subdir.id, limits)
    entries: dict[PackageName, dict[str, Any] | None] = {}
    is_complete = True
    names = sorted(commit.index.shards)
    for start in range(0, len(names), _NAMES_AT_ONCE):
        some = names[start : start + _NAMES_AT_ONCE]
        progress(f"{subdir}: {start + len(some)} of {len(names)} names")
        cards = subdir.fetch_cards(commit.index, some)
        shards: dict[PackageName, Shard | None] = {}
        for name, result in zip(some, tree.read_shards(commit, some), strict=True):
            if isinstance(result, Finding):
                is_complete = False
                yield result
                continue
            shards[name] = result
            entries[name] = make_entry(subdir.id.name, result, cards[name] or {})
            yield from tree.check_name(name, result, cards[name], patches)
        expected.add(shards, {name: make_shard(cards[name] or {}) for name in shards})
    yield from tree.finish()
    return _Contents(expected=expected, entries=entries, is_complete=is_complete)


def verify_all(
    subdirs: Iterable[Subdir], depth: Depth, view: ChannelView, *, progress: Progress = lambda _: None
) -> Iterator[Finding]:
    """Yield what is wrong with some subdirs; one that can't be verified does not stop the others."""
    for subdir in subdirs:
        try:
            yield from verify_subdir(subdir, depth, view, progress=progress)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other subdirs are verified
            view.is_complete = False
            yield Finding(problem=Problem.NOT_VERIFIED, key=subdir.layout.prefix, message=str(error) or repr(error))


def verify_channel(
    storage: ObjectStorage, channel: Channel, view: ChannelView, *, progress: Progress = lambda _: None
) -> Iterator[Finding]:
    """Yield what is wrong with the outputs of a channel, all of whose subdirs are in the view."""
    progress(f"{channel}: outputs")
    etags = fetch_etags([open_subdir(storage, subdir) for subdir in list_subdirs(storage, channel)])
    if (excess := describe_excess([SubdirName(name) for name in etags], max_subdirs=view.max_subdirs)) is not None:
        yield Finding(problem=Problem.TOO_MANY_SUBDIRS, key=ChannelLayout(channel=channel).prefix, message=excess)
    is_known = view.is_complete and etags == view.etags
    info = head_file(storage, ChannelLayout(channel=channel).file(CHANNELDATA.name))
    is_large_channel = info is not None and info.size > view.limits.sizes.large_uncompressed
    yield from check_channel_outputs(
        storage,
        channel,
        etags,
        merge_parts(view.parts) if is_known else None,
        outputs=view.outputs,
        limits=view.limits,
        is_deferred=view.is_deferred or (view.is_young and is_large_channel),
    )
