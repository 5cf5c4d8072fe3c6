"""rss.xml: what was published last. Pure.

Source: RSS 2.0 (https://www.rssboard.org/rss-specification).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from lambdas.channel.names import Channel
from lambdas.indexer.artifacts.texts import cut_text
from lambdas.indexer.model import LIMITS, Limits

_ILLEGAL_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def newest_packages(merged: Mapping[str, Any], most: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the names with the newest artifacts, newest first: ``[(name, entry)]``."""
    entries = sorted(
        merged["packages"].items(),
        key=lambda item: (-item[1]["newest"]["indexed_timestamp"], item[0]),
    )
    return entries[:most]


def format_feed(channel: Channel, merged: Mapping[str, Any], *, url: str, limits: Limits = LIMITS) -> bytes:
    """Return the feed of a channel: one item per name, for its newest artifact.

    ``merged`` comes from ``channeldata.merge_parts``; ``url`` is the base URL of
    the channels, possibly empty.
    """
    rss = ET.Element("rss", version="2.0")
    feed = ET.SubElement(rss, "channel")
    _add(feed, "title", channel)
    _add(feed, "link", f"{url}/{channel}/")
    _add(feed, "description", f"What was published to {channel} last")
    free_bytes = limits.max_feed_bytes
    for name, entry in newest_packages(merged, limits.max_feed_items):
        newest = entry["newest"]
        link = f"{url}/{channel}/{newest['subdir']}/{quote(newest['filename'])}"
        moment = datetime.fromtimestamp(newest["indexed_timestamp"] / 1000, UTC)
        item = ET.Element("item")
        _add(item, "title", f"{name} {newest['version']} [{newest['subdir']}]")
        _add(item, "link", link)
        _add(item, "description", cut_text("summary", str(entry.get("summary") or "")))
        _add(item, "guid", link)
        _add(item, "pubDate", format_datetime(moment.replace(microsecond=0), usegmt=True))
        free_bytes -= len(ET.tostring(item, encoding="utf-8"))
        if free_bytes < 0:
            break
        feed.append(item)
    ET.indent(rss)
    document: str = ET.tostring(rss, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}\n'.encode()


def _add(parent: ET.Element, tag: str, text: object) -> None:
    ET.SubElement(parent, tag).text = _ILLEGAL_IN_XML.sub("\N{REPLACEMENT CHARACTER}", str(text))
