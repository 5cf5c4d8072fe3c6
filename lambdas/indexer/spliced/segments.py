"""A large document as sorted segments that are read, replaced and compressed apart. Pure.

A document is *glue* and *sections* in turn: ``{"packages":{`` - records - ``},"packages.conda":{`` -
records - ``}}``. The records of a section stand in the order of (name, key), cut into segments between
names. Glue and segments alike are *pieces*: each is compressed alone, and between two pieces stand the
33 spaces of ``frames.JOINT``. The *table* of a document lists its pieces; it says nothing that the
document doesn't, and can be made again from it.

Segments end with spaces that fill them up to a round size, so that most changes leave the size of the
whole, which stands at the beginning of the frame, as it was.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, Final, Protocol

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.spliced.frames import JOINT, encode_piece
from lambdas.indexer.tree.encoding import BEST_LEVEL, FLAT_LEVEL, encode_json

MAX_BEST_SEGMENTS: Final = 16
"""Where a change touches more segments than this, they are compressed at ``FLAT_LEVEL``: it must end in time."""
ROUND_BYTES: Final = 32 * 1024

_LARGEST: Final = 1.6  # of the size that segments are cut to; above, a segment is split
_SMALLEST: Final = 0.4  # below, it is merged with its neighbour
_DIGEST_CHARS: Final = 32
_scan = json.JSONDecoder().raw_decode

Entries = Mapping[str, Mapping[str, Any]]
"""``{section: {key: value}}``: what one name contributes to a document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What is known of a piece without reading it."""

    digest: str
    text_bytes: int
    block_bytes: int = 0
    """Compressed; 0 in documents that are kept plain alone."""
    first: str = ""
    """The first name in a segment."""
    count: int = 0
    oldest: int = 0
    newest: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What is known of a section without reading it."""

    count: int = 0
    oldest: int = 0
    newest: int = 0


class Form(Protocol):
    """What kind of document it is."""

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections in their order."""

    @property
    def segment_bytes(self) -> int:
        """How large segments are to be."""

    @property
    def is_packed(self) -> bool:
        """Whether there is a compressed encoding, made of the same pieces."""

    def find_name(self, key: str) -> str:
        """Return the package name that an entry belongs to."""

    def find_time(self, value: Any) -> int:  # noqa: ANN401 - JSON is anything
        """Return when an entry was indexed, where the document says so; else 0."""

    def format_glue(self, rest: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:
        """Return what stands before, between and behind the sections; ``rest`` is all else that it says."""

    def find_section(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the entries of a section of a whole document."""

    def find_rest(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``rest`` again from the document without its entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The pieces of a document, in order."""

    glue: tuple[Piece, ...]
    sections: Mapping[str, tuple[Piece, ...]]
    rest: Mapping[str, Any]

    def pieces(self) -> tuple[Piece, ...]:
        """Return every piece in the order in which they stand."""
        ordered: list[Piece] = []
        for glue, segments in zip_longest(self.glue, self.sections.values(), fillvalue=()):
            ordered += [glue, *segments] if isinstance(glue, Piece) else segments
        return tuple(ordered)

    def summarise(self, section: str) -> Summary:
        """Add up the segments of a section."""
        return summarise(self.sections[section])

    @property
    def text_bytes(self) -> int:
        """The size of the plain document."""
        pieces = self.pieces()
        return sum(piece.text_bytes for piece in pieces) + len(JOINT) * (len(pieces) - 1)

    @property
    def count(self) -> int:
        """The number of entries in all sections."""
        return sum(piece.count for piece in self.pieces())


@dataclass(frozen=True, kw_only=True, slots=True)
class Edition:
    """A table, and the content of those pieces that are new."""

    table: Table
    fresh: Mapping[str, bytes]
    """``{digest: blocks}``, or ``{digest: text}`` in documents that are kept plain alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    name: str
    key: str
    text: str
    time: int


class Editor:
    """Makes an edition of one document.

    Sections are written one after the other, each from its beginning to its end: ``keep`` a segment as
    it is, or ``write`` entries, then ``finish_section``.
    """

    def __init__(self, form: Form, *, level: int = BEST_LEVEL) -> None:
        self._form = form
        self._level = level
        self._segments: list[Piece] = []
        self._waiting: list[_Row] | None = None
        self.sections: dict[str, tuple[Piece, ...]] = {}
        self.fresh: dict[str, bytes] = {}

    def keep(self, piece: Piece) -> None:
        """Keep a segment."""
        self._settle(is_last=False)
        self._segments.append(piece)

    def write(self, rows: Sequence[_Row]) -> None:
        """Write entries, sorted, in as many segments as they need."""
        for chunk in self._cut(rows):
            self._settle(is_last=False)
            self._waiting = chunk

    def take_back(self) -> Piece | list[_Row] | None:
        """Take the segment back that was kept or written last."""
        if self._waiting is not None:
            rows, self._waiting = self._waiting, None
            return rows
        return self._segments.pop() if self._segments else None

    def finish_section(self, section: str) -> None:
        """End a section: its last segment has no comma at its end."""
        self._settle(is_last=True)
        self.sections[section] = tuple(self._segments)
        self._segments = []

    def adopt(self, section: str, other: "Editor") -> None:
        """Take over a section that another editor has finished."""
        self.sections[section] = other.sections[section]
        self.fresh |= other.fresh

    def finish(self, rest: Mapping[str, Any], *, old: Table | None = None) -> Edition:
        """Set the glue between the sections; glue that says what it said is kept."""
        sections = {section: self.sections[section] for section in self._form.sections}
        texts = self._form.format_glue(rest, {section: summarise(self.sections[section]) for section in sections})
        known = {piece.digest: piece for piece in (old.glue if old is not None else ())}
        glue = tuple(known.get(_digest(text)) or self._encode(text) for text in texts)
        table = Table(glue=glue, sections=sections, rest=dict(rest))
        used = {piece.digest for piece in table.pieces()}
        return Edition(table=table, fresh={digest: body for digest, body in self.fresh.items() if digest in used})

    def _settle(self, *, is_last: bool) -> None:
        if self._waiting is None:
            return
        rows, self._waiting = self._waiting, None
        text = ",".join(row.text for row in rows) + ("" if is_last else ",")
        filling = -(len(text) + len(JOINT)) % (ROUND_BYTES if self._form.is_packed else 1)
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

    def _encode(self, text: bytes, *, first: str = "", count: int = 0, oldest: int = 0, newest: int = 0) -> Piece:
        digest = _digest(text)
        body = encode_piece(text, level=self._level) if self._form.is_packed else text
        self.fresh[digest] = body
        return Piece(
            digest=digest,
            text_bytes=len(text),
            block_bytes=len(body) if self._form.is_packed else 0,
            first=first,
            count=count,
            oldest=oldest,
            newest=newest,
        )

    def _cut(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """Cut between names, into chunks of about one size."""
        total = _size(rows)
        if total <= _LARGEST * self._form.segment_bytes:
            if rows:
                yield list(rows)
            return
        most = total / round(total / self._form.segment_bytes)
        chunk: list[_Row] = []
        size = 0
        for _, group in groupby(rows, key=lambda row: row.name):
            more = list(group)
            more_bytes = _size(more)
            if chunk and size + more_bytes / 2 > most:
                yield chunk
                chunk, size = [], 0
            chunk += more
            size += more_bytes
        yield chunk


def apply_entries(
    form: Form,
    table: Table,
    changes: Mapping[str, Entries | None],
    rest: Mapping[str, Any],
    load: Callable[[Piece], bytes],
) -> Edition:
    """Return the document after the entries of some names were replaced.

    ``load`` reads the text of a piece; it is asked for the touched segments alone, and for a neighbour
    where one has to be split or merged.

    Raises:
        InvalidDocumentError: a piece is not what the table says.
    """
    touched = {section: _find_touched(table.sections[section], changes) for section in form.sections}
    few = sum(len(names) for names in touched.values()) <= MAX_BEST_SEGMENTS
    editor = Editor(form, level=BEST_LEVEL if few else FLAT_LEVEL)

    def read(piece: Piece) -> list[_Row]:
        return list(_parse_rows(form, load(piece)))

    for section in form.sections:
        new = {
            at: (frozenset(names), _make_rows(form, section, {name: changes[name] for name in names}))
            for at, names in touched[section].items()
        }
        _apply_to_section(editor, table.sections[section], new, read, least=_SMALLEST * form.segment_bytes)
        editor.finish_section(section)
    return editor.finish(rest, old=table)


def _apply_to_section(
    editor: Editor,
    segments: Sequence[Piece],
    new: Mapping[int, tuple[frozenset[str], list[_Row]]],
    read: Callable[[Piece], list[_Row]],
    *,
    least: float,
) -> None:
    """Write a section again; ``new`` is ``{position: (names that change, their entries)}``."""
    if not segments:
        editor.write(new[0][1] if new else [])
        return
    carried: list[_Row] = []
    for at, piece in enumerate(segments):
        if at not in new and not carried:
            editor.keep(piece)
            continue
        before = read(piece)
        names, added = new.get(at, (frozenset(), []))
        rows = sorted([*(row for row in before if row.name not in names), *added], key=_order)
        if not carried and rows == before:
            editor.keep(piece)
            continue
        rows = [*carried, *rows]
        carried = []
        is_small = _size(rows) < least
        if is_small and at < len(segments) - 1:
            carried = rows  # goes into the next one
        elif is_small and (last := editor.take_back()) is not None:
            editor.write([*(read(last) if isinstance(last, Piece) else last), *rows])
        else:
            editor.write(rows)


def make_edition(
    form: Form, entries: Iterable[tuple[str, Entries]], rest: Mapping[str, Any], *, level: int = FLAT_LEVEL
) -> Edition:
    """Make a document out of the entries of all names, which come in the order of names.

    Not more than a segment of each section is held uncompressed.
    """
    editors = {section: Editor(form, level=level) for section in form.sections}
    waiting: dict[str, list[_Row]] = {section: [] for section in form.sections}
    sizes = dict.fromkeys(form.sections, 0)
    for name, contribution in entries:
        for section in form.sections:
            rows = _make_rows(form, section, {name: contribution})
            if not rows:
                continue
            if sizes[section] >= form.segment_bytes:
                editors[section].write(waiting[section])
                waiting[section], sizes[section] = [], 0
            waiting[section] += rows
            sizes[section] += _size(rows)
    whole = Editor(form, level=level)
    for section, editor in editors.items():
        editor.write(waiting[section])
        editor.finish_section(section)
        whole.adopt(section, editor)
    return whole.finish(rest)


def cut_document(form: Form, document: Mapping[str, Any]) -> Edition:
    """Make the pieces of a whole document."""
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for section in form.sections:
        for key, value in form.find_section(document, section).items():
            entries.setdefault(form.find_name(key), {}).setdefault(section, {})[key] = value
    return make_edition(form, sorted(entries.items()), form.find_rest(document))


def scan_table(form: Form, texts: Iterable[tuple[bytes, int]]) -> Table:
    """Make the table again from the pieces of a document: ``(text, size of its blocks)``.

    Raises:
        InvalidDocumentError: these are not the pieces of such a document.
    """
    glue: list[Piece] = []
    skeleton = b""
    found: list[list[Piece]] = []
    for text, block_bytes in texts:
        if text.startswith(b'"'):
            rows = list(_parse_rows(form, text))
            if not glue or not rows:
                raise InvalidDocumentError("a segment where none can be")
            times = [row.time for row in rows]
            found[-1].append(
                Piece(
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
            glue.append(Piece(digest=_digest(text), text_bytes=len(text), block_bytes=block_bytes))
            skeleton += text
            found.append([])
    if len(glue) != len(form.sections) + 1 or found[-1]:
        raise InvalidDocumentError("not the pieces of such a document")
    try:
        rest = form.find_rest(json.loads(skeleton))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDocumentError(f"not the pieces of such a document: {error!r}") from error
    sections = {section: tuple(segments) for section, segments in zip(form.sections, found[:-1], strict=True)}
    return Table(glue=tuple(glue), sections=sections, rest=rest)


def parse_entries(form: Form, text: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a segment: ``(key, value)``."""
    for row in _parse_rows(form, text):
        yield row.key, json.loads("{" + row.text + "}")[row.key]


def summarise(segments: Iterable[Piece]) -> Summary:
    """Add up segments."""
    pieces = list(segments)
    if not pieces:
        return Summary()
    return Summary(
        count=sum(piece.count for piece in pieces),
        oldest=min(piece.oldest for piece in pieces),
        newest=max(piece.newest for piece in pieces),
    )


def format_table(table: Table) -> dict[str, Any]:
    """Return a table as JSON has it."""
    return {
        "glue": [_format_piece(piece) for piece in table.glue],
        "sections": {name: [_format_piece(piece) for piece in pieces] for name, pieces in table.sections.items()},
        "rest": dict(table.rest),
    }


def parse_table(document: Any, form: Form) -> Table:  # noqa: ANN401 - JSON is anything
    """Return a table out of JSON.

    Raises:
        InvalidDocumentError: it is none of such a document.
    """
    try:
        return Table(
            glue=tuple(_parse_piece(row) for row in document["glue"]),
            sections={
                section: tuple(_parse_piece(row) for row in document["sections"][section]) for section in form.sections
            },
            rest=document["rest"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocumentError(f"not a table of segments: {error!r}") from error


def _format_piece(piece: Piece) -> list[object]:
    return [
        piece.digest, piece.text_bytes, piece.block_bytes, piece.first, piece.count, piece.oldest, piece.newest
    ]  # fmt: skip


def _parse_piece(row: Sequence[Any]) -> Piece:
    digest, text_bytes, block_bytes, first, count, oldest, newest = row
    return Piece(
        digest=digest,
        text_bytes=text_bytes,
        block_bytes=block_bytes,
        first=first,
        count=count,
        oldest=oldest,
        newest=newest,
    )


def _find_touched(segments: Sequence[Piece], names: Iterable[str]) -> dict[int, list[str]]:
    """Return which segment each name is or would be in: ``{position: names}``."""
    firsts = [piece.first for piece in segments]
    touched: dict[int, list[str]] = {}
    for name in names:
        touched.setdefault(max(0, bisect_right(firsts, name) - 1), []).append(name)
    return touched


def _make_rows(form: Form, section: str, changes: Mapping[str, Entries | None]) -> list[_Row]:
    rows = []
    for name, entries in changes.items():
        for key, value in (entries or {}).get(section, {}).items():
            text = f"{json.dumps(key)}:{encode_json(value).decode('ascii')}"
            rows.append(_Row(name=name, key=key, text=text, time=form.find_time(value)))
    return sorted(rows, key=_order)


def _parse_rows(form: Form, text: bytes) -> Iterator[_Row]:
    """Parse a segment; each entry keeps its text, so that it needn't be encoded again."""
    try:
        source = text.decode("ascii").rstrip(" ").removesuffix(",")
        at = 0
        while at < len(source):
            key, colon = _scan(source, at)
            if source[colon] != ":":
                raise InvalidDocumentError("not a segment: no colon behind a key")
            value, end = _scan(source, colon + 1)
            if source[end : end + 1] not in {"", ","}:
                raise InvalidDocumentError("not a segment: no comma behind an entry")
            yield _Row(name=form.find_name(key), key=key, text=source[at:end], time=form.find_time(value))
            at = end + 1
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidDocumentError(f"not a segment: {error!r}") from error


def _order(row: _Row) -> tuple[str, str]:
    return row.name, row.key


def _size(rows: Iterable[_Row]) -> int:
    return sum(len(row.text) + 1 for row in rows)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARS]
