"""The order of conda versions, to tell which one is newest. Pure.

Source: CEP 33 (version literals and their order).
"""

import re
from itertools import zip_longest

_COMPONENT = re.compile(r"[0-9]+|[a-z]+|\*", re.IGNORECASE)
_Fragment = tuple[int, int, str]
_FILL: tuple[_Fragment, ...] = ((2, 0, ""),)


class VersionKey:
    """A version, comparable with others; anything can be compared, legal or not."""

    __slots__ = ("_epoch", "_local", "_release")

    def __init__(self, version: str) -> None:
        epoch, _, rest = version.lower().rpartition("!")
        release, _, local = rest.partition("+")
        self._epoch = int(epoch) if epoch.isdecimal() else 0
        self._release = _split(release)
        self._local = _split(local) if local else ()

    def __lt__(self, other: "VersionKey") -> bool:
        if self._epoch != other._epoch:
            return self._epoch < other._epoch
        return (order := _compare(self._release, other._release)) < 0 or (
            order == 0 and _compare(self._local, other._local) < 0
        )


def _split(text: str) -> tuple[tuple[_Fragment, ...], ...]:
    components = []
    for part in re.split(r"[._-]", text):
        fragments = [_rank(token) for token in _COMPONENT.findall(part)]
        # "a" means "0a", so that 1.1a stands before 1.1: a component starts with a number.
        if not fragments or fragments[0][0] != _FILL[0][0]:
            fragments.insert(0, _FILL[0])
        components.append(tuple(fragments))
    return tuple(components)


def _rank(token: str) -> _Fragment:
    """Rank: dev < other text < number < post."""
    if token.isdecimal():
        return (2, int(token), "")
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
