"""Commits what is in the bucket: one attempt, to be repeated until nothing moves.

An attempt reads the commit, finds the changes under the keys, stores shards and cards, and swaps the
shard index. An attempt that loses against another writer is repeated: writes whose answer was lost are
recognised because the next attempt finds nothing left to do.
"""

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lambdas.channel.errors import RejectedError, UnreadableError, VanishedError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.channel.names import PackageName
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.change.find_changes import ChangeFinder, Changes, KeptMemory
from lambdas.indexer.change.list_many import current_etag, list_many
from lambdas.indexer.change.patches_in_force import PatchesInForce, fetch_in_force, inspect_patches, list_patched_names
from lambdas.indexer.change.results import Results
from lambdas.indexer.change.subdir_limit import require_room
from lambdas.indexer.model import LIMITS, MAX_SUBDIRS, Limits, SubdirKeys
from lambdas.indexer.quarantine.quarantine import Quarantine
from lambdas.indexer.tree.cards import Card, Cards, estimate_memory
from lambdas.indexer.tree.encoding import measure
from lambdas.indexer.tree.patches import PatchInstructions
from lambdas.indexer.tree.shard_index import ShardHash, apply_shards
from lambdas.indexer.tree.shards import Shard, choose_overflow, encode_shard, iter_records, make_shard, measure_alone
from lambdas.indexer.tree.subdir import BrokenIndexError, Commit, EncodedShard, ForeignIndexError, Subdir
from lambdas.storage.parallel import in_parallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What one attempt committed."""

    commit: Commit
    encoded: Mapping[PackageName, EncodedShard]
    """The names that were inspected, as they are now."""
    etags: Mapping[str, str | None]
    """``{filename: ETag, or None if the artifact is gone}`` of what changed."""
    has_committed: bool
    is_first: bool
    """Whether the subdir had no commit before."""
    left: frozenset[str] = frozenset()
    """Filenames that another attempt has to inspect: with them, this one would have needed too much memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Committer:
    """Makes the attempts of one run over one subdir."""

    subdir: Subdir
    changes: ChangeFinder
    quarantine: Quarantine
    results: Results
    limits: Limits = LIMITS
    is_rebuild: bool = False
    max_subdirs: int = MAX_SUBDIRS
    makes_empty: bool = False
    """Whether to make an index if there is no artifact either."""

    def attempt(self, keys: SubdirKeys) -> Attempt:
        """Make the commit agree with the objects under these keys.

        Raises:
            TransientError: nothing is committed: make another attempt.
            TooManySubdirsError: the subdir has no commit, and its channel may have no further one.
        """
        base = self.fetch_base()
        if not self.subdir.layout.is_draft:
            self.results.bases.setdefault(self.subdir.id, base)
        if base.etag is None and not self.subdir.layout.is_draft:
            require_room(self.subdir.storage, self.subdir.id, max_subdirs=self.max_subdirs)
        patches = (
            inspect_patches(self.subdir, base, self.quarantine, self.results)
            if keys.patches
            else fetch_in_force(self.subdir, base, self.quarantine, self.results)
        )
        inspected = {key.filename: key for key in keys.artifacts | keys.attestations}
        names = {key.distribution.name for key in inspected.values()}
        if patches.sha256 != base.index.patches_sha256:
            names |= list_patched_names(self.subdir, base, patches.instructions)
        if self.is_rebuild:
            names |= base.index.shards.keys()
        # A change of patches, and a rebuild, are one commit for all names.
        is_bounded = patches.sha256 == base.index.patches_sha256 and not self.is_rebuild
        max_bytes = self.limits.max_kept_bytes if is_bounded else sys.maxsize
        before, lost = self._fetch_cards(base, names, max_bytes=max_bytes)
        waiting = {filename for filename, key in inspected.items() if key.distribution.name not in before}
        inspected = {filename: key for filename, key in inspected.items() if filename not in waiting}
        # Artifacts whose cards are lost are read again with the others.
        inspected |= {filename: parse_artifact_key(self.subdir.layout.file(filename)) for filename in lost}
        kept = KeptMemory(max_bytes)
        found = self.changes.find(inspected, before, keys.attestations, kept=kept, needed=lost)
        left = found.left | waiting
        found = self._without_unknown(base, patches, inspected, lost, found)
        encoded = _encode(found.cards, patches.instructions)
        self._reject_overflow(inspected, before, encoded, patches.instructions)
        commit = self._commit(base, before, encoded, patches.sha256)
        return Attempt(
            commit=commit,
            encoded=encoded,
            etags=found.etags,
            has_committed=commit.sha256 != base.sha256,
            is_first=base.etag is None and commit.etag is not None,
            left=left,
        )

    def fetch_base(self) -> Commit:
        """Return the commit to build on.

        Raises:
            ForeignIndexError: there is none of this deployment, although the subdir was indexed before.
        """
        base = self.subdir.fetch_commit()
        if self.subdir.layout.is_draft:
            return base
        pointer = self.subdir.layout.shard_index
        if base.etag is None:
            if not all(one.is_deletion for one in self.subdir.storage.list_history(pointer)):
                raise ForeignIndexError(f"{pointer!r} was deleted", etag=None)
        elif base.index.mark != self.subdir.mark:
            raise ForeignIndexError(f"{pointer!r} is a commit of another deployment", etag=base.etag)
        return base

    def list_moved(self, etags: Mapping[str, str | None]) -> frozenset[ArtifactKey]:
        """Return the artifacts that were replaced or deleted since an attempt inspected them."""
        storage, layout = self.subdir.storage, self.subdir.layout
        filenames = sorted(etags)
        listed = list_many(storage, [layout.file(filename) for filename in filenames])

        def has_moved(filename: str) -> bool:
            key = layout.file(filename)
            if key in listed:
                return current_etag(listed[key]) != etags[filename]
            try:
                info = storage.head(key)
            except UnreadableError:
                return True
            return (None if info is None else info.etag) != etags[filename]

        moved = in_parallel(has_moved, filenames)
        return frozenset(
            parse_artifact_key(layout.file(filename)) for filename, one in zip(filenames, moved, strict=True) if one
        )

    def _fetch_cards(
        self, base: Commit, names: Iterable[PackageName], *, max_bytes: int
    ) -> tuple[dict[PackageName, Cards], frozenset[str]]:
        """Read cards; lost ones are restored from readers' records, and their artifacts are to be read.

        Return the cards, of some names if all would take more than ``max_bytes`` of memory, and the filenames
        of those artifacts.
        """
        fetched = self.subdir.fetch_cards_within(base.index, sorted(names), max_bytes=max_bytes)
        missing = [name for name, cards in fetched.items() if cards is None]
        before: dict[PackageName, Cards] = {name: cards for name, cards in fetched.items() if cards is not None}
        lost: set[str] = set()
        for name, shard in self._fetch_known_shards(base, missing).items():
            before[name] = {filename: _restore_card(record) for filename, record in iter_records(shard)}
            lost |= {*before[name], *shard.removed}
        if self.is_rebuild:
            lost |= {filename for cards in before.values() for filename in cards}
        return before, frozenset(lost)

    def _fetch_known_shards(self, base: Commit, names: Iterable[PackageName]) -> dict[PackageName, Shard]:
        """Read shards; while healing, a lost one counts as empty: the listing tells its artifacts."""
        if not self.subdir.layout.is_draft:
            return self.subdir.fetch_shards(base.index, names)
        shards: dict[PackageName, Shard] = {}
        for name in names:
            try:
                shards |= self.subdir.fetch_shards(base.index, [name])
            except BrokenIndexError:
                shards[name] = Shard()
        return shards

    def _without_unknown(
        self,
        base: Commit,
        patches: PatchesInForce,
        keys: Mapping[str, ArtifactKey],
        lost: frozenset[str],
        found: Changes,
    ) -> Changes:
        """Leave out names with a lost card whose artifact could not be read: they are tried again.

        Their restored cards hold records with patches applied, which nothing may be made from.
        """
        failures = self.results.failures
        failed = [filename for filename in sorted(lost) if str(keys[filename]) in failures]
        if not failed:
            return found
        failure = failures[str(keys[failed[0]])]
        if patches.sha256 != base.index.patches_sha256:
            raise failure
        unknown = {keys[filename].distribution.name for filename in failed}
        skipped = {filename for filename, key in keys.items() if key.distribution.name in unknown}
        for filename in skipped:
            failures[str(keys[filename])] = failure
        return Changes(
            cards={name: cards for name, cards in found.cards.items() if name not in unknown},
            etags={filename: etag for filename, etag in found.etags.items() if filename not in skipped},
            left=found.left,
        )

    def _reject_overflow(
        self,
        keys: Mapping[str, ArtifactKey],
        before: Mapping[PackageName, Cards],
        encoded: Mapping[PackageName, EncodedShard],
        patches: PatchInstructions,
    ) -> None:
        """Reject new artifacts that would make their name's shard larger than clients read.

        Raises:
            VanishedError: something was rejected: nothing is committed in this attempt.
        """
        overflow = {
            filename: one.cards[filename]
            for name, one in encoded.items()
            for filename in self._choose_overflow(before[name], one, patches)
        }
        for filename, card in overflow.items():
            info = self.subdir.storage.head(str(keys[filename]))
            if info is None or info.etag != card.etag:
                continue  # another object by now: the next attempt inspects it
            error = RejectedError(
                RejectionCode.SHARD_FULL,
                f"with it, the records of {card.record['name']!r} would take more than"
                f" {self.limits.max_shard_bytes} bytes, or {self.limits.max_name_bytes} bytes of memory",
                hint="remove old artifacts of that name, or shorten the record: clients reject a larger shard",
            )
            self.results.add_rejection(self.quarantine.reject(info, error))
        if overflow:
            raise VanishedError(f"rejected: {sorted(overflow)}")

    def _choose_overflow(self, before: Cards, encoded: EncodedShard, patches: PatchInstructions) -> list[str]:
        size = measure(encoded.body)
        if size > self.limits.max_shard_bytes:
            measure_one = functools.partial(measure_alone, patches=patches)
            return choose_overflow(before, encoded.cards, measure_one, max_bytes=self.limits.max_shard_bytes)
        # Facts are in cards alone; each value takes a byte of a shard or card at least.
        sizes = {filename: estimate_memory(card) for filename, card in encoded.cards.items()}
        if sum(sizes.values()) <= self.limits.max_name_bytes:
            return []
        return choose_overflow(
            before, encoded.cards, lambda _, card: estimate_memory(card), max_bytes=self.limits.max_name_bytes
        )

    def _commit(
        self,
        base: Commit,
        before: Mapping[PackageName, Cards],
        encoded: Mapping[PackageName, EncodedShard],
        patches_sha256: str | None,
    ) -> Commit:
        """Store what changed and swap the commit, if it changed.

        Raises:
            ConflictError: another writer was quicker.
        """
        shards: dict[PackageName, ShardHash | None] = {}
        new: list[EncodedShard] = []
        for name, one in encoded.items():
            known = base.index.shards.get(name)
            if not one.cards:
                if known is not None:
                    shards[name] = None
            elif one.sha256 != known or self.is_rebuild:
                shards[name] = one.sha256
                new.append(one)
            elif one.cards != before.get(name):
                self.subdir.put_cards(one.sha256, one.cards)
        times = (card.record["indexed_timestamp"] for one in new for card in one.cards.values())
        index = apply_shards(base.index, shards, created_ms=max(times, default=0))
        index = replace(index, patches_sha256=patches_sha256)
        is_first = base.etag is None and (self.makes_empty or bool(index.shards))
        if index == base.index and not is_first:
            if self.is_rebuild:
                self.subdir.put_shards(new)
            return base
        self.subdir.put_shards(new)
        return self.subdir.swap(base, index)


def _encode(
    cards_by_name: Mapping[PackageName, Mapping[str, Card]], patches: PatchInstructions
) -> dict[PackageName, EncodedShard]:
    return {name: encode_cards_as_shard(cards, patches) for name, cards in cards_by_name.items()}


def encode_cards_as_shard(cards: Cards, patches: PatchInstructions) -> EncodedShard:
    """Make the shard of a name from its cards, and encode it."""
    shard = make_shard(cards, patches)
    sha256, body = encode_shard(shard)
    return EncodedShard(shard=shard, cards=cards, sha256=sha256, body=body)


def _restore_card(record: Record) -> Card:
    """Restore a lost card from a reader's record, without an ETag: its artifact has to be read."""
    plain = {key: value for key, value in record.items() if key not in {"run_exports", "attestations_sha256"}}
    return Card(
        record=plain,
        run_exports=record["run_exports"],
        facts={},
        etag="",
        attestations_sha256=record.get("attestations_sha256"),
    )
