"""Many waits at once: requests to the storage, in threads."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

THREADS: Final = 16

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_parallel(function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """Call the function for each item and return the results in order; the first error is raised."""
    waiting = list(items)
    if len(waiting) <= 1:
        return [function(item) for item in waiting]
    with ThreadPoolExecutor(min(THREADS, len(waiting))) as pool:
        return list(pool.map(function, waiting))


def iter_parallel(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield the results in order, with those of at most ``THREADS`` items in memory; the first error is raised."""
    waiting = list(items)
    if len(waiting) <= 1:
        yield from map(function, waiting)
        return
    with ThreadPoolExecutor(min(THREADS, len(waiting))) as pool:
        for start in range(0, len(waiting), THREADS):
            yield from pool.map(function, waiting[start : start + THREADS])
