"""The feed: well-formed for any input of publishers, newest first."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.names import parse_channel
from lambdas.indexer.model import LIMITS
from lambdas.indexer.outputs.feed import format_feed, newest_packages

TEAM = parse_channel("team")
URL = "https://conda.example.org"
T0 = 1_700_000_000_000


def merged(**packages: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"channeldata_version": 1, "subdirs": ["noarch"], "packages": packages}


def entry(name: str = "foo", *, indexed_ms: int = T0, version: str = "1", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    newest = {
        "subdir": "noarch",
        "filename": f"{name}-{version}-0.conda",
        "version": version,
        "indexed_timestamp": indexed_ms,
    }
    return {"version": version, "subdirs": ["noarch"], "summary": "A summary", "newest": newest, **more}


def parse(feed: bytes) -> ET.Element:
    root = ET.fromstring(feed)  # noqa: S314 - our own feed
    channel = root.find("channel")
    assert channel is not None
    return channel


def test_format_feed__item() -> None:
    channel = parse(format_feed(TEAM, merged(foo=entry()), url=URL))
    assert channel.findtext("title") == "team"
    assert channel.findtext("link") == f"{URL}/team/"
    (item,) = channel.findall("item")
    assert {child.tag: child.text for child in item} == {
        "title": "foo 1 [noarch]",
        "link": f"{URL}/team/noarch/foo-1-0.conda",
        "description": "A summary",
        "guid": f"{URL}/team/noarch/foo-1-0.conda",
        "pubDate": "Tue, 14 Nov 2023 22:13:20 GMT",
    }


def test_format_feed__empty_channel() -> None:
    assert parse(format_feed(TEAM, merged(), url="")).findall("item") == []


def test_format_feed__link_is_quoted() -> None:
    (item,) = parse(format_feed(TEAM, merged(foo=entry(version="1!2+x")), url=URL)).findall("item")
    assert item.findtext("link") == f"{URL}/team/noarch/foo-1%212%2Bx-0.conda"


@pytest.mark.parametrize(
    "attack",
    [
        "</description><item><title>owned</title></item>",
        "<![CDATA[x]]>",
        "]]>",
        "&amp;&xxe;",
        '<!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>',
        "\x00\x01\x0b\x0c\x1f",
        "\ufffe\uffff",
        "\ud800",
        "<script>alert(1)</script>",
        ["a", "<b>"],
        {"<x>": 1},
        None,
        7,
    ],
)
def test_format_feed__attack(attack: object) -> None:
    channel = parse(format_feed(TEAM, merged(foo=entry(summary=attack)), url=URL))
    (item,) = channel.findall("item")
    assert [child.tag for child in item] == ["title", "link", "description", "guid", "pubDate"]
    assert all(len(child) == 0 for child in item)


@given(st.text(max_size=60))
def test_format_feed__any_summary(summary: str) -> None:
    assert len(parse(format_feed(TEAM, merged(foo=entry(summary=summary)), url=URL)).findall("item")) == 1


def test_format_feed__newest_first_and_bounded() -> None:
    packages = {
        f"p{number}": entry(f"p{number}", indexed_ms=T0 + number) for number in range(LIMITS.max_feed_items + 20)
    }
    items = parse(format_feed(TEAM, merged(**packages), url=URL)).findall("item")
    assert len(items) == LIMITS.max_feed_items
    assert items[0].findtext("title") == f"p{LIMITS.max_feed_items + 19} 1 [noarch]"


def test_newest_packages__ties_by_name() -> None:
    found = newest_packages(merged(b=entry("b"), a=entry("a"), c=entry("c", indexed_ms=T0 + 1)), 2)
    assert [name for name, _ in found] == ["c", "a"]


def test_format_feed__order_does_not_matter() -> None:
    one, other = entry("a"), entry("b")
    assert format_feed(TEAM, merged(a=one, b=other), url=URL) == format_feed(TEAM, merged(b=other, a=one), url=URL)
