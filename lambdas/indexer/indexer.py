"""The indexer of one storage: makes the index of a subdir say what is in the bucket.

Single events, bursts, replays and reconciliation all go through ``Indexer.index``: inspect, decide,
commit, and bring the outputs up to date. Driven by what is in the bucket, not by what an event says.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from lambdas.channel.errors import ConflictError, FairwayError, RejectedError, TransientError, UnreadableError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import PackageName, SubdirId
from lambdas.indexer.artifacts.budgets import MemoryPermits
from lambdas.indexer.change.commit import Committer
from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.change.find_changes import ChangeFinder
from lambdas.indexer.change.heal import BATCH, Healer
from lambdas.indexer.change.inspect import UNHURRIED, Inspector, ReadingRules
from lambdas.indexer.change.results import Results, guard
from lambdas.indexer.change.subdir_limit import TooManySubdirsError
from lambdas.indexer.model import LIMITS, Limits, Outcome, Policy, Rejection, Report, SubdirKeys
from lambdas.indexer.outputs.catch_up import CatchUp
from lambdas.indexer.outputs.channel_tree import Committed
from lambdas.indexer.quarantine.quarantine import Notifier, Quarantine
from lambdas.indexer.quarantine.unreadable import find_unreadable
from lambdas.indexer.tree.subdir import Commit, EncodedShard, ForeignIndexError, Subdir, open_subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectStorage
from lambdas.storage.retry import MAX_ATTEMPTS, retry_conflicts

READING_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""For all artifacts that are read at once."""


class Indexer:
    """Keeps the indexes of one storage.

    ``requeue`` has a key inspected before long: that of a subdir whose outputs were deferred, or of one
    whose listing is needed. Without it, nothing is deferred.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        notifier: Notifier,
        policy: Policy,
        *,
        requeue: Callable[[str], None] | None = None,
        limits: Limits = LIMITS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage = storage
        self._notifier = notifier
        self._quarantine = Quarantine(storage, notifier)
        self._policy = policy
        self._requeue = requeue
        self._limits = limits
        self._reading_memory = MemoryPermits(READING_MEMORY_BYTES)
        self._sleep = sleep
        self._complete: set[SubdirId] = set()

    def index(self, subdir: SubdirId, keys: SubdirKeys, *, rules: ReadingRules = UNHURRIED) -> Report:
        """Make the index of a subdir and its outputs agree with what is under these keys.

        Once the time for reading is over, no further artifact is read: those keys fail with ``DeadlineError``.

        Raises:
            TransientError: the storage did not let the run finish; what was done stays, and the next
                run does the rest.
        """
        return self._run(subdir, keys, rules=rules, is_rebuild=False)

    def rebuild(
        self,
        subdir: SubdirId,
        keys: SubdirKeys,
        *,
        replaceable: frozenset[ArtifactKey] = frozenset(),
        rules: ReadingRules = UNHURRIED,
    ) -> Report:
        """Make the index of a subdir again: every artifact is read, every output is written.

        ``keys`` names every artifact in the bucket. Bytes that differ from an artifact's card are rejected,
        except those of the ``replaceable`` ones, which replace it.

        Raises:
            TransientError: as ``index``.
        """
        return self._run(subdir, keys, rules=rules, is_rebuild=True, replaceable=replaceable)

    def reject(self, keys: Mapping[str, RejectedError], *, etags: Mapping[str, str] | None = None) -> Report:
        """Reject the objects under keys where nothing can be indexed, each for itself (invariant 3).

        Keys that are in ``etags`` are left alone if they have another object by now.
        """

        def reject(key: str) -> Rejection | FairwayError | None:
            return guard(lambda: self._reject(key, keys[key], (etags or {}).get(key)), f"reject {key!r}")

        found = dict(zip(keys, in_parallel(reject, keys), strict=True))
        return Report(
            outcomes=tuple(
                Outcome(key=key, status="rejected", rejection=one)
                for key, one in found.items()
                if isinstance(one, Rejection)
            ),
            failures={key: one for key, one in found.items() if isinstance(one, FairwayError)},
        )

    def invalidate_rejected(self, *, all_runs: bool = False) -> None:
        """Have caches drop what was rejected, in one call; see ``Quarantine.invalidate``.

        Raises:
            TransientError: the storage or the CDN is not available: the next call invalidates the same.
        """
        self._quarantine.invalidate(all_runs=all_runs)

    def _reject(self, key: str, error: RejectedError, etag: str | None) -> Rejection | None:
        try:
            info = self._storage.head(key)
        except UnreadableError:
            info, error = find_unreadable(self._storage, key)
        if info is None or (etag is not None and info.etag != etag):
            return None
        return self._quarantine.reject(info, error)

    def _run(
        self,
        subdir_id: SubdirId,
        keys: SubdirKeys,
        *,
        rules: ReadingRules,
        is_rebuild: bool,
        replaceable: frozenset[ArtifactKey] = frozenset(),
    ) -> Report:
        subdir = self._open(subdir_id)
        results = Results()
        make = functools.partial(self._make_committer, results=results, rules=rules, replaceable=replaceable)
        committer = make(subdir, is_rebuild=is_rebuild)
        catch_up = CatchUp(
            storage=self._storage,
            outputs=self._policy.outputs,
            limits=self._limits,
            is_rebuild=is_rebuild,
            may_defer=self._requeue is not None and not keys.deferred and not is_rebuild,
            remove_unwanted=keys.deferred or is_rebuild,
            bases=results.bases,
            sleep=self._sleep,
        )

        def attempt() -> tuple[Commit, dict[PackageName, EncodedShard], bool]:
            commit, encoded = self._commit_all(committer, keys)
            has_deferred = commit.etag is not None and catch_up.update_subdir(subdir, commit, encoded)
            return commit, encoded, has_deferred

        try:
            commit, encoded, has_deferred = attempt()
        except TooManySubdirsError as error:
            return self.reject(dict.fromkeys(keys.list_keys(subdir_id), error))
        except ForeignIndexError as error:
            results.healed = str(error)
            self._heal(committer, make(subdir.draft()))
            commit, encoded, has_deferred = attempt()
        if commit.etag is None and keys.is_follow_up:
            return results.report()  # what was deleted for good must not come back
        declared = self._policy.list_declared(subdir_id.channel)
        has_made = [self._ensure_complete(one, catch_up) for one in declared if one != subdir_id or commit.etag is None]
        has_deferred = has_deferred or catch_up.update_channel(
            Committed(subdir=subdir_id, commit=commit, shards=encoded, base=results.bases.get(subdir_id)),
            declared=[one.name for one in declared],
            compare_all=keys.deferred or keys.whole or any(has_made),
        )
        if has_deferred and self._requeue is not None:
            self._requeue(subdir.layout.prefix)
        return results.report()

    def _heal(self, committer: Committer, draft: Committer) -> None:
        """Replace a shard index that is not a commit of this subdir.

        Raises:
            TransientError: the next run goes on.
        """
        healer = Healer(
            subdir=committer.subdir, committer=draft, commit_keys=lambda *some: self._commit_until_stable(*some)[0]
        )

        broken = committer.subdir.fetch_etag()

        def attempt() -> None:
            if committer.subdir.fetch_etag() == broken:  # otherwise, another run has healed it
                healer.heal()

        retry_conflicts(attempt, sleep=self._sleep)

    def _open(self, subdir: SubdirId) -> Subdir:
        return open_subdir(self._storage, subdir, deployment=self._policy.deployment)

    def _commit_all(self, committer: Committer, keys: SubdirKeys) -> tuple[Commit, dict[PackageName, EncodedShard]]:
        """Commit the keys and, if the whole subdir is asked for, whatever its listing shows to differ."""
        if not keys.whole:
            return self._commit_until_stable(committer, keys)
        differences = list_differences(committer.subdir, committer.fetch_base())
        waiting = sorted(keys.artifacts | keys.attestations | differences.artifacts | differences.attestations, key=str)
        encoded: dict[PackageName, EncodedShard] = {}
        for start in range(0, max(1, len(waiting)), BATCH):
            batch = frozenset(waiting[start : start + BATCH])
            attested = batch & (keys.attestations | differences.attestations)
            some = SubdirKeys(artifacts=batch, attestations=attested, patches=True)
            commit, more = self._commit_until_stable(committer, some)
            encoded = more  # the newest are enough: others are read again
        failures = committer.results.failures
        for key in waiting:
            if str(key) in failures:  # the message that asked for the listing comes again
                failures[committer.subdir.layout.whole] = failures[str(key)]
        return commit, encoded

    def _make_committer(
        self,
        subdir: Subdir,
        *,
        results: Results,
        rules: ReadingRules,
        replaceable: frozenset[ArtifactKey] = frozenset(),
        is_rebuild: bool = False,
        makes_empty: bool = False,
    ) -> Committer:
        changes = ChangeFinder(
            self._storage,
            Inspector(self._storage, self._reading_memory, rules),
            self._quarantine,
            self._notifier,
            results,
            mutable=self._policy.is_mutable(subdir.id.channel),
            replaceable=replaceable,
            is_rebuild=is_rebuild,
            holds_to_first=is_rebuild or subdir.layout.is_draft,
        )
        return Committer(
            subdir=subdir,
            changes=changes,
            quarantine=self._quarantine,
            results=results,
            limits=self._limits,
            is_rebuild=is_rebuild,
            max_subdirs=self._policy.max_subdirs,
            makes_empty=makes_empty,
        )

    def _commit_until_stable(
        self, committer: Committer, keys: SubdirKeys
    ) -> tuple[Commit, dict[PackageName, EncodedShard]]:
        """Commit the keys, in as many commits as their memory needs.

        Return the last commit, and the shards of what it changed.

        Raises:
            TransientError: as ``_commit_some``.
        """
        while True:
            commit, encoded, left = self._commit_some(committer, keys)
            if not left.filenames:
                return commit, encoded
            keys = left

    def _commit_some(
        self, committer: Committer, keys: SubdirKeys
    ) -> tuple[Commit, dict[PackageName, EncodedShard], SubdirKeys]:
        """Commit until the commit agrees with what is under the keys, then inspect once more.

        Return the keys that are left to the next commit, too.

        The second inspection closes the gap between the first one and the swap: an event in between may
        have been handled before our commit was there to be corrected.

        Raises:
            TransientError: the subdir kept changing, or the storage is not available.
        """
        pending = keys
        left: frozenset[str] = frozenset()
        encoded: dict[PackageName, EncodedShard] = {}

        def attempt() -> Commit:
            nonlocal pending, left
            for _ in range(MAX_ATTEMPTS):
                try:
                    done = committer.attempt(pending)
                except ConflictError:
                    committer.results.conflicts += 1
                    raise
                committer.results.commits += done.has_committed
                if done.is_first and self._requeue is not None and not committer.subdir.layout.is_draft:
                    # Without an index, nothing tells what else is in the bucket but its listing.
                    self._requeue(committer.subdir.layout.whole)
                committer.changes.forget_read()
                left |= done.left
                pending = pending.without(left)
                encoded.update(done.encoded)
                moved = committer.list_moved(done.etags)
                # Patches and attestations are inspected again by further attempts, until one changes nothing.
                is_beside = done.has_committed and (pending.patches or bool(pending.attestations))
                if not moved and not is_beside:
                    return done.commit
                pending = replace(pending, artifacts=moved) if is_beside else SubdirKeys(artifacts=moved)
            raise ConflictError(f"{committer.subdir} kept changing")

        commit = retry_conflicts(attempt, retry_on=TransientError, sleep=self._sleep)
        rest = SubdirKeys(artifacts=keys.artifacts, attestations=keys.attestations)
        return commit, encoded, rest.without(rest.filenames - left)

    def _ensure_complete(self, subdir_id: SubdirId, catch_up: CatchUp) -> bool:
        """Make a declared subdir, such as ``noarch``, if it is missing or incomplete (invariant 13).

        Return whether it was.
        """
        if subdir_id in self._complete:
            return False
        subdir = self._open(subdir_id)
        if is_missing := not catch_up.is_complete(subdir):
            committer = self._make_committer(subdir, results=Results(), rules=UNHURRIED, makes_empty=True)
            try:
                commit, encoded = self._commit_until_stable(committer, SubdirKeys())
            except ForeignIndexError:
                self.index(subdir_id, SubdirKeys(deferred=True))  # heals it
            else:
                replace(catch_up, is_rebuild=False, may_defer=False).update_subdir(subdir, commit, encoded)
        self._complete.add(subdir_id)
        return is_missing
