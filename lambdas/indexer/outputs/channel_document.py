"""channeldata.json at some commits: made by change or anew, small or large."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.model import Limits
from lambdas.indexer.outputs.channel_state import ChannelState
from lambdas.indexer.outputs.channeldata import ChanneldataForm, format_entry
from lambdas.indexer.outputs.form import encode_whole, parse_whole, replace_entries
from lambdas.indexer.outputs.name_merger import Entry, NameMerger
from lambdas.indexer.outputs.newest import NameRow, apply_to_newest_names, make_name_row, newest_name_rows
from lambdas.indexer.outputs.registry import CHANNELDATA
from lambdas.indexer.spliced.files import LargeFiles, Source
from lambdas.indexer.spliced.segments import (
    Chunk,
    SegmentedDocument,
    apply_entries,
    fetch_entry,
    format_table,
    parse_table,
    segment_document,
    segment_entries,
)
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.index_files import get_file
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_FORM: Final = ChanneldataForm()
_NAMES_AT_ONCE: Final = 256
_CHUNKS_KEPT: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """channeldata.json, small."""

    body: bytes
    newest: Sequence[NameRow]
    total: int
    """The number of names."""

    @property
    def tables(self) -> Mapping[str, Any]:
        """No table."""
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spliced:
    """channeldata.json, large."""

    segmented: SegmentedDocument
    newest: Sequence[NameRow]
    source: Source | None = None

    @property
    def total(self) -> int:
        """The number of names."""
        return self.segmented.table.count

    @property
    def tables(self) -> Mapping[str, Any]:
        """The table, as the state has it."""
        return {CHANNELDATA.name: format_table(self.segmented.table)}


Document = Whole | Spliced


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentMaker:
    """Makes channeldata.json at the commits of a merger."""

    storage: ObjectStorage
    files: LargeFiles
    merger: NameMerger
    subdirs: Sequence[SubdirName]
    limits: Limits

    def apply(self, info: ObjectInfo, state: ChannelState, names: Sequence[PackageName]) -> Document | None:
        """Replace the names that changed in the file that shows a state; None if it has to be made again.

        Raises:
            ConflictError: it was replaced meanwhile.
        """
        kept = [make_name_row(name, entry) for name, entry in state.newest]
        if kept != list(state.newest):
            return None  # texts of a version that did not cut them: those of channeldata.json are as long
        try:
            is_large = CHANNELDATA.name in state.tables
            document = (self._apply_to_chunks if is_large else self._apply_to_whole)(info, state, names)
        except (InvalidDocumentError, KeyError, TypeError, AttributeError):
            return None  # another tool's file under this name
        if document is None or len(document.newest) < min(self.limits.max_rows, document.total):
            return None
        return document

    def make(self, names: Sequence[PackageName]) -> Document:
        """Make everything again from the tree; ``names`` are all."""
        newest: list[NameRow] = []

        def iter_entries() -> Iterator[tuple[str, Entry]]:
            nonlocal newest
            for start in range(0, len(names), _NAMES_AT_ONCE):
                merged = self.merger.merge(names[start : start + _NAMES_AT_ONCE], lambda _: ())
                rows = newest_name_rows(merged.items(), self.limits)
                newest = newest_name_rows([*newest, *rows], self.limits)  # rows are entries, with less in them
                yield from ((name, format_entry(entry)) for name, entry in sorted(merged.items()))

        entries = iter_entries()
        held: dict[str, Any] = {}
        size = 0
        for name, entry in entries:
            held[name] = entry
            size += len(encode_json(entry))
            if size > self.limits.sizes.large_uncompressed:
                break
        if size <= self.limits.sizes.large_uncompressed:
            return self._finish(held, newest)
        segmented = segment_entries(
            _FORM,
            ((name, {"packages": {name: entry}}) for name, entry in chain(held.items(), entries)),
            lambda: {"subdirs": list(self.subdirs)},
            text_bytes=size * len(names) // len(held),
            sizes=self.limits.sizes,
        )
        return Spliced(segmented=segmented, newest=newest)

    def _apply_to_whole(self, info: ObjectInfo, state: ChannelState, names: Sequence[PackageName]) -> Document | None:
        stored = get_file(self.storage, info.key, version=info.version)
        if stored is None or stored.info.etag != info.etag:
            raise ConflictError(f"{info.key!r} was replaced meanwhile")
        before = parse_whole(_FORM, decode_json(stored.body, what=info.key))
        packages = before.sections["packages"]
        entries = self._merge(names, lambda name: packages[name]["subdirs"] if name in packages else ())
        replaced = replace_entries(_FORM, before, _contributions(entries))
        newest = apply_to_newest_names(state.newest, entries, total=len(packages), limits=self.limits)
        return self._finish(replaced.sections["packages"], newest)

    def _apply_to_chunks(self, info: ObjectInfo, state: ChannelState, names: Sequence[PackageName]) -> Document | None:
        source = Source(info=info, table=parse_table(state.tables[CHANNELDATA.name], _FORM))

        @lru_cache(maxsize=_CHUNKS_KEPT)
        def load(chunk: Chunk) -> bytes:
            return self.files.read_plain_chunk(source, chunk)

        def list_holders(name: PackageName) -> Iterable[SubdirName]:
            entry = fetch_entry(_FORM, "packages", source.table, name, load)
            return () if entry is None else entry["subdirs"]

        entries = self._merge(names, list_holders)
        segmented = apply_entries(
            _FORM,
            source.table,
            _contributions(entries),
            {"subdirs": list(self.subdirs)},
            load,
            sizes=self.limits.sizes,
        )
        if segmented.table.text_bytes < self.limits.sizes.large_uncompressed // 2:
            return None
        newest = apply_to_newest_names(state.newest, entries, total=source.table.count, limits=self.limits)
        return Spliced(segmented=segmented, source=source, newest=newest)

    def _merge(
        self, names: Sequence[PackageName], list_holders: Callable[[PackageName], Iterable[SubdirName]]
    ) -> dict[str, Entry | None]:
        merged = self.merger.merge(names, list_holders)
        return {str(name): merged.get(name) for name in names}

    def _finish(self, packages: Mapping[str, Any], newest: Sequence[NameRow]) -> Document:
        whole = {"channeldata_version": 1, "packages": packages, "subdirs": list(self.subdirs)}
        body = encode_whole(_FORM, parse_whole(_FORM, whole))
        if len(body) > self.limits.sizes.large_uncompressed:
            segmented = segment_document(_FORM, whole, text_bytes=len(body), sizes=self.limits.sizes)
            return Spliced(segmented=segmented, newest=newest)
        return Whole(total=len(packages), newest=newest, body=body)


def _contributions(entries: Mapping[str, Entry | None]) -> dict[str, dict[str, dict[str, Any]] | None]:
    return {
        name: None if entry is None else {"packages": {name: format_entry(entry)}} for name, entry in entries.items()
    }
