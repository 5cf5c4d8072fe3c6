"""What events about index files tell: which ones need a check, when it runs, and what raises an alarm. Pure.

Only the indexer's role writes index files. An event of another principal, or of none that wrote what
Fairway did not, is a *signal*: the subdir is checked, at most once in a period. Files of a channel
belong to its ``noarch`` subdir here, because every run updates them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError
from lambdas.channel.layout import PRIVATE_PREFIX, SHARD_INDEX
from lambdas.channel.names import NOARCH, SubdirId, parse_channel, parse_subdir_id
from lambdas.indexer.model import Outputs
from lambdas.indexer.outputs.registry import CHANNEL_OUTPUTS, channel_filenames, subdir_filenames
from lambdas.indexer.outputs.registry import wanted_subdir_filenames as list_wanted
from lambdas.indexer.queue.messages import ObjectEvent
from lambdas.indexer.tree.encoding import decode_json, encode_json
from lambdas.indexer.tree.shard_index import empty_index

ALARM_MS: Final = 60 * 60 * 1000
"""A second foreign index within this time raises an alarm."""
FOREIGN_INDEX: Final = "Foreign Index Again"
"""The type of the event on the bus then."""
_MAX_REMEMBERED: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """Another principal, or an unknown one, wrote or deleted an index file."""

    subdir: SubdirId
    event: ObjectEvent

    @property
    def filename(self) -> str:
        """The last part of the key."""
        return self.event.key.rpartition("/")[2]

    @property
    def is_of_shard_index(self) -> bool:
        """Whether it concerns the pointer."""
        return self.filename == SHARD_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignIndex:
    """A shard index that was written or deleted by another principal."""

    at_ms: int
    principal: str | None
    sequencer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SubdirSignals:
    """What is remembered of the signals of a subdir."""

    checked_ms: int = 0
    """When the subdir was last checked; in the future if a check is queued."""
    foreign: tuple[ForeignIndex, ...] = ()
    """Foreign indexes within the last hour, the oldest first."""


def find_signals(events: Iterable[ObjectEvent], *, role_id: str | None) -> list[Signal]:
    """Return the events about index files that the indexer's own role did not cause."""
    signals = []
    for event in events:
        subdir = parse_index_key(event.key)
        if subdir is not None and not is_own(event, role_id):
            signals.append(Signal(subdir=subdir, event=event))
    return signals


def parse_index_key(key: str) -> SubdirId | None:
    """Return the subdir that an index file belongs to; None for any other key."""
    folder, _, filename = key.rpartition("/")
    try:
        if key.startswith(PRIVATE_PREFIX):
            return None
        if "/" not in folder:
            is_output = bool(folder) and filename in channel_filenames()
            return SubdirId(channel=parse_channel(folder), name=NOARCH) if is_output else None
        return parse_subdir_id(folder) if filename == SHARD_INDEX or filename in subdir_filenames() else None
    except InvalidNameError:
        return None


def is_own(event: ObjectEvent, role_id: str | None) -> bool:
    """Tell whether the indexer's own role caused an event."""
    return role_id is not None and f"{event.principal}:".startswith(f"AWS:{role_id}:")


def is_foreign(signal: Signal, outputs: Outputs) -> bool | None:
    """Tell whether an event alone shows that Fairway did not cause it; None if it doesn't show either."""
    if signal.event.principal is not None:
        return True
    written, kept = _written_filenames(outputs), _kept_filenames(outputs)
    is_channels = signal.event.key.count("/") == 1
    if is_channels:
        written = kept = frozenset(output.name for output in CHANNEL_OUTPUTS if output.is_wanted(outputs))
    if signal.event.action == "created" and signal.filename not in written:
        return True
    return True if signal.event.action == "removed" and signal.filename in kept else None


@cache
def _kept_filenames(outputs: Outputs) -> frozenset[str]:
    """Return the files of a subdir that a deployment never deletes."""
    return frozenset({SHARD_INDEX, *list_wanted(outputs, empty_index())})


@cache
def _written_filenames(outputs: Outputs) -> frozenset[str]:
    """Return the files of a subdir that a deployment may write."""
    return frozenset({SHARD_INDEX, *list_wanted(outputs, replace(empty_index(), patches_sha256="any"))})


def plan_check(known: SubdirSignals, *, now_ms: int, period_ms: int) -> tuple[SubdirSignals, int | None]:
    """Return what is known afterwards, and the time in ms until the check; None if one is queued already.

    A signal within a period after a check waits until its end, so that the last one of a burst is seen.
    """
    if known.checked_ms > now_ms:
        return known, None
    due_ms = max(now_ms, known.checked_ms + period_ms)
    return replace(known, checked_ms=due_ms), due_ms - now_ms


def add_foreign(
    known: SubdirSignals, indexes: Iterable[Signal], *, now_ms: int
) -> tuple[SubdirSignals, list[ForeignIndex]]:
    """Remember signals of foreign indexes; return those that are not the first one within an hour.

    An event that is delivered again is not another foreign index.
    """
    recent = [one for one in known.foreign if now_ms - one.at_ms < ALARM_MS]
    repeated = []
    for signal in indexes:
        event = signal.event
        if event.sequencer and any(one.sequencer == event.sequencer for one in recent):
            continue
        found = ForeignIndex(at_ms=now_ms, principal=event.principal, sequencer=event.sequencer)
        if recent:
            repeated.append(found)
        recent.append(found)
    return replace(known, foreign=tuple(recent[-_MAX_REMEMBERED:])), repeated


def encode_signals(known: SubdirSignals) -> bytes:
    """Encode what is remembered of a subdir's signals."""
    return encode_json(asdict(known))


def decode_signals(body: bytes) -> SubdirSignals:
    """Decode what is remembered of a subdir's signals; nothing if it is unreadable.

    Then the next signal leads to a check at once, as the first one does.
    """
    try:
        document: Mapping[str, Any] = decode_json(body, what="signals")
        return SubdirSignals(
            checked_ms=int(document["checked_ms"]),
            foreign=tuple(ForeignIndex(**one) for one in document["foreign"]),
        )
    except (InvalidDocumentError, KeyError, TypeError, ValueError):
        return SubdirSignals()
