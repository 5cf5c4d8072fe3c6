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
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeVar

from lambdas.channel.errors import (
    ConflictError,
    FairwayError,
    InvalidDocumentError,
    InvalidNameError,
    RefusedError,
    TransientError,
    UnavailableError,
    VanishedError,
)
from lambdas.channel.names import (
    NOARCH,
    PATCH_INSTRUCTIONS,
    ArtifactKey,
    Channel,
    PackageName,
    SubdirPath,
    parse_artifact_key,
)
from lambdas.indexer.commit import (
    Branch,
    Commit,
    fetch_cards,
    fetch_commit,
    fetch_patches,
    fetch_shards,
    put_branches,
    put_cards,
    put_patches,
    replace_commit,
)
from lambdas.indexer.encoding import measure
from lambdas.indexer.look import Absent, Finding, Looker, Present, Refused
from lambdas.indexer.parallel import in_parallel
from lambdas.indexer.patches import NO_PATCHES, PatchInstructions, parse_patches
from lambdas.indexer.project_channel import project_channel
from lambdas.indexer.project_subdir import SUBDIR_PAGE, Outputs, SubdirProjector
from lambdas.indexer.record import Record
from lambdas.indexer.refusals import Announcer, Refusal, set_aside
from lambdas.indexer.storage import ObjectStorage
from lambdas.indexer.tree import (
    MAX_SHARD_BYTES,
    SHARD_INDEX,
    Card,
    Cards,
    ShardHash,
    apply_shards,
    encode_shard,
    find_surplus,
    iter_records,
    make_shard,
)

Status = Literal["indexed", "removed", "unchanged", "refused"]
_Result = TypeVar("_Result")

MAX_ROUNDS: Final = 40
MAX_PAUSE_SECONDS: Final = 3.0
MAX_EVICTIONS: Final = 20  # bad versions piled on one key, set aside in one go


@dataclass(frozen=True, kw_only=True, slots=True)
class Touched:
    """What to look at in one subdir; filenames of artifacts."""

    artifacts: frozenset[str] = frozenset()
    sidecars: frozenset[str] = frozenset()
    """Artifacts whose ``.sigs`` were touched."""
    patches: bool = False
    deferred: bool = False
    """What earlier calls left for later is due now."""

    @property
    def filenames(self) -> frozenset[str]:
        """Every artifact to look at."""
        return self.artifacts | self.sidecars


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the deployment decides."""

    mutable_channels: tuple[str, ...] = ()
    """Globs of channels where other bytes may replace an artifact's."""
    outputs: Outputs = field(default_factory=Outputs)

    def is_mutable(self, channel: Channel) -> bool:
        """Tell whether artifacts of the channel may change under their names."""
        return any(fnmatchcase(channel, glob) for glob in self.mutable_channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one touched key."""

    key: str
    status: Status
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What became of a subdir."""

    outcomes: tuple[Outcome, ...]
    failures: Mapping[str, FairwayError]
    """``{key: error}``: keys that could not be looked at, to be tried again."""
    commits: int = 0
    conflicts: int = 0


@dataclass(kw_only=True, slots=True)
class _Run:
    """What one call of ``Indexer.index`` has gathered."""

    looker: Looker
    from_scratch: bool = False
    may_defer: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, FairwayError] = field(default_factory=dict)
    dropped: set[tuple[str, str | None]] = field(default_factory=set)
    """``(key, ETag or None)``: what caches were told to forget, and what took its place."""
    branches: dict[PackageName, Branch] = field(default_factory=dict)
    commits: int = 0
    conflicts: int = 0


class Indexer:
    """Keeps the indexes of one storage.

    ``remind`` sees to it that a subdir is indexed again before long, with ``Touched.deferred``: files
    that take long to write, and that few wait for, are left until then. Without it, nothing is.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        announcer: Announcer,
        policy: Policy,
        *,
        remind: Callable[[SubdirPath], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage = storage
        self._announcer = announcer
        self._policy = policy
        self._remind = remind
        self._sleep = sleep

    def index(self, path: SubdirPath, touched: Touched, *, until: float = math.inf) -> Report:
        """Make the index of a subdir, and all that is made of it, agree with the storage.

        From ``until`` on (seconds of ``time.monotonic``), no further artifact is read: those fail with
        ``LateError``.

        Raises:
            TransientError: the storage did not let us finish; what was done stays, the rest is
                done by the next call.
        """
        may_defer = self._remind is not None and not touched.deferred
        looker = Looker(self._storage, is_late=lambda: time.monotonic() >= until)
        return self._index(path, touched, _Run(looker=looker, may_defer=may_defer))

    def rebuild(self, path: SubdirPath, touched: Touched) -> Report:
        """Make the index of a subdir again: every artifact is read, every output is written.

        ``touched`` names every artifact that is there. What the storage holds is the truth: an
        artifact that differs from its record replaces it.

        Raises:
            TransientError: as ``index``.
        """
        return self._index(path, touched, _Run(looker=Looker(self._storage), from_scratch=True))

    def _index(self, path: SubdirPath, touched: Touched, run: _Run) -> Report:
        commit = self._settle(path, touched, run)
        has_deferred = commit.etag is not None and self._project(path, commit, run)
        if path.subdir != NOARCH:
            self._ensure_noarch(path.channel)
        has_deferred = has_deferred or self._project_channel(path.channel, run)
        if has_deferred and self._remind is not None:
            self._remind(path)
        return Report(
            outcomes=tuple(run.outcomes.values()),
            failures=run.failures,
            commits=run.commits,
            conflicts=run.conflicts,
        )

    def refuse(self, key: str, error: RefusedError) -> Refusal | None:
        """Set aside an object under a key where nothing can be indexed; None where there is none."""
        info = self._storage.head(key)
        return None if info is None else set_aside(self._storage, self._announcer, info, error)

    def refuse_all(self, misplaced: Mapping[str, RefusedError]) -> Report:
        """Do so for several keys, each for itself: one that can't be set aside stops no other (law 3)."""

        def refuse(key: str) -> Refusal | FairwayError | None:
            return _guard(lambda: self.refuse(key, misplaced[key]), f"set {key!r} aside")

        found = dict(zip(misplaced, in_parallel(refuse, misplaced), strict=True))
        return Report(
            outcomes=tuple(
                Outcome(key=key, status="refused", refusal=one)
                for key, one in found.items()
                if isinstance(one, Refusal)
            ),
            failures={key: one for key, one in found.items() if isinstance(one, FairwayError)},
        )

    def _settle(self, path: SubdirPath, touched: Touched, run: _Run) -> Commit:
        """Swap until the commit agrees with what is under the touched keys, then look once more.

        The second look closes the gap between the first one and the swap: an event that came in
        between may have been handled before our commit was there to be corrected.
        """
        pending = touched
        for round_number in range(MAX_ROUNDS):
            commits = run.commits
            try:
                commit, changed = self._settle_once(path, pending, run)
            except TransientError as error:
                if round_number == MAX_ROUNDS - 1:
                    raise
                run.conflicts += isinstance(error, ConflictError)
                self._pause(round_number)
                continue
            moved = self._look_again(path, changed)
            beside = run.commits > commits and (pending.patches or bool(pending.sidecars))
            if not moved and not beside:
                return commit
            # Patches and signatures are looked at again by another round, until one changes nothing.
            pending = replace(pending, artifacts=moved) if beside else Touched(artifacts=moved)
        raise ConflictError(f"{path} kept changing during {MAX_ROUNDS} rounds")

    def _settle_once(self, path: SubdirPath, touched: Touched, run: _Run) -> tuple[Commit, dict[str, str | None]]:
        """Do one round; return the commit and ``{filename: ETag or None}`` of what it changed.

        Raises:
            TransientError: nothing is committed: do another round.
        """
        base = fetch_commit(self._storage, path)
        patches, patches_sha256 = self._find_patches(path, base, run, look=touched.patches)
        keys = {filename: parse_artifact_key(path.key(filename)) for filename in touched.filenames}
        names = {key.distribution.name for key in keys.values()}
        if patches_sha256 != base.index.patches_sha256:
            names |= self._find_patched(path, base, patches)
        if run.from_scratch:
            names |= base.index.shards.keys()
        before, lost = self._fetch_cards(path, base, names)
        if run.from_scratch:
            lost |= {filename for cards in before.values() for filename in cards}
        # Artifacts whose cards are lost are read again with the others.
        keys |= {filename: parse_artifact_key(path.key(filename)) for filename in lost}
        after, changed = self._look(path, keys, before, touched.sidecars, run)
        if unknown := {keys[filename].distribution.name for filename in lost if path.key(filename) in run.failures}:
            # The record of such an artifact is as readers see it, patches applied: no base for anything.
            failure = next(run.failures[path.key(filename)] for filename in lost if path.key(filename) in run.failures)
            if patches_sha256 != base.index.patches_sha256:
                raise failure
            for filename in [one for one, key in keys.items() if key.distribution.name in unknown]:
                run.failures[path.key(filename)] = failure
                changed.pop(filename, None)
            after = {name: cards for name, cards in after.items() if name not in unknown}
        branches = _make_branches(after, patches)
        self._refuse_surplus(keys, before, branches, patches, run)
        commit = self._commit(
            path, base, before, branches, patches_sha256=patches_sha256, from_scratch=run.from_scratch
        )
        if commit.sha256 != base.sha256:
            run.commits += 1
        run.branches |= branches
        return commit, changed

    def _find_patches(
        self, path: SubdirPath, base: Commit, run: _Run, *, look: bool
    ) -> tuple[PatchInstructions, str | None]:
        """Return the patch instructions that are to be in force, and their hash."""
        if not look:
            return fetch_patches(self._storage, path, base.index.patches_sha256), base.index.patches_sha256
        key = path.key(PATCH_INSTRUCTIONS)
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
                    return fetch_patches(self._storage, path, sha256), sha256
                except InvalidDocumentError:  # ours is lost: keep theirs
                    put_patches(self._storage, path, sha256, stored.body)
                    return parse_patches(stored.body), sha256
            try:
                # A file's times may be older than the file: what is past by now is past.
                uploaded_ms = max(stored.info.last_modified_ms, time.time_ns() // 10**6)
                patches = parse_patches(stored.body, uploaded_ms=uploaded_ms)
            except RefusedError as error:
                # The earlier version becomes current again: the last good one stays in force.
                refusal = set_aside(self._storage, self._announcer, stored.info, error)
                run.outcomes[key] = Outcome(key=key, status="refused", refusal=refusal)
                if stored.info.version is None:  # nothing earlier can come back: keep what is in force
                    return fetch_patches(self._storage, path, base.index.patches_sha256), base.index.patches_sha256
                continue
            put_patches(self._storage, path, sha256, stored.body)
            run.outcomes[key] = Outcome(key=key, status="indexed")
            return patches, sha256
        raise VanishedError(f"{key!r} kept changing")

    def _find_patched(self, path: SubdirPath, base: Commit, patches: PatchInstructions) -> set[PackageName]:
        """Return the names whose records may change when these patches replace those in force."""
        try:
            old = fetch_patches(self._storage, path, base.index.patches_sha256)
        except InvalidDocumentError:  # nobody knows any more what they changed
            return set(base.index.shards)
        return _names_of(path, old.filenames | patches.filenames) & base.index.shards.keys()

    def _fetch_cards(
        self, path: SubdirPath, base: Commit, names: Iterable[PackageName]
    ) -> tuple[dict[PackageName, Cards], frozenset[str]]:
        """Read cards; where they are lost, make them again from what readers see, to be looked at."""
        fetched = fetch_cards(self._storage, path, base.index, names)
        missing = [name for name, cards in fetched.items() if cards is None]
        cards: dict[PackageName, Cards] = {name: found for name, found in fetched.items() if found is not None}
        lost: set[str] = set()
        for name, shard in fetch_shards(self._storage, path, base.index, missing).items():
            cards[name] = {filename: _card_without_etag(record) for filename, record in iter_records(shard)}
            lost |= {*cards[name], *shard.removed}
        return cards, frozenset(lost)

    def _look(
        self,
        path: SubdirPath,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        sidecars: frozenset[str],
        run: _Run,
    ) -> tuple[dict[PackageName, dict[str, Card]], dict[str, str | None]]:
        """Look at artifacts, set refused ones aside, and return the cards afterwards."""
        mutable = run.from_scratch or self._policy.is_mutable(path.channel)

        def look(filename: str) -> Absent | Present | FairwayError:
            key = keys[filename]
            card = before[key.distribution.name].get(filename)
            if card is not None and run.from_scratch:
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

    def _refuse_surplus(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        branches: Mapping[PackageName, Branch],
        patches: PatchInstructions,
        run: _Run,
    ) -> None:
        """Set aside new artifacts with which their name's shard would be larger than clients read.

        Nothing is committed in such a round: the next one looks at what is under their keys instead.

        Raises:
            VanishedError: something was set aside.
        """
        large = [name for name, branch in branches.items() if measure(branch.body) > MAX_SHARD_BYTES]
        surplus = {
            filename: branches[name].cards[filename]
            for name in large
            for filename in find_surplus(before[name], branches[name].cards, patches)
        }
        for filename, card in surplus.items():
            info = self._storage.head(str(keys[filename]))
            if info is None or info.etag != card.etag:
                continue  # another one by now: the next round looks at that
            error = RefusedError(
                "shard-full",
                f"with it, the records of {card.record['name']!r} would take more than {MAX_SHARD_BYTES} bytes",
                hint="remove old artifacts of that name, or shorten the record: clients refuse a larger shard",
            )
            refusal = set_aside(self._storage, self._announcer, info, error)
            run.outcomes[refusal.key] = Outcome(key=refusal.key, status="refused", refusal=refusal)
        if surplus:
            raise VanishedError(f"set aside: {sorted(surplus)}")

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
            self._announcer.drop_cached(sorted({key for key, _ in fresh}))
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
            findings: list[Finding] = run.looker.look(key, card, mutable=mutable, sidecar=sidecar)
            for finding in findings:
                if isinstance(finding, Refused):
                    refusal = set_aside(self._storage, self._announcer, finding.info, finding.error)
                    run.outcomes[refusal.key] = Outcome(key=refusal.key, status="refused", refusal=refusal)
            last = findings[-1]
            if not isinstance(last, Refused) and len(findings) == 1:
                return last
        raise VanishedError(f"{str(key)!r} kept changing")

    def _commit(
        self,
        path: SubdirPath,
        base: Commit,
        before: Mapping[PackageName, Cards],
        branches: Mapping[PackageName, Branch],
        *,
        patches_sha256: str | None,
        from_scratch: bool,
    ) -> Commit:
        """Store what changed and swap the commit, if it changed.

        Raises:
            ConflictError: another writer was quicker.
        """
        shards: dict[PackageName, ShardHash | None] = {}
        new: list[Branch] = []
        for name, branch in branches.items():
            known = base.index.shards.get(name)
            if not branch.cards:
                if known is not None:
                    shards[name] = None
            elif branch.sha256 != known or from_scratch:
                shards[name] = branch.sha256
                new.append(branch)
            elif branch.cards != before.get(name):
                put_cards(self._storage, path, branch.sha256, branch.cards)
        created_ms = max(
            (card.record["indexed_timestamp"] for branch in new for card in branch.cards.values()), default=0
        )
        index = apply_shards(base.index, shards, created_ms=created_ms)
        index = replace(index, patches_sha256=patches_sha256)
        wanted = base.etag is None and (path.subdir == NOARCH or bool(index.shards))
        if index == base.index and not wanted:
            if from_scratch:
                put_branches(self._storage, path, new)
            return base
        put_branches(self._storage, path, new)
        return replace_commit(self._storage, path, base, index)

    def _look_again(self, path: SubdirPath, changed: Mapping[str, str | None]) -> frozenset[str]:
        """Return which artifacts are not what was just committed any more."""

        def has_moved(filename: str) -> bool:
            info = self._storage.head(path.key(filename))
            return (None if info is None else info.etag) != changed[filename]

        filenames = sorted(changed)
        moved = in_parallel(has_moved, filenames)
        return frozenset(filename for filename, one in zip(filenames, moved, strict=True) if one)

    def _project(self, path: SubdirPath, commit: Commit, run: _Run) -> bool:
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
                path=path,
                commit=current,
                outputs=self._policy.outputs,
                from_scratch=run.from_scratch,
                may_defer=run.may_defer,
                branches={
                    name: branch
                    for name, branch in run.branches.items()
                    if current.index.shards.get(name) == branch.sha256
                },
            )
            lost = False
            try:
                projector.project()
            except ConflictError:
                lost = True
            info = self._storage.head(path.key(SHARD_INDEX))
            is_latest = info is not None and info.etag == current.etag
            if is_latest and not lost:
                return projector.has_deferred
            if not is_latest and not projector.has_written:
                return False
            self._pause(round_number)
            if not is_latest:
                # What we wrote may have gone over what the later one wrote: an ETag says which bytes are
                # there, and the same bytes come back when a change is taken back. So look once more.
                current = fetch_commit(self._storage, path)
        raise ConflictError(f"{path} kept changing during {MAX_ROUNDS} rounds")

    def _ensure_noarch(self, channel: Channel) -> None:
        """Law 13: the noarch subdir exists from the first upload to a channel on."""
        path = SubdirPath(channel=channel, subdir=NOARCH)
        # The page is written last: where it is, all else was written before.
        if self._storage.head(path.key(SUBDIR_PAGE)) is not None:
            return
        run = _Run(looker=Looker(self._storage))
        commit = self._settle(path, Touched(), run)
        self._project(path, commit, run)

    def _project_channel(self, channel: Channel, run: _Run) -> bool:
        """Do the same for the files of the channel."""
        for round_number in range(MAX_ROUNDS):
            try:
                return project_channel(
                    self._storage,
                    channel,
                    url=self._policy.outputs.url,
                    may_defer=run.may_defer,
                    from_scratch=run.from_scratch,
                )
            except ConflictError:
                self._pause(round_number)
        raise ConflictError(f"{channel} kept changing during {MAX_ROUNDS} rounds")

    def _pause(self, round_number: int) -> None:
        """Wait longer after each lost round, at random, so that writers spread."""
        longest = min(MAX_PAUSE_SECONDS, 0.05 * 2.0**round_number)
        self._sleep(random.uniform(0, longest))  # noqa: S311 - no secret hangs on it


def _guard(action: Callable[[], _Result], what: str) -> _Result | FairwayError:
    """Return what goes wrong as well, a bug of ours included: one key may not stop the others (law 3)."""
    try:
        return action()
    except FairwayError as error:
        return error
    except Exception as error:  # noqa: BLE001 - see above
        failure = UnavailableError(f"could not {what}: {error!r}")
        failure.__cause__ = error
        return failure


def _make_branches(after: Mapping[PackageName, Cards], patches: PatchInstructions) -> dict[PackageName, Branch]:
    branches = {}
    for name, cards in after.items():
        shard = make_shard(cards, patches)
        sha256, body = encode_shard(shard)
        branches[name] = Branch(shard=shard, cards=cards, sha256=sha256, body=body)
    return branches


def _names_of(path: SubdirPath, filenames: Iterable[str]) -> set[PackageName]:
    names = set()
    for filename in filenames:
        try:
            names.add(parse_artifact_key(path.key(filename)).distribution.name)
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
