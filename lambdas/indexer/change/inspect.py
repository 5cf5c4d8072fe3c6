"""Inspects keys: what is in the bucket now. The one request pattern for artifacts and attestations.

An artifact that no card describes is fetched whole in one request if it is small; a request for its
headers alone is made if nothing has to be read. Each version of each artifact is read at most once.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from lambdas.channel.artifact_kinds import TAR_BZ2
from lambdas.channel.errors import (
    DeadlineError,
    LimitExceededError,
    RejectedError,
    UnreadableError,
    VanishedError,
)
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.budgets import MemoryBudget, ProcessorBudget, ReadingBudgets
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from lambdas.indexer.change.decide import Observed, is_described
from lambdas.indexer.change.list_many import list_many
from lambdas.indexer.model import Mode
from lambdas.indexer.quarantine.unreadable import find_unreadable
from lambdas.indexer.tree.cards import Card
from lambdas.storage.protocol import FetchedObject, ObjectInfo, ObjectStorage, ObjectVersion, StoredObject

FETCHED_BYTES: Final = 8 * 1024 * 1024
"""An artifact up to this size is fetched whole."""

_BZIP2_READERS: Final = threading.BoundedSemaphore(2)
"""Decompressing bzip2 takes processor time only: with 16 at once, all would end late."""


TOGETHER_CPU_SECONDS: Final = 15.0
"""Of processor time for one artifact that is read together with others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingRules:
    """How long a run may read artifacts, by a monotonic clock in seconds, and what happens to one that takes longer."""

    deadline: float = math.inf
    mode: Mode | None = None
    """None: in parallel, each within the limits of one artifact, as commands and reconciliation read."""
    clock: Callable[[], float] = time.monotonic
    on_read: Callable[[], None] = lambda: None
    """Called in any thread when an artifact has been read."""

    def check(self, key: str) -> None:
        """Check that there is time to begin reading.

        Raises:
            DeadlineError: the deadline has passed.
        """
        if self.is_over():
            raise DeadlineError(f"no time was left to read {key!r}")

    def is_over(self) -> bool:
        """Tell whether the deadline has passed."""
        return self.clock() >= self.deadline

    def make_limits(self) -> ArtifactLimits:
        """Return the limits of one artifact."""
        limits = ArtifactLimits()
        return replace(limits, max_cpu_seconds=TOGETHER_CPU_SECONDS) if self.mode == "together" else limits

    def make_processor_budget(self) -> ProcessorBudget:
        """Return the processor time of one core from now until the deadline, for all artifacts of a run."""
        return ProcessorBudget(max(0.0, self.deadline - self.clock()), time.thread_time)


UNHURRIED: Final = ReadingRules()
"""Without a deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestationsHistory:
    """The versions of an artifact's attestations that are not accepted yet."""

    latest: ObjectVersion | None
    """The newest of all, or the newest deletion; None if there never were any."""
    unseen: tuple[ObjectInfo, ...]
    """Versions that are to be accepted, the oldest first."""


class Inspector:
    """Inspects the keys of one run."""

    def __init__(self, storage: ObjectStorage, memory: MemoryBudget, rules: ReadingRules) -> None:
        self._storage = storage
        self._rules = rules
        self._limits = rules.make_limits()
        self._alone = threading.Lock() if rules.mode in ("alone", "final") else nullcontext()
        self._budgets = ReadingBudgets(memory=memory, processor=rules.make_processor_budget())
        self._read: dict[tuple[str, str, str | None], ArtifactInfo | RejectedError] = {}
        self._fetched: set[ArtifactKey] = set()
        self._unattested: frozenset[str] = frozenset()

    def list_attestations(self, keys: Sequence[ArtifactKey]) -> None:
        """Find out which of many artifacts of one subdir have no attestations: these need no request each."""
        listed = list_many(self._storage, [key.attestations for key in keys])
        self._unattested = frozenset(key for key, versions in listed.items() if not versions)

    def inspect_artifact(self, key: ArtifactKey, card: Card | None) -> Observed | None:
        """Return the object under an artifact's key; None if there is none.

        It is read unless the card describes its bytes. If it can't be read for a reason that the storage
        names, that is what was observed.

        Raises:
            VanishedError: it changed meanwhile.
            DeadlineError: it would have to be read, and there is no time left.
            LimitExceededError: it takes more processor time than one artifact may.
        """
        try:
            return self._inspect_readable(key, card)
        except UnreadableError:
            info, error = find_unreadable(self._storage, str(key))
            return Observed(info=info, artifact=error)

    def _inspect_readable(self, key: ArtifactKey, card: Card | None) -> Observed | None:
        if (card is None or not card.etag) and key not in self._fetched:
            with self._reading(key):
                fetched = self._storage.fetch(str(key), max_bytes=FETCHED_BYTES)
                self._fetched.add(key)
                return None if fetched is None else self._observe(key, fetched)
        info = self._storage.head(str(key))
        if info is None:
            return None
        if info.storage_class is not None:
            self._storage.check_readable(info)
        if is_described(self._with_version(card, info), info):
            return Observed(info=info)
        if _identify(info) in self._read:
            return Observed(info=info, artifact=self._read[_identify(info)])
        with self._reading(key):
            return self._observe(key, FetchedObject(info=info, body=None))

    def inspect_first(self, key: ArtifactKey) -> Observed | None:
        """Read the oldest version of an artifact since its key was last deleted; None if it can't be read.

        Raises:
            VanishedError: it is gone.
            DeadlineError: there is no time left.
            LimitExceededError: it takes more processor time than one artifact may.
        """
        first: ObjectInfo | None = None
        for version in self._storage.list_history(str(key)):
            if version.is_deletion:
                break
            first = version.info
        if first is None:
            return None
        try:
            if _identify(first) in self._read:
                return Observed(info=first, artifact=self._read[_identify(first)])
            with self._reading(key):
                return self._observe(key, FetchedObject(info=first, body=None))
        except UnreadableError:
            return None

    def forget_read(self) -> None:
        """Release the memory of what was read; it is read again if it is inspected again."""
        self._read.clear()

    def inspect_attestations(self, key: ArtifactKey, *, since: str | None, is_known: bool) -> AttestationsHistory:
        """Return what happened under the key of an artifact's attestations since a version of it.

        Args:
            key: the artifact's key.
            since: the version up to which everything was accepted. None, or a version that is gone: nothing
                was, and everything is returned.
            is_known: the index has a record of the artifact. If not, what came before the attestations were
                last deleted doesn't count: they were another artifact's.
        """
        if since is None and (key.attestations in self._unattested or not self._storage.has_history(key.attestations)):
            return AttestationsHistory(latest=None, unseen=())
        latest: ObjectVersion | None = None
        unseen: list[ObjectInfo] = []
        for version in self._storage.list_history(key.attestations):
            latest = latest or version
            if version.info.version is not None and version.info.version == since:
                break
            if version.is_deletion and not is_known:
                break
            if not version.is_deletion:
                unseen.append(version.info)
        return AttestationsHistory(latest=latest, unseen=tuple(reversed(unseen)))

    def read_attestations(self, key: ArtifactKey, info: ObjectInfo) -> StoredObject:
        """Read one version of an artifact's attestations.

        Raises:
            VanishedError: it is gone.
            DeadlineError: the deadline has passed.
        """
        self._rules.check(str(key))
        stored = self._storage.get(info.key, version=info.version)
        if stored is None or stored.info.etag != info.etag:
            raise VanishedError(f"{info.key!r} changed")
        return stored

    def _with_version(self, card: Card | None, info: ObjectInfo) -> Card | None:
        """Return the card with a version: one of 0.1.0 was made of the oldest one with its ETag."""
        if card is None or card.version is not None or info.version is None or card.etag != info.etag:
            return card
        history = self._storage.list_history(info.key)
        versions = [one.info.version for one in history if not one.is_deletion and one.info.etag == card.etag]
        return replace(card, version=versions[-1] if versions else None)

    @contextmanager
    def _reading(self, key: ArtifactKey) -> Iterator[None]:
        with self._alone, _BZIP2_READERS if key.distribution.kind is TAR_BZ2 else nullcontext():
            self._rules.check(str(key))
            yield

    def _observe(self, key: ArtifactKey, fetched: FetchedObject) -> Observed:
        identity = _identify(fetched.info)
        if identity not in self._read:
            self._read[identity] = self._read_artifact(key, fetched)
            self._rules.on_read()
        return Observed(info=fetched.info, artifact=self._read[identity])

    def _read_artifact(self, key: ArtifactKey, fetched: FetchedObject) -> ArtifactInfo | RejectedError:
        source = StoredArtifact(self._storage, fetched)
        try:
            return read_artifact(source, key.distribution, self._limits, self._budgets)
        except RejectedError as error:
            return error
        except LimitExceededError as error:
            if error.scope == "run":
                raise DeadlineError(f"no time was left to read {str(key)!r}") from error
            if self._rules.mode != "final":
                raise
            return RejectedError(
                RejectionCode.COULD_NOT_BE_READ,
                f"reading it alone exceeded the limit of {error.limit} in two runs",
                hint="compress it with another level, or split it into several packages",
            )


class StoredArtifact:
    """The bytes of one version of one artifact in a storage: an ``ArtifactSource``."""

    def __init__(self, storage: ObjectStorage, fetched: FetchedObject) -> None:
        self._storage = storage
        self._info = fetched.info
        self._body = fetched.body
        self.size = fetched.info.size
        self.md5 = fetched.info.md5
        self.sha256 = fetched.info.sha256

    def read_range(self, start: int, stop: int) -> bytes:
        """Read a range of this version."""
        if self._body is not None:
            return self._body[start:stop]
        return self._storage.read_range(self._info, start, stop)

    def stream(self) -> Iterator[bytes]:
        """Read this version in chunks."""
        if self._body is not None:
            return iter((self._body,))
        return self._storage.stream(self._info)


def _identify(info: ObjectInfo) -> tuple[str, str, str | None]:
    return info.key, info.etag, info.version
