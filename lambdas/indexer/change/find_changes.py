"""Finds the changes under some keys: inspects, decides, and moves rejected uploads to the quarantine."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lambdas.channel.errors import FairwayError, RejectedError, VanishedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import PackageName
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.change.attestations import AttestationsKeeper
from lambdas.indexer.change.decide import Index, Keep, Reject, Remove, decide, filename_taken
from lambdas.indexer.change.inspect import Inspector
from lambdas.indexer.change.patches_in_force import MAX_REJECTED_VERSIONS
from lambdas.indexer.change.results import Results, guard
from lambdas.indexer.quarantine.quarantine import Notifier, Quarantine
from lambdas.indexer.tree.cards import Card, Cards, estimate_memory
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

Accepted = Index | Remove | Keep
"""A change after every object that may not be indexed was rejected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The cards after the changes."""

    cards: Mapping[PackageName, Mapping[str, Card]]
    etags: Mapping[str, str | None]
    """``{filename: ETag, or None if the artifact is gone}`` of what changed."""
    left: frozenset[str] = frozenset()
    """Filenames that were not inspected, because the cards of the others take all the memory."""


class KeptMemory:
    """The memory of the new cards that one commit keeps, for threads."""

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._is_begun = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Tell whether another artifact may be inspected; the first one always may."""
        with self._lock:
            may_begin = self._free > 0 or not self._is_begun
            self._is_begun = True
            return may_begin

    def keep(self, card: Card) -> None:
        """Count a card."""
        with self._lock:
            self._free -= estimate_memory(card)


class ChangeFinder:
    """Finds the changes of one run.

    ``replaceable`` are artifacts whose bytes may be replaced in this run, though the channel is not mutable.
    With ``holds_to_first``, an artifact that the index doesn't know is held to the oldest version of its key.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        inspector: Inspector,
        quarantine: Quarantine,
        notifier: Notifier,
        results: Results,
        *,
        mutable: bool,
        replaceable: frozenset[ArtifactKey] = frozenset(),
        is_rebuild: bool,
        holds_to_first: bool,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 10**6,
    ) -> None:
        self._attestations = AttestationsKeeper(storage, inspector, quarantine, results)
        self._inspector = inspector
        self._quarantine = quarantine
        self._notifier = notifier
        self._results = results
        self._mutable = mutable
        self._replaceable = replaceable
        self._is_rebuild = is_rebuild
        self._holds_to_first = holds_to_first
        self._now_ms = now_ms
        self._invalidated: set[tuple[str, str | None]] = set()
        """``(key, ETag or None)``: what caches were told to remove, and what replaced it."""

    def find(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        attested: frozenset[ArtifactKey],
        *,
        kept: KeptMemory,
        needed: frozenset[str] = frozenset(),
    ) -> Changes:
        """Inspect artifacts and return the cards afterwards; keys that fail are in the results.

        Args:
            keys: ``{filename: key}``.
            before: the cards of all names of these keys.
            attested: artifacts whose attestations are to be inspected in any case.
            kept: the memory for new cards; once it is full, no further artifact is inspected.
            needed: filenames that are inspected nevertheless.
        """

        def inspect(filename: str) -> Accepted | FairwayError | None:
            if not kept.begin() and filename not in needed:
                return None
            key = keys[filename]
            card = before[key.distribution.name].get(filename)
            if card is not None and self._is_rebuild:
                card = replace(card, etag="")  # as if it had never been read
            change = guard(
                lambda: self._inspect_until_good(key, card, attested=key in attested), f"inspect {str(key)!r}"
            )
            if isinstance(change, Index):
                kept.keep(change.card)
            return change

        self._inspector.list_attestations(
            [key for filename, key in keys.items() if key in attested or filename not in before[key.distribution.name]]
        )
        filenames = sorted(keys)
        inspected = dict(zip(filenames, in_parallel(inspect, filenames), strict=True))
        found = {filename: change for filename, change in inspected.items() if change is not None}
        found |= self._invalidate(keys, before, found)
        after = {name: dict(cards) for name, cards in before.items()}
        etags: dict[str, str | None] = {}
        for filename, change in found.items():
            key = str(keys[filename])
            cards = after[keys[filename].distribution.name]
            if isinstance(change, FairwayError):
                self._results.failures[key] = change
            elif isinstance(change, Remove):
                del cards[filename]
                etags[filename] = None
                self._results.add(key, "removed")
            elif isinstance(change, Index) and change.card != (old := cards.get(filename)):
                cards[filename] = change.card
                is_same = old is not None and _forget_versions(old) == _forget_versions(change.card)
                self._results.add(key, "unchanged" if is_same else "indexed")
                if not is_same:
                    etags[filename] = change.info.etag
            else:
                self._results.add(key, "unchanged")
        return Changes(cards=after, etags=etags, left=frozenset(inspected.keys() - found.keys()))

    def forget_read(self) -> None:
        """Release the memory of what was read: it is committed."""
        self._inspector.forget_read()

    def _inspect_until_good(self, key: ArtifactKey, card: Card | None, *, attested: bool) -> Accepted:
        """Inspect a key and reject its object, until an object may be indexed or none is left.

        Raises:
            TransientError: inspect it again later.
        """
        vanished = VanishedError(f"{str(key)!r} kept changing")
        for _ in range(MAX_REJECTED_VERSIONS):
            try:
                observed = self._inspector.inspect_artifact(key, card)
                mutable = self._mutable or key in self._replaceable
                change = decide(key, card, observed, mutable=mutable, now_ms=self._now_ms())
                if self._holds_to_first and card is None and not mutable and isinstance(change, Index):
                    change = self._hold_to_first(key, change)
                if isinstance(change, Reject):
                    is_published = card is not None and card.version == change.info.version
                    self._reject(change.info, change.error, is_published=is_published)
                    continue
                if isinstance(change, Remove) or change.card is None:
                    return change
                was_read = observed is not None and observed.artifact is not None
                if not (attested or was_read or change.card != card):
                    return change
                return self._with_attestations(key, card, change)
            except VanishedError as error:
                vanished = error
        raise vanished

    def _hold_to_first(self, key: ArtifactKey, change: Index) -> Index | Reject:
        """Reject other bytes than those of the oldest version, where nothing else tells what was published."""
        first = self._inspector.inspect_first(key)
        if first is None or not isinstance(first.artifact, ArtifactInfo) or first.artifact.sha256 == change.card.sha256:
            return change
        return Reject(info=change.info, error=filename_taken(key, first.artifact.sha256))

    def _with_attestations(self, key: ArtifactKey, card: Card | None, change: Index | Keep) -> Index | Keep:
        """Return the change with the artifact's attestations."""
        if change.card is None or change.info is None:
            return change
        updated = self._attestations.update(key, card, change.card)
        return change if updated == change.card else Index(info=change.info, card=updated)

    def _reject(self, info: ObjectInfo, error: RejectedError, *, is_published: bool) -> None:
        self._results.add_rejection(self._quarantine.reject(info, error, is_published=is_published))

    def _invalidate(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        found: Mapping[str, Accepted | FairwayError],
    ) -> dict[str, FairwayError]:
        """Remove artifacts that are gone or replaced from caches, which keep them for a year.

        That comes before the commit: afterwards nothing would tell that it is still to do. Return what
        failed, by filename, to be tried again.
        """
        stale: dict[tuple[str, str | None], str] = {}
        for filename, change in found.items():
            old = before[keys[filename].distribution.name].get(filename)
            if isinstance(change, Remove):
                stale[str(keys[filename]), None] = filename
            elif isinstance(change, Index) and old is not None and change.card.sha256 != old.sha256:
                stale[str(keys[filename]), change.info.etag] = filename
        fresh = stale.keys() - self._invalidated
        if not fresh:
            return {}
        try:
            self._notifier.invalidate(sorted({key for key, _ in fresh}))
        except FairwayError as error:
            return {stale[identity]: error for identity in fresh}
        self._invalidated |= fresh
        return {}


def _forget_versions(card: Card) -> Card:
    """Return the card without what another upload of the same bytes and bundles changes."""
    return replace(card, etag="", version=None, attestations_version=None)
