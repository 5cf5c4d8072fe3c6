"""A subdir's documents at one commit, and what rendered outputs take from ``repodata.json``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambdas.channel.names import SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.model import Limits
from lambdas.indexer.outputs.form import WholeDocument
from lambdas.indexer.outputs.newest import Row, iter_rows, newest_rows
from lambdas.indexer.outputs.registry import REPODATA, form_of
from lambdas.indexer.outputs.repodata import filename_of, iter_repodata
from lambdas.indexer.spliced.files import LargeFiles, Source
from lambdas.indexer.spliced.frames import RESET_TEXT
from lambdas.indexer.spliced.segments import SegmentedDocument, parse_entries
from lambdas.indexer.tree.encoding import decode_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """A small document at the commit."""

    document: WholeDocument
    plain: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Spliced:
    """A large document at the commit."""

    segmented: SegmentedDocument
    source: Source | None = None
    """The file with the chunks that did not change."""
    newest: Sequence[Row] | None = None


Document = Whole | Spliced


class RepodataContents:
    """The records of ``repodata.json`` at a commit, as the registry renders outputs from them."""

    def __init__(self, subdir: SubdirId, document: Document, files: LargeFiles, limits: Limits) -> None:
        self.subdir = subdir
        self._document = document
        self._files = files
        self.limits = limits

    @property
    def total(self) -> int:
        """The number of records."""
        if isinstance(self._document, Spliced):
            return self._document.segmented.table.count
        return sum(len(entries) for entries in self._document.document.sections.values())

    def newest(self) -> Iterator[tuple[str, Record]]:
        """Yield ``(filename, record)``: all records, or of a large document the newest ones."""
        if isinstance(self._document, Spliced):
            return iter_rows(self.newest_rows(self._document))
        return iter_repodata(self._document.document)

    def document(self) -> Mapping[str, Any]:
        """Return the whole document, decoded."""
        if isinstance(self._document, Whole):
            plain = self._document.plain
        else:
            segmented = self._document.segmented
            texts = self._files.read_texts(self._document.source, segmented.new_chunks, segmented.table.chunks())
            plain = RESET_TEXT.join(texts)
        document: dict[str, Any] = decode_json(plain, what=REPODATA.name)
        return document

    def newest_rows(self, document: Spliced) -> Sequence[Row]:
        """Return the rows that are kept for pages; if too many were removed, all records are read."""
        rows = document.newest
        if rows is None or len(rows) < min(self.limits.max_rows, document.segmented.table.count):
            rows = newest_rows(self._iter_records(document), self.limits)
        return rows

    def _iter_records(self, document: Spliced) -> Iterator[tuple[str, Record]]:
        for section, chunks in document.segmented.table.sections.items():
            for text in self._files.read_texts(document.source, document.segmented.new_chunks, chunks):
                for key, record in parse_entries(form_of(REPODATA), section, text):
                    yield filename_of(section, key), record
