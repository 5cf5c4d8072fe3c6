"""Reads and writes large flat documents: I/O around ``segments.py``, ``frames.py`` and ``parts.py``.

A large document is stored twice, compressed and plain, made of the same chunks. Each file names its
*table* by hash and version, and the table is stored first, so that every file has its table. An unused
table is harmless. A lost table is recreated from the file.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel import caching
from lambdas.channel.errors import ConflictError, InvalidDocumentError, VanishedError
from lambdas.indexer.spliced.frames import (
    HEADER_BYTES,
    LAST_BLOCK,
    RESET_BLOCK,
    RESET_TEXT,
    FrameSplitter,
    decode_chunk,
    encode_header,
)
from lambdas.indexer.spliced.parts import Copy, Span, plan_parts
from lambdas.indexer.spliced.segments import Chunk, Form, SegmentedDocument, Table, scan_table
from lambdas.indexer.spliced.sizes import SIZES, Sizes
from lambdas.indexer.tree.encoding import PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.indexer.tree.index_files import get_file
from lambdas.storage.protocol import (
    ContentHeaders,
    CopyRange,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
    Part,
    can_copy_ranges,
)

TABLES: Final = "fairway-tables"
"""The object metadata that names the table of a file: ``SHA256 VERSION``."""
_GAP_BYTES: Final = 4096  # the largest gap between two chunks that are read in one request
_TABLES_HEADERS: Final = ContentHeaders(content_type="application/zstd", cache_control=caching.NO_STORE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The private document beside large files: their tables, and what would require reading them whole."""

    tables: Mapping[str, Any] = field(default_factory=dict)
    """``{name of the document: table}``, as JSON values."""
    newest: Sequence[Sequence[Any]] = ()
    """Rows of the records that were indexed last, for pages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file that chunks are read from, with its table."""

    info: ObjectInfo
    table: Table


def is_large(info: ObjectInfo | None) -> bool:
    """Return whether a file is made of chunks."""
    return info is not None and TABLES in info.metadata


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeFiles:
    """Large files in one storage."""

    storage: ObjectStorage
    sizes: Sizes = SIZES

    def put_tables(self, key: str, tables: Tables) -> str:
        """Store tables; return the value of the ``TABLES`` metadata that names them."""
        body = compress(encode_json({"tables": tables.tables, "newest": tables.newest}), level=PRIVATE_LEVEL)
        info = self.storage.put(key, body, headers=_TABLES_HEADERS)
        return f"{hashlib.sha256(body).hexdigest()} {info.version or ''}".strip()

    def fetch_tables(self, key: str, info: ObjectInfo) -> Tables | None:
        """Read the tables that a file names; None if they are missing or invalid."""
        sha256, _, version = info.metadata.get(TABLES, "").partition(" ")
        # Almost always, the file names the tables that were stored last.
        for wanted in (None, version or None):
            try:
                stored = get_file(self.storage, key, version=wanted)
                if stored is not None and hashlib.sha256(stored.body).hexdigest() == sha256:
                    document = decode_json(decompress(stored.body, what=key), what=key)
                    return Tables(tables=document["tables"], newest=document["newest"])
            except (InvalidDocumentError, KeyError, TypeError):
                return None
            if not version:
                break
        return None

    def scan_file(self, info: ObjectInfo, form: Form) -> Table:
        """Recreate the table from the compressed file, with one segment in memory at a time.

        Raises:
            InvalidDocumentError: not a document of this form, or not joined from chunks.
        """

        def texts() -> Iterator[tuple[bytes, int]]:
            splitter = FrameSplitter()
            for data in self.storage.stream(info):
                for blocks in splitter.feed(data):
                    yield decode_chunk(blocks, what=info.key), len(blocks)
            if not splitter.is_complete:
                raise InvalidDocumentError(f"{info.key!r} is truncated")

        return scan_table(form, texts())

    def read_texts(
        self, source: Source | None, new_chunks: Mapping[str, bytes], chunks: Sequence[Chunk]
    ) -> Iterator[bytes]:
        """Yield the texts of some chunks; neighbouring chunks are read in one request."""
        for blocks in self._read_blocks(source, new_chunks, chunks):
            yield decode_chunk(blocks, what="a chunk")

    def write_compressed(
        self,
        key: str,
        segmented: SegmentedDocument,
        *,
        base: ObjectInfo | None,
        source: Source | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        """Write the compressed file; ``source`` is ``base`` with its table, if that is known.

        Raises:
            ConflictError: ``base`` is no longer the current version.
        """
        chunks = segmented.table.chunks()
        spans = _compressed_spans(segmented.table)

        def read(first: int, last: int) -> bytes:
            # Spans are the header, the chunks, the last block.
            body = b"".join(
                (RESET_BLOCK if at else b"") + blocks
                for at, blocks in zip(
                    range(max(first - 1, 0), len(chunks)),
                    self._read_blocks(source, segmented.new_chunks, chunks[max(first - 1, 0) : last - 1]),
                    strict=False,
                )
            )
            head = encode_header(segmented.table.text_bytes) if first == 0 else b""
            return head + body + (LAST_BLOCK if last == len(spans) else b"")

        old = _compressed_spans(source.table) if source is not None else []
        return self._write(key, old, spans, read, base=base, headers=headers, metadata=metadata)

    def write_plain(
        self,
        key: str,
        segmented: SegmentedDocument,
        *,
        base: ObjectInfo | None,
        old: Table | None,
        compressed: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        """Write the plain file; ``old`` is the table of ``base``, if that is known.

        Chunks to upload are read from ``compressed``, the new compressed file, or from ``base`` if the
        document has no compressed encoding.

        Raises:
            ConflictError: ``base`` is no longer the current version.
        """
        chunks = segmented.table.chunks()
        known = None if base is None or old is None else Source(info=base, table=old)

        def read(first: int, last: int) -> bytes:
            if compressed is not None:
                source = Source(info=compressed, table=segmented.table)
                texts = self.read_texts(source, segmented.new_chunks, chunks[first:last])
            else:
                texts = self._read_spans(known, segmented.new_chunks, chunks[first:last])
            return b"".join(
                (RESET_TEXT if at else b"") + text for at, text in zip(range(first, last), texts, strict=True)
            )

        spans = [] if known is None else _plain_spans(known.table)
        return self._write(
            key, spans, _plain_spans(segmented.table), read, base=base, headers=headers, metadata=metadata
        )

    def read_plain_chunk(self, source: Source, chunk: Chunk) -> bytes:
        """Read a chunk of a file that has no compressed encoding."""
        return next(self._read_spans(source, {}, [chunk]))

    def _write(
        self,
        key: str,
        old: Sequence[Span],
        new: Sequence[Span],
        read: Callable[[int, int], bytes],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        if base is not None and old and sum(span.size for span in old) != base.size:
            old = []  # the table describes another file
        if base is not None and not can_copy_ranges(base, min_bytes=self.sizes.min_part):
            old = []
        try:
            if sum(span.size for span in new) <= self.sizes.whole:
                condition = IfAbsent() if base is None else IfMatch(etag=base.etag)
                return self.storage.put(key, read(0, len(new)), headers=headers, metadata=metadata, condition=condition)

            def parts() -> Iterator[Part]:
                for part in plan_parts(old, new, least=self.sizes.min_part, most=self.sizes.max_part):
                    if isinstance(part, Copy):
                        yield CopyRange(start=part.start, stop=part.stop)
                    else:
                        yield read(part.first, part.last)

            return self.storage.splice(key, parts(), base=base, headers=headers, metadata=metadata)
        except VanishedError as error:
            raise ConflictError(f"a source of {key!r} was replaced during the upload") from error

    def _read_blocks(
        self, source: Source | None, new_chunks: Mapping[str, bytes], chunks: Iterable[Chunk]
    ) -> Iterator[bytes]:
        """Yield the blocks of some chunks, in order."""
        known = [] if source is None else _compressed_spans(source.table)[1:-1]
        return self._read(source, new_chunks, chunks, _chunk_offsets(source, known, HEADER_BYTES, len(RESET_BLOCK)))

    def _read_spans(
        self, source: Source | None, new_chunks: Mapping[str, bytes], chunks: Iterable[Chunk]
    ) -> Iterator[bytes]:
        """Yield the texts of some chunks of a plain file, in order."""
        known = [] if source is None else _plain_spans(source.table)
        return self._read(source, new_chunks, chunks, _chunk_offsets(source, known, 0, len(RESET_TEXT)))

    def _read(
        self,
        source: Source | None,
        new_chunks: Mapping[str, bytes],
        chunks: Iterable[Chunk],
        places: Mapping[str, tuple[int, int]],
    ) -> Iterator[bytes]:
        """Yield chunks in order; new ones come from memory, and neighbouring ones are read in one request."""
        waiting: list[tuple[int, int]] = []

        def read_waiting() -> Iterator[bytes]:
            if waiting and source is not None:
                start = waiting[0][0]
                body = self.storage.read_range(source.info, start, waiting[-1][1])
                for first, last in waiting:
                    yield body[first - start : last - start]
            waiting.clear()

        for chunk in chunks:
            if chunk.digest in new_chunks:
                yield from read_waiting()
                yield new_chunks[chunk.digest]
                continue
            if chunk.digest not in places:
                raise InvalidDocumentError("a chunk is missing from its source")
            first, last = places[chunk.digest]
            if waiting and not (
                waiting[-1][1] <= first <= waiting[-1][1] + _GAP_BYTES and last - waiting[0][0] < self.sizes.max_part
            ):
                yield from read_waiting()
            waiting.append((first, last))
        yield from read_waiting()


def _chunk_offsets(
    source: Source | None, spans: Sequence[Span], start: int, gap_bytes: int
) -> dict[str, tuple[int, int]]:
    """Return the offsets of each chunk in the file, without the gap before it."""
    found: dict[str, tuple[int, int]] = {}
    chunks = () if source is None else source.table.chunks()
    for at, (chunk, span) in enumerate(zip(chunks, spans, strict=True)):
        found.setdefault(chunk.digest, (start + (gap_bytes if at else 0), start + span.size))
        start += span.size
    return found


def _compressed_spans(table: Table) -> list[Span]:
    chunks = table.chunks()
    return [
        Span(identity=f"header {table.text_bytes}", size=HEADER_BYTES),
        *(
            Span(
                identity=f"{chunk.digest} {chunk.block_bytes}", size=chunk.block_bytes + (len(RESET_BLOCK) if at else 0)
            )
            for at, chunk in enumerate(chunks)
        ),
        Span(identity="last", size=len(LAST_BLOCK)),
    ]


def _plain_spans(table: Table) -> list[Span]:
    return [
        Span(identity=chunk.digest, size=chunk.text_bytes + (len(RESET_TEXT) if at else 0))
        for at, chunk in enumerate(table.chunks())
    ]
