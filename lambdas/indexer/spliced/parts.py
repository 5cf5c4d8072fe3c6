"""Plans the parts of a multipart upload that replaces a large object. Pure.

Both versions are sequences of *spans*: runs of bytes with an identity. Spans that follow each other in
both versions are copied on the server; all others are uploaded. Every part except the last must have
5 MiB, so a short upload is extended into the copy that follows.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html (limits of multipart uploads)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lambdas.storage.protocol import MAX_COPY_BYTES, MIN_PART_BYTES

PART_BYTES: Final = 16 * 1024 * 1024
"""Uploaded parts have about this size; one or two of them are in memory."""
_WORTH_A_REQUEST: Final = 5  # the last part may be small: from a fifth of the minimum on it is worth a request


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A run of bytes: equal identities mean equal bytes."""

    identity: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """The bytes ``start <= i < stop`` of the old object."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """The new spans at ``first <= i < last``."""

    first: int
    last: int


@dataclass(kw_only=True, slots=True)
class _Run:
    first: int
    last: int
    is_copy: bool


def plan_parts(
    old: Sequence[Span], new: Sequence[Span], *, least: int = MIN_PART_BYTES, most: int = PART_BYTES
) -> list[Copy | Write]:
    """Return the parts of the new object, in order."""
    offsets: dict[str, int] = {}
    at = 0
    for span in old:
        offsets.setdefault(span.identity, at)
        at += span.size
    runs = _widen(_make_runs(offsets, new), new, least)
    parts: list[Copy | Write] = []
    for run in runs:
        if run.is_copy:
            start = offsets[new[run.first].identity]
            stop = start + _size(new, run.first, run.last)
            while stop - start > MAX_COPY_BYTES:
                middle = start + MAX_COPY_BYTES // 2
                parts.append(Copy(start=start, stop=middle))
                start = middle
            parts.append(Copy(start=start, stop=stop))
        else:
            parts.extend(_cut(run, new, most))
    return parts


def _make_runs(offsets: dict[str, int], new: Sequence[Span]) -> list[_Run]:
    """Divide the new spans into runs that can be copied and runs that cannot."""
    runs: list[_Run] = []
    expected = -1
    for at, span in enumerate(new):
        offset = offsets.get(span.identity, -1)
        is_copy = offset >= 0
        if runs and runs[-1].is_copy == is_copy and (not is_copy or offset == expected):
            runs[-1].last = at + 1
        else:
            runs.append(_Run(first=at, last=at + 1, is_copy=is_copy))
        expected = offset + span.size
    return runs


def _widen(runs: Sequence[_Run], new: Sequence[Span], least: int) -> list[_Run]:
    """Make each run except the last large enough for a part."""
    result: list[_Run] = []
    for number, run in enumerate(runs, start=1):
        previous = result[-1] if result else None
        if previous is not None and not previous.is_copy:
            # Move spans of this run to the upload before it, until that is large enough for a part.
            while run.first < run.last and (not run.is_copy or _size(new, previous.first, previous.last) < least):
                run.first += 1
                previous.last = run.first
        if run.first == run.last:
            continue
        smallest = least // _WORTH_A_REQUEST if number == len(runs) else least
        if run.is_copy and _size(new, run.first, run.last) < smallest:
            run.is_copy = False
            if previous is not None and not previous.is_copy:
                previous.last = run.last
                continue
        result.append(run)
    return result


def _cut(run: _Run, new: Sequence[Span], most: int) -> Iterator[Write]:
    """Divide an upload into parts; the remainder goes into the last part."""
    first = run.first
    size = 0
    left = _size(new, run.first, run.last)
    for at in range(run.first, run.last):
        size += new[at].size
        left -= new[at].size
        if size >= most and left >= most:
            yield Write(first=first, last=at + 1)
            first, size = at + 1, 0
    yield Write(first=first, last=run.last)


def _size(spans: Sequence[Span], first: int, last: int) -> int:
    return sum(span.size for span in spans[first:last])
