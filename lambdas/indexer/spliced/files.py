"""Reads and writes large flat documents: I/O around ``segments.py``, ``frames.py`` and ``parts.py``.

A large document lies there twice, compressed and plain, made of the same pieces. Each file names the
*table* that describes it, by hash and version, and the table is stored before the file: so no file is
ever without its table, and a table that nobody names does no harm. Where a table is lost, it is made
again from the file.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError, VanishedError
from lambdas.indexer.spliced.frames import (
    HEADER_BYTES,
    JOINT,
    LAST_BLOCK,
    RESET_BLOCK,
    FrameSplitter,
    decode_piece,
    encode_header,
)
from lambdas.indexer.spliced.parts import PART_BYTES, Copy, Span, plan_parts
from lambdas.indexer.spliced.segments import Edition, Form, Piece, Table, scan_table
from lambdas.indexer.tree.encoding import PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.storage.protocol import (
    CACHE_CONTROL_PRIVATE,
    MIN_PART_BYTES,
    ContentHeaders,
    CopyRange,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
    Part,
)

TABLES: Final = "fairway-tables"
"""The attribute by which a file names its table: ``SHA256 VERSION``."""
LARGE_BYTES: Final = 16 * 1024 * 1024
"""A plain document of this size is kept in segments; docs/performance.md has the measurements."""
LARGE_CHANNELDATA_BYTES: Final = 8 * 1024 * 1024
"""The same for a document that is not compressed, whose segments are smaller."""
WHOLE_BYTES: Final = 8 * 1024 * 1024
"""A file up to this size is written whole, in one request instead of five."""

_GAP_BYTES: Final = 4096  # between two pieces that are read in one request: joints, and small ones in between
_TABLES_HEADERS: Final = ContentHeaders(content_type="application/zstd", cache_control=CACHE_CONTROL_PRIVATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """What is kept beside large documents: their tables, and what else must not be read whole."""

    tables: Mapping[str, Any] = field(default_factory=dict)
    """``{name of the document: table}``, as JSON has it."""
    newest: Sequence[Sequence[Any]] = ()
    """Rows of what was indexed last, for pages."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """Which commits are shown, where it is not one alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file that pieces can be read from."""

    info: ObjectInfo
    table: Table


def is_large(info: ObjectInfo | None) -> bool:
    """Tell whether a file is made of pieces."""
    return info is not None and TABLES in info.metadata


def put_tables(storage: ObjectStorage, key: str, tables: Tables) -> str:
    """Store tables; return how files name them."""
    body = compress(
        encode_json({"tables": tables.tables, "newest": tables.newest, "shown": tables.shown}), level=PRIVATE_LEVEL
    )
    info = storage.put(key, body, headers=_TABLES_HEADERS)
    return f"{hashlib.sha256(body).hexdigest()} {info.version or ''}".strip()


def fetch_tables(storage: ObjectStorage, key: str, info: ObjectInfo) -> Tables | None:
    """Read the tables that a file names; None where they are lost or broken."""
    sha256, _, version = info.metadata.get(TABLES, "").partition(" ")
    # Almost always they are the ones that were stored last.
    for wanted in (None, version or None):
        stored = storage.get(key, version=wanted)
        if stored is not None and hashlib.sha256(stored.body).hexdigest() == sha256:
            try:
                document = decode_json(decompress(stored.body, what=key), what=key)
                return Tables(**document)
            except (InvalidDocumentError, TypeError):
                return None
        if not version:
            break
    return None


def scan_file(storage: ObjectStorage, info: ObjectInfo, form: Form) -> Table:
    """Make the table again from the compressed file, holding one segment at a time.

    Raises:
        InvalidDocumentError: it is not such a document, or not put together of pieces.
    """

    def texts() -> Iterator[tuple[bytes, int]]:
        splitter = FrameSplitter()
        for chunk in storage.stream(info):
            for blocks in splitter.feed(chunk):
                yield decode_piece(blocks, what=info.key), len(blocks)
        if not splitter.is_complete:
            raise InvalidDocumentError(f"{info.key!r} is truncated")

    return scan_table(form, texts())


def read_texts(
    storage: ObjectStorage, source: Source | None, fresh: Mapping[str, bytes], pieces: Sequence[Piece]
) -> Iterator[bytes]:
    """Yield the texts of some pieces; those that are not at hand are read, neighbours together."""
    for blocks in _read_blocks(storage, source, fresh, pieces):
        yield decode_piece(blocks, what="a piece")


def write_packed(
    storage: ObjectStorage,
    key: str,
    edition: Edition,
    *,
    base: ObjectInfo | None,
    source: Source | None,
    headers: ContentHeaders,
    metadata: Mapping[str, str],
) -> ObjectInfo:
    """Write the compressed file; ``source`` is ``base`` with its table, where that is known.

    Raises:
        ConflictError: ``base`` is no longer the current version.
    """
    pieces = edition.table.pieces()
    spans = _packed_spans(edition.table)

    def read(first: int, last: int) -> bytes:
        # Spans are the header, the pieces, the last block.
        body = b"".join(
            (RESET_BLOCK if at else b"") + blocks
            for at, blocks in zip(
                range(max(first - 1, 0), len(pieces)),
                _read_blocks(storage, source, edition.fresh, pieces[max(first - 1, 0) : last - 1]),
                strict=False,
            )
        )
        head = encode_header(edition.table.text_bytes) if first == 0 else b""
        return head + body + (LAST_BLOCK if last == len(spans) else b"")

    old = _packed_spans(source.table) if source is not None else []
    return _write(storage, key, old, spans, read, base=base, headers=headers, metadata=metadata)


def write_plain(
    storage: ObjectStorage,
    key: str,
    edition: Edition,
    *,
    base: ObjectInfo | None,
    old: Table | None,
    packed: ObjectInfo | None,
    headers: ContentHeaders,
    metadata: Mapping[str, str],
) -> ObjectInfo:
    """Write the plain file; ``old`` describes ``base``, where that is known.

    What has to be sent again is taken from ``packed``, the new compressed file; from ``base`` where the
    document is kept plain alone.

    Raises:
        ConflictError: ``base`` is no longer the current version.
    """
    pieces = edition.table.pieces()
    known = None if base is None or old is None else Source(info=base, table=old)

    def read(first: int, last: int) -> bytes:
        if packed is not None:
            source = Source(info=packed, table=edition.table)
            texts = read_texts(storage, source, edition.fresh, pieces[first:last])
        else:
            texts = _read_spans(storage, known, edition.fresh, pieces[first:last])
        return b"".join((JOINT if at else b"") + text for at, text in zip(range(first, last), texts, strict=True))

    spans = [] if known is None else _plain_spans(known.table)
    return _write(storage, key, spans, _plain_spans(edition.table), read, base=base, headers=headers, metadata=metadata)


def read_single(storage: ObjectStorage, source: Source, piece: Piece) -> bytes:
    """Read a piece of a file that is kept plain alone."""
    return next(_read_spans(storage, source, {}, [piece]))


def _write(
    storage: ObjectStorage,
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
        old = []  # the table is of another file
    try:
        if sum(span.size for span in new) <= WHOLE_BYTES:
            condition = IfAbsent() if base is None else IfMatch(etag=base.etag)
            return storage.put(key, read(0, len(new)), headers=headers, metadata=metadata, condition=condition)

        def parts() -> Iterator[Part]:
            for part in plan_parts(old, new, least=MIN_PART_BYTES, most=PART_BYTES):
                if isinstance(part, Copy):
                    yield CopyRange(start=part.start, stop=part.stop)
                else:
                    yield read(part.first, part.last)

        return storage.splice(key, parts(), base=base, headers=headers, metadata=metadata)
    except VanishedError as error:
        raise ConflictError(f"what {key!r} is made of was replaced meanwhile") from error


def _read_blocks(
    storage: ObjectStorage, source: Source | None, fresh: Mapping[str, bytes], pieces: Iterable[Piece]
) -> Iterator[bytes]:
    """Yield the blocks of some pieces, in order."""
    known = [] if source is None else _packed_spans(source.table)[1:-1]
    return _read(storage, source, fresh, pieces, _find_bodies(source, known, HEADER_BYTES, len(RESET_BLOCK)))


def _read_spans(
    storage: ObjectStorage, source: Source | None, fresh: Mapping[str, bytes], pieces: Iterable[Piece]
) -> Iterator[bytes]:
    """Yield the texts of some pieces of a plain file, in order."""
    known = [] if source is None else _plain_spans(source.table)
    return _read(storage, source, fresh, pieces, _find_bodies(source, known, 0, len(JOINT)))


def _find_bodies(source: Source | None, spans: Sequence[Span], start: int, joint: int) -> dict[str, tuple[int, int]]:
    """Return where each piece begins and ends in the file, without the joint before it."""
    found: dict[str, tuple[int, int]] = {}
    pieces = () if source is None else source.table.pieces()
    for at, (piece, span) in enumerate(zip(pieces, spans, strict=True)):
        found.setdefault(piece.digest, (start + (joint if at else 0), start + span.size))
        start += span.size
    return found


def _read(
    storage: ObjectStorage,
    source: Source | None,
    fresh: Mapping[str, bytes],
    pieces: Iterable[Piece],
    places: Mapping[str, tuple[int, int]],
) -> Iterator[bytes]:
    """Yield what is at hand as it is; what has to be read and lies side by side is read in one request."""
    waiting: list[tuple[int, int]] = []

    def read_waiting() -> Iterator[bytes]:
        if waiting and source is not None:
            start = waiting[0][0]
            body = storage.read_range(source.info, start, waiting[-1][1])
            for first, last in waiting:
                yield body[first - start : last - start]
        waiting.clear()

    for piece in pieces:
        if piece.digest in fresh:
            yield from read_waiting()
            yield fresh[piece.digest]
            continue
        if piece.digest not in places:
            raise InvalidDocumentError("a piece is nowhere to be found")
        first, last = places[piece.digest]
        if waiting and not (
            waiting[-1][1] <= first <= waiting[-1][1] + _GAP_BYTES and last - waiting[0][0] < PART_BYTES
        ):
            yield from read_waiting()
        waiting.append((first, last))
    yield from read_waiting()


def _packed_spans(table: Table) -> list[Span]:
    pieces = table.pieces()
    return [
        Span(identity=f"header {table.text_bytes}", size=HEADER_BYTES),
        *(
            Span(
                identity=f"{piece.digest} {piece.block_bytes}", size=piece.block_bytes + (len(RESET_BLOCK) if at else 0)
            )
            for at, piece in enumerate(pieces)
        ),
        Span(identity="last", size=len(LAST_BLOCK)),
    ]


def _plain_spans(table: Table) -> list[Span]:
    return [
        Span(identity=piece.digest, size=piece.text_bytes + (len(JOINT) if at else 0))
        for at, piece in enumerate(table.pieces())
    ]
