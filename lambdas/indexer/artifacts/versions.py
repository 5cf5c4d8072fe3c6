"""The order of conda versions, to tell which one is newest. Pure.

Source: CEP 33 (version literals and their order).
"""

import functools
import re
from itertools import zip_longest

_FRAGMENT = re.compile(r"[0-9]+|\*+|[^0-9*]+")
_Fragment = tuple[int, int, str]
_FILL: tuple[_Fragment, ...] = ((2, 0, ""),)  # the number 0


class VersionKey:
    """A version, comparable with others; anything can be compared, legal or not."""

    __slots__ = ("_epoch", "_local", "_release")

    def __init__(self, version: str) -> None:
        epoch, _, rest = version.lower().rpartition("!")
        release, _, local = rest.partition("+")
        self._epoch = _rank(epoch) if re.fullmatch("[0-9]+", epoch) else _FILL[0]
        self._release = _split(release)
        self._local = _split(local) if local else ()

    def __lt__(self, other: "VersionKey") -> bool:
        if self._epoch != other._epoch:
            return self._epoch < other._epoch
        return (order := _compare(self._release, other._release)) < 0 or (
            order == 0 and _compare(self._local, other._local) < 0
        )


@functools.lru_cache(maxsize=1024)
def version_key(version: str) -> VersionKey:
    """Return the key of a version; the versions of one name are compared several times."""
    return VersionKey(version)


def _split(text: str) -> tuple[tuple[_Fragment, ...], ...]:
    parts = re.split(r"[._-]", text.removesuffix("_"))
    if text.endswith("_"):
        parts[-1] += "_"  # OpenSSL's: 1.0.1_ stands before 1.0.1a
    components = []
    for part in parts:
        fragments = [_rank(token) for token in _FRAGMENT.findall(part)]
        # "a" means "0a", so that 1.1a stands before 1.1: a component starts with a number.
        if not re.match("[0-9]", part):
            fragments.insert(0, _FILL[0])
        components.append(tuple(fragments))
    return tuple(components)


def _rank(token: str) -> _Fragment:
    """Rank: dev < other text < number < post; numbers of any length, by length and then by digits."""
    if re.match("[0-9]", token):
        digits = token.lstrip("0")
        return (2, len(digits), digits)
    if token == "dev":  # noqa: S105 - a word of version strings, no secret
        return (0, 0, "")
    if token == "post":  # noqa: S105 - as above
        return (3, 0, "")
    return (1, 0, token)


def _compare(left: tuple[tuple[_Fragment, ...], ...], right: tuple[tuple[_Fragment, ...], ...]) -> int:
    for ours, theirs in zip_longest(left, right, fillvalue=_FILL):
        for one, other in zip_longest(ours, theirs, fillvalue=_FILL[0]):
            if one != other:
                return -1 if one < other else 1
    return 0
