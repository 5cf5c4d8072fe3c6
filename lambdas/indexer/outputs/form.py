"""Documents that are updated entry by entry: one implementation for whole and segmented ones. Pure.

A form says what entries a shard contributes and what text is around them. A small document is kept
*whole* in memory and in one piece in the storage; a large one is segmented (``spliced``). Both have
the same entries and the same separators, hence the same JSON.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.spliced.segments import Entries, Form, Summary
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import Shard

_MAX_PREFIXES: Final = 16


class ShardForm(Form, Protocol):
    """A document of a subdir, made from its shards."""

    def empty_header(self, subdir: SubdirName) -> dict[str, Any]:
        """Return the header of an empty subdir's document."""

    def entries_of(self, shard: Shard) -> Entries:
        """Return the entries that a shard contributes."""

    def apply_to_header(
        self, header: Mapping[str, Any], shards: Mapping[PackageName, Shard | None]
    ) -> Mapping[str, Any]:
        """Return the header after some names were replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeDocument:
    """A small document in memory."""

    header: Mapping[str, Any]
    sections: Mapping[str, Mapping[str, Any]]
    """``{section: {key: value}}``."""


def make_document(form: ShardForm, subdir: SubdirName) -> WholeDocument:
    """Return the document of an empty subdir."""
    return WholeDocument(header=form.empty_header(subdir), sections={section: {} for section in form.sections})


def parse_whole(form: Form, document: Any) -> WholeDocument:  # noqa: ANN401 - JSON is anything
    """Take a decoded JSON document apart.

    Raises:
        InvalidDocumentError: it has another form.
    """
    try:
        header = form.header_of(document)
        sections = {section: form.section_of(document, section) for section in form.sections}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocumentError(f"not a document of this form: {error!r}") from error
    for section, entries in sections.items():
        if not isinstance(entries, dict):
            raise InvalidDocumentError(f"not a document of this form: section {section!r} is not an object")
    return WholeDocument(header=header, sections=sections)


def replace_entries(form: Form, document: WholeDocument, changes: Mapping[str, Entries | None]) -> WholeDocument:
    """Return the document after the entries of some names were replaced; the input is untouched.

    Raises:
        InvalidDocumentError: an entry has another form.
    """
    # A key begins with its name. Few of the keys of a small change do: the others needn't be parsed.
    prefixes = tuple(changes) if len(changes) <= _MAX_PREFIXES else ("",)
    try:
        sections = {
            section: {
                key: value
                for key, value in entries.items()
                if not key.startswith(prefixes) or form.name_of(section, key) not in changes
            }
            for section, entries in document.sections.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(f"not a document of this form: {error!r}") from error
    for contribution in changes.values():
        for section, entries in (contribution or {}).items():
            sections[section].update(entries)
    return WholeDocument(header=document.header, sections=sections)


def apply_shards_to_document(
    form: ShardForm, document: WholeDocument, shards: Mapping[PackageName, Shard | None]
) -> WholeDocument:
    """Return the document after the shards of some names were replaced; the input is untouched.

    Raises:
        InvalidDocumentError: the document has another form.
    """
    changes = {str(name): None if shard is None else form.entries_of(shard) for name, shard in shards.items()}
    replaced = replace_entries(form, document, changes)
    return WholeDocument(header=form.apply_to_header(document.header, shards), sections=replaced.sections)


def encode_whole(form: Form, document: WholeDocument) -> bytes:
    """Encode as JSON with sorted keys.

    Raises:
        InvalidDocumentError: an entry has another form.
    """
    try:
        summaries = {section: _summarise(form, entries) for section, entries in document.sections.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocumentError(f"not a document of this form: {error!r}") from error
    separators = form.format_separators(document.header, summaries)
    return b"".join(
        _interleave(separators, [encode_json(document.sections[section])[1:-1] for section in form.sections])
    )


def _summarise(form: Form, entries: Mapping[str, Any]) -> Summary:
    if not entries:
        return Summary()
    times = [form.time_of(value) for value in entries.values()]
    return Summary(count=len(times), oldest=min(times), newest=max(times))


def _interleave(separators: Any, texts: list[bytes]) -> Iterator[bytes]:  # noqa: ANN401 - a sequence of bytes
    yield separators[0]
    for text, separator in zip(texts, separators[1:], strict=True):
        yield text
        yield separator
