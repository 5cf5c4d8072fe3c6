"""Makes the index say what is in the bucket: look, decide, swap, retry, project.

Everything goes through ``Indexer.index``: single events, bursts, replays, reconciliation. It is
driven by state, not by operations: each round reads the commit, looks at the touched keys, and
swaps; whoever loses the swap starts the next round. Writes whose answer was lost are recognised
because the next round finds nothing left to do.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from lambdas.channel.errors import (
    ConflictError,
    FairwayError,
    InvalidDocumentError,
    InvalidNameError,
    RejectedError,
    TransientError,
    UnavailableError,
    VanishedError,
)
from lambdas.channel.layout import PATCH_INSTRUCTIONS, SHARD_INDEX, ArtifactKey, parse_artifact_key
from lambdas.channel.names import NOARCH, Channel, PackageName, SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.inspect import Absent, Finding, Inspector, Present, Rejected
from lambdas.indexer.model import Outcome, Policy, Rejection, Report, Status, SubdirKeys
from lambdas.indexer.outputs.channel import project_channel
from lambdas.indexer.outputs.subdir import SUBDIR_PAGE, SubdirProjector
from lambdas.indexer.quarantine import Notifier, quarantine_upload
from lambdas.indexer.tree.cards import Card, Cards
from lambdas.indexer.tree.commit import (
    Commit,
    EncodedShard,
    fetch_cards,
    fetch_commit,
    fetch_patches,
    fetch_shards,
    put_cards,
    put_patches,
    put_shards,
    replace_commit,
)
from lambdas.indexer.tree.encoding import measure
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions, parse_patches
from lambdas.indexer.tree.shard_index import ShardHash, apply_shards
from lambdas.indexer.tree.shards import MAX_SHARD_BYTES, encode_shard, find_overflow, iter_records, make_shard
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectStorage

_Result = TypeVar("_Result")

MAX_ROUNDS: Final = 40
MAX_PAUSE_SECONDS: Final = 3.0
MAX_EVICTIONS: Final = 20  # bad versions piled on one key, set aside in one go


@dataclass(kw_only=True, slots=True)
class _Run:
    """What one call of ``Indexer.index`` has gathered."""

    inspector: Inspector
    is_rebuild: bool = False
    may_defer: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, FairwayError] = field(default_factory=dict)
    dropped: set[tuple[str, str | None]] = field(default_factory=set)
    """``(key, ETag or None)``: what caches were told to forget, and what took its place."""
    encoded: dict[PackageName, EncodedShard] = field(default_factory=dict)
    commits: int = 0
    conflicts: int = 0


class Indexer:
    """Keeps the indexes of one storage.

    ``requeue`` sees to it that a subdir is indexed again before long, with ``SubdirKeys.deferred``: files
    that take long to write, and that few wait for, are left until then. Without it, nothing is.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        notifier: Notifier,
        policy: Policy,
        *,
        requeue: Callable[[SubdirId], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage = storage
        self._notifier = notifier
        self._policy = policy
        self._remind = requeue
        self._sleep = sleep

    def index(self, subdir: SubdirId, touched: SubdirKeys, *, until: float = math.inf) -> Report:
        """Make the index of a subdir, and all that is made of it, agree with the storage.

        From ``until`` on (seconds of ``time.monotonic``), no further artifact is read: those fail with
        ``DeadlineError``.

        Raises:
            TransientError: the storage did not let us finish; what was done stays, the rest is
                done by the next call.
        """
        may_defer = self._remind is not None and not touched.deferred
        inspector = Inspector(self._storage, is_late=lambda: time.monotonic() >= until)
        return self._index(subdir, touched, _Run(inspector=inspector, may_defer=may_defer))

    def rebuild(self, subdir: SubdirId, touched: SubdirKeys) -> Report:
        """Make the index of a subdir again: every artifact is read, every output is written.

        ``touched`` names every artifact that is there. What the storage holds is the truth: an
        artifact that differs from its record replaces it.

        Raises:
            TransientError: as ``index``.
        """
        return self._index(subdir, touched, _Run(inspector=Inspector(self._storage), is_rebuild=True))

    def _index(self, subdir: SubdirId, touched: SubdirKeys, run: _Run) -> Report:
        commit = self._settle(subdir, touched, run)
        has_deferred = commit.etag is not None and self._project(subdir, commit, run)
        if subdir.name != NOARCH:
            self._ensure_noarch(subdir.channel)
        has_deferred = has_deferred or self._project_channel(subdir.channel, run)
        if has_deferred and self._remind is not None:
            self._remind(subdir)
        return Report(
            outcomes=tuple(run.outcomes.values()),
            failures=run.failures,
            commits=run.commits,
            conflicts=run.conflicts,
        )

    def refuse(self, key: str, error: RejectedError) -> Rejection | None:
        """Set aside an object under a key where nothing can be indexed; None where there is none."""
        info = self._storage.head(key)
        return None if info is None else quarantine_upload(self._storage, self._notifier, info, error)

    def reject_all(self, invalid_keys: Mapping[str, RejectedError]) -> Report:
        """Do so for several keys, each for itself: one that can't be set aside stops no other (invariant 3)."""

        def refuse(key: str) -> Rejection | FairwayError | None:
            return _guard(lambda: self.refuse(key, invalid_keys[key]), f"set {key!r} aside")

        found = dict(zip(invalid_keys, in_parallel(refuse, invalid_keys), strict=True))
        return Report(
            outcomes=tuple(
                Outcome(key=key, status="rejected", rejection=one)
                for key, one in found.items()
                if isinstance(one, Rejection)
            ),
            failures={key: one for key, one in found.items() if isinstance(one, FairwayError)},
        )

    def _settle(self, subdir: SubdirId, touched: SubdirKeys, run: _Run) -> Commit:
        """Swap until the commit agrees with what is under the touched keys, then look once more.

        The second look closes the gap between the first one and the swap: an event that came in
        between may have been handled before our commit was there to be corrected.
        """
        pending = touched
        for round_number in range(MAX_ROUNDS):
            commits = run.commits
            try:
                commit, changed = self._settle_once(subdir, pending, run)
            except TransientError as error:
                if round_number == MAX_ROUNDS - 1:
                    raise
                run.conflicts += isinstance(error, ConflictError)
                self._pause(round_number)
                continue
            moved = self._look_again(subdir, changed)
            beside = run.commits > commits and (pending.patches or bool(pending.sidecars))
            if not moved and not beside:
                return commit
            # Patches and signatures are looked at again by another round, until one changes nothing.
            pending = replace(pending, artifacts=moved) if beside else SubdirKeys(artifacts=moved)
        raise ConflictError(f"{subdir} kept changing during {MAX_ROUNDS} rounds")

    def _settle_once(self, subdir: SubdirId, touched: SubdirKeys, run: _Run) -> tuple[Commit, dict[str, str | None]]:
        """Do one round; return the commit and ``{filename: ETag or None}`` of what it changed.

        Raises:
            TransientError: nothing is committed: do another round.
        """
        base = fetch_commit(self._storage, subdir)
        patches, patches_sha256 = self._find_patches(subdir, base, run, look=touched.patches)
        keys = {filename: parse_artifact_key(subdir.key(filename)) for filename in touched.filenames}
        names = {key.distribution.name for key in keys.values()}
        if patches_sha256 != base.index.patches_sha256:
            names |= self._find_patched(subdir, base, patches)
        if run.is_rebuild:
            names |= base.index.shards.keys()
        before, lost = self._fetch_cards(subdir, base, names)
        if run.is_rebuild:
            lost |= {filename for cards in before.values() for filename in cards}
        # Artifacts whose cards are lost are read again with the others.
        keys |= {filename: parse_artifact_key(subdir.key(filename)) for filename in lost}
        after, changed = self._look(subdir, keys, before, touched.sidecars, run)
        if unknown := {keys[filename].distribution.name for filename in lost if subdir.key(filename) in run.failures}:
            # The record of such an artifact is as readers see it, patches applied: no base for anything.
            failure = next(
                run.failures[subdir.key(filename)] for filename in lost if subdir.key(filename) in run.failures
            )
            if patches_sha256 != base.index.patches_sha256:
                raise failure
            for filename in [one for one, key in keys.items() if key.distribution.name in unknown]:
                run.failures[subdir.key(filename)] = failure
                changed.pop(filename, None)
            after = {name: cards for name, cards in after.items() if name not in unknown}
        encoded = _encode_shards(after, patches)
        self._reject_overflow(keys, before, encoded, patches, run)
        commit = self._commit(subdir, base, before, encoded, patches_sha256=patches_sha256, is_rebuild=run.is_rebuild)
        if commit.sha256 != base.sha256:
            run.commits += 1
        run.encoded |= encoded
        return commit, changed

    def _find_patches(
        self, subdir: SubdirId, base: Commit, run: _Run, *, look: bool
    ) -> tuple[PatchInstructions, str | None]:
        """Return the patch instructions that are to be in force, and their hash."""
        if not look:
            return fetch_patches(self._storage, subdir, base.index.patches_sha256), base.index.patches_sha256
        key = subdir.key(PATCH_INSTRUCTIONS)
        for _ in range(MAX_EVICTIONS):
            stored = self._storage.get(key)
            if stored is None:
                if base.index.patches_sha256 is not None:
                    run.outcomes[key] = Outcome(key=key, status="removed")
                return NO_PATCHES, None
            sha256 = hashlib.sha256(stored.body).hexdigest()
            if sha256 == base.index.patches_sha256:
                run.outcomes.setdefault(key, Outcome(key=key, status="unchanged"))
                try:
                    return fetch_patches(self._storage, subdir, sha256), sha256
                except InvalidDocumentError:  # ours is lost: keep theirs
                    put_patches(self._storage, subdir, sha256, stored.body)
                    return parse_patches(stored.body), sha256
            try:
                # A file's times may be older than the file: what is past by now is past.
                uploaded_ms = max(stored.info.last_modified_ms, time.time_ns() // 10**6)
                patches = parse_patches(stored.body, uploaded_ms=uploaded_ms)
            except RejectedError as error:
                # The earlier version becomes current again: the last good one stays in force.
                rejection = quarantine_upload(self._storage, self._notifier, stored.info, error)
                run.outcomes[key] = Outcome(key=key, status="rejected", rejection=rejection)
                if stored.info.version is None:  # nothing earlier can come back: keep what is in force
                    return fetch_patches(self._storage, subdir, base.index.patches_sha256), base.index.patches_sha256
                continue
            put_patches(self._storage, subdir, sha256, stored.body)
            run.outcomes[key] = Outcome(key=key, status="indexed")
            return patches, sha256
        raise VanishedError(f"{key!r} kept changing")

    def _find_patched(self, subdir: SubdirId, base: Commit, patches: PatchInstructions) -> set[PackageName]:
        """Return the names whose records may change when these patches replace those in force."""
        try:
            old = fetch_patches(self._storage, subdir, base.index.patches_sha256)
        except InvalidDocumentError:  # nobody knows any more what they changed
            return set(base.index.shards)
        return _names_of(subdir, old.filenames | patches.filenames) & base.index.shards.keys()

    def _fetch_cards(
        self, subdir: SubdirId, base: Commit, names: Iterable[PackageName]
    ) -> tuple[dict[PackageName, Cards], frozenset[str]]:
        """Read cards; where they are lost, make them again from what readers see, to be looked at."""
        fetched = fetch_cards(self._storage, subdir, base.index, names)
        missing = [name for name, cards in fetched.items() if cards is None]
        cards: dict[PackageName, Cards] = {name: found for name, found in fetched.items() if found is not None}
        lost: set[str] = set()
        for name, shard in fetch_shards(self._storage, subdir, base.index, missing).items():
            cards[name] = {filename: _card_without_etag(record) for filename, record in iter_records(shard)}
            lost |= {*cards[name], *shard.removed}
        return cards, frozenset(lost)

    def _look(
        self,
        subdir: SubdirId,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        sidecars: frozenset[str],
        run: _Run,
    ) -> tuple[dict[PackageName, dict[str, Card]], dict[str, str | None]]:
        """Look at artifacts, set refused ones aside, and return the cards afterwards."""
        mutable = run.is_rebuild or self._policy.is_mutable(subdir.channel)

        def look(filename: str) -> Absent | Present | FairwayError:
            key = keys[filename]
            card = before[key.distribution.name].get(filename)
            if card is not None and run.is_rebuild:
                card = replace(card, etag="")  # as if it had never been read
            sidecar = filename in sidecars
            return _guard(
                lambda: self._look_until_good(key, card, run, mutable=mutable, sidecar=sidecar),
                f"look at {str(key)!r}",
            )

        after = {name: dict(cards) for name, cards in before.items()}
        changed: dict[str, str | None] = {}
        filenames = sorted(keys)
        findings = dict(zip(filenames, in_parallel(look, filenames), strict=True))
        findings |= self._drop_cached(keys, before, findings, run)
        for filename, found in findings.items():
            key = str(keys[filename])
            cards = after[keys[filename].distribution.name]
            old = cards.get(filename)
            if isinstance(found, FairwayError):
                run.failures[key] = found
                continue
            run.failures.pop(key, None)
            if isinstance(found, Absent):
                if cards.pop(filename, None) is not None:
                    changed[filename] = None
                    _note(run, key, "removed")
                else:
                    _note(run, key, "unchanged")
                continue
            if found.card != old:
                cards[filename] = found.card
                changed[filename] = found.info.etag
            _note(run, key, "unchanged" if found.card == old else "indexed")
        return after, changed

    def _reject_overflow(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        encoded: Mapping[PackageName, EncodedShard],
        patches: PatchInstructions,
        run: _Run,
    ) -> None:
        """Set aside new artifacts with which their name's shard would be larger than clients read.

        Nothing is committed in such a round: the next one looks at what is under their keys instead.

        Raises:
            VanishedError: something was set aside.
        """
        large = [name for name, shard in encoded.items() if measure(shard.body) > MAX_SHARD_BYTES]
        overflow = {
            filename: encoded[name].cards[filename]
            for name in large
            for filename in find_overflow(before[name], encoded[name].cards, patches)
        }
        for filename, card in overflow.items():
            info = self._storage.head(str(keys[filename]))
            if info is None or info.etag != card.etag:
                continue  # another one by now: the next round looks at that
            error = RejectedError(
                "shard-full",
                f"with it, the records of {card.record['name']!r} would take more than {MAX_SHARD_BYTES} bytes",
                hint="remove old artifacts of that name, or shorten the record: clients refuse a larger shard",
            )
            rejection = quarantine_upload(self._storage, self._notifier, info, error)
            run.outcomes[rejection.key] = Outcome(key=rejection.key, status="rejected", rejection=rejection)
        if overflow:
            raise VanishedError(f"set aside: {sorted(overflow)}")

    def _drop_cached(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        findings: Mapping[str, Absent | Present | FairwayError],
        run: _Run,
    ) -> dict[str, FairwayError]:
        """Make caches forget artifacts that went or were replaced; they keep them for a year.

        That comes before the commit: afterwards nothing would show any more that it is still to do.
        Return what could not be done, by filename, to be tried again.
        """
        stale: dict[tuple[str, str | None], str] = {}
        for filename, found in findings.items():
            old = before[keys[filename].distribution.name].get(filename)
            if old is None or isinstance(found, FairwayError):
                continue
            if isinstance(found, Absent):
                stale[str(keys[filename]), None] = filename
            elif found.card.sha256 != old.sha256:
                stale[str(keys[filename]), found.info.etag] = filename
        fresh = stale.keys() - run.dropped
        if not fresh:
            return {}
        try:
            self._notifier.invalidate(sorted({key for key, _ in fresh}))
        except FairwayError as error:
            return {stale[identity]: error for identity in fresh}
        run.dropped |= fresh
        return {}

    def _look_until_good(
        self, key: ArtifactKey, card: Card | None, run: _Run, *, mutable: bool, sidecar: bool
    ) -> Absent | Present:
        """Set refused versions aside until what is left is good, or nothing.

        Raises:
            TransientError: look again later.
        """
        for _ in range(MAX_EVICTIONS):
            findings: list[Finding] = run.inspector.look(key, card, mutable=mutable, sidecar=sidecar)
            for finding in findings:
                if isinstance(finding, Rejected):
                    rejection = quarantine_upload(self._storage, self._notifier, finding.info, finding.error)
                    run.outcomes[rejection.key] = Outcome(key=rejection.key, status="rejected", rejection=rejection)
            last = findings[-1]
            if not isinstance(last, Rejected) and len(findings) == 1:
                return last
        raise VanishedError(f"{str(key)!r} kept changing")

    def _commit(
        self,
        subdir: SubdirId,
        base: Commit,
        before: Mapping[PackageName, Cards],
        encoded: Mapping[PackageName, EncodedShard],
        *,
        patches_sha256: str | None,
        is_rebuild: bool,
    ) -> Commit:
        """Store what changed and swap the commit, if it changed.

        Raises:
            ConflictError: another writer was quicker.
        """
        shards: dict[PackageName, ShardHash | None] = {}
        new: list[EncodedShard] = []
        for name, shard in encoded.items():
            known = base.index.shards.get(name)
            if not shard.cards:
                if known is not None:
                    shards[name] = None
            elif shard.sha256 != known or is_rebuild:
                shards[name] = shard.sha256
                new.append(shard)
            elif shard.cards != before.get(name):
                put_cards(self._storage, subdir, shard.sha256, shard.cards)
        created_ms = max(
            (card.record["indexed_timestamp"] for shard in new for card in shard.cards.values()), default=0
        )
        index = apply_shards(base.index, shards, created_ms=created_ms)
        index = replace(index, patches_sha256=patches_sha256)
        wanted = base.etag is None and (subdir.name == NOARCH or bool(index.shards))
        if index == base.index and not wanted:
            if is_rebuild:
                put_shards(self._storage, subdir, new)
            return base
        put_shards(self._storage, subdir, new)
        return replace_commit(self._storage, subdir, base, index)

    def _look_again(self, subdir: SubdirId, changed: Mapping[str, str | None]) -> frozenset[str]:
        """Return which artifacts are not what was just committed any more."""

        def has_moved(filename: str) -> bool:
            info = self._storage.head(subdir.key(filename))
            return (None if info is None else info.etag) != changed[filename]

        filenames = sorted(changed)
        moved = in_parallel(has_moved, filenames)
        return frozenset(filename for filename, one in zip(filenames, moved, strict=True) if one)

    def _project(self, subdir: SubdirId, commit: Commit, run: _Run) -> bool:
        """Bring projections up to date, unless somebody has committed since: then that is theirs to do.

        Whoever swaps last projects. Should they die, their messages come again, and with them the
        projections; the daily reconciliation does the same. Return whether something was left for later.

        Raises:
            ConflictError: others were quicker each time.
        """
        current = commit
        for round_number in range(MAX_ROUNDS):
            projector = SubdirProjector(
                storage=self._storage,
                subdir=subdir,
                commit=current,
                outputs=self._policy.outputs,
                is_rebuild=run.is_rebuild,
                may_defer=run.may_defer,
                encoded={
                    name: shard for name, shard in run.encoded.items() if current.index.shards.get(name) == shard.sha256
                },
            )
            lost = False
            try:
                projector.project()
            except ConflictError:
                lost = True
            info = self._storage.head(subdir.key(SHARD_INDEX))
            is_latest = info is not None and info.etag == current.etag
            if is_latest and not lost:
                return projector.has_deferred
            if not is_latest and not projector.has_written:
                return False
            self._pause(round_number)
            if not is_latest:
                # What we wrote may have gone over what the later one wrote: an ETag says which bytes are
                # there, and the same bytes come back when a change is taken back. So look once more.
                current = fetch_commit(self._storage, subdir)
        raise ConflictError(f"{subdir} kept changing during {MAX_ROUNDS} rounds")

    def _ensure_noarch(self, channel: Channel) -> None:
        """Invariant 13: the noarch subdir exists from the first upload to a channel on."""
        subdir = SubdirId(channel=channel, name=NOARCH)
        # The page is written last: where it is, all else was written before.
        if self._storage.head(subdir.key(SUBDIR_PAGE)) is not None:
            return
        run = _Run(inspector=Inspector(self._storage))
        commit = self._settle(subdir, SubdirKeys(), run)
        self._project(subdir, commit, run)

    def _project_channel(self, channel: Channel, run: _Run) -> bool:
        """Do the same for the files of the channel."""
        for round_number in range(MAX_ROUNDS):
            try:
                return project_channel(
                    self._storage,
                    channel,
                    url=self._policy.outputs.url,
                    may_defer=run.may_defer,
                    is_rebuild=run.is_rebuild,
                )
            except ConflictError:
                self._pause(round_number)
        raise ConflictError(f"{channel} kept changing during {MAX_ROUNDS} rounds")

    def _pause(self, round_number: int) -> None:
        """Wait longer after each lost round, at random, so that writers spread."""
        longest = min(MAX_PAUSE_SECONDS, 0.05 * 2.0**round_number)
        self._sleep(random.uniform(0, longest))  # noqa: S311 - no secret hangs on it


def _guard(action: Callable[[], _Result], what: str) -> _Result | FairwayError:
    """Return what goes wrong as well, a bug of ours included: one key may not stop the others (invariant 3)."""
    try:
        return action()
    except FairwayError as error:
        return error
    except Exception as error:  # noqa: BLE001 - see above
        failure = UnavailableError(f"could not {what}: {error!r}")
        failure.__cause__ = error
        return failure


def _encode_shards(after: Mapping[PackageName, Cards], patches: PatchInstructions) -> dict[PackageName, EncodedShard]:
    encoded = {}
    for name, cards in after.items():
        shard = make_shard(cards, patches)
        sha256, body = encode_shard(shard)
        encoded[name] = EncodedShard(shard=shard, cards=cards, sha256=sha256, body=body)
    return encoded


def _names_of(subdir: SubdirId, filenames: Iterable[str]) -> set[PackageName]:
    names = set()
    for filename in filenames:
        try:
            names.add(parse_artifact_key(subdir.key(filename)).distribution.name)
        except InvalidNameError:
            continue  # patches may name artifacts of old that could not be here
    return names


def _card_without_etag(record: Record) -> Card:
    plain = {key: value for key, value in record.items() if key not in {"run_exports", "attestations_sha256"}}
    return Card(
        record=plain,
        run_exports=record["run_exports"],
        facts={},
        etag="",
        attestations_sha256=record.get("attestations_sha256"),
    )


def _note(run: _Run, key: str, status: Status) -> None:
    """Keep the first outcome that says something."""
    known = run.outcomes.get(key)
    if known is None or known.status == "unchanged":
        run.outcomes[key] = Outcome(key=key, status=status)
