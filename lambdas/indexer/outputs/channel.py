"""Updates the outputs of a channel as a whole: channeldata.json, the feed, the page.

Each shows one commit of every subdir. The *state* says which ones: the channel's pointer, replaced by
compare-and-swap before any file shows it. The run of a subdir brings that subdir's commit into the state
and leaves the other subdirs to their own runs, so that its requests do not grow with them. Reconciliation,
and the runs that write deferred outputs, compare every subdir.

To catch up, commits are compared, and the names that differ are merged again from what each subdir says
of them: neither the order nor the number of updates matters.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lambdas.channel.errors import ConflictError, VanishedError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import NOARCH, Channel, PackageName, SubdirName
from lambdas.indexer.model import Limits, Outputs
from lambdas.indexer.outputs import registry
from lambdas.indexer.outputs.channel_document import Document, DocumentMaker, Whole
from lambdas.indexer.outputs.channel_state import ChannelState, Place, StateFile, StoredState
from lambdas.indexer.outputs.channel_tree import ChannelReader, Committed, MovedError, Names
from lambdas.indexer.outputs.leaves import Leaves
from lambdas.indexer.outputs.name_merger import NameMerger
from lambdas.indexer.outputs.registry import (
    CHANNELDATA,
    ChannelContents,
    ChannelOutput,
    channel_headers,
)
from lambdas.indexer.quarantine.replaced import keep_replaced
from lambdas.indexer.spliced.files import TABLES, LargeFiles
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.index_files import head_file
from lambdas.indexer.tree.subdir import Subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import IfAbsent, IfMatch, ObjectInfo, ObjectStorage

SHOWN: Final = "fairway-shown"
"""Metadata of an output: a hash of the commits that it shows."""


class _EverySubdirError(Exception):
    """What is known of the other subdirs does not suffice: every subdir has to be compared."""


def update_channel(
    storage: ObjectStorage,
    channel: Channel,
    *,
    outputs: Outputs,
    limits: Limits,
    committed: Committed | None = None,
    declared: Collection[SubdirName] = (),
    compare_all: bool = True,
    may_defer: bool = False,
    is_rebuild: bool = False,
    remove_unwanted: bool = False,
) -> bool:
    """Bring the outputs of a channel to the commits of its subdirs; return whether they were deferred.

    Without ``compare_all``, only the subdir that was ``committed`` to and ``noarch`` are inspected, unless more
    is needed; ``declared`` subdirs exist, and have to be shown. With ``may_defer``, the outputs are deferred
    if channeldata.json is large. With ``is_rebuild``, they are made again, whatever is there. With
    ``remove_unwanted``, files that this deployment does not write are deleted.

    Raises:
        ConflictError: another writer was quicker: do it again.
    """
    if remove_unwanted:
        _remove_unwanted(storage, ChannelLayout(channel=channel), outputs)
    reader = ChannelReader(storage, channel, max_bytes=limits.max_kept_bytes, committed=committed)
    updater = ChannelUpdater(
        storage=storage,
        channel=channel,
        reader=reader,
        outputs=outputs,
        limits=limits,
        declared=declared,
        is_rebuild=is_rebuild,
    )
    try:
        if committed is not None and not compare_all and not is_rebuild:
            try:
                return updater.update(sorted({committed.subdir.name, NOARCH}), may_defer=may_defer)
            except (_EverySubdirError, MovedError):
                pass
        return updater.update(None, may_defer=may_defer)
    except VanishedError as error:
        raise ConflictError(f"a file of {channel} was replaced while it was read") from error


@dataclass(kw_only=True)
class ChannelUpdater:
    """Brings the outputs of one channel to the commits of its subdirs."""

    storage: ObjectStorage
    channel: Channel
    reader: ChannelReader
    outputs: Outputs
    limits: Limits
    declared: Collection[SubdirName] = ()
    is_rebuild: bool = False
    _found: Mapping[str, ObjectInfo | None] = field(default_factory=dict, init=False)
    _places: Mapping[SubdirName, Place] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._layout = ChannelLayout(channel=self.channel)
        self._files = LargeFiles(storage=self.storage, sizes=self.limits.sizes)
        self._state_file = StateFile(self.storage, self._layout.state)

    def update(self, inspected: Sequence[SubdirName] | None, *, may_defer: bool = False) -> bool:
        """Bring the commits of some subdirs, or of all, into the state, and write the files that do not show it.

        Return whether the files were deferred.

        Raises:
            ConflictError: another writer was quicker: do it again.
        """
        # The files are inspected before the state, and the state before the commits: a run that reads the
        # state or a commit later writes later or loses.
        self._found = self._head_files()
        current = self._state_file.fetch()
        subdirs = self.reader.list_subdirs() if inspected is None else inspected
        found = self.reader.fetch_places(subdirs)
        self._places = _advance(current.state, found, subdirs, is_partial=inspected is not None)
        if inspected is not None and not self._places.keys() >= set(self.declared):
            raise _EverySubdirError
        shown = _hash_places(self._places)
        behind = [name for name, info in self._found.items() if self.is_rebuild or _shows(info) != shown]
        is_current = current.state is None or _hash_places(current.state.shown) == shown
        if not behind and is_current:
            return False
        channeldata = self._found[CHANNELDATA.name]
        if may_defer and channeldata is not None and channeldata.size > self.limits.sizes.large_uncompressed:
            return True
        state = self._write(current, behind, may_make=inspected is None)
        # What we wrote may have replaced what a later run wrote: an ETag says which bytes are there, and the
        # same bytes come back when a change is undone. So a run that wrote inspects the pointers once more.
        if self._state_file.fetch_etag() != state.etag or self.reader.fetch_places(subdirs) != found:
            raise ConflictError(f"{self.channel} has newer commits")
        return False

    def _head_files(self) -> dict[str, ObjectInfo | None]:
        wanted = [output.name for output in registry.CHANNEL_OUTPUTS if output.is_wanted(self.outputs)]
        infos = in_parallel(lambda name: head_file(self.storage, self._layout.file(name)), wanted)
        return dict(zip(wanted, infos, strict=True))

    def _write(self, current: StoredState, behind: Sequence[str], *, may_make: bool) -> StoredState:
        """Replace the state, then the files that are behind; return the state that is then current."""
        document, leaves = self._fetch_document(current, may_make=may_make)
        state = current
        if CHANNELDATA.name in behind or current.state is None or current.state.shown != self._places:
            new = ChannelState(shown=self._places, tables=document.tables, newest=document.newest, leaves=leaves.all())
            state = self._state_file.swap(current, new)
        metadata = {SHOWN: _hash_places(self._places)}
        contents = ChannelContents(
            channel=self.channel,
            merged={"subdirs": sorted(self._places), "packages": dict(document.newest)},
            total=document.total,
            url=self.outputs.url,
            limits=self.limits,
        )
        for output in registry.CHANNEL_OUTPUTS:
            if output.name not in behind:
                continue
            if output.render is None:
                self._put_channeldata(document, {**metadata, TABLES: state.reference})
            else:
                self._put(output, output.render(contents), metadata)
        return state

    def _fetch_document(self, current: StoredState, *, may_make: bool) -> tuple[Document, Leaves]:
        """Return channeldata.json at the commits, and the leaves.

        Raises:
            _EverySubdirError: it has to be made again, and not every subdir was inspected.
        """
        info = self._found[CHANNELDATA.name]
        base = None
        if info is not None and TABLES in info.metadata and not self.is_rebuild:
            base = self._state_file.fetch_named(info.metadata[TABLES], current)
        if info is not None and base is not None:
            known = current.state or base
            changed = self._diff({id(state): state for state in (known, base)}.values())
            if changed is not None:
                leaves = Leaves(self.storage, self._layout, known.leaves)
                names = sorted(set().union(*changed.values()))
                document = self._make_maker(leaves, changed).apply(info, base, names)
                if document is not None:
                    return document, leaves
        if not may_make:
            raise _EverySubdirError
        indexes = self.reader.fetch_indexes(self._places)
        changed = {name: frozenset(index.shards) for name, index in indexes.items()}
        leaves = Leaves(self.storage, self._layout, ())
        return self._make_maker(leaves, changed).make(sorted(set().union(*changed.values()))), leaves

    def _diff(self, states: Iterable[ChannelState]) -> Names | None:
        """Return the names by which the commits differ from those of any state; None if one is not known."""
        names: dict[SubdirName, frozenset[PackageName]] = {}
        for state in states:
            changed = self.reader.diff(state.shown, self._places)
            if changed is None:
                return None
            for subdir, some in changed.items():
                names[subdir] = names.get(subdir, frozenset()) | some
        return names

    def _make_maker(self, leaves: Leaves, changed: Names) -> DocumentMaker:
        return DocumentMaker(
            storage=self.storage,
            files=self._files,
            merger=NameMerger(self.reader, leaves, places=self._places, changed=changed),
            subdirs=sorted(self._places),
            limits=self.limits,
        )

    def _put_channeldata(self, document: Document, metadata: Mapping[str, str]) -> None:
        if isinstance(document, Whole):
            self._put(CHANNELDATA, document.body, metadata)
            return
        self._files.write_plain(
            self._layout.file(CHANNELDATA.name),
            document.segmented,
            base=self._keep_foreign(CHANNELDATA),
            old=None if document.source is None else document.source.table,
            compressed=None,
            headers=channel_headers(CHANNELDATA),
            metadata=metadata,
        )

    def _keep_foreign(self, output: ChannelOutput) -> ObjectInfo | None:
        """Return the file that is about to be replaced, of which a copy is kept if another tool wrote it."""
        info = self._found[output.name]
        if info is not None and SHOWN not in info.metadata:
            keep_replaced(self.storage, info)
        return info

    def _put(self, output: ChannelOutput, body: bytes, metadata: Mapping[str, str]) -> None:
        info = self._keep_foreign(output)
        self.storage.put(
            self._layout.file(output.name),
            body,
            headers=channel_headers(output),
            metadata=metadata,
            condition=IfAbsent() if info is None else IfMatch(etag=info.etag),
        )


def _advance(
    state: ChannelState | None,
    found: Mapping[SubdirName, Place],
    inspected: Iterable[SubdirName],
    *,
    is_partial: bool,
) -> dict[SubdirName, Place]:
    """Return the commits to show: those that were found; with ``is_partial``, those of the state for other subdirs.

    Raises:
        _EverySubdirError: the state does not tell them, or a subdir is gone.
    """
    before = {} if state is None else state.shown
    if is_partial and (state is None or not state.is_complete or (before.keys() & set(inspected)) - found.keys()):
        raise _EverySubdirError
    same = {name: place for name, place in before.items() if name in found and found[name][0] == place[0]}
    return {**(before if is_partial else {}), **found, **same}


def _remove_unwanted(storage: ObjectStorage, layout: ChannelLayout, outputs: Outputs) -> None:
    for output in registry.CHANNEL_OUTPUTS:
        info = None if output.is_wanted(outputs) else head_file(storage, layout.file(output.name))
        if info is None or (SHOWN not in info.metadata and not outputs.remove_foreign):
            continue
        if SHOWN not in info.metadata:
            keep_replaced(storage, info)
        storage.delete(replace(info, version=None))  # without its version: the one before must not come back


def fetch_etags(subdirs: Sequence[Subdir]) -> dict[str, str | None]:
    """Return which commit each subdir has, by ETag; subdirs without one are left out."""
    etags = in_parallel(lambda subdir: subdir.fetch_etag(), subdirs)
    return {subdir.id.name: etag for subdir, etag in zip(subdirs, etags, strict=True) if etag is not None}


def hash_shown(etags: Mapping[str, str | None]) -> str:
    """Return the ``SHOWN`` metadata of a file that shows these commits."""
    return hashlib.sha256(encode_json(etags)).hexdigest()


def _hash_places(places: Mapping[SubdirName, Place]) -> str:
    return hash_shown({name: etag for name, (etag, _) in places.items()})


def _shows(info: ObjectInfo | None) -> str | None:
    return None if info is None else info.metadata.get(SHOWN)
