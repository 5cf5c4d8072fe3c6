"""Segmented documents say what whole ones say, however they came to be."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.outputs.repodata import (
    RepodataForm,
    apply_to_removed,
    apply_to_repodata,
    make_repodata,
    spread_repodata,
)
from lambdas.indexer.outputs.run_exports import (
    RunExportsForm,
    apply_to_run_exports,
    make_run_exports,
    spread_run_exports,
)
from lambdas.indexer.spliced.frames import JOINT, RESET_BLOCK, decode_piece, encode_piece
from lambdas.indexer.spliced.segments import (
    MAX_BEST_SEGMENTS,
    ROUND_BYTES,
    Edition,
    Form,
    Piece,
    Table,
    apply_entries,
    format_table,
    make_edition,
    parse_entries,
    parse_table,
    scan_table,
)
from lambdas.indexer.tree.encoding import BEST_LEVEL, FLAT_LEVEL, compress, encode_json
from lambdas.indexer.tree.shards import Shard, make_shard
from scripts.benchmarks.synthetic import Channel

SUBDIR = SubdirName("linux-64")
NAMES = [PackageName(name) for name in ("a", "a-b", "a.b", "a_b", "b", "c", "libfoo", "libfoo-dev", "z")]


class SmallRepodataForm(RepodataForm):
    segment_bytes = 1500


class SmallRunExportsForm(RunExportsForm):
    segment_bytes = 300


class PlainForm(SmallRunExportsForm):
    is_packed = False


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
        packages={f"{stem}.tar.bz2": rows[stem] for stem in stems if seed % 3 == 0},
        packages_conda={f"{stem}.conda": rows[stem] for stem in stems if seed % 5},
        v3={"conda": {stem: rows[stem] for stem in stems[:2]}} if seed % 7 == 1 else {},
        removed=(f"{name}-0.1-0.conda",) if seed % 4 == 0 else (),
    )


class Document:
    """A document as a storage would hold it: text, blocks and table."""

    def __init__(self, form: Form, edition: Edition, bodies: Mapping[str, bytes] | None = None) -> None:
        self.form = form
        self.table = edition.table
        self.bodies = {**(bodies or {}), **edition.fresh}
        self.loads: list[str] = []

    def load(self, piece: Piece) -> bytes:
        self.loads.append(piece.digest)
        return self.text_of(piece)

    def text_of(self, piece: Piece) -> bytes:
        body = self.bodies[piece.digest]
        text = decode_piece(body, what="piece") if self.form.is_packed else body
        assert len(text) == piece.text_bytes
        assert piece.block_bytes == (len(body) if self.form.is_packed else 0)
        return text

    @property
    def text(self) -> bytes:
        return JOINT.join(self.text_of(piece) for piece in self.table.pieces())

    def apply(self, changes: Mapping[str, Any], rest: Mapping[str, Any] | None = None) -> "Document":
        table = self.table
        edition = apply_entries(self.form, table, changes, table.rest if rest is None else rest, self.load)
        return Document(self.form, edition, self.bodies)


def repodata_of(shards: Mapping[PackageName, Shard | None] | Mapping[PackageName, Shard]) -> dict[str, Any]:
    return apply_to_repodata(make_repodata(SUBDIR), shards)


def make_document(shards: Mapping[PackageName, Shard | None]) -> Document:
    entries = [(name, spread_repodata(shard)) for name, shard in sorted(shards.items()) if shard is not None]
    rest = {"info": {"subdir": SUBDIR}, "removed": apply_to_removed([], shards)}
    return Document(SmallRepodataForm(), make_edition(SmallRepodataForm(), entries, rest))


SHARDS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 60), max_size=9).map(
    lambda seeds: {name: shard_of(name, seed) for name, seed in seeds.items()}
)


@given(SHARDS)
def test_make_edition__says_what_the_whole_document_says(shards: dict[PackageName, Shard | None]) -> None:
    document = make_document(shards)
    assert json.loads(document.text) == repodata_of(shards)
    assert document.table.text_bytes == len(document.text)


@settings(max_examples=200)
@given(SHARDS, st.lists(SHARDS, max_size=5))
def test_apply_entries__says_what_a_rebuild_says(
    first: dict[PackageName, Shard | None], later: list[dict[PackageName, Shard | None]]
) -> None:
    document = make_document(first)
    shards = dict(first)
    for changed in later:
        shards |= changed
        removed = apply_to_removed(document.table.rest["removed"], changed)
        document = document.apply(
            {name: None if shard is None else spread_repodata(shard) for name, shard in changed.items()},
            {**document.table.rest, "removed": removed},
        )
        assert json.loads(document.text) == repodata_of(shards)
        assert scan(document) == document.table


def scan(document: Document) -> Table:
    pieces = document.table.pieces()
    return scan_table(document.form, [(document.text_of(piece), piece.block_bytes) for piece in pieces])


@given(SHARDS)
def test_apply_entries__run_exports(shards: dict[PackageName, Shard | None]) -> None:
    form = SmallRunExportsForm()
    empty = make_edition(form, [], {"info": {"subdir": SUBDIR, "version": 1}})
    document = Document(form, empty).apply(
        {name: None if shard is None else spread_run_exports(shard) for name, shard in shards.items()}
    )
    assert json.loads(document.text) == apply_to_run_exports(make_run_exports(SUBDIR), shards)


def test_apply_entries__what_changes_nothing_keeps_every_piece() -> None:
    shards = {name: shard_of(name, 50 + number) for number, name in enumerate(NAMES)}
    document = make_document(shards)
    again = apply_entries(
        document.form,
        document.table,
        {name: None if shard is None else spread_repodata(shard) for name, shard in shards.items()},
        document.table.rest,
        document.load,
    )
    assert again.table == document.table
    assert again.fresh == {}


def numbered(count: int, *, prefix: str = "pkg") -> list[tuple[str, dict[str, dict[str, Any]]]]:
    return [
        (f"{prefix}{number:05}", {"packages.conda": {f"{prefix}{number:05}-1-0.conda": {"run_exports": {}}}})
        for number in range(count)
    ]


def make_numbered(form: Form, count: int) -> Document:
    return Document(form, make_edition(form, numbered(count), {"info": {"subdir": SUBDIR, "version": 1}}))


@pytest.mark.parametrize("form", [SmallRunExportsForm(), PlainForm()])
def test_apply_entries__reads_and_replaces_one_segment(form: Form) -> None:
    document = make_numbered(form, 500)
    assert len(document.table.sections["packages.conda"]) > 20
    name = "pkg00250"
    after = document.apply({name: {"packages.conda": {f"{name}-1-0.conda": {"run_exports": {"weak": ["x"]}}}}})
    assert len(document.loads) == 1
    old, new = {piece.digest for piece in document.table.pieces()}, {piece.digest for piece in after.table.pieces()}
    assert len(new - old) == 1
    assert json.loads(after.text)["packages.conda"][f"{name}-1-0.conda"] == {"run_exports": {"weak": ["x"]}}


def sizes(document: Document) -> Sequence[int]:
    return [len(document.text_of(piece).rstrip(b" ")) for piece in document.table.sections["packages.conda"]]


def test_apply_entries__segments_split_as_they_grow() -> None:
    document = make_numbered(SmallRunExportsForm(), 20)
    for name, entries in numbered(400, prefix="pkg00005x"):
        document = document.apply({name: entries})
    assert max(sizes(document)) <= 1.7 * 300
    assert min(sizes(document)) >= 0.3 * 300
    assert document.table.count == 420


def test_apply_entries__segments_merge_as_they_shrink() -> None:
    document = make_numbered(SmallRunExportsForm(), 400)
    before = len(document.table.sections["packages.conda"])
    for number in range(400):
        if number % 10:
            document = document.apply({f"pkg{number:05}": None})
    after = sizes(document)
    assert len(after) < before / 3
    assert min(after[:-1]) >= 0.3 * 300
    assert len(json.loads(document.text)["packages.conda"]) == 40


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
    """It stands in the frame's header: where it changes, the beginning of the file has to travel too."""
    document = make_numbered(RunExportsForm(), 2000)
    assert all(
        (piece.text_bytes + len(JOINT)) % ROUND_BYTES == 0 for piece in document.table.sections["packages.conda"]
    )
    after = document.apply({"pkg00100a": {"packages.conda": {"pkg00100a-1-0.conda": {"run_exports": {}}}}})
    assert after.table.text_bytes == document.table.text_bytes


def test_apply_entries__many_segments_are_compressed_less_thoroughly() -> None:
    document = make_numbered(SmallRunExportsForm(), 1000)
    assert len(document.table.sections["packages.conda"]) > MAX_BEST_SEGMENTS
    few = dict(numbered(1, prefix="pkg00100x"))
    many = dict(numbered(1000)[::5])
    for changes, level in ((few, BEST_LEVEL), (dict.fromkeys(many), FLAT_LEVEL)):
        edition = apply_entries(document.form, document.table, changes, document.table.rest, document.load)
        assert edition.fresh
        assert all(
            encode_piece(decode_piece(body, what="piece"), level=level) == body for body in edition.fresh.values()
        )


def test_parse_entries__keys_and_values() -> None:
    text = b'"a-1-0.conda":{"run_exports":{}},"b-1-0.conda":{"run_exports":{"weak":["x"]}},    '
    assert dict(parse_entries(SmallRunExportsForm(), text)) == {
        "a-1-0.conda": {"run_exports": {}},
        "b-1-0.conda": {"run_exports": {"weak": ["x"]}},
    }


@pytest.mark.parametrize(
    "text",
    [b'"a-1-0.conda" {}', b'"a":{}"b":{}', b'"a":{', b"\xff\xff", b'"a":', b"1:{}", b'"a-1-0.conda":{};'],
)
def test_parse_entries__broken(text: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        list(parse_entries(SmallRepodataForm(), text))


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


def test_parse_table__is_the_inverse() -> None:
    document = make_numbered(SmallRunExportsForm(), 100)
    stored = json.loads(encode_json(format_table(document.table)))
    assert parse_table(stored, document.form) == document.table


@pytest.mark.parametrize("broken", [{}, [], None, {"glue": [[1]], "sections": {}, "rest": {}}])
def test_parse_table__broken(broken: object) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_table(broken, SmallRunExportsForm())


def test_make_edition__compressed_size_is_near_that_of_one_piece() -> None:
    form = RepodataForm()
    channel = Channel(records=8000)
    shards = {name: make_shard(channel.make_cards(name)) for name in channel.list_names()}
    entries = [(str(name), spread_repodata(shard)) for name, shard in shards.items()]
    edition = make_edition(form, entries, {"info": {"subdir": SUBDIR}, "removed": []}, level=BEST_LEVEL)
    assert len(edition.table.sections["packages.conda"]) >= 4
    spliced = sum(piece.block_bytes + len(RESET_BLOCK) for piece in edition.table.pieces())
    whole = len(compress(encode_json(repodata_of(shards)), level=BEST_LEVEL))
    assert spliced < 1.05 * whole
    assert edition.table.text_bytes < 1.05 * len(encode_json(repodata_of(shards)))
