"""The pages: text of publishers stays text."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.names import parse_channel, parse_subdir_id
from lambdas.indexer.model import LIMITS
from lambdas.indexer.outputs.pages import format_channel_page, format_subdir_page

PATH = parse_subdir_id("team/noarch")
TEAM = parse_channel("team")
URL = "https://conda.example.org"

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table></html><h1>owned",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "<!-- -->",
    "]]>",
    "\x00\x08\x1f\x7f",
    "\u202egnp.exe",
    "\ud800",
    "a" * 100_000,
]


class Page(HTMLParser):
    """A page as a browser parses it: tags, attributes and text."""

    def __init__(self, body: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.rows = 0
        self.feed(body.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name == "href"]
        self.rows += tag == "tr"

    def handle_data(self, data: str) -> None:
        self.text += data


def merged(name: str = "foo", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    newest = {
        "subdir": "noarch",
        "filename": f"{name}-1-0.conda",
        "version": "1",
        "indexed_timestamp": 1_700_000_000_000,
    }
    entry = {"version": "1", "subdirs": ["noarch"], "summary": "A summary", "newest": newest, **more}
    return {"channeldata_version": 1, "subdirs": ["noarch"], "packages": {name: entry}}


def record(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"size": 2048, "sha256": "0a" * 32, "indexed_timestamp": 1_700_000_000_000, **more}


HARMLESS_PAGE = Page(format_channel_page(TEAM, merged(), url=URL))
HARMLESS_SUBDIR = Page(format_subdir_page(PATH, [("foo-1-0.conda", record())]))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("field", ["summary", "version"])
def test_format_channel_page__attack(attack: str, field: str) -> None:
    page = Page(format_channel_page(TEAM, merged(**{field: attack}), url=URL))
    assert page.tags == HARMLESS_PAGE.tags
    assert page.attributes == HARMLESS_PAGE.attributes
    assert page.links == HARMLESS_PAGE.links


@pytest.mark.parametrize("attack", ATTACKS)
def test_format_channel_page__attack_by_name_and_filename(attack: str) -> None:
    page = Page(format_channel_page(TEAM, merged(name=attack.replace("\ud800", "x")), url=URL))
    assert page.tags == HARMLESS_PAGE.tags
    assert page.attributes == HARMLESS_PAGE.attributes
    assert not any(link.startswith("javascript:") for link in page.links)


@pytest.mark.parametrize("summary", [None, 1, ["a", "<b>"], {"x": "<script>"}, "", True])
def test_format_channel_page__summary_is_not_text(summary: object) -> None:
    assert Page(format_channel_page(TEAM, merged(summary=summary), url=URL)).tags == HARMLESS_PAGE.tags


@pytest.mark.parametrize("attack", [one for one in ATTACKS if "\ud800" not in one])
def test_format_subdir_page__attack(attack: str) -> None:
    page = Page(format_subdir_page(PATH, [(attack, record(sha256=attack))]))
    assert page.tags == HARMLESS_SUBDIR.tags
    assert page.attributes == HARMLESS_SUBDIR.attributes
    assert not any(link.startswith("javascript:") for link in page.links)


@given(st.text(max_size=40))
def test_format_channel_page__any_summary(summary: str) -> None:
    page = Page(format_channel_page(TEAM, merged(summary=summary), url=URL))
    assert page.tags == HARMLESS_PAGE.tags


def test_format_channel_page__no_script_no_foreign_resource() -> None:
    assert not {"script", "img", "iframe", "link", "object", "form"} & {*HARMLESS_PAGE.tags, *HARMLESS_SUBDIR.tags}
    assert not {"src", "onclick", "style"} & HARMLESS_PAGE.attributes
    assert all("://" not in link for link in [*HARMLESS_PAGE.links, *HARMLESS_SUBDIR.links])


def test_format_channel_page__links() -> None:
    assert "noarch/foo-1-0.conda" in HARMLESS_PAGE.links
    assert "noarch/" in HARMLESS_PAGE.links
    assert f"conda install -c {URL}/team NAME" in HARMLESS_PAGE.text


def test_format_channel_page__unknown_url() -> None:
    assert "conda install -c URL/team" in Page(format_channel_page(TEAM, merged(), url="")).text


def test_format_subdir_page__names_are_quoted_in_links() -> None:
    page = Page(format_subdir_page(PATH, [("foo-1!2+local-0.conda", record())]))
    assert "foo-1%212%2Blocal-0.conda" in page.links
    assert "foo-1!2+local-0.conda" in page.text


def test_format_subdir_page__order_does_not_matter() -> None:
    rows = [(f"foo-{number}-0.conda", record(indexed_timestamp=1_700_000_000_000 - number)) for number in range(20)]
    assert format_subdir_page(PATH, rows) == format_subdir_page(PATH, reversed(rows))


def test_format_subdir_page__bounded() -> None:
    rows = [
        (f"foo-{number}-0.conda", record(indexed_timestamp=1_700_000_000_000 + number))
        for number in range(LIMITS.max_rows + 5)
    ]
    page = Page(format_subdir_page(PATH, rows))
    assert page.rows == LIMITS.max_rows + 1
    assert f"the newest {LIMITS.max_rows} of {LIMITS.max_rows + 5} artifacts" in page.text
    assert "foo-0-0.conda" not in page.text
    assert f"foo-{LIMITS.max_rows + 4}-0.conda" in page.text


def test_format_channel_page__bounded() -> None:
    everything = merged()
    (one,) = everything["packages"].values()
    everything["packages"] = {
        f"p{number}": {**one, "newest": {**one["newest"], "indexed_timestamp": 1_700_000_000_000 + number}}
        for number in range(LIMITS.max_rows + 5)
    }
    page = Page(format_channel_page(TEAM, json.loads(json.dumps(everything)), url=URL))
    assert page.rows == LIMITS.max_rows + 1
    assert f"the newest {LIMITS.max_rows} of {LIMITS.max_rows + 5} packages" in page.text


def test_format_subdir_page__empty() -> None:
    assert "0 artifacts" in Page(format_subdir_page(PATH, [])).text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (1024**6, "TiB")]
)
def test_format_subdir_page__sizes(size: int, text: str) -> None:
    assert text in Page(format_subdir_page(PATH, [("foo-1-0.conda", record(size=size))])).text
