"""Publishers take turns within a batch: whose keys are indexed in which round. Pure.

Each round is committed before the next one begins. In a round, each publisher gets the same number of
keys, four times as many as in the round before: a publisher with few uploads waits for few of the
others', and a thousand keys take five commits.

A queue passes on its messages more or less in order, so that turns within a batch are not enough while
messages wait. Then a publisher whose first turn was rejected goes to the back of the queue, with all of
its other keys, and small batches are packed into few messages first.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final

FIRST_TURN: Final = 4
"""Keys of each publisher in the first round."""
_GROWTH: Final = 4


def take_turns(publishers: Mapping[str, str], *, is_probing: bool = False) -> Iterator[list[str]]:
    """Yield the keys of each round; those of a single publisher are one round, unless its first turn is a probe.

    Args:
        publishers: ``{key: publisher}``, in the order in which a publisher's keys are to be indexed.
        is_probing: the first turn decides about the others.
    """
    waiting: dict[str, list[str]] = {}
    for key, publisher in publishers.items():
        waiting.setdefault(publisher, []).append(key)
    share = FIRST_TURN
    while waiting:
        if len(waiting) == 1 and not (is_probing and share == FIRST_TURN):
            share = len(publishers)
        yield sorted(key for keys in waiting.values() for key in keys[:share])
        waiting = {publisher: keys[share:] for publisher, keys in waiting.items() if len(keys) > share}
        share *= _GROWTH


def list_offenders(turn: Sequence[str], rejected: Container[str], publishers: Mapping[str, str]) -> frozenset[str]:
    """Return the publishers of whose keys in a turn half or more were rejected."""
    balance: Counter[str] = Counter()
    for key in turn:
        balance[publishers[key]] += 1 if key in rejected else -1
    return frozenset(publisher for publisher, more in balance.items() if more >= 0)
