"""Segmented documents have the same contents as whole ones, whatever their history."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.outputs.repodata import RepodataForm, apply_to_removed
from lambdas.indexer.outputs.run_exports import RunExportsForm
from lambdas.indexer.spliced.frames import RESET_BLOCK, RESET_TEXT, decode_chunk, encode_chunk
from lambdas.indexer.spliced.segments import (
    MAX_BEST_SEGMENTS,
    Chunk,
    Form,
    SegmentedDocument,
    Table,
    apply_entries,
    format_table,
    parse_entries,
    parse_table,
    scan_table,
    segment_entries,
    target_segment_bytes,
)
from lambdas.indexer.spliced.sizes import SIZES
from lambdas.indexer.tree.encoding import BEST_LEVEL, FLAT_LEVEL, compress, encode_json
from lambdas.indexer.tree.shards import Shard, make_shard
from scripts.benchmarks.synthetic import Channel
from tests.indexer.outputs.whole import apply_to_repodata, apply_to_run_exports, make_repodata, make_run_exports

SUBDIR = SubdirName("linux-64")
NAMES = [PackageName(name) for name in ("a", "a-b", "a.b", "a_b", "b", "c", "libfoo", "libfoo-dev", "z")]


class SmallRepodataForm(RepodataForm):
    segment_bytes = 4 * 1500


class SmallRunExportsForm(RunExportsForm):
    segment_bytes = 4 * 300


class PlainForm(SmallRunExportsForm):
    is_compressed = False


def record(name: str, version: str, filler: int) -> dict[str, Any]:
    return {
        "build": "0",
        "build_number": 0,
        "depends": [f"dep-{number}" for number in range(filler % 30)],
        "indexed_timestamp": 1_700_000_000_000 + filler,
        "name": name,
        "run_exports": {"weak": [f"{name} >={version}"]} if filler % 2 else {},
        "summary": 'ü }, "x":{' + " " * 40 + '"',
        "version": version,
    }


def shard_of(name: str, seed: int) -> Shard | None:
    """A name's records: none, few or many, in any of the sections."""
    if seed % 11 == 0:
        return None
    rows = {f"{name}-1.{number}-0": record(name, f"1.{number}", seed * 7 + number) for number in range(seed % 9 + 1)}
    stems = list(rows)
    return Shard(
        flat={
            "packages": {f"{stem}.tar.bz2": rows[stem] for stem in stems if seed % 3 == 0},
            "packages.conda": {f"{stem}.conda": rows[stem] for stem in stems if seed % 5},
        },
        v3={"conda": {stem: rows[stem] for stem in stems[:2]}} if seed % 7 == 1 else {},
        removed=(f"{name}-0.1-0.conda",) if seed % 4 == 0 else (),
    )


def segment(
    form: Form, entries: Iterable[tuple[str, Any]], header: Mapping[str, Any], *, level: int = FLAT_LEVEL
) -> SegmentedDocument:
    """The document of these entries: ``[(name, entries of the name)]``."""
    listed = list(entries)
    text_bytes = len(encode_json(dict(listed)))
    return segment_entries(form, listed, lambda: header, text_bytes=text_bytes, level=level)


class Document:
    """A document as it is stored: text, blocks and table."""

    def __init__(self, form: Form, segmented: SegmentedDocument, bodies: Mapping[str, bytes] | None = None) -> None:
        self.form = form
        self.table = segmented.table
        self.bodies = {**(bodies or {}), **segmented.new_chunks}
        self.loads: list[str] = []

    def load(self, chunk: Chunk) -> bytes:
        self.loads.append(chunk.digest)
        return self.text_of(chunk)

    def text_of(self, chunk: Chunk) -> bytes:
        body = self.bodies[chunk.digest]
        text = decode_chunk(body, what="chunk") if self.form.is_compressed else body
        assert len(text) == chunk.text_bytes
        assert chunk.block_bytes == (len(body) if self.form.is_compressed else 0)
        return text

    @property
    def text(self) -> bytes:
        return RESET_TEXT.join(self.text_of(chunk) for chunk in self.table.chunks())

    def apply(self, changes: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> "Document":
        table = self.table
        segmented = apply_entries(self.form, table, changes, table.header if header is None else header, self.load)
        return Document(self.form, segmented, self.bodies)


def repodata_of(shards: Mapping[PackageName, Shard | None] | Mapping[PackageName, Shard]) -> dict[str, Any]:
    return apply_to_repodata(make_repodata(SUBDIR), shards)


def make_document(shards: Mapping[PackageName, Shard | None]) -> Document:
    entries = [(name, RepodataForm().entries_of(shard)) for name, shard in sorted(shards.items()) if shard is not None]
    header = {"info": {"subdir": SUBDIR}, "removed": apply_to_removed([], shards)}
    return Document(SmallRepodataForm(), segment(SmallRepodataForm(), entries, header))


SHARDS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 60), max_size=9).map(
    lambda seeds: {name: shard_of(name, seed) for name, seed in seeds.items()}
)


@given(SHARDS)
def test_segment_entries__equals_the_whole_document(shards: dict[PackageName, Shard | None]) -> None:
    document = make_document(shards)
    assert json.loads(document.text) == repodata_of(shards)
    assert document.table.text_bytes == len(document.text)


@settings(max_examples=200)
@given(SHARDS, st.lists(SHARDS, max_size=5))
def test_apply_entries__equals_a_rebuild(
    first: dict[PackageName, Shard | None], later: list[dict[PackageName, Shard | None]]
) -> None:
    document = make_document(first)
    shards = dict(first)
    for changed in later:
        shards |= changed
        removed = apply_to_removed(document.table.header["removed"], changed)
        document = document.apply(
            {name: None if shard is None else RepodataForm().entries_of(shard) for name, shard in changed.items()},
            {**document.table.header, "removed": removed},
        )
        assert json.loads(document.text) == repodata_of(shards)
        assert scan(document) == document.table


def scan(document: Document) -> Table:
    chunks = document.table.chunks()
    return scan_table(document.form, [(document.text_of(chunk), chunk.block_bytes) for chunk in chunks])


@given(SHARDS)
def test_apply_entries__run_exports(shards: dict[PackageName, Shard | None]) -> None:
    form = SmallRunExportsForm()
    empty = segment(form, [], {"info": {"subdir": SUBDIR, "version": 1}})
    document = Document(form, empty).apply(
        {name: None if shard is None else RunExportsForm().entries_of(shard) for name, shard in shards.items()}
    )
    assert json.loads(document.text) == apply_to_run_exports(make_run_exports(SUBDIR), shards)


def test_apply_entries__unchanged_entries_keep_every_chunk() -> None:
    shards = {name: shard_of(name, 50 + number) for number, name in enumerate(NAMES)}
    document = make_document(shards)
    again = apply_entries(
        document.form,
        document.table,
        {name: None if shard is None else RepodataForm().entries_of(shard) for name, shard in shards.items()},
        document.table.header,
        document.load,
    )
    assert again.table == document.table
    assert again.new_chunks == {}


def numbered(count: int, *, prefix: str = "pkg") -> list[tuple[str, dict[str, dict[str, Any]]]]:
    return [
        (f"{prefix}{number:05}", {"packages.conda": {f"{prefix}{number:05}-1-0.conda": {"run_exports": {}}}})
        for number in range(count)
    ]


def make_numbered(form: Form, count: int) -> Document:
    return Document(form, segment(form, numbered(count), {"info": {"subdir": SUBDIR, "version": 1}}))


@pytest.mark.parametrize("form", [SmallRunExportsForm(), PlainForm()])
def test_apply_entries__reads_and_replaces_one_segment(form: Form) -> None:
    document = make_numbered(form, 500)
    assert len(document.table.sections["packages.conda"]) > 20
    name = "pkg00250"
    after = document.apply({name: {"packages.conda": {f"{name}-1-0.conda": {"run_exports": {"weak": ["x"]}}}}})
    assert len(document.loads) == 1
    old, new = {chunk.digest for chunk in document.table.chunks()}, {chunk.digest for chunk in after.table.chunks()}
    assert len(new - old) == 1
    assert json.loads(after.text)["packages.conda"][f"{name}-1-0.conda"] == {"run_exports": {"weak": ["x"]}}


def sizes(document: Document) -> Sequence[int]:
    return [len(document.text_of(chunk).rstrip(b" ")) for chunk in document.table.sections["packages.conda"]]


def test_apply_entries__segments_split_as_they_grow() -> None:
    document = make_numbered(SmallRunExportsForm(), 20)
    for name, entries in numbered(400, prefix="pkg00005x"):
        document = document.apply({name: entries})
    assert max(sizes(document)) <= 1.7 * target_segment_bytes(document.form, SIZES, document.table.text_bytes)
    assert min(sizes(document)) >= 0.3 * 300
    assert document.table.count == 420


def test_apply_entries__segments_merge_as_they_shrink() -> None:
    document = make_numbered(SmallRunExportsForm(), 200)
    before = len(document.table.sections["packages.conda"])
    for number in range(200):
        if number % 10:
            document = document.apply({f"pkg{number:05}": None})
    after = sizes(document)
    assert len(after) < before / 3
    assert min(after[:-1]) >= 0.3 * 300
    assert len(json.loads(document.text)["packages.conda"]) == 20


@pytest.mark.parametrize("kept", [0, 20, 39])
def test_apply_entries__down_to_one_entry_and_to_none(kept: int) -> None:
    document = make_numbered(SmallRunExportsForm(), 40)
    one = document.apply({f"pkg{number:05}": None for number in range(40) if number != kept})
    assert list(json.loads(one.text)["packages.conda"]) == [f"pkg{kept:05}-1-0.conda"]
    none = one.apply({f"pkg{kept:05}": None})
    assert json.loads(none.text)["packages.conda"] == {}
    assert none.table.sections["packages.conda"] == ()
    back = none.apply(dict(numbered(40)))
    assert json.loads(back.text) == json.loads(document.text)


def test_apply_entries__the_size_seldom_changes() -> None:
    """The frame header states it: if it changes, the beginning of the file has to be uploaded, too."""
    document = make_numbered(RunExportsForm(), 2000)
    padding = target_segment_bytes(RunExportsForm(), SIZES, document.table.text_bytes) / 32
    assert all(
        (chunk.text_bytes + len(RESET_TEXT)) % padding == 0 for chunk in document.table.sections["packages.conda"]
    )
    after = document.apply({"pkg00100a": {"packages.conda": {"pkg00100a-1-0.conda": {"run_exports": {}}}}})
    assert after.table.text_bytes == document.table.text_bytes


def test_apply_entries__many_segments_are_compressed_less_thoroughly() -> None:
    document = make_numbered(SmallRunExportsForm(), 1000)
    assert len(document.table.sections["packages.conda"]) > MAX_BEST_SEGMENTS
    few = dict(numbered(1, prefix="pkg00100x"))
    many = dict(numbered(1000)[::5])
    for changes, level in ((few, BEST_LEVEL), (dict.fromkeys(many), FLAT_LEVEL)):
        segmented = apply_entries(document.form, document.table, changes, document.table.header, document.load)
        assert segmented.new_chunks
        assert all(
            encode_chunk(decode_chunk(body, what="chunk"), level=level) == body
            for body in segmented.new_chunks.values()
        )


@pytest.mark.parametrize(
    ("text_bytes", "expected"), [(0, 256), (16 * 1024**2 - 1, 256), (16 * 1024**2, 512), (64 * 1024**2, 1024)]
)
def test_target_segment_bytes__grows_with_the_document(text_bytes: int, expected: int) -> None:
    assert target_segment_bytes(RepodataForm(), SIZES, text_bytes) == expected * 1024


def test_parse_entries__keys_and_values() -> None:
    text = b'"a-1-0.conda":{"run_exports":{}},"b-1-0.conda":{"run_exports":{"weak":["x"]}},    '
    assert dict(parse_entries(SmallRunExportsForm(), "packages", text)) == {
        "a-1-0.conda": {"run_exports": {}},
        "b-1-0.conda": {"run_exports": {"weak": ["x"]}},
    }


@pytest.mark.parametrize(
    "text",
    [b'"a-1-0.conda" {}', b'"a":{}"b":{}', b'"a":{', b"\xff\xff", b'"a":', b"1:{}", b'"a-1-0.conda":{};'],
)
def test_parse_entries__broken(text: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        list(parse_entries(SmallRepodataForm(), "packages", text))


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [b"{}"],
        [b'{"info":{},"packages":{', b"}}"],
        [b'"a-1-0.conda":{"indexed_timestamp":1}'],
        [b'{"info":{},"packages":{', b'},"packages.conda":{', b"}}", b'"a-1-0.conda":{}'],
        [b'{"packages":{', b'},"packages.conda":{', b"}}"],
        [b'{"info":{},"packages":{', b'},"packages.conda":{', b"}"],
    ],
)
def test_scan_table__other_documents(texts: list[bytes]) -> None:
    with pytest.raises(InvalidDocumentError):
        scan_table(SmallRunExportsForm(), [(text, 1) for text in texts])


def test_parse_table__inverts_format_table() -> None:
    document = make_numbered(SmallRunExportsForm(), 100)
    stored = json.loads(encode_json(format_table(document.table)))
    assert parse_table(stored, document.form) == document.table


@pytest.mark.parametrize("broken", [{}, [], None, {"separators": [[1]], "sections": {}, "header": {}}])
def test_parse_table__broken(broken: object) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_table(broken, SmallRunExportsForm())


def test_segment_entries__compressed_size_is_near_that_of_one_frame() -> None:
    form = RepodataForm()
    channel = Channel(records=8000)
    shards = {name: make_shard(channel.make_cards(name)) for name in channel.list_names()}
    entries = [(str(name), RepodataForm().entries_of(shard)) for name, shard in shards.items()]
    segmented = segment(form, entries, {"info": {"subdir": SUBDIR}, "removed": []}, level=BEST_LEVEL)
    assert len(segmented.table.sections["packages.conda"]) >= 4
    spliced = sum(chunk.block_bytes + len(RESET_BLOCK) for chunk in segmented.table.chunks())
    whole = len(compress(encode_json(repodata_of(shards)), level=BEST_LEVEL))
    assert spliced < 1.05 * whole
    assert segmented.table.text_bytes < 1.05 * len(encode_json(repodata_of(shards)))
