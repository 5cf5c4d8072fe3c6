"""Public files are bounded by bytes, whatever the cards hold."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lambdas.channel.names import Channel, parse_subdir_id
from lambdas.indexer.artifacts.texts import MAX_LIST_ENTRIES, MAX_TEXT_BYTES, MAX_URL_BYTES
from lambdas.indexer.model import LIMITS
from lambdas.indexer.outputs import channeldata, feed, newest, pages
from lambdas.indexer.outputs.feed import format_feed
from lambdas.indexer.outputs.pages import format_channel_page, format_subdir_page
from lambdas.indexer.tree.cards import decode_cards, encode_cards
from tests.indexer.world import NOARCH, World, package

TEAM = Channel("team")
MIB = 1024 * 1024
NAMES = 12


def old_texts() -> dict[str, Any]:
    """Facts as version 0.1.0 kept them."""
    return {
        "summary": "s" * MIB,
        "description": "é" * MIB,
        "home": "https://example.org/" + "h" * MIB,
        "keywords": ["k" * MIB] + ["many"] * 1000,
    }


def make_old(world: World) -> None:
    """Publish to a channel with cards that version 0.1.0 wrote."""
    world.publish(NOARCH, *(package(f"wordy{number}") for number in range(NAMES)))
    for key in world.storage.list_keys():
        if key.startswith(".fairway/cards/"):
            cards = decode_cards(world.storage.body(key))
            wordy = {filename: replace(card, facts=old_texts()) for filename, card in cards.items()}
            world.storage.upload(key, encode_cards(wordy))
        elif key.startswith("team/") and "/" not in key[5:]:
            world.storage.remove(key)  # so that it is made again from the cards
    world.publish(NOARCH, package("small"))


@pytest.fixture
def old() -> World:
    world = World()
    make_old(world)
    return world


def test_outputs__old_cards_with_long_texts(old: World) -> None:
    assert len(old.storage.body("team/index.html")) < NAMES * 2 * 1024 + 10_000
    assert len(old.storage.body("team/rss.xml")) < NAMES * 2 * 1024 + 10_000
    body = old.storage.body("team/channeldata.json")
    assert len(body) < NAMES * 128 * 1024
    entry = json.loads(body)["packages"]["wordy0"]
    assert entry["summary"] == "s" * MAX_TEXT_BYTES["summary"]
    assert len(entry["description"].encode()) == MAX_TEXT_BYTES["description"]
    assert len(entry["home"]) == MAX_URL_BYTES
    assert len(entry["keywords"]) == MAX_LIST_ENTRIES


def test_outputs__old_state_with_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that 0.1.0 kept for pages are as long as its texts: everything is made again."""
    world = World()
    with monkeypatch.context() as patched:
        for module in (channeldata, newest, pages, feed):
            patched.setattr(module, "cut_text", lambda _, value: value)
        make_old(world)
    names = ("channeldata.json", "index.html", "rss.xml")
    assert all(len(world.storage.body(f"team/{name}")) > LIMITS.max_feed_bytes or name == "rss.xml" for name in names)
    world.publish(NOARCH, package("small", version="2.0"))
    assert all(len(world.storage.body(f"team/{name}")) < NAMES * 128 * 1024 for name in names)


def entry(name: str, *, summary: str, time: int) -> dict[str, Any]:
    row = {"filename": f"{name}-1.0-0.conda", "version": "1.0", "subdir": "noarch", "indexed_timestamp": time}
    return {"newest": row, "subdirs": ["noarch"], "version": "1.0", "summary": summary}


@pytest.mark.parametrize("text", ["<" * 1024, "é" * 512, "x" * 1024])
def test_format_channel_page__attack_summaries_that_grow_when_escaped(text: str) -> None:
    packages = {f"p{number}": entry(f"p{number}", summary=text, time=number) for number in range(2000)}
    merged = {"subdirs": ["noarch"], "packages": packages}
    page = format_channel_page(TEAM, merged, url="https://example.org")
    items = format_feed(TEAM, merged, url="https://example.org")
    assert len(page) < LIMITS.max_page_bytes + 10_000
    assert len(items) < LIMITS.max_feed_bytes + 10_000
    assert b"p1999-1.0-0.conda" in page  # the newest
    assert b"p1999-1.0-0.conda" in items
    shown = page.count(b"<tr><td>")
    assert f"the newest {shown} of 2000 packages".encode() in page
    assert shown > 300


def test_format_subdir_page__rows_are_bounded_by_bytes() -> None:
    limits = replace(LIMITS, max_page_bytes=2000)
    record = {"size": 1, "sha256": "0" * 64}
    rows = [(f"foo-{number}-0.conda", {**record, "indexed_timestamp": number}) for number in range(100)]
    page = format_subdir_page(parse_subdir_id("team/noarch"), rows, limits=limits).decode()
    assert page.count("<tr><td>") < 15
    assert "foo-99-0.conda" in page


def test_outputs__texts_in_records_are_cut() -> None:
    """Keys of channeldata.json may also be in info/index.json, and are kept in the record."""
    world = World()
    world.publish(NOARCH, package("foo", index_extra={"summary": "s" * 200_000, "tags": ["t" * 20_000]}))
    entry = json.loads(world.storage.body("team/channeldata.json"))["packages"]["foo"]
    assert len(entry["summary"]) == MAX_TEXT_BYTES["summary"]
    assert len(world.storage.body("team/index.html")) < 10_000
