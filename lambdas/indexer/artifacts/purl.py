"""Package URLs: whether clients can parse one.

rattler parses the ``purls`` of all records of a name together: a single invalid one makes all of them
unreadable. Owns the grammar that its parser accepts. Pure.

Source: the purl specification, as the Rust crate ``purl`` reads it for packages of any type.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*\Z")
_KEY = re.compile(r"[A-Za-z0-9._-]+\Z")
_CHECKSUM = re.compile(r"([\x00-\x7f]*):(?:[0-9A-Fa-f]{2})*\Z")


def is_purl(text: str) -> bool:
    """Whether it is a package URL: ``pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS#SUBPATH``."""
    scheme, _, rest = text.partition(":")
    rest, _, subpath = _split_last(rest.lstrip("/"), "#")
    rest, question, qualifiers = _split_last(rest, "?")
    package_type, slash, rest = rest.partition("/")
    rest, _, version = _split_last(rest, "@")
    namespace, _, name = rest.rpartition("/")
    return (
        scheme == "pkg"
        and bool(slash and name and _TYPE.match(package_type))
        and _decode(name) is not None
        and _decode(version) is not None
        and _is_path(namespace)
        and _is_path(subpath)
        and (not question or _are_qualifiers(qualifiers))
    )


def _split_last(text: str, sign: str) -> tuple[str, str, str]:
    """Split at the last sign; without one, all of the text comes first."""
    before, found, after = text.rpartition(sign)
    return (before, found, after) if found else (after, "", "")


def _decode(text: str) -> str | None:
    """Resolve escapes; None if the result is not UTF-8."""
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_path(text: str) -> bool:
    segments = [_decode(segment) for segment in text.split("/")]
    return all(segment is not None and "/" not in segment for segment in segments)


def _are_qualifiers(text: str) -> bool:
    seen: set[str] = set()
    for pair in text.split("&"):
        key, equals, escaped = pair.partition("=")
        value = _decode(escaped)
        if not equals or not _KEY.match(key) or value is None or key.lower() in seen:
            return False
        if value:  # one without a value counts as absent
            seen.add(key.lower())
        if key.lower() == "checksum" and value and not _are_checksums(value):
            return False
    return True


def _are_checksums(text: str) -> bool:
    checksums = [_CHECKSUM.match(checksum) for checksum in text.split(",")]
    algorithms = {checksum[1].lower() for checksum in checksums if checksum}
    return len(algorithms) == len(checksums)
