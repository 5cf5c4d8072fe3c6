"""Bounds on the texts of artifacts: pages, feeds and channeldata.json repeat them. Pure."""

from typing import Any

MAX_URL_BYTES = 2 * 1024
MAX_TEXT_BYTES = {"description": 16 * 1024, "summary": 1024}
"""Of texts in facts, in UTF-8; URLs and all others may have ``MAX_URL_BYTES``."""
MAX_LIST_ENTRIES = 64


def cut_texts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts for pages with long texts and lists cut: they are repeated in every page and feed."""
    return {key: cut_text(key, value) for key, value in facts.items()}


def cut_text(key: str, value: object) -> object:
    """Return the text, or list of texts, of a fact, cut if it is long; other values are unchanged."""
    return _cut(value, MAX_TEXT_BYTES.get(key, MAX_URL_BYTES))


def _cut(value: object, max_bytes: int) -> object:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        return value if len(encoded) <= max_bytes else encoded[:max_bytes].decode("utf-8", "ignore")
    return [_cut(item, max_bytes) for item in value[:MAX_LIST_ENTRIES]] if isinstance(value, list) else value
