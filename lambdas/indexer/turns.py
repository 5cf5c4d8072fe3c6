"""Publishers take turns within a batch: whose keys are indexed in which round. Pure.

Each round is committed before the next one begins. In a round, each publisher gets the same number of
keys, four times as many as in the round before: a publisher with few uploads waits for few of the
others', and a thousand keys take four commits.
"""

from collections.abc import Iterator, Mapping
from typing import Final

FIRST_TURN: Final = 16
"""Keys of each publisher in the first round."""
_GROWTH: Final = 4


def take_turns(publishers: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the keys of each round, in a stable order; those of a single publisher are one round.

    Args:
        publishers: ``{key: publisher}``.
    """
    waiting: dict[str, list[str]] = {}
    for key in sorted(publishers):
        waiting.setdefault(publishers[key], []).append(key)
    share = FIRST_TURN
    while waiting:
        if len(waiting) == 1:
            share = len(publishers)
        yield sorted(key for keys in waiting.values() for key in keys[:share])
        waiting = {publisher: keys[share:] for publisher, keys in waiting.items() if len(keys) > share}
        share *= _GROWTH
