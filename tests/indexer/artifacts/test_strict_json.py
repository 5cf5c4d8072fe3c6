from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.strict_json import read_leniently
from tests.builders import (
    conda_package,
    tar,
)
from tests.indexer.reading import (
    FOO_CONDA,
    foo_conda,
    info_tar,
    read,
    rejection,
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "json-invalid"),
        (b"{", "json-invalid"),
        (b"[]", "json-not-an-object"),
        (b"null", "json-not-an-object"),
        (b'"text"', "json-not-an-object"),
        (b'\xef\xbb\xbf{"name": "foo"}', "json-invalid"),
        (b'{"name": "\xff"}', "json-not-utf8"),
        (b'{"name": "\xed\xa0\x80"}', "json-not-utf8"),
        (b'{"name": "\\ud800"}', "json-not-utf8"),
        (b'{"\\udfff": 1}', "json-not-utf8"),
        ('{"name": "foo"}'.encode("utf-16"), "json-not-utf8"),
        (b'{"x": NaN}', "json-number"),
        (b'{"x": Infinity}', "json-number"),
        (b'{"x": -Infinity}', "json-number"),
        (b'{"x": 1e999}', "json-number"),
        (b'{"x": 18446744073709551616}', "json-number"),
        (b'{"x": -9223372036854775809}', "json-number"),
        (b'{"x": ' + b"9" * 5000 + b"}", "json-number"),
        (b'{"name": "foo", "name": "bar"}', "json-duplicate-key"),
        (b'{"x": {"a": 1, "a": 1}}', "json-duplicate-key"),
        (b'{"x": ' + b"[" * 70 + b"]" * 70 + b"}", "json-too-deep"),
        (b'{"x": ' + b"[" * 19_000 + b"]" * 19_000 + b"}", "json-too-deep"),
        (b'{"x":' * 15_000 + b"1" + b"}" * 15_000, "json-too-deep"),
    ],
)
@pytest.mark.parametrize("name", ["info/index.json", "info/paths.json"])
def test_read_artifact__rejects_hostile_json(name: str, text: bytes, code: str) -> None:
    members = [("info/index.json", b"{}")] if name != "info/index.json" else []
    error = rejection(foo_conda(tar([*members, (name, text)])), FOO_CONDA)

    assert error.code == code
    assert name in str(error)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"null", {}),
        (b"{broken", {}),
        (b'{"summary": "\xe9"}', {}),
        (b'{"summary": "x", "y": NaN}', {"summary": "x"}),
        (b'{"summary": "x", "y": -1e999}', {"summary": "x"}),
        (b'{"summary": "x", "y": ' + b"9" * 5000 + b"}", {"summary": "x"}),
        (b'{"summary": "x", "summary": "y"}', {"summary": "y"}),
        (b'\xef\xbb\xbf{"summary": "x"}', {"summary": "x"}),
        (b'{"summary": "\\ud800", "home": "x"}', {"home": "x"}),
        (b'{"home": ["x", "\\ud800"]}', {}),
        (b'{"home": ["x", 1]}', {}),
        (b'{"\\ud800": "x"}', {}),
        (b'{"summary": "x", "y": ' + b"[" * 80 + b"]" * 80 + b"}", {"summary": "x"}),
        (b'{"y": ' + b"[" * 19_000 + b"]" * 19_000 + b"}", {}),
        (b'{"summary": "' + b"x" * 3_000_000 + b'"}', {}),
    ],
)
def test_read_artifact__takes_of_an_odd_about_what_can_be_read(text: bytes, about: dict[str, str]) -> None:
    """No client reads it: it must not keep a good package out."""
    info = read("foo-1.0-0.conda", foo_conda(info_tar(("info/about.json", text))))

    assert info.about == about
    json.dumps([info.about, info.channeldata]).encode()


def test_read_leniently__attack_more_values_than_memory_can_hold() -> None:
    assert read_leniently(b"[" + b"{}," * 2_000_000 + b"{}]") == {}


def test_read_artifact__takes_the_last_of_a_key_twice_in_an_entry_of_paths() -> None:
    entry = b'{"_path": "a", "_path": "etc/conda/activate.d/x.sh", "sha256": "x", "sha256": "y"}'
    members = [("info/index.json", b"{}"), ("info/paths.json", b'{"paths": [' + entry + b"]}")]

    assert read("foo-1.0-0.conda", foo_conda(tar(members))).channeldata["activate.d"] is True


def test_read_artifact__rejects_more_values_than_memory_can_hold() -> None:
    text = b'{"paths": [' + b"{}," * 1_500_000 + b"{}]}"

    assert rejection(foo_conda(tar([("info/index.json", b"{}"), ("info/paths.json", text)])), FOO_CONDA).code == (
        "json-oversized"
    )


def test_read_artifact__carries_the_largest_numbers_there_are() -> None:
    extra = {"low": -(2**63), "high": 2**64 - 1, "real": 1.5}

    index = read(*conda_package(index_extra=extra)).index

    assert {key: index[key] for key in extra} == extra


@settings(max_examples=150, deadline=None)
@given(
    text=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
@pytest.mark.parametrize("name", ["index", "about", "run_exports", "paths"])
def test_read_artifact__reads_or_rejects_whatever_document_is_inside(name: str, text: bytes) -> None:
    members = [("info/index.json", b"{}")] if name != "index" else []
    with suppress(RejectedError):
        read("foo-1.0-0.conda", foo_conda(tar([*members, (f"info/{name}.json", text)])))
