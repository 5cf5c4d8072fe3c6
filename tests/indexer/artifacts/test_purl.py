"""Whatever purl is accepted, rattler parses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lambdas.indexer.artifacts.purl import is_purl

PARSER = Path(__file__).with_name("parse_with_rattler.py")

GOOD = [
    "pkg:pypi/numpy",
    "pkg:pypi/numpy@1.0",
    "pkg:conda/foo?channel=a",
    "pkg:github/conda/conda-index@0.7.0?a=b&c=d#lib/x",
    "pkg:npm/%40angular/animation@12.3.1",
    "pkg://pypi/x",
    "pkg:xx.y+-z/foo",
    "pkg:pypi/a@",
    "pkg:pypi/a?b=",
    "pkg:pypi/a?b=&b=1",
    "pkg:pypi/a#",
    "pkg:pypi/ä",
    "pkg:pypi/%zz",
    "pkg:generic/a?checksum=sha1:ab,md5:00FF",
]
BAD = [
    "",
    "pkg",
    "pkg:",
    "pkg:/x",
    "pkg:pypi",
    "pkg:pypi/",
    "pkg:pypi/a/",
    "pkg:pypi/@1",
    "PKG:pypi/a",
    " pkg:pypi/a",
    "http://example.org/a",
    "pkg:1x/a",
    "pkg:x x/a",
    "pkg:pypi/%ff",
    "pkg:pypi/a@%ff",
    "pkg:pypi/a%2fb/c",
    "pkg:pypi/%80/c",
    "pkg:pypi/a#%2f",
    "pkg:pypi/a#%ff",
    "pkg:pypi/numpy@1.0?bad",
    "pkg:pypi/a?",
    "pkg:pypi/a?=b",
    "pkg:pypi/a?ä=b",
    "pkg:pypi/a?b=%ff",
    "pkg:pypi/a?b=1&b=2",
    "pkg:pypi/a?b=1&B=2",
    "pkg:pypi/a?b=1&&c=2",
    "pkg:pypi/a?checksum=x",
    "pkg:pypi/a?checksum=sha1:x",
    "pkg:pypi/a?checksum=sha1:a",
    "pkg:pypi/a?checksum=sha1:ab,SHA1:cd",
]
PIECES = [
    *("pkg:", "pkg:pypi/", "pypi", "a", "B", "1", "/", "//", "@", "?", "#", "&", "=", ":", ",", "%", "%2f", "%40"),
    *("%zz", "%ff", "%c3%a9", "%", "..", ".", "+", "-", "_", " ", "\n", "ä", "\u03a3", "ß", "\0", "a=b", "k"),
    *("checksum=", "sha1:ab", "sha1:", "md5:00", "\u017f", "\u212a", "\u0130"),
]  # fmt: skip


def parse_with_rattler(purls: Sequence[str]) -> list[bool]:
    index = {"name": "a", "version": "1", "build": "0", "build_number": 0}
    documents = json.dumps([{**index, "purls": [purl]} for purl in purls])
    done = subprocess.run([sys.executable, str(PARSER)], input=documents, capture_output=True, text=True, check=True)
    parsed: list[bool] = json.loads(done.stdout)
    return parsed


@pytest.mark.parametrize("purl", GOOD)
def test_is_purl__that_clients_can_read(purl: str) -> None:
    assert is_purl(purl)


@pytest.mark.parametrize("purl", BAD)
def test_is_purl__that_clients_can_t_read(purl: str) -> None:
    assert not is_purl(purl)


def test_is_purl__attack_nothing_is_accepted_that_rattler_can_t_parse() -> None:
    """One such purl makes every record of its name unreadable."""
    rng = random.Random(36)  # noqa: S311 - no secret
    made = [
        rng.choice(["", "pkg:", "pkg:pypi/", "pkg:pypi/a", "pkg:pypi/a?", "pkg:pypi/a?checksum="])
        + "".join(rng.choices(PIECES, k=rng.randrange(6)))
        for _ in range(20_000)
    ]
    purls = [*GOOD, *BAD, *made]
    parsed = parse_with_rattler(purls)

    assert [purl for purl, good in zip(purls, parsed, strict=True) if is_purl(purl) and not good] == []
    # Nor is anything rejected that it parses, but for checksums of unknown algorithms.
    rejected = [purl for purl, good in zip(purls, parsed, strict=True) if good and not is_purl(purl)]
    assert [purl for purl in rejected if "checksum=" not in purl.lower()] == []
    assert sum(map(is_purl, made)) > 1000
