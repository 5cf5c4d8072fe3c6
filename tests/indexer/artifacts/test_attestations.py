"""Parsing attestations, and the union of uploads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.attestations import (
    MAX_ADDED_BUNDLES,
    MAX_ADDED_BYTES,
    MAX_BYTES,
    MAX_READ_BYTES,
    MAX_VALUES,
    Union,
    encode_attestations,
    parse_attestations,
)


def bundle(number: int, size: int = 0) -> bytes:
    return json.dumps({"bundle": number, "padding": "x" * size}).encode()


def document(*bundles: bytes) -> bytes:
    return b"[" + b",".join(bundles) + b"]"


def add(union: Union, *bundles: bytes) -> str | None:
    error = union.add(parse_attestations(document(*bundles)))
    return None if error is None else error.code


def texts(union: Union) -> list[bytes]:
    return [one.text for one in union.bundles]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", "attestations-empty"),
        (b" [ ] ", "attestations-empty"),
        (b"{}", "attestations-malformed"),
        (b"[[]]", "attestations-malformed"),
        (b"[{}, 1]", "attestations-malformed"),
        (b"null", "attestations-malformed"),
        (b"[{},]", "attestations-not-json"),
        (b"[{}] []", "attestations-not-json"),
        (b'[{"a": 1, "a": 1}]', "attestations-not-json"),
        (b"", "attestations-not-json"),
        (b" " * (MAX_READ_BYTES + 1), "attestations-too-large"),
        (b"[" + b"[]," * MAX_VALUES + b"[]]", "attestations-too-large"),
    ],
)
def test_parse_attestations__rejected(body: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_attestations(body)
    assert caught.value.code == code


def test_parse_attestations__bundles_byte_for_byte() -> None:
    odd = [b'{ "a" :1.50,\t"b": "\\u00e9 ] , ["}', '{"é": "\U0001f994", "c": [{"d": {}}]}'.encode(), b"{}"]
    body = b" \n[ " + b" ,\r\n ".join(odd) + b" ] \n"
    assert [one.text for one in parse_attestations(body)] == odd


VALUES = st.recursive(st.none() | st.text() | st.integers(0, 9), st.lists)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)


@given(st.lists(OBJECTS, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_parse_attestations__texts_are_the_values(values: list[object], indent: int | None, ascii_only: bool) -> None:
    try:
        bundles = parse_attestations(
            json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
        )
    except RejectedError:
        return  # half a character
    if "?" not in json.dumps(values, ensure_ascii=False):
        assert [json.loads(one.text) for one in bundles] == values
    assert parse_attestations(encode_attestations(bundles)) == bundles


def test_add__equal_as_json_is_the_same_bundle() -> None:
    union = Union()
    assert add(union, b'{"a": 1, "b": "\xc3\xa9"}', b'{"a":1,"b":"\\u00e9"}', b'{"b": "\\u00E9", "a": 1}') is None
    assert add(union, b'{"b":"\xc3\xa9","a":1}', b'{"a": 2}') is None
    assert texts(union) == [b'{"a": 1, "b": "\xc3\xa9"}', b'{"a": 2}']


def test_add__what_exceeds_the_limit_of_one_upload_is_left_out() -> None:
    union = Union()
    assert add(union, *(bundle(number) for number in range(MAX_ADDED_BUNDLES))) is None
    more = [bundle(number) for number in range(100, 101 + MAX_ADDED_BUNDLES)]
    assert add(union, bundle(0), *more) == "attestations-too-many"
    assert texts(union) == [*(bundle(number) for number in range(MAX_ADDED_BUNDLES)), *more[:-1]]


def test_add__bytes_of_one_upload() -> None:
    union = Union()
    assert add(union, bundle(1, MAX_ADDED_BYTES), bundle(2)) == "attestations-too-many"
    assert add(union, bundle(3, MAX_ADDED_BYTES - 1000)) is None
    assert add(union, bundle(4, 1000), bundle(5, MAX_ADDED_BYTES - 1000)) == "attestations-too-many"
    assert texts(union) == [bundle(2), bundle(3, MAX_ADDED_BYTES - 1000), bundle(4, 1000)]


def test_add__attack_one_artifact_with_endless_attestations() -> None:
    """However many uploads come, the union keeps its limit and can be read again."""
    union = Union()
    found = {add(union, bundle(number, MAX_ADDED_BYTES - 100)) for number in range(50)}
    assert found == {None, "attestations-full"}
    body = encode_attestations(union.bundles)
    assert MAX_BYTES - MAX_ADDED_BYTES <= len(body) <= MAX_BYTES
    assert parse_attestations(body) == union.bundles


def test_add__attack_values_that_take_memory() -> None:
    union = Union()
    found = {add(union, b'{"a": [' + b"[]," * 60_000 + b"%d]}" % number) for number in range(20)}
    assert found == {None, "attestations-full"}
    assert parse_attestations(encode_attestations(union.bundles)) == union.bundles


def test_matches__white_space_is_bounded() -> None:
    union = Union()
    bundles = parse_attestations(document(b"{}"))
    union.accept(bundles)
    assert union.matches(bundles, b"[ {} ]")
    assert not union.matches(bundles, b"[{}" + b" " * 10_000 + b"]")
    assert not union.matches(parse_attestations(b"[{ }]"), b"[{ }]")
