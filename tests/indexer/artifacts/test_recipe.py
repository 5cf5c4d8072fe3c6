from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.indexer.artifacts.recipe import parse_source

URL = "https://example.org/foo-1.0.tar.gz"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"source:\n  url: {URL}\n", {"source_url": URL}),
        (f"source:\n    fn: foo.tar.gz\n    sha256: 00\n    url: {URL}\nbuild:\n", {"source_url": URL}),
        (f"package:\n  name: foo\nsource:   # from\n  url: '{URL}'\n", {"source_url": URL}),
        (f'source:\n  url: "{URL}"  \n', {"source_url": URL}),
        (f"source:\r\n  url: {URL}\r\n", {"source_url": URL}),
        (f"source:\n  # where\n\n  url: {URL} # there\n", {"source_url": URL}),
        (f"source:\n  url:\n    {URL}\n  sha256: 00\n", {"source_url": URL}),
        (f"source:\n  url:\n    - {URL}\n    - https://b.example\n", {"source_url": [URL, "https://b.example"]}),
        (f"source:\n  url:\n  - {URL}\n  sha256: 00\n", {"source_url": [URL]}),
        (
            "source:\n  git_url: https://g.example/x.git\n  git_rev: main\n",
            {"source_git_url": "https://g.example/x.git"},
        ),
        (f"source:\n  url: {URL}\n  git_url: x.git\n", {"source_url": URL, "source_git_url": "x.git"}),
        ("source:\n  url: 'it''s'\n", {"source_url": "it's"}),
        # Several sources, as in conda-index, have no single one.
        (f"source:\n  - url: {URL}\n  - url: {URL}\n", {}),
        (f"source:\n- url: {URL}\n", {}),
        # Of other mappings, or deeper.
        (f"about:\n  url: {URL}\n", {}),
        (f"source:\n  path: .\nbuild:\n  url: {URL}\n", {}),
        (f"source:\n  extra:\n    url: {URL}\n", {}),
        (f"outputs:\n  - source:\n      url: {URL}\n", {}),
        # Not written plainly.
        ("source:\n  url: {{ url }}\n", {}),
        ("source:\n  url: &anchor x\n", {}),
        ("source:\n  url: *alias\n", {}),
        ("source:\n  url: |\n    x\n", {}),
        ("source:\n  url: [a, b]\n", {}),
        ("source:\n  url: !tag x\n", {}),
        ('source:\n  url: "x\n', {}),
        ('source:\n  url: "\\q"\n', {}),
        ("source:\n  url:\n", {}),
        ("source:\n  url:\n  sha256: 00\n", {}),
        ("source:\n  url:\n    - {{ x }}\n", {}),
        ("source: {url: x}\n", {}),
        ("source:\n", {}),
        ("", {}),
    ],
)
def test_parse_source__finds_what_is_written_plainly(text: str, found: dict[str, object]) -> None:
    assert parse_source(text.encode()) == found


@given(st.binary(max_size=300) | st.text(alphabet="source:url \n-'\"#{[&*|>git_", max_size=200).map(str.encode))
def test_parse_source__never_fails(content: bytes) -> None:
    assert parse_source(content).keys() <= {"source_url", "source_git_url"}
    assert parse_source(b"source:\n  url: x\n" + content).keys() <= {"source_url", "source_git_url"}
