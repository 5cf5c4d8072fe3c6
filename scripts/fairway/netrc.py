"""The netrc file, in which conda, mamba, pixi, curl and others find the token of a host."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lambdas.channel.errors import UsageError

LOGIN: Final = "token"  # the authorizer accepts any


def netrc_path() -> Path:
    """Return the path of the file: ``$NETRC``, or ``~/.netrc``."""
    return Path(os.environ.get("NETRC") or "~/.netrc").expanduser()


def format_entry(url: str, token: str) -> str:
    """Return the line for the host of a URL. A netrc file knows no ports.

    Raises:
        UsageError: the URL has no host.
    """
    host = urlsplit(url).hostname
    if not host:
        raise UsageError(f"no host in the URL {url!r}", hint="a URL begins with https://; check --url and FAIRWAY_URL")
    return f"machine {host} login {LOGIN} password {token}"


def replace_entry(text: str, line: str) -> str:
    """Return the contents of a netrc file with a line in place of the host's earlier entry. Pure.

    A new line comes before a ``default`` entry, because readers stop there.
    """
    host = re.escape(line.split()[1])
    entry = re.compile(rf"^[ \t]*machine\s+{host}(?!\S)(?:\s+(?:login|account|password)\s+\S+)*[ \t]*\n?", re.MULTILINE)
    if entry.search(text):
        first, *others = entry.split(text)
        return first + line + "\n" + "".join(others)
    default = re.search(r"^[ \t]*default\b", text, re.MULTILINE)
    if default:
        return text[: default.start()] + line + "\n" + text[default.start() :]
    return text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"


def write_entry(line: str) -> Path:
    """Write a line to the netrc file, readable by its owner only; return the path.

    Raises:
        UsageError: the file cannot be read or written.
    """
    path = netrc_path().resolve()  # a link stays one
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as fresh:  # mode 0600
            fresh.write(replace_entry(text, line))
        Path(fresh.name).replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot write {str(path)!r}: {error}", hint="append the line yourself") from error
    return path
