"""A large document as sorted segments that are read, replaced and compressed apart. Pure.

A document alternates between *separators* and *sections*: ``{"packages":{`` - records -
``},"packages.conda":{`` - records - ``}}``. The records of a section are sorted by (name, key) and cut
into segments between names. Separators and segments are *chunks*: each is compressed separately, and
two chunks are separated by the 33 spaces of ``frames.RESET_TEXT``. The *table* of a document lists its
chunks; it is derived from the document and can be recreated from it.

Segments are padded with spaces to a round size. Most changes then keep the size of the document, which
the frame header states.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, Final, Protocol

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.spliced.frames import RESET_TEXT, encode_chunk
from lambdas.indexer.spliced.sizes import SIZES, Sizes
from lambdas.indexer.tree.encoding import BEST_LEVEL, FLAT_LEVEL, encode_json

MAX_BEST_SEGMENTS: Final = 16
"""A change of more segments than this is compressed at ``FLAT_LEVEL``, to finish in time."""

_LARGEST: Final = 1.6  # times the target size: a larger segment is split
_SMALLEST: Final = 0.4  # times the target size: a smaller segment is merged with its neighbour
_PADDINGS: Final = 32  # segments are padded to a multiple of this fraction of the target size
_MEDIUM: Final = ((16, 4), (64, 2))
"""Below so many full segments, a segment has a fraction of the full size."""
_DIGEST_CHARS: Final = 32
_scan = json.JSONDecoder().raw_decode

Entries = Mapping[str, Mapping[str, Any]]
"""``{section: {key: value}}``: what one name contributes to a document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A chunk as the table describes it."""

    digest: str
    text_bytes: int
    block_bytes: int = 0
    """Compressed size; 0 in documents that have no compressed encoding."""
    first: str = ""
    """The first name in a segment."""
    count: int = 0
    oldest: int = 0
    newest: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Totals of a section, computed from the table alone."""

    count: int = 0
    oldest: int = 0
    newest: int = 0


class Form(Protocol):
    """How one kind of document is laid out."""

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections in their order."""

    @property
    def segment_bytes(self) -> int:
        """The target size of a segment."""

    @property
    def is_compressed(self) -> bool:
        """Whether there is a compressed encoding, made of the same chunks."""

    def name_of(self, section: str, key: str) -> str:
        """Return the package name that an entry belongs to."""

    def time_of(self, value: Any) -> int:  # noqa: ANN401 - JSON is anything
        """Return when an entry was indexed, where the document says so; else 0."""

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:
        """Return the text before, between and after the sections, given the other fields of the document."""

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the entries of a section of a whole document."""

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the header fields of a document, whose sections may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The chunks of a document, in order."""

    separators: tuple[Chunk, ...]
    sections: Mapping[str, tuple[Chunk, ...]]
    header: Mapping[str, Any]

    def chunks(self) -> tuple[Chunk, ...]:
        """Return every chunk, in document order."""
        ordered: list[Chunk] = []
        for separators, segments in zip_longest(self.separators, self.sections.values(), fillvalue=()):
            ordered += [separators, *segments] if isinstance(separators, Chunk) else segments
        return tuple(ordered)

    def summarise(self, section: str) -> Summary:
        """Return the totals of a section."""
        return summarise(self.sections[section])

    @property
    def text_bytes(self) -> int:
        """The size of the uncompressed document."""
        chunks = self.chunks()
        return sum(chunk.text_bytes for chunk in chunks) + len(RESET_TEXT) * (len(chunks) - 1)

    @property
    def count(self) -> int:
        """The number of entries in all sections."""
        return sum(chunk.count for chunk in self.chunks())


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentedDocument:
    """A table, and the content of those chunks that are new."""

    table: Table
    new_chunks: Mapping[str, bytes]
    """``{digest: blocks}``, or ``{digest: text}`` in documents that have no compressed encoding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    name: str
    key: str
    text: str
    time: int


class Editor:
    """Builds one segmented document.

    Sections are written one after the other, each in order: ``keep`` an unchanged segment or ``write``
    entries, then ``finish_section``.
    """

    def __init__(self, form: Form, segment_bytes: float, *, level: int = BEST_LEVEL) -> None:
        self._form = form
        self._segment_bytes = segment_bytes
        self._padding = int(segment_bytes / _PADDINGS) if form.is_compressed else 1
        self._level = level
        self._segments: list[Chunk] = []
        self._waiting: list[_Row] | None = None
        self.sections: dict[str, tuple[Chunk, ...]] = {}
        self.new_chunks: dict[str, bytes] = {}

    def keep(self, chunk: Chunk) -> None:
        """Append an unchanged segment."""
        self._encode_waiting(is_last=False)
        self._segments.append(chunk)

    def write(self, rows: Sequence[_Row]) -> None:
        """Append sorted entries, in as many segments as they need."""
        for group in self._cut(rows):
            self._encode_waiting(is_last=False)
            self._waiting = group

    def take_back(self) -> Chunk | list[_Row] | None:
        """Remove and return the segment that was appended last."""
        if self._waiting is not None:
            rows, self._waiting = self._waiting, None
            return rows
        return self._segments.pop() if self._segments else None

    def finish_section(self, section: str) -> None:
        """End a section: its last segment has no trailing comma."""
        self._encode_waiting(is_last=True)
        self.sections[section] = tuple(self._segments)
        self._segments = []

    def adopt(self, section: str, other: "Editor") -> None:
        """Copy a section that another editor has finished."""
        self.sections[section] = other.sections[section]
        self.new_chunks |= other.new_chunks

    def finish(self, header: Mapping[str, Any], *, old: Table | None = None) -> SegmentedDocument:
        """Add the separators; those that did not change are kept."""
        sections = {section: self.sections[section] for section in self._form.sections}
        texts = self._form.format_separators(
            header, {section: summarise(self.sections[section]) for section in sections}
        )
        known = {chunk.digest: chunk for chunk in (old.separators if old is not None else ())}
        separators = tuple(known.get(_digest(text)) or self._encode(text) for text in texts)
        table = Table(separators=separators, sections=sections, header=dict(header))
        used = {chunk.digest for chunk in table.chunks()}
        return SegmentedDocument(
            table=table, new_chunks={digest: body for digest, body in self.new_chunks.items() if digest in used}
        )

    def _encode_waiting(self, *, is_last: bool) -> None:
        if self._waiting is None:
            return
        rows, self._waiting = self._waiting, None
        text = ",".join(row.text for row in rows) + ("" if is_last else ",")
        filling = -(len(text) + len(RESET_TEXT)) % self._padding
        times = [row.time for row in rows]
        self._segments.append(
            self._encode(
                (text + " " * filling).encode("ascii"),
                first=rows[0].name,
                count=len(rows),
                oldest=min(times),
                newest=max(times),
            )
        )

    def _encode(self, text: bytes, *, first: str = "", count: int = 0, oldest: int = 0, newest: int = 0) -> Chunk:
        digest = _digest(text)
        body = encode_chunk(text, level=self._level) if self._form.is_compressed else text
        self.new_chunks[digest] = body
        return Chunk(
            digest=digest,
            text_bytes=len(text),
            block_bytes=len(body) if self._form.is_compressed else 0,
            first=first,
            count=count,
            oldest=oldest,
            newest=newest,
        )

    def _cut(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """Divide rows between names, into groups of about one size."""
        total = _size(rows)
        if total <= _LARGEST * self._segment_bytes:
            if rows:
                yield list(rows)
            return
        most = total / round(total / self._segment_bytes)
        group: list[_Row] = []
        size = 0
        for _, of_name in groupby(rows, key=lambda row: row.name):
            more = list(of_name)
            more_bytes = _size(more)
            if group and size + more_bytes / 2 > most:
                yield group
                group, size = [], 0
            group += more
            size += more_bytes
        yield group


def apply_entries(
    form: Form,
    table: Table,
    changes: Mapping[str, Entries | None],
    header: Mapping[str, Any],
    load: Callable[[Chunk], bytes],
    *,
    sizes: Sizes = SIZES,
) -> SegmentedDocument:
    """Return the document after the entries of some names were replaced.

    ``load`` returns the text of a chunk. It is called for the affected segments, and for a neighbour if
    segments have to be merged.

    Raises:
        InvalidDocumentError: a chunk does not match the table.
    """
    changed = {section: _group_by_segment(table.sections[section], changes) for section in form.sections}
    few = sum(len(names) for names in changed.values()) <= MAX_BEST_SEGMENTS
    segment_bytes = target_segment_bytes(form, sizes, table.text_bytes)
    editor = Editor(form, segment_bytes, level=BEST_LEVEL if few else FLAT_LEVEL)
    least = _SMALLEST * segment_bytes

    for section in form.sections:

        def read(chunk: Chunk, section: str = section) -> list[_Row]:
            return list(_parse_rows(form, section, load(chunk)))

        new = {
            at: (frozenset(names), _make_rows(form, section, {name: changes[name] for name in names}))
            for at, names in changed[section].items()
        }
        _apply_to_section(editor, table.sections[section], new, read, least=least)
        editor.finish_section(section)
    return editor.finish(header, old=table)


def _apply_to_section(
    editor: Editor,
    segments: Sequence[Chunk],
    new: Mapping[int, tuple[frozenset[str], list[_Row]]],
    read: Callable[[Chunk], list[_Row]],
    *,
    least: float,
) -> None:
    """Rewrite a section; ``new`` is ``{position: (names that change, their entries)}``."""
    if not segments:
        editor.write(new[0][1] if new else [])
        return
    carried: list[_Row] = []
    for at, chunk in enumerate(segments):
        if at not in new and not carried:
            editor.keep(chunk)
            continue
        before = read(chunk)
        names, added = new.get(at, (frozenset(), []))
        rows = sorted([*(row for row in before if row.name not in names), *added], key=_order)
        if not carried and rows == before:
            editor.keep(chunk)
            continue
        rows = [*carried, *rows]
        carried = []
        is_small = _size(rows) < least
        if is_small and at < len(segments) - 1:
            carried = rows  # merged into the next segment
        elif is_small and (last := editor.take_back()) is not None:
            editor.write([*(read(last) if isinstance(last, Chunk) else last), *rows])
        else:
            editor.write(rows)


def segment_entries(
    form: Form,
    entries: Iterable[tuple[str, Entries]],
    header: Callable[[], Mapping[str, Any]],
    *,
    text_bytes: int,
    level: int = FLAT_LEVEL,
    sizes: Sizes = SIZES,
) -> SegmentedDocument:
    """Build a document from the entries of all names, given in order of names.

    At most one segment of each section is in memory uncompressed. ``header`` is called after the last
    entry was taken. ``text_bytes`` is about how large the document will be.
    """
    segment_bytes = target_segment_bytes(form, sizes, text_bytes)
    editors = {section: Editor(form, segment_bytes, level=level) for section in form.sections}
    waiting: dict[str, list[_Row]] = {section: [] for section in form.sections}
    waiting_bytes = dict.fromkeys(form.sections, 0)
    for name, contribution in entries:
        for section in form.sections:
            rows = _make_rows(form, section, {name: contribution})
            if not rows:
                continue
            if waiting_bytes[section] >= segment_bytes:
                editors[section].write(waiting[section])
                waiting[section], waiting_bytes[section] = [], 0
            waiting[section] += rows
            waiting_bytes[section] += _size(rows)
    whole = Editor(form, segment_bytes, level=level)
    for section, editor in editors.items():
        editor.write(waiting[section])
        editor.finish_section(section)
        whole.adopt(section, editor)
    return whole.finish(header())


def segment_document(
    form: Form, document: Mapping[str, Any], *, text_bytes: int, sizes: Sizes = SIZES
) -> SegmentedDocument:
    """Divide a whole document of this size into chunks."""
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for section in form.sections:
        for key, value in form.section_of(document, section).items():
            entries.setdefault(form.name_of(section, key), {}).setdefault(section, {})[key] = value
    return segment_entries(
        form, sorted(entries.items()), lambda: form.header_of(document), text_bytes=text_bytes, sizes=sizes
    )


def scan_table(form: Form, texts: Iterable[tuple[bytes, int]]) -> Table:
    """Recreate the table from the chunks of a document: ``(text, compressed size)``.

    Raises:
        InvalidDocumentError: not the chunks of a document of this form.
    """
    separators: list[Chunk] = []
    skeleton = b""
    found: list[list[Chunk]] = []
    for text, block_bytes in texts:
        if text.startswith(b'"'):
            if not 0 < len(separators) <= len(form.sections):
                raise InvalidDocumentError("a segment outside the sections")
            rows = list(_parse_rows(form, form.sections[len(separators) - 1], text))
            if not rows:
                raise InvalidDocumentError("an empty segment")
            times = [row.time for row in rows]
            found[-1].append(
                Chunk(
                    digest=_digest(text),
                    text_bytes=len(text),
                    block_bytes=block_bytes,
                    first=rows[0].name,
                    count=len(rows),
                    oldest=min(times),
                    newest=max(times),
                )
            )
        else:
            separators.append(Chunk(digest=_digest(text), text_bytes=len(text), block_bytes=block_bytes))
            skeleton += text
            found.append([])
    if len(separators) != len(form.sections) + 1 or found[-1]:
        raise InvalidDocumentError("not the chunks of a document of this form")
    try:
        header = form.header_of(json.loads(skeleton))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDocumentError(f"not the chunks of a document of this form: {error!r}") from error
    sections = {section: tuple(segments) for section, segments in zip(form.sections, found[:-1], strict=True)}
    return Table(separators=tuple(separators), sections=sections, header=header)


def parse_entries(form: Form, section: str, text: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a segment: ``(key, value)``."""
    for row in _parse_rows(form, section, text):
        yield row.key, json.loads("{" + row.text + "}")[row.key]


def fetch_entry(form: Form, section: str, table: Table, name: str, load: Callable[[Chunk], bytes]) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the entry whose key is a package name, or None if it is missing; ``load`` as in ``apply_entries``.

    Raises:
        InvalidDocumentError: a chunk does not match the table.
    """
    segments = table.sections[section]
    if not segments:
        return None
    (at,) = _group_by_segment(segments, [name])
    rows = _parse_rows(form, section, load(segments[at]))
    return next((json.loads("{" + row.text + "}")[name] for row in rows if row.key == name), None)


def target_segment_bytes(form: Form, sizes: Sizes, text_bytes: int) -> float:
    """Return how large the segments of a document of this size should be.

    A small segment is compressed quickly, a large one well. The size has few steps, so that a segment
    that is written again is padded to a multiple of the same size.
    """
    full = form.segment_bytes * sizes.segment_scale
    return next((full / divisor for segments, divisor in _MEDIUM if text_bytes < segments * full), full)


def summarise(segments: Iterable[Chunk]) -> Summary:
    """Return the totals of some segments."""
    chunks = list(segments)
    if not chunks:
        return Summary()
    return Summary(
        count=sum(chunk.count for chunk in chunks),
        oldest=min(chunk.oldest for chunk in chunks),
        newest=max(chunk.newest for chunk in chunks),
    )


def format_table(table: Table) -> dict[str, Any]:
    """Return a table as a JSON value."""
    return {
        "separators": [_format_chunk(chunk) for chunk in table.separators],
        "sections": {name: [_format_chunk(chunk) for chunk in chunks] for name, chunks in table.sections.items()},
        "header": dict(table.header),
    }


def parse_table(document: Any, form: Form) -> Table:  # noqa: ANN401 - JSON is anything
    """Return the table that a JSON value holds.

    Raises:
        InvalidDocumentError: not the table of a document of this form.
    """
    try:
        return Table(
            separators=tuple(_parse_chunk(row) for row in document["separators"]),
            sections={
                section: tuple(_parse_chunk(row) for row in document["sections"][section]) for section in form.sections
            },
            header=document["header"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocumentError(f"not a table of segments: {error!r}") from error


def _format_chunk(chunk: Chunk) -> list[object]:
    return [
        chunk.digest, chunk.text_bytes, chunk.block_bytes, chunk.first, chunk.count, chunk.oldest, chunk.newest
    ]  # fmt: skip


def _parse_chunk(row: Sequence[Any]) -> Chunk:
    digest, text_bytes, block_bytes, first, count, oldest, newest = row
    return Chunk(
        digest=digest,
        text_bytes=text_bytes,
        block_bytes=block_bytes,
        first=first,
        count=count,
        oldest=oldest,
        newest=newest,
    )


def _group_by_segment(segments: Sequence[Chunk], names: Iterable[str]) -> dict[int, list[str]]:
    """Return the names by the position of the segment that they belong to."""
    firsts = [chunk.first for chunk in segments]
    changed: dict[int, list[str]] = {}
    for name in names:
        changed.setdefault(max(0, bisect_right(firsts, name) - 1), []).append(name)
    return changed


def _make_rows(form: Form, section: str, changes: Mapping[str, Entries | None]) -> list[_Row]:
    rows = []
    for name, entries in changes.items():
        for key, value in (entries or {}).get(section, {}).items():
            text = f"{json.dumps(key)}:{encode_json(value).decode('ascii')}"
            rows.append(_Row(name=name, key=key, text=text, time=form.time_of(value)))
    return sorted(rows, key=_order)


def _parse_rows(form: Form, section: str, text: bytes) -> Iterator[_Row]:
    """Parse a segment; each entry keeps its text, so that it is not encoded again."""
    try:
        source = text.decode("ascii").rstrip(" ").removesuffix(",")
        at = 0
        while at < len(source):
            key, colon = _scan(source, at)
            if source[colon] != ":":
                raise InvalidDocumentError("not a segment: no colon after a key")
            value, end = _scan(source, colon + 1)
            if source[end : end + 1] not in {"", ","}:
                raise InvalidDocumentError("not a segment: no comma after an entry")
            yield _Row(name=form.name_of(section, key), key=key, text=source[at:end], time=form.time_of(value))
            at = end + 1
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidDocumentError(f"not a segment: {error!r}") from error


def _order(row: _Row) -> tuple[str, str]:
    return row.name, row.key


def _size(rows: Iterable[_Row]) -> int:
    return sum(len(row.text) + 1 for row in rows)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARS]
