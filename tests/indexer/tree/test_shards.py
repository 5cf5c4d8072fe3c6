"""The tree: cards become shards, shards an index, and two indexes a difference."""

import hashlib
import os
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.layout import SubdirLayout
from lambdas.channel.names import NOARCH, PackageName, parse_subdir_id
from lambdas.indexer.tree.cards import Card, decode_cards, encode_cards
from lambdas.indexer.tree.encoding import compress, decompress, encode_msgpack
from lambdas.indexer.tree.patches import parse_patches
from lambdas.indexer.tree.shard_index import (
    ShardHash,
    ShardIndex,
    apply_shards,
    decode_index,
    diff_indexes,
    empty_index,
    encode_index,
)
from lambdas.indexer.tree.shards import (
    Shard,
    decode_shard,
    encode_shard,
    iter_records,
    make_shard,
)

MD5, SHA256 = "0a" * 16, "0b" * 32
PATH = parse_subdir_id("team/noarch")


def record(name: str = "foo", version: str = "1.0", build: str = "0", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": [],
        "md5": MD5,
        "sha256": SHA256,
        "size": 10,
        "indexed_timestamp": 1_700_000_000_000,
        **more,
    }


def card(**more: Any) -> Card:  # noqa: ANN401 - JSON
    return Card(record=record(**more), run_exports={}, facts={}, etag="e")


names = st.sampled_from([PackageName(name) for name in ("a", "b", "c", "d", "zz-top", "_x")])
hashes = st.binary(min_size=32, max_size=32).map(lambda raw: ShardHash(raw.hex()))
indexes = st.builds(
    ShardIndex,
    subdir=st.just(NOARCH),
    shards=st.dictionaries(names, hashes, max_size=6),
    created_ms=st.integers(0, 4_000_000_000_000),
    patches_sha256=st.none() | hashes,
)
values = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.lists(st.text(max_size=3))
)
extras = st.dictionaries(
    st.sampled_from(["license", "purls", "x-unknown", "ünknown", "depends", "features"]), values, max_size=3
)


@st.composite
def many_cards(draw: st.DrawFn) -> dict[str, Card]:
    found = {}
    for version in draw(st.sets(st.sampled_from(["1.0", "1.1", "2.0", "10!1+local"]), max_size=4)):
        extension = draw(st.sampled_from([".conda", ".tar.bz2"]))
        more: dict[str, Any] = draw(extras)
        if draw(st.booleans()):
            more["schema_version"] = 3
        found[f"foo-{version}-0{extension}"] = Card(
            record=record(version=version, **more),
            run_exports=draw(st.sampled_from([{}, {"weak": ["foo >=1"]}])),
            facts=draw(st.dictionaries(st.sampled_from(["summary", "home"]), st.text(max_size=5))),
            etag=draw(st.text(max_size=5)),
            attestations_sha256=draw(st.sampled_from([None, "0c" * 32])),
        )
    return found


# Identities


@given(many_cards())
def test_encode_cards__decodes_to_the_same(cards: dict[str, Card]) -> None:
    assert decode_cards(encode_cards(cards)) == cards


@given(many_cards())
def test_encode_shard__decodes_to_the_same(cards: dict[str, Card]) -> None:
    shard = make_shard(cards)
    sha256, body = encode_shard(shard)
    assert decode_shard(body) == shard
    assert hashlib.sha256(body).hexdigest() == sha256


@given(indexes)
def test_encode_index__decodes_to_the_same(index: ShardIndex) -> None:
    assert decode_index(encode_index(index)) == index


@given(many_cards(), st.randoms(use_true_random=False))
def test_make_shard__order_of_cards_does_not_matter(cards: dict[str, Card], random: Any) -> None:  # noqa: ANN401 - a Random
    items = list(cards.items())
    random.shuffle(items)
    assert encode_shard(make_shard(dict(items))) == encode_shard(make_shard(cards))


@given(many_cards())
def test_make_shard__each_card_is_seen_once(cards: dict[str, Card]) -> None:
    listed = [filename for filename, _ in iter_records(make_shard(cards))]
    assert sorted(listed) == sorted(cards)


# Differences


@given(indexes, indexes)
def test_diff_indexes__applied_to_the_old_gives_the_new(old: ShardIndex, new: ShardIndex) -> None:
    diff = diff_indexes(old, new)
    applied = apply_shards(old, {name: new.shards.get(name) for name in diff.names}, created_ms=new.created_ms)
    assert applied.shards == new.shards


@given(indexes)
def test_diff_indexes__of_the_same_is_empty(index: ShardIndex) -> None:
    assert diff_indexes(index, index).names == frozenset()


@given(indexes, indexes)
def test_diff_indexes__names_exactly_what_differs(old: ShardIndex, new: ShardIndex) -> None:
    everything = {*old.shards, *new.shards}
    differing = {name for name in everything if old.shards.get(name) != new.shards.get(name)}
    diff = diff_indexes(old, new)
    assert diff.names == differing
    assert diff.removed == {name for name in differing if name not in new.shards}


@given(indexes, st.dictionaries(names, st.none() | hashes))
def test_apply_shards__leaves_its_input_alone(index: ShardIndex, shards: dict[PackageName, ShardHash | None]) -> None:
    before = encode_index(index)
    apply_shards(index, shards, created_ms=1)
    assert encode_index(index) == before


@given(indexes, st.dictionaries(names, st.none() | hashes))
def test_apply_shards__twice_is_once(index: ShardIndex, shards: dict[PackageName, ShardHash | None]) -> None:
    once = apply_shards(index, shards, created_ms=7)
    assert apply_shards(once, shards, created_ms=7) == once


@given(indexes, st.dictionaries(names, st.none() | hashes, min_size=1), st.randoms(use_true_random=False))
def test_apply_shards__one_by_one_in_any_order(
    index: ShardIndex,
    shards: dict[PackageName, ShardHash | None],
    random: Any,  # noqa: ANN401 - a Random
) -> None:
    at_once = apply_shards(index, shards, created_ms=7)
    one_by_one = index
    items = list(shards.items())
    random.shuffle(items)
    for name, sha256 in items:
        one_by_one = apply_shards(one_by_one, {name: sha256}, created_ms=7)
    assert encode_index(one_by_one) == encode_index(at_once)


def test_apply_shards__created_never_goes_back() -> None:
    index = apply_shards(empty_index(), {}, created_ms=9)
    assert apply_shards(index, {}, created_ms=3).created_ms == 9


# The format for readers (CEP 16)


def unpack(body: bytes, what: str = "it") -> Any:  # noqa: ANN401 - msgpack
    return msgpack.unpackb(decompress(body, what=what), raw=False)


def test_encode_shard__hashes_are_bytes_and_sections_are_there() -> None:
    with_sigs = Card(record=record(), run_exports={}, facts={}, etag="e", attestations_sha256="0c" * 32)
    document = unpack(encode_shard(make_shard({"foo-1.0-0.conda": with_sigs}))[1])
    assert sorted(document) == ["packages", "packages.conda", "removed"]
    assert document["packages"] == {}
    assert document["removed"] == []
    shown = document["packages.conda"]["foo-1.0-0.conda"]
    assert shown["md5"] == b"\x0a" * 16
    assert shown["sha256"] == b"\x0b" * 32
    assert shown["attestations_sha256"] == b"\x0c" * 32
    assert shown["run_exports"] == {}


def test_encode_shard__hashes_deep_inside_stay_text() -> None:
    odd = card(extra={"md5": "0a", "sha256": "zz"})
    document = unpack(encode_shard(make_shard({"foo-1.0-0.conda": odd}))[1])
    assert document["packages.conda"]["foo-1.0-0.conda"]["extra"] == {"md5": "0a", "sha256": "zz"}


def test_encode_index__what_clients_require() -> None:
    index = ShardIndex(subdir=NOARCH, shards={PackageName("foo"): ShardHash("0d" * 32)}, created_ms=1_700_000_000_123)
    document = unpack(encode_index(index))
    assert document == {
        "version": 1,
        "info": {
            "subdir": "noarch",
            "base_url": "",
            "shards_base_url": "./shards/",
            "created_at": "2023-11-14T22:13:20.123+00:00",
        },
        "shards": {"foo": b"\x0d" * 32},
    }


def test_make_shard__sections_by_extension() -> None:
    shard = make_shard({"foo-1.0-0.conda": card(), "foo-1.0-0.tar.bz2": card()})
    assert list(shard.flat["packages"]) == ["foo-1.0-0.tar.bz2"]
    assert list(shard.flat["packages.conda"]) == ["foo-1.0-0.conda"]
    assert shard.v3 == {}


def test_make_shard__version_3_records_are_kept_from_older_clients() -> None:
    shard = make_shard({"foo-1.0-0.conda": card(schema_version=3), "foo-2.0-0.tar.bz2": card(schema_version=3)})
    assert (shard.flat["packages"], shard.flat["packages.conda"]) == ({}, {})
    assert {kind: list(records) for kind, records in shard.v3.items()} == {
        "conda": ["foo-1.0-0"],
        "tar.bz2": ["foo-2.0-0"],
    }


def test_make_shard__attestations_and_run_exports_of_the_card() -> None:
    one = Card(
        record=record(), run_exports={"weak": ["foo"]}, facts={"summary": "x"}, etag="e", attestations_sha256="0c" * 32
    )
    shown = make_shard({"foo-1.0-0.conda": one}).flat["packages.conda"]["foo-1.0-0.conda"]
    assert shown == {**record(), "run_exports": {"weak": ["foo"]}, "attestations_sha256": "0c" * 32}


def test_make_shard__removed_by_patches() -> None:
    patches = parse_patches(b'{"remove": ["foo-1.0-0.conda", "bar-1.0-0.conda"]}')
    shard = make_shard({"foo-1.0-0.conda": card(), "foo-2.0-0.conda": card(version="2.0")}, patches)
    assert list(shard.flat["packages.conda"]) == ["foo-2.0-0.conda"]
    assert shard.removed == ("foo-1.0-0.conda",)


def test_make_shard__card_of_no_artifact() -> None:
    with pytest.raises(InvalidDocumentError):
        make_shard({"foo-1.0-0.zip": card()})


def test_keys__of_shards_and_cards() -> None:
    assert SubdirLayout(subdir=PATH).shard("ab") == "team/noarch/shards/ab.msgpack.zst"
    assert SubdirLayout(subdir=PATH).cards("ab") == ".fairway/cards/team/noarch/ab.json.zst"


# Foreign or damaged content

BROKEN = [
    b"",
    b"no zstd",
    compress(b"", level=3),
    compress(b"\xc1", level=3),
    compress(encode_msgpack([]), level=3),
    compress(encode_msgpack(None), level=3),
    compress(encode_msgpack({}), level=3),
    compress(encode_msgpack({"packages": []}), level=3),
    compress(encode_msgpack({"packages": {"a": 1}, "packages.conda": {}, "removed": []}), level=3),
    compress(encode_msgpack({"packages": {}, "packages.conda": {}, "removed": 1}), level=3),
    compress(encode_msgpack({"info": {}, "shards": {}}), level=3),
    compress(encode_msgpack({"info": {"subdir": "noarch", "created_at": "now"}, "shards": {}}), level=3),
    compress(encode_msgpack({"info": {"subdir": "noarch", "created_at": 1}, "shards": {}}), level=3),
    compress(
        encode_msgpack({"info": {"subdir": "noarch", "created_at": "2023-11-14T22:13:20+00:00"}, "shards": {"a": "b"}}),
        level=3,
    ),
]


def _document(**changes: object) -> dict[str, Any]:
    info = {"subdir": "noarch", "base_url": "", "shards_base_url": "./shards/"}
    return {"version": 1, "info": info | {"created_at": "2026-01-01T00:00:00Z"}, "shards": {}} | changes


MISSHAPEN = {
    "lists as shards": _document(shards=[[]] * 1000),
    "a map as a hash": _document(shards={"foo": {}}),
    "text as a hash": _document(shards={"foo": "x" * 32}),
    "maps in maps": _document(shards={"foo": {"bar": {"baz": {}}}}),
    "a list as a head": _document(info=[]),
    "a large head": _document(info=_document()["info"] | {"x": [[]] * 5000}),
    "a large version": _document(version=[1] * 5000),
    "a time after 9999": _document(info=_document()["info"] | {"created_at": "9999-12-31T23:59:59.999999+00:00"}),
    "a time after 9999, in UTC": _document(info=_document()["info"] | {"created_at": "9999-12-31T23:59:59-12:00"}),
    "a time before 1970": _document(info=_document()["info"] | {"created_at": "1969-12-31T23:59:59+00:00"}),
}


@pytest.mark.parametrize("name", MISSHAPEN)
def test_decode_index__misshapen(name: str) -> None:
    assert decode_index(compress(encode_msgpack(_document()), level=3)).shards == {}
    with pytest.raises(InvalidDocumentError):
        decode_index(compress(encode_msgpack(MISSHAPEN[name]), level=3))


def test_decode_index__name_twice() -> None:
    hashes = {name: bytes(32) for name in ("foo", "bar")}
    body = encode_msgpack(_document(shards=hashes)).replace(b"\xa3bar", b"\xa3foo")
    with pytest.raises(InvalidDocumentError, match="twice"):
        decode_index(compress(body, level=3))


@pytest.mark.parametrize("value", [b"\x90", b"\x80", b"\xc0"], ids=["lists", "maps", "nulls"])
@pytest.mark.parametrize("place", ["document", "shards", "key"])
def test_decode_index__attack_values_that_take_memory(value: bytes, place: str) -> None:
    many = b"\xdd" + (2_000_000).to_bytes(4, "big") + value * 2_000_000
    noise = encode_msgpack(os.urandom(1024 * 1024))  # otherwise, its ratio gives it away
    head = b"".join(encode_msgpack(key) + encode_msgpack(part) for key, part in _document().items() if key != "shards")
    body = {
        "document": many,
        "shards": b"\x84" + head + encode_msgpack("noise") + noise + encode_msgpack("shards") + many,
        "key": b"\x84" + head + many + noise,
    }[place]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDocumentError):
            decode_index(compress(body, level=3))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5 * len(body)


def test_decode_index__attack_bomb() -> None:
    body = compress(bytes(100 * 1024 * 1024), level=3)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDocumentError):
            decode_index(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * 1024 * 1024


@pytest.mark.parametrize("body", BROKEN)
def test_decode_index__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        decode_index(body)


@pytest.mark.parametrize("body", BROKEN)
def test_decode_shard__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        decode_shard(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no zstd",
        compress(b"{", level=3),
        compress(b"[]", level=3),
        compress(b'{"a":1}', level=3),
        compress(b'{"a":{}}', level=3),
        compress(b'{"a":{"record":{},"run_exports":{},"facts":{},"etag":"","more":1}}', level=3),
    ],
)
def test_decode_cards__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        decode_cards(body)


@given(st.binary(max_size=60))
def test_decode__anything(body: bytes) -> None:
    for decode in (decode_index, decode_shard, decode_cards):
        for attempt in (body, compress(body, level=3)):
            try:
                decode(attempt)
            except InvalidDocumentError:
                continue


def test_empty_shard__is_still_a_shard() -> None:
    assert decode_shard(encode_shard(Shard())[1]) == Shard()
