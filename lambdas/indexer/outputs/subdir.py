"""Updates the outputs of one subdir to a commit: I/O around the registry's forms.

Each file carries the commit that it shows, as metadata, and is replaced only if no other writer has
replaced it meanwhile. To catch up, two commits are compared and the names that differ are replaced, so
that one missed commit costs what ten cost. If the old commit is no longer known, the document is made
from the tree.

If ``repodata.json`` is large, a commit writes its compressed form alone and defers the other files, so
that S3 copies plain files once for many commits (ADR 0007).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, VanishedError
from lambdas.channel.names import PackageName
from lambdas.indexer.model import Limits, Outputs
from lambdas.indexer.outputs import registry
from lambdas.indexer.outputs.contents import Document, RepodataContents, Spliced, Whole
from lambdas.indexer.outputs.form import (
    ShardForm,
    WholeDocument,
    apply_shards_to_document,
    encode_whole,
    make_document,
    parse_whole,
)
from lambdas.indexer.outputs.newest import Row, apply_to_newest
from lambdas.indexer.outputs.registry import (
    BZIP2,
    PLAIN,
    REPODATA,
    ZSTD,
    SubdirOutput,
    form_of,
    headers_of,
    subdir_filenames,
    wanted_subdir_filenames,
)
from lambdas.indexer.outputs.size_limit import PLAIN_SIZE, SizeLimit, parse_plain_size
from lambdas.indexer.quarantine.replaced import keep_replaced
from lambdas.indexer.spliced.files import TABLES, LargeFiles, Source, Tables, is_large
from lambdas.indexer.spliced.frames import RESET_TEXT
from lambdas.indexer.spliced.segments import (
    Table,
    apply_entries,
    format_table,
    parse_table,
    segment_document,
    segment_entries,
)
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.indexer.tree.reader import CommitReader
from lambdas.indexer.tree.shard_index import ShardIndex
from lambdas.indexer.tree.shards import Shard
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import IfAbsent, IfMatch, ObjectInfo

COMMIT: Final = "fairway-commit"
"""Metadata of an output: the hex SHA-256 of the commit that it shows."""
COMMIT_VERSION: Final = "fairway-commit-version"

_NAMES_AT_ONCE: Final = 256  # shards in memory while a document is made from all of them


@dataclass(frozen=True, kw_only=True, slots=True)
class Updated:
    """What an update of outputs did."""

    has_written: bool
    has_deferred: bool = False
    """Files that don't show the commit were left for a later run."""
    was_lost: bool = False
    """Another writer was quicker: read the commit again, and update again."""


def list_unwanted(subdir: Subdir, outputs: Outputs) -> list[str]:
    """Return the keys of files that are outputs and that a deployment with these settings does not write."""
    index = subdir.fetch_commit().index
    unwanted = sorted(set(subdir_filenames()) - set(wanted_subdir_filenames(outputs, index)))
    keys = [subdir.layout.file(filename) for filename in unwanted]
    infos = in_parallel(lambda key: head_file(subdir.storage, key), keys)
    return [key for key, info in zip(keys, infos, strict=True) if info is not None]


class SubdirUpdater:
    """Brings the outputs of one subdir to one commit."""

    def __init__(
        self,
        reader: CommitReader,
        outputs: Outputs,
        limits: Limits,
        *,
        is_rebuild: bool = False,
        may_defer: bool = False,
        remove_unwanted: bool = False,
    ) -> None:
        """With ``is_rebuild``, every file is written again; ``may_defer`` and ``remove_unwanted`` as named."""
        self._reader = reader
        self._subdir: Subdir = reader.subdir
        self._commit: Commit = reader.commit
        self._storage = reader.subdir.storage
        self._files = LargeFiles(storage=reader.subdir.storage, sizes=limits.sizes)
        self._outputs = outputs
        self._limits = limits
        self._is_rebuild = is_rebuild
        self._may_defer = may_defer
        self._remove_unwanted = remove_unwanted
        self._has_written = False
        self._found: Mapping[str, ObjectInfo | None] = {}
        self._due: frozenset[str] = frozenset()

    def update(self) -> Updated:
        """Write the files that do not show the commit yet."""
        deferred: frozenset[str] = frozenset()
        try:
            deferred = self._plan()
            self._write()
        except (ConflictError, VanishedError):
            return Updated(has_written=self._has_written, was_lost=True)
        return Updated(has_written=self._has_written, has_deferred=bool(deferred))

    def _plan(self) -> frozenset[str]:
        """Find the files that are due; return the names of those that are deferred."""
        self._found = self._head(wanted_subdir_filenames(self._outputs, self._commit.index))
        self._require_current()
        self._apply_size_limit()
        behind = frozenset(
            name for name, info in self._found.items() if self._is_rebuild or not _shows(info, self._commit)
        )
        self._due = behind
        plain = self._found.get(REPODATA.name)
        size = parse_plain_size(self._found[REPODATA.name + ZSTD.suffix]) if plain is None else plain.size
        if self._may_defer and size is not None and size > self._limits.sizes.deferred:
            self._due = behind & {
                output.name + suffix for output in registry.SUBDIR_OUTPUTS for suffix in output.prompt_suffixes
            }
        return behind - self._due

    def _apply_size_limit(self) -> None:
        """Take a file off the wanted ones that is too large, or that is missing because it was."""
        if self._outputs.max_repodata_bytes is None:
            return
        limit = SizeLimit(max_bytes=self._outputs.max_repodata_bytes)
        plain, compressed = self._found[REPODATA.name], self._found[REPODATA.name + ZSTD.suffix]
        if limit.keeps_away(compressed) if plain is None else self._remove_unwanted and limit.removes(compressed):
            self._found = {name: info for name, info in self._found.items() if name != REPODATA.name}

    def _require_current(self) -> None:
        """Inspect the pointer after the files that are to be replaced, never before.

        Those files then show this commit or an older one; otherwise they might show a newer one.

        Raises:
            ConflictError: there is a newer commit.
        """
        if self._subdir.fetch_etag() != self._commit.etag:
            raise ConflictError(f"{self._subdir} has a newer commit")

    def _write(self) -> None:
        documents = {
            output.name: self._fetch_document(output) for output in registry.SUBDIR_OUTPUTS if self._needs(output)
        }
        self._remove_ended()
        tables = self._put_tables(documents)
        for output in registry.SUBDIR_OUTPUTS:  # in the order of invariant 1
            document = documents.get(output.name)
            if isinstance(document, Spliced):
                self._put_spliced(output, document, tables)
            elif isinstance(document, Whole):
                self._put_encodings(output, document.plain)
            elif output.render is not None and not self._due.isdisjoint(output.filenames()):
                contents = RepodataContents(self._subdir.id, documents[REPODATA.name], self._files, self._limits)
                self._put_encodings(output, output.render(contents))
        if self._remove_unwanted:
            self._delete(set(subdir_filenames()) - self._found.keys())

    def _needs(self, output: SubdirOutput) -> bool:
        """Tell whether a file that is due depends on the output's document."""
        if output.form is None:
            return False
        dependent = set(output.filenames())
        if output is REPODATA:
            dependent |= {
                name for other in registry.SUBDIR_OUTPUTS if other.render is not None for name in other.filenames()
            }
        return not self._due.isdisjoint(dependent)

    # Documents

    def _fetch_document(self, output: SubdirOutput) -> Document:
        """Return the document at the commit, by change if the file shows a commit that is known."""
        form = form_of(output)
        compressed = self._found.get(output.name + ZSTD.suffix)
        plain = self._found.get(output.name)
        try:
            if self._is_rebuild:
                pass
            elif compressed is not None and is_large(compressed):
                if (spliced := self._update_spliced(output, form, compressed)) is not None:
                    return spliced
            elif (
                plain is not None
                and not is_large(plain)
                and (whole := self._update_whole(output, form, plain)) is not None
            ):
                return self._finish(form, whole)
        except InvalidDocumentError:
            pass  # another tool's file under this name: make it again
        return self._make(output, form)

    def _update_whole(self, output: SubdirOutput, form: ShardForm, found: ObjectInfo) -> WholeDocument | None:
        """Read the document and replace the names that changed; None if it shows a commit that is not known.

        Raises:
            ConflictError: it was replaced meanwhile.
            InvalidDocumentError: it has another form.
        """
        stored = get_file(self._storage, found.key)
        if stored is None or stored.info.etag != found.etag:
            raise ConflictError(f"{found.key!r} was replaced meanwhile")
        index = self._fetch_shown(stored.info)
        if index is None:
            return None
        document = parse_whole(form, decode_json(stored.body, what=found.key))
        names = self._reader.diff(index)
        return apply_shards_to_document(form, document, self._fetch(output, names)) if names else document

    def _update_spliced(self, output: SubdirOutput, form: ShardForm, compressed: ObjectInfo) -> Spliced | None:
        """Replace the segments that changed; None if the document has to be made again."""
        index = self._fetch_shown(compressed)
        if index is None:
            return None
        stored = self._files.fetch_tables(self._subdir.layout.tables, compressed) or Tables()
        if output.name in stored.tables:
            source = Source(info=compressed, table=parse_table(stored.tables[output.name], form))
        else:
            source = Source(info=compressed, table=self._files.scan_file(compressed, form))
        shards = self._fetch(output, self._reader.diff(index))
        segmented = apply_entries(
            form,
            source.table,
            {name: None if shard is None else form.entries_of(shard) for name, shard in shards.items()},
            form.apply_to_header(source.table.header, shards),
            lambda chunk: next(self._files.read_texts(source, {}, [chunk])),
            sizes=self._limits.sizes,
        )
        if segmented.table.text_bytes < self._limits.sizes.large // 2:
            return None
        newest = apply_to_newest(stored.newest, shards, total=source.table.count, limits=self._limits)
        return Spliced(segmented=segmented, source=source, newest=newest)

    def _make(self, output: SubdirOutput, form: ShardForm) -> Document:
        """Make a document from the tree, with no more in memory than a large one's segments."""
        header: Mapping[str, Any] = form.empty_header(self._subdir.id.name)

        def iter_shards() -> Iterator[tuple[PackageName, Shard]]:
            nonlocal header
            names = sorted(self._commit.index.shards)
            for start in range(0, len(names), _NAMES_AT_ONCE):
                shards = self._fetch(output, names[start : start + _NAMES_AT_ONCE], keep=False)
                header = form.apply_to_header(header, shards)
                yield from ((name, shard) for name, shard in shards.items() if shard is not None)

        shards = iter_shards()
        held: dict[PackageName, Shard] = {}
        size = 0
        for name, shard in shards:
            held[name] = shard
            size += len(encode_json(form.entries_of(shard)))
            if size > self._limits.sizes.large:
                break
        if size <= self._limits.sizes.large:
            empty = make_document(form, self._subdir.id.name)
            return self._finish(form, apply_shards_to_document(form, empty, held))
        entries = ((str(name), form.entries_of(shard)) for name, shard in chain(held.items(), shards))
        # The header depends on all shards: it is complete once the entries are exhausted.
        text_bytes = size * len(self._commit.index.shards) // len(held)
        return Spliced(
            segmented=segment_entries(form, entries, lambda: header, text_bytes=text_bytes, sizes=self._limits.sizes)
        )

    def _finish(self, form: ShardForm, document: WholeDocument) -> Document:
        plain = encode_whole(form, document)
        if len(plain) <= self._limits.sizes.large:
            return Whole(document=document, plain=plain)
        whole = decode_json(plain, what="a document")
        return Spliced(segmented=segment_document(form, whole, text_bytes=len(plain), sizes=self._limits.sizes))

    def _fetch(
        self, output: SubdirOutput, names: Iterable[PackageName], *, keep: bool = True
    ) -> dict[PackageName, Shard | None]:
        if output.is_unpatched:
            return self._reader.fetch_unpatched(names)
        return self._reader.fetch_shards(names, keep=keep)

    def _fetch_shown(self, info: ObjectInfo) -> ShardIndex | None:
        """Return the shard index that a file shows; None if it is not known."""
        if COMMIT not in info.metadata:
            return None
        return self._reader.fetch_index(info.metadata[COMMIT], info.metadata.get(COMMIT_VERSION))

    # Files

    def _put_tables(self, documents: Mapping[str, Document]) -> str:
        """Store the tables of large documents, before any file names them."""
        spliced = {name: document for name, document in documents.items() if isinstance(document, Spliced)}
        if not spliced:
            return ""
        repodata = spliced.get(REPODATA.name)
        newest = () if repodata is None else self._fetch_newest(documents, repodata)
        tables = {name: format_table(document.segmented.table) for name, document in spliced.items()}
        return self._files.put_tables(self._subdir.layout.tables, Tables(tables=tables, newest=newest))

    def _fetch_newest(self, documents: Mapping[str, Document], repodata: Spliced) -> Sequence[Row]:
        return RepodataContents(self._subdir.id, documents[REPODATA.name], self._files, self._limits).newest_rows(
            repodata
        )

    def _put_spliced(self, output: SubdirOutput, document: Spliced, tables: str) -> None:
        """Write a large document: the compressed file first, then the plain one from it."""
        name, segmented = output.name, document.segmented
        compressed = self._keep_foreign(name + ZSTD.suffix)
        plain = self._keep_foreign(name) if name in self._found else None
        metadata = {**self._metadata(), TABLES: tables}
        size = {} if self._outputs.max_repodata_bytes is None else {PLAIN_SIZE: str(segmented.table.text_bytes)}
        if name + BZIP2.suffix in self._due:
            texts = self._files.read_texts(document.source, segmented.new_chunks, segmented.table.chunks())
            self._put(name + BZIP2.suffix, BZIP2.encode(RESET_TEXT.join(texts)))
        written = compressed
        if written is None or name + ZSTD.suffix in self._due:
            written = self._files.write_compressed(
                self._subdir.layout.file(name + ZSTD.suffix),
                segmented,
                base=compressed,
                source=document.source,
                headers=headers_of(name + ZSTD.suffix),
                metadata=metadata | size,
            )
            self._has_written = True
        if name in self._due:
            self._files.write_plain(
                self._subdir.layout.file(name),
                segmented,
                base=plain,
                old=self._table_of(output, document, plain, compressed),
                compressed=written,
                headers=headers_of(name),
                metadata=metadata,
            )
            self._has_written = True

    def _table_of(
        self, output: SubdirOutput, document: Spliced, plain: ObjectInfo | None, compressed: ObjectInfo | None
    ) -> Table | None:
        """Return the table of the plain file, if it has one."""
        if plain is None or not is_large(plain) or self._is_rebuild:
            return None
        source = document.source
        if source is not None and compressed is not None and plain.metadata[TABLES] == compressed.metadata[TABLES]:
            return source.table
        stored = self._files.fetch_tables(self._subdir.layout.tables, plain)
        try:
            return None if stored is None else parse_table(stored.tables[output.name], form_of(output))
        except (InvalidDocumentError, KeyError):
            return None

    def _put_encodings(self, output: SubdirOutput, plain: bytes) -> None:
        for encoding in output.encodings:
            filename = output.name + encoding.suffix
            if filename in self._due:
                self._put(filename, encoding.encode(plain))

    def _keep_foreign(self, filename: str) -> ObjectInfo | None:
        """Return the file that is about to be replaced, of which a copy is kept if another tool wrote it."""
        info = self._found[filename]
        if info is not None and COMMIT not in info.metadata:
            keep_replaced(self._storage, info)
        return info

    def _put(self, filename: str, body: bytes) -> None:
        info = self._keep_foreign(filename)
        self._storage.put(
            self._subdir.layout.file(filename),
            body,
            headers=headers_of(filename),
            metadata=self._metadata(),
            condition=IfAbsent() if info is None else IfMatch(etag=info.etag),
        )
        self._has_written = True

    def _remove_ended(self) -> None:
        """Delete outputs that the commit ends, such as ``repodata_from_packages.json`` when patches end.

        That comes before ``repodata.json`` shows the commit: afterwards nothing would tell that they ended.
        """
        if REPODATA.name + ZSTD.suffix not in self._due and REPODATA.name not in self._due:
            return
        shown = [self._found.get(REPODATA.name + encoding.suffix) for encoding in (ZSTD, PLAIN)]
        indexes = [self._fetch_shown(info) for info in shown if info is not None]
        wanted = set(wanted_subdir_filenames(self._outputs, self._commit.index))
        before = {
            name
            for index in indexes
            for name in (subdir_filenames() if index is None else wanted_subdir_filenames(self._outputs, index))
        }
        self._delete(before - wanted)

    def _delete(self, filenames: Iterable[str]) -> None:
        for info in self._head(filenames).values():
            if info is None:
                continue
            if COMMIT not in info.metadata:
                if not self._outputs.remove_foreign:
                    continue
                keep_replaced(self._storage, info)
            # Without its version: the one before must not come back.
            self._storage.delete(replace(info, version=None))
            self._has_written = True

    def _head(self, filenames: Iterable[str]) -> dict[str, ObjectInfo | None]:
        wanted = sorted(filenames)
        infos = in_parallel(lambda name: head_file(self._storage, self._subdir.layout.file(name)), wanted)
        return dict(zip(wanted, infos, strict=True))

    def _metadata(self) -> dict[str, str]:
        version = {} if self._commit.version is None else {COMMIT_VERSION: self._commit.version}
        return {COMMIT: self._commit.sha256, **version}


def _shows(info: ObjectInfo | None, commit: Commit) -> bool:
    return info is not None and info.metadata.get(COMMIT) == commit.sha256
