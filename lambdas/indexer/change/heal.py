"""Heals a subdir whose shard index is missing, broken or not Fairway's: makes a commit to replace it.

Healing works on a *draft*: a second pointer that readers don't see, which names the same shards. It
starts from the newest commit of the subdir that is still known, makes that agree with the listing, and
swaps the result in for what is there. It never names fewer of the artifacts in the bucket than the
index it replaces (invariant 17), because it is swapped in once every artifact in the listing is in it.
If time runs out, the draft stays, and the next run goes on from it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from lambdas.channel.errors import FairwayError, InvalidDocumentError, UnavailableError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import PackageName
from lambdas.indexer.change.commit import Committer, encode_cards_as_shard
from lambdas.indexer.change.differences import list_differences
from lambdas.indexer.model import SubdirKeys
from lambdas.indexer.quarantine.replaced import keep_replaced
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions
from lambdas.indexer.tree.shard_index import (
    ShardHash,
    ShardIndex,
    apply_shards,
    decode_index,
    empty_index,
    is_marked_for,
)
from lambdas.indexer.tree.subdir import Commit, ForeignIndexError, Subdir

BATCH = 2000
"""Artifacts that are inspected for one commit of the draft: what a crash loses."""
MAX_VERSIONS = 50
"""Older versions of the shard index that are tried as a base."""

CommitKeys = Callable[[Committer, SubdirKeys], Commit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Healer:
    """Heals one subdir."""

    subdir: Subdir
    committer: Committer
    """Of the draft."""
    commit_keys: CommitKeys
    """Commits keys until nothing moves."""

    def heal(self) -> None:
        """Replace the shard index by a commit that names every artifact in the listing.

        Raises:
            DeadlineError: the next run goes on.
            TransientError: another run was quicker, or an artifact can't be inspected.
        """
        current = head_file(self.subdir.storage, self.subdir.layout.shard_index)
        draft = self._reconcile_draft(self._fetch_draft())
        if current is not None:
            keep_replaced(self.subdir.storage, current)
        # The draft names every artifact in the listing. If we stop here, the next run swaps it in.
        self.subdir.swap(Commit(index=draft.index, etag=None if current is None else current.etag), draft.index)
        self._delete_draft()

    def _fetch_draft(self) -> Commit:
        """Return the draft that an earlier run left, or a new one on the best base that is still known."""
        draft = self.committer.subdir
        try:
            found = draft.fetch_commit()
        except ForeignIndexError:
            self._delete_draft()
            found = Commit(index=empty_index(self.subdir.id.name))
        if found.etag is not None:
            return found
        return draft.swap(found, self._choose_base())

    def _choose_base(self) -> ShardIndex:
        """Return the newest commit of this subdir, without the names whose shards and cards are both gone."""
        shards = self._list_hashes(self.subdir.layout.shards_prefix)
        cards = self._list_hashes(self.subdir.layout.cards_prefix)
        for index in self._iter_indexes():
            if not is_marked_for(index, self.subdir.id) and not self._is_unmarked_commit(index, cards):
                continue
            names = {name: sha256 for name, sha256 in index.shards.items() if sha256 in shards or sha256 in cards}
            lost = [name for name, sha256 in names.items() if sha256 not in shards]
            return replace(index, shards=names | self._restore_shards(index, lost))
        return empty_index(self.subdir.id.name)

    def _restore_shards(self, index: ShardIndex, names: Sequence[PackageName]) -> dict[PackageName, ShardHash]:
        """Write shards again that are missing, from their cards; return their hashes."""
        hashes: dict[PackageName, ShardHash] = {}
        for start in range(0, len(names), BATCH):
            patches = self._fetch_patches(index)
            fetched = self.subdir.fetch_cards(index, names[start : start + BATCH])
            restored = {name: encode_cards_as_shard(cards, patches) for name, cards in fetched.items() if cards}
            self.subdir.put_shards(restored.values())
            hashes |= {name: one.sha256 for name, one in restored.items()}
        return hashes

    def _fetch_patches(self, index: ShardIndex) -> PatchInstructions:
        try:
            return self.subdir.fetch_patches(index.patches_sha256)
        except InvalidDocumentError:  # they are inspected again with the next commit
            return NO_PATCHES

    def _iter_indexes(self) -> Iterator[ShardIndex]:
        """Yield the shard indexes that can be decoded, the newest first."""
        storage, key = self.subdir.storage, self.subdir.layout.shard_index
        versions = (one.info.version for one in storage.list_history(key) if not one.is_deletion)
        for version in islice(versions, MAX_VERSIONS):
            try:
                stored = get_file(storage, key, version=version)
                if stored is not None:
                    yield decode_index(stored.body)
            except InvalidDocumentError:
                continue

    def _is_unmarked_commit(self, index: ShardIndex, cards: frozenset[str]) -> bool:
        """Tell whether this is a commit of version 0.1.0: only Fairway has cards behind every shard."""
        return index.mark is None and index.subdir == self.subdir.id.name and cards >= set(index.shards.values())

    def _list_hashes(self, prefix: str) -> frozenset[str]:
        hashes = (self.subdir.layout.shard_of(info.key) for info in self.subdir.storage.list_objects(prefix))
        return frozenset(sha256 for sha256 in hashes if sha256 is not None)

    def _reconcile_draft(self, draft: Commit) -> Commit:
        """Commit drafts until the draft names every artifact in the listing."""
        differences = list_differences(self.committer.subdir, draft)
        waiting = sorted(differences.artifacts | differences.attestations, key=str)
        for start in range(0, max(1, len(waiting)), BATCH):
            batch = frozenset(waiting[start : start + BATCH])
            keys = SubdirKeys(artifacts=batch, attestations=differences.attestations & batch, patches=True)
            draft = self.commit_keys(self.committer, keys)
            self._require_inspected(batch)
        return self._without_lost(draft, differences.lost_names - {key.distribution.name for key in waiting})

    def _without_lost(self, draft: Commit, names: frozenset[PackageName]) -> Commit:
        """Leave out names without cards and without an artifact in the listing."""
        if not names:
            return draft
        index = apply_shards(draft.index, dict.fromkeys(names), created_ms=draft.index.created_ms)
        return self.committer.subdir.swap(draft, index)

    def _require_inspected(self, keys: frozenset[ArtifactKey]) -> None:
        """Raise if an artifact could not be inspected: without it, the draft may name fewer than there are."""
        for key in sorted(keys, key=str):
            failure = self.committer.results.failures.get(str(key))
            if failure is not None:
                raise _as_transient(failure)

    def _delete_draft(self) -> None:
        info = head_file(self.committer.subdir.storage, self.committer.subdir.layout.shard_index)
        if info is not None:
            self.committer.subdir.storage.delete(replace(info, version=None))


def _as_transient(failure: FairwayError) -> FairwayError:
    if isinstance(failure, InvalidDocumentError):
        error = UnavailableError(str(failure), hint=failure.hint)
        error.__cause__ = failure
        return error
    return failure
