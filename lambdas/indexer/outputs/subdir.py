"""Brings what readers see up to date with a commit: I/O around ``projections/``.

Each object written here carries the commit that it shows, as metadata, and is replaced only where
nobody else has replaced it meanwhile. To catch up, two commits are compared and the names that
differ are spliced in, so that one missed commit costs what ten cost. Where the old commit is no
longer known, everything is made again from the tree.

Where ``repodata.json`` is large, a publish writes its compressed form alone and leaves the rest for
later, so that what S3 copies for plain files is copied once for many publishes (ADR 0007).
"""

import bz2
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, VanishedError
from lambdas.channel.names import PackageName, Subdir, SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.model import Outputs
from lambdas.indexer.outputs.current_repodata import make_current_repodata
from lambdas.indexer.outputs.newest import Row, apply_to_newest, find_newest, iter_rows
from lambdas.indexer.outputs.pages import MAX_ROWS, format_subdir_page
from lambdas.indexer.outputs.repodata import (
    RepodataForm,
    apply_to_removed,
    apply_to_repodata,
    iter_repodata,
    make_repodata,
    repodata_entries,
)
from lambdas.indexer.outputs.run_exports import (
    RunExportsForm,
    apply_to_run_exports,
    make_run_exports,
    run_exports_entries,
)
from lambdas.indexer.spliced.files import (
    LARGE_BYTES,
    TABLES,
    Source,
    Tables,
    fetch_tables,
    is_large,
    put_tables,
    read_texts,
    scan_file,
    write_compressed,
    write_plain,
)
from lambdas.indexer.spliced.frames import RESET_TEXT
from lambdas.indexer.spliced.segments import (
    Entries,
    Form,
    SegmentedDocument,
    Table,
    apply_entries,
    format_table,
    parse_entries,
    parse_table,
    segment_document,
    segment_entries,
)
from lambdas.indexer.tree.cards import Cards
from lambdas.indexer.tree.commit import Commit, EncodedShard, fetch_cards, fetch_commit, fetch_shards
from lambdas.indexer.tree.encoding import FLAT_LEVEL, compress, decode_json, encode_json
from lambdas.indexer.tree.shard_index import SHARD_INDEX, ShardIndex, diff_indexes
from lambdas.indexer.tree.shards import Shard, make_shard
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import (
    CACHE_CONTROL_METADATA,
    ContentHeaders,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
)

COMMIT: Final = "fairway-commit"
COMMIT_VERSION: Final = "fairway-commit-version"
TABLES_COLLECTION: Final = "tables"

REPODATA: Final = "repodata.json"
FROM_PACKAGES: Final = "repodata_from_packages.json"
RUN_EXPORTS: Final = "run_exports.json"
CURRENT_REPODATA: Final = "current_repodata.json"
SUBDIR_PAGE: Final = "index.html"

_NAMES: Final = 256  # shards that are read at a time where all are read
_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".html": "text/html; charset=utf-8",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Kind:
    """A flat document: how it is made whole, and how in segments."""

    name: str
    form: Form
    make: Callable[[Subdir], dict[str, Any]]
    apply: Callable[[dict[str, Any], Mapping[PackageName, Shard | None]], dict[str, Any]]
    entries_of: Callable[[Shard], Entries]
    apply_header: Callable[[Mapping[str, Any], Mapping[PackageName, Shard | None]], Mapping[str, Any]]
    is_unpatched: bool = False


_REPODATA: Final = _Kind(
    name=REPODATA,
    form=RepodataForm(),
    make=make_repodata,
    apply=apply_to_repodata,
    entries_of=repodata_entries,
    apply_header=lambda header, shards: {**header, "removed": apply_to_removed(header["removed"], shards)},
)
_FROM_PACKAGES: Final = replace(_REPODATA, name=FROM_PACKAGES, is_unpatched=True)
_RUN_EXPORTS: Final = _Kind(
    name=RUN_EXPORTS,
    form=RunExportsForm(),
    make=make_run_exports,
    apply=apply_to_run_exports,
    entries_of=run_exports_entries,
    apply_header=lambda header, _: header,
)


@dataclass(kw_only=True)
class SubdirProjector:
    """Brings one subdir's projections to one commit."""

    storage: ObjectStorage
    path: SubdirId
    commit: Commit
    outputs: Outputs
    encoded: Mapping[PackageName, EncodedShard] = field(default_factory=dict)
    """What the caller has just committed: needn't be read again."""
    is_rebuild: bool = False
    """Write everything again, whatever is there."""
    may_defer: bool = False
    """Where ``repodata.json`` is large, write ``repodata.json.zst`` alone."""

    def __post_init__(self) -> None:
        self.has_written = False
        self.has_deferred = False
        """Whether something that does not show the commit was left for later."""
        self._due: frozenset[str] = frozenset()
        self._shards: dict[PackageName, Shard] = {name: shard.shard for name, shard in self.encoded.items()}
        self._cards: dict[PackageName, Cards] = {name: shard.cards for name, shard in self.encoded.items()}
        self._old_indexes: dict[str, ShardIndex | None] = {}

    def project(self) -> None:
        """Write what does not show the commit yet.

        Raises:
            ConflictError: another writer was quicker: read the commit again, and project again.
        """
        found = self._look([key for name in (REPODATA, RUN_EXPORTS) for key in self._variants(name)] + self._derived())
        self._require_current()
        behind = frozenset(name for name, info in found.items() if self.is_rebuild or not self._shows_commit(info))
        compressed = f"{REPODATA}.zst"
        self._due = behind & {compressed} if self.may_defer and is_large(found[compressed]) else behind
        self.has_deferred = behind != self._due
        try:
            self._project_documents(found)
        except VanishedError as error:
            raise ConflictError(f"a file of {self.path} was replaced while it was read") from error

    def _project_documents(self, found: Mapping[str, ObjectInfo | None]) -> None:
        kinds = [_REPODATA, _RUN_EXPORTS, *([] if self.commit.index.patches_sha256 is None else [_FROM_PACKAGES])]
        updates = {kind: update for kind in kinds if (update := self._update(kind, found)) is not None}
        if _REPODATA in updates and self.commit.index.patches_sha256 is None:
            self._end_from_packages()
        tables = self._put_tables(updates)
        # Invariant 1: compressed before plain, repodata before what is made of it.
        for kind, update in updates.items():
            if update.segmented is None:
                self._put_document(kind.name, update.plain, found)
            else:
                self._put_segmented(kind, update, found, tables)
        if (repodata := updates.get(_REPODATA)) is not None:
            if not self._due.isdisjoint(self._variants(CURRENT_REPODATA)):
                document = repodata.document or self._read_document(repodata)
                self._put_document(CURRENT_REPODATA, encode_json(make_current_repodata(document)), found)
            if SUBDIR_PAGE in self._due:  # last: where it is, all else was written before
                self._put(SUBDIR_PAGE, self._format_page(repodata), found)

    def _require_current(self) -> None:
        """Look at the pointer after what is to be replaced, never before.

        What was found then shows this commit or an older one; otherwise a newer one might be
        overwritten with ours.

        Raises:
            ConflictError: there is a newer commit.
        """
        info = self.storage.head(self.path.key(SHARD_INDEX))
        if info is None or info.etag != self.commit.etag:
            raise ConflictError(f"{self.path} has a newer commit")

    def _derived(self) -> list[str]:
        names = [SUBDIR_PAGE]
        if self.outputs.current_repodata:
            names += self._variants(CURRENT_REPODATA)
        if self.commit.index.patches_sha256 is not None:
            names += self._variants(FROM_PACKAGES)
        return names

    def _variants(self, name: str) -> list[str]:
        """Return the encodings of a document in the order in which they are written."""
        return [*([f"{name}.bz2"] if self.outputs.bz2 else []), f"{name}.zst", name]

    def _look(self, names: Iterable[str]) -> dict[str, ObjectInfo | None]:
        wanted = list(names)
        infos = in_parallel(lambda name: self.storage.head(self.path.key(name)), wanted)
        return dict(zip(wanted, infos, strict=True))

    def _shows_commit(self, info: ObjectInfo | None) -> bool:
        return info is not None and info.metadata.get(COMMIT) == self.commit.sha256

    def _update(self, kind: _Kind, found: Mapping[str, ObjectInfo | None]) -> "_Update | None":
        """Return the document at the commit, or None where nothing that is due depends on it."""
        dependent = self._variants(kind.name)
        if kind is _REPODATA:
            dependent += [name for name in self._derived() if not name.startswith(FROM_PACKAGES)]
        if self._due.isdisjoint(dependent):
            return None
        compressed, plain = found[f"{kind.name}.zst"], found[kind.name]
        try:
            if self.is_rebuild:
                pass
            elif compressed is not None and is_large(compressed):
                if (update := self._update_large(kind, compressed)) is not None:
                    return update
            elif plain is not None and not is_large(plain):
                shown = self._read_shown(self.path.key(kind.name), plain)
                if shown is not None:
                    document, names = shown
                    return _make_update(kind, kind.apply(document, self._fetch(kind, names)) if names else document)
        except InvalidDocumentError:
            pass  # somebody else's file under our name: make it again
        return self._make(kind)

    def _update_large(self, kind: _Kind, compressed: ObjectInfo) -> "_Update | None":
        """Replace the segments that changed; None where the document is to be made again."""
        index = self._fetch_index_shown(compressed)
        if index is None:
            return None
        stored = fetch_tables(self.storage, self._tables_key(), compressed) or Tables()
        if kind.name in stored.tables:
            source = Source(info=compressed, table=parse_table(stored.tables[kind.name], kind.form))
        else:
            source = Source(info=compressed, table=scan_file(self.storage, compressed, kind.form))
        shards = self._fetch(kind, diff_indexes(index, self.commit.index).names)
        segmented = apply_entries(
            kind.form,
            source.table,
            {name: None if shard is None else kind.entries_of(shard) for name, shard in shards.items()},
            kind.apply_header(source.table.header, shards),
            lambda chunk: next(read_texts(self.storage, source, {}, [chunk])),
        )
        if segmented.table.text_bytes < LARGE_BYTES // 2:
            return None
        newest = apply_to_newest(stored.newest, shards, total=source.table.count)
        return _Update(segmented=segmented, source=source, newest=newest)

    def _make(self, kind: _Kind) -> "_Update":
        """Make a document from the tree, holding no more than a large one's segments."""
        removed: list[str] = []

        def iter_shards() -> Iterator[tuple[PackageName, Shard]]:
            names = sorted(self.commit.index.shards)
            for start in range(0, len(names), _NAMES):
                for name, shard in self._fetch(kind, names[start : start + _NAMES], keep=False).items():
                    if shard is not None:
                        removed.extend(shard.removed)
                        yield name, shard
            removed.sort()

        shards = iter_shards()
        held: dict[PackageName, Shard | None] = {}
        size = 0
        for name, shard in shards:
            held[name] = shard
            size += len(encode_json(kind.entries_of(shard)))
            if size > LARGE_BYTES:
                break
        document = kind.apply(kind.make(self.path.subdir), held) if size <= LARGE_BYTES else None
        if document is not None:
            return _make_update(kind, document)
        everything = chain(((name, shard) for name, shard in held.items() if shard is not None), shards)
        header = kind.form.header_of({**kind.make(self.path.subdir), "removed": removed})
        entries = ((str(name), kind.entries_of(shard)) for name, shard in everything)
        return _Update(segmented=segment_entries(kind.form, entries, header))

    def _fetch(
        self, kind: _Kind, names: Iterable[PackageName], *, keep: bool = True
    ) -> dict[PackageName, Shard | None]:
        """Return what a document shows of some names; None for names that are gone."""
        wanted = list(names)
        if not kind.is_unpatched:
            return self._fetch_shards(wanted, keep=keep)
        cards = self._fetch_cards(wanted)
        return {name: make_shard(cards[name]) if name in cards else None for name in wanted}

    def _tables_key(self) -> str:
        return self.path.private_key(TABLES_COLLECTION, "tables.json.zst")

    def _put_tables(self, updates: Mapping[_Kind, "_Update"]) -> str:
        """Store what is to be known of large documents, before any of them names it."""
        tables = {
            kind.name: format_table(update.segmented.table)
            for kind, update in updates.items()
            if update.segmented is not None
        }
        if not tables:
            return ""
        repodata = updates.get(_REPODATA)
        newest = () if repodata is None or repodata.segmented is None else self._find_newest(repodata)
        return put_tables(self.storage, self._tables_key(), Tables(tables=tables, newest=newest))

    def _find_newest(self, update: "_Update") -> Sequence[Row]:
        """Return the rows that are kept for pages; where too many went away, all records are looked at."""
        segmented = update.segmented
        if segmented is None:
            return ()
        if update.newest is None or len(update.newest) < min(MAX_ROWS, segmented.table.count):
            update.newest = find_newest(self._iter_records(update))
        return update.newest

    def _iter_records(self, update: "_Update") -> Iterator[tuple[str, Record]]:
        assert update.segmented is not None  # noqa: S101 - asked for large documents alone
        for section, chunks in update.segmented.table.sections.items():
            extension = f".{section.removeprefix('v3.')}" if section.startswith("v3.") else ""
            for text in read_texts(self.storage, update.source, update.segmented.new_chunks, chunks):
                for key, record in parse_entries(_REPODATA.form, text):
                    yield f"{key}{extension}", record

    def _read_document(self, update: "_Update") -> dict[str, Any]:
        assert update.segmented is not None  # noqa: S101 - asked for large documents alone
        texts = read_texts(self.storage, update.source, update.segmented.new_chunks, update.segmented.table.chunks())
        document: dict[str, Any] = decode_json(RESET_TEXT.join(texts), what=REPODATA)
        return document

    def _format_page(self, update: "_Update") -> bytes:
        if update.segmented is None:
            return format_subdir_page(self.path, iter_repodata(update.document or {}))
        rows = self._find_newest(update)
        return format_subdir_page(self.path, iter_rows(rows), total=update.segmented.table.count)

    def _put_segmented(
        self, kind: _Kind, update: "_Update", found: Mapping[str, ObjectInfo | None], tables: str
    ) -> None:
        """Write a large document: the compressed file first, then the plain one out of it."""
        segmented = update.segmented
        assert segmented is not None  # noqa: S101 - asked for large documents alone
        name = kind.name
        compressed, plain = found[f"{name}.zst"], found[name]
        metadata = {**self._metadata(), TABLES: tables}
        if f"{name}.bz2" in self._due:
            texts = read_texts(self.storage, update.source, segmented.new_chunks, segmented.table.chunks())
            self._put(f"{name}.bz2", bz2.compress(RESET_TEXT.join(texts)), found)
        written = compressed
        if written is None or f"{name}.zst" in self._due:
            written = write_compressed(
                self.storage,
                self.path.key(f"{name}.zst"),
                segmented,
                base=compressed,
                source=update.source,
                headers=_headers(".zst"),
                metadata=metadata,
            )
            self.has_written = True
        if name in self._due:
            write_plain(
                self.storage,
                self.path.key(name),
                segmented,
                base=plain,
                old=self._find_table(kind, update, plain, compressed),
                compressed=written,
                headers=_headers(name),
                metadata=metadata,
            )
            self.has_written = True

    def _find_table(
        self, kind: _Kind, update: "_Update", plain: ObjectInfo | None, compressed: ObjectInfo | None
    ) -> Table | None:
        """Return the table of the plain file as it is, if it has one."""
        if plain is None or not is_large(plain) or self.is_rebuild:
            return None
        if (
            compressed is not None
            and update.source is not None
            and plain.metadata[TABLES] == compressed.metadata[TABLES]
        ):
            return update.source.table
        stored = fetch_tables(self.storage, self._tables_key(), plain)
        try:
            return None if stored is None else parse_table(stored.tables[kind.name], kind.form)
        except (InvalidDocumentError, KeyError):
            return None

    def _read_shown(self, key: str, found: ObjectInfo) -> tuple[dict[str, Any], frozenset[PackageName]] | None:
        """Read a document and tell which names differ between what it shows and the commit.

        None where it is broken, or shows a commit that nobody knows any more.

        Raises:
            ConflictError: it is not what was found.
        """
        if self.is_rebuild:
            return None
        stored = self.storage.get(key)
        if stored is None or stored.info.etag != found.etag:
            raise ConflictError(f"{key!r} was replaced meanwhile")
        if COMMIT not in stored.info.metadata:
            return None
        index = self._fetch_index_shown(stored.info)
        if index is None:
            return None
        try:
            document = decode_json(stored.body, what=key)
        except InvalidDocumentError:
            return None
        names = diff_indexes(index, self.commit.index).names
        return document, names

    def _fetch_index_shown(self, info: ObjectInfo) -> ShardIndex | None:
        sha256 = info.metadata.get(COMMIT, "")
        if sha256 == self.commit.sha256:
            return self.commit.index
        if sha256 not in self._old_indexes:
            version = info.metadata.get(COMMIT_VERSION)
            old = fetch_commit(self.storage, self.path, version=version) if version else None
            self._old_indexes[sha256] = old.index if old is not None and old.sha256 == sha256 else None
        return self._old_indexes[sha256]

    def _fetch_shards(self, names: Iterable[PackageName], *, keep: bool = True) -> dict[PackageName, Shard | None]:
        wanted = list(names)
        missing = [name for name in wanted if name not in self._shards and name in self.commit.index.shards]
        fetched = fetch_shards(self.storage, self.path, self.commit.index, missing)
        if keep:
            self._shards |= fetched
        known = ChainMap(fetched, self._shards)
        return {name: known[name] if name in self.commit.index.shards else None for name in wanted}

    def _fetch_cards(self, names: Iterable[PackageName]) -> dict[PackageName, Cards]:
        wanted = list(names)
        missing = [name for name in wanted if name not in self._cards and name in self.commit.index.shards]
        fetched = fetch_cards(self.storage, self.path, self.commit.index, missing)
        self._cards |= {name: cards or {} for name, cards in fetched.items()}
        return {name: self._cards.get(name, {}) for name in wanted if name in self.commit.index.shards}

    def _end_from_packages(self) -> None:
        """Take the unpatched view away when patches end.

        That comes before repodata.json shows it: afterwards nothing would tell that they have ended.
        """
        shown = self._old_indexes.values()
        if not shown or any(index is None or index.patches_sha256 is not None for index in shown):
            self._delete_document(FROM_PACKAGES)

    def _delete_document(self, name: str) -> None:
        for info in self._look(self._variants(name)).values():
            if info is not None:  # without its version: the one before must not come back
                self.storage.delete(replace(info, version=None))
                self.has_written = True

    def _put_document(self, name: str, plain: bytes, found: Mapping[str, ObjectInfo | None]) -> None:
        for variant in self._variants(name):
            if variant in self._due:
                self._put(variant, _encode_variant(plain, variant), found)

    def _put(self, name: str, body: bytes, found: Mapping[str, ObjectInfo | None]) -> None:
        self.storage.put(
            self.path.key(name),
            body,
            headers=_headers(name),
            metadata=self._metadata(),
            condition=_unchanged(found[name]),
        )
        self.has_written = True

    def _metadata(self) -> dict[str, str]:
        version = {} if self.commit.version is None else {COMMIT_VERSION: self.commit.version}
        return {COMMIT: self.commit.sha256, **version}


@dataclass(kw_only=True, slots=True)
class _Update:
    """What becomes of a document: whole if it is small, segmented if it is large."""

    document: dict[str, Any] | None = None
    plain: bytes = b""
    segmented: SegmentedDocument | None = None
    source: Source | None = None
    """The file that unchanged chunks are read from."""
    newest: Sequence[Row] | None = None


def _make_update(kind: _Kind, document: dict[str, Any]) -> _Update:
    plain = encode_json(document)
    if len(plain) <= LARGE_BYTES:
        return _Update(document=document, plain=plain)
    return _Update(segmented=segment_document(kind.form, document))


def _encode_variant(plain: bytes, name: str) -> bytes:
    if name.endswith(".zst"):
        return compress(plain, level=FLAT_LEVEL)
    return bz2.compress(plain) if name.endswith(".bz2") else plain


def _headers(name: str) -> ContentHeaders:
    suffix = name[name.rindex(".") :]
    return ContentHeaders(content_type=_CONTENT_TYPES[suffix], cache_control=CACHE_CONTROL_METADATA)


def _unchanged(info: ObjectInfo | None) -> IfAbsent | IfMatch:
    return IfAbsent() if info is None else IfMatch(etag=info.etag)
