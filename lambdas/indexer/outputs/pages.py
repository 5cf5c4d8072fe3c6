"""index.html of a channel and of a subdir: for people with a browser. Pure.

Bounded in length, without scripts, every word of a publisher escaped.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any, Final
from urllib.parse import quote

from lambdas.channel.names import Channel, SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.artifacts.texts import cut_text
from lambdas.indexer.model import LIMITS, Limits
from lambdas.indexer.outputs.feed import newest_packages

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c2733}
a{color:#0b5cad;text-decoration:none}a:hover{text-decoration:underline}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #e3e8ee;vertical-align:top}
td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
pre{background:#f4f6f8;padding:.8rem;overflow-x:auto}code{font-size:.85rem}.q{color:#63707d}
@media(prefers-color-scheme:dark){body{background:#14191f;color:#dde4ea}a{color:#7db8f5}
th,td{border-color:#2b343d}pre{background:#1d242c}.q{color:#8b98a5}}
"""
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI: Final = 1024


def format_channel_page(
    channel: Channel, merged: Mapping[str, Any], *, url: str, total: int | None = None, limits: Limits = LIMITS
) -> bytes:
    """Return the page of a channel: its subdirs and its names, newest first where there are too many.

    ``merged`` comes from ``channeldata.merge_parts``; ``total`` says how many names there are where it
    has but the newest.
    """
    total = len(merged["packages"]) if total is None else total
    newest = ((name, _format_name_row(name, entry)) for name, entry in newest_packages(merged, limits.max_rows))
    shown = list(take_bytes(newest, limits.max_page_bytes))
    if len(shown) == total:
        shown.sort()
    subdirs = " · ".join(f'<a href="{quote(subdir)}/">{escape(subdir)}</a>' for subdir in merged["subdirs"])
    base = f"{url}/{channel}" if url else f"URL/{channel}"
    body = (
        f"<h1>{escape(channel)}</h1>\n<p>{subdirs}</p>\n"
        f"<pre><code>conda install -c {escape(base)} NAME\npixi project channel add {escape(base)}</code></pre>\n"
        f'<p class="q">{_counted(len(shown), total, "packages")} · <a href="channeldata.json">channeldata.json</a>'
        ' · <a href="rss.xml">feed</a></p>\n'
        f"<table>\n<tr><th>Name</th><th>Version</th><th>Subdirs</th><th>Summary</th></tr>\n{_join(shown)}</table>\n"
    )
    return _page(channel, body)


def format_subdir_page(
    subdir: SubdirId,
    records: Iterable[tuple[str, Record]],
    *,
    total: int | None = None,
    limits: Limits = LIMITS,
) -> bytes:
    """Return the page of a subdir: its artifacts, newest first where there are too many.

    ``total`` says how many there are where ``records`` are but the newest.
    """
    everything = sorted(records, key=lambda item: (-item[1]["indexed_timestamp"], item[0]))
    newest = ((filename, _format_artifact_row(filename, record)) for filename, record in everything[: limits.max_rows])
    shown = list(take_bytes(newest, limits.max_page_bytes))
    total = len(everything) if total is None else total
    if len(shown) == total:
        shown.sort()
    body = (
        f'<h1><a href="../">{escape(subdir.channel)}</a>/{escape(subdir.name)}</h1>\n'
        f'<p class="q">{_counted(len(shown), total, "artifacts")} · <a href="repodata.json">repodata.json</a>'
        ' · <a href="run_exports.json">run_exports.json</a></p>\n'
        "<table>\n<tr><th>Artifact</th><th>Size</th><th>Indexed (UTC)</th><th>SHA-256</th></tr>\n"
        f"{_join(shown)}</table>\n"
    )
    return _page(str(subdir), body)


def take_bytes(rows: Iterable[tuple[str, str]], max_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield rows, ``(key, text)``, as long as their texts take at most ``max_bytes``."""
    for key, text in rows:
        max_bytes -= len(text.encode(errors="replace"))
        if max_bytes < 0:
            return
        yield key, text


def _format_name_row(name: str, entry: Mapping[str, Any]) -> str:
    return (
        f'<tr><td><a href="{_link(entry)}">{escape(name)}</a></td>'
        f"<td>{escape(str(entry.get('version', '')))}</td>"
        f"<td>{escape(', '.join(entry['subdirs']))}</td>"
        f"<td>{escape(str(cut_text('summary', str(entry.get('summary') or ''))))}</td></tr>\n"
    )


def _format_artifact_row(filename: str, record: Record) -> str:
    return (
        f'<tr><td><a href="{quote(filename)}">{escape(filename)}</a></td>'
        f'<td class="n">{_size(record["size"])}</td>'
        f'<td class="n">{datetime.fromtimestamp(record["indexed_timestamp"] / 1000, UTC):%Y-%m-%d %H:%M}</td>'
        f"<td><code>{escape(record['sha256'])}</code></td></tr>\n"
    )


def _join(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(text for _, text in rows)


def _page(title: str, body: str) -> bytes:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ).encode(errors="replace")


def _link(entry: Mapping[str, Any]) -> str:
    newest = entry["newest"]
    return f"{quote(newest['subdir'])}/{quote(newest['filename'])}"


def _counted(shown: int, total: int, what: str) -> str:
    return f"{total} {what}" if shown == total else f"the newest {shown} of {total} {what}"


def _size(size: int) -> str:
    amount = float(size)
    for unit in _UNITS:
        if amount < _KIBI or unit == _UNITS[-1]:
            break
        amount /= _KIBI
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
