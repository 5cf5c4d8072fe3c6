"""Reads what one commit shows: shards, cards, and the names that differ from an older commit."""

from collections import ChainMap
from collections.abc import Iterable, Mapping

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import PackageName
from lambdas.indexer.tree.cards import Cards
from lambdas.indexer.tree.shard_index import ShardIndex, diff_indexes
from lambdas.indexer.tree.shards import Shard, make_shard
from lambdas.indexer.tree.subdir import Commit, EncodedShard, Subdir


class CommitReader:
    """Reads one commit of a subdir, each shard and card at most once."""

    def __init__(
        self,
        subdir: Subdir,
        commit: Commit,
        known: Mapping[PackageName, EncodedShard] | None = None,
        *,
        base: Commit | None = None,
    ) -> None:
        """``known`` is what the caller has just committed, ``base`` an older commit: they needn't be read again."""
        current = {
            name: encoded for name, encoded in (known or {}).items() if commit.index.shards.get(name) == encoded.sha256
        }
        self.subdir = subdir
        self.commit = commit
        self._shards: dict[PackageName, Shard] = {name: encoded.shard for name, encoded in current.items()}
        self._cards: dict[PackageName, Cards] = {name: encoded.cards for name, encoded in current.items()}
        self._indexes: dict[str, ShardIndex | None] = {one.sha256: one.index for one in (base, commit) if one}

    def fetch_shards(self, names: Iterable[PackageName], *, keep: bool = True) -> dict[PackageName, Shard | None]:
        """Return the shards of some names; None for names that the commit doesn't have.

        Raises:
            InvalidDocumentError: a shard is missing or unreadable.
        """
        wanted = list(names)
        shards = self.commit.index.shards
        missing = [name for name in wanted if name not in self._shards and name in shards]
        fetched = self.subdir.fetch_shards(self.commit.index, missing)
        if keep:
            self._shards |= fetched
        known = ChainMap(fetched, self._shards)
        return {name: known[name] if name in shards else None for name in wanted}

    def fetch_unpatched(self, names: Iterable[PackageName]) -> dict[PackageName, Shard | None]:
        """Return the shards of some names as they would be without patches; None for names that are gone."""
        wanted = list(names)
        shards = self.commit.index.shards
        missing = [name for name in wanted if name not in self._cards and name in shards]
        fetched = self.subdir.fetch_cards(self.commit.index, missing)
        self._cards |= {name: cards or {} for name, cards in fetched.items()}
        return {name: make_shard(self._cards.get(name, {})) if name in shards else None for name in wanted}

    def fetch_index(self, sha256: str, version: str | None) -> ShardIndex | None:
        """Return the shard index of a commit by its hash; None if it is missing or unreadable."""
        if sha256 not in self._indexes:
            try:
                old = self.subdir.fetch_commit(version=version) if version else None
            except InvalidDocumentError:
                old = None
            self._indexes[sha256] = old.index if old is not None and old.sha256 == sha256 else None
        return self._indexes[sha256]

    def diff(self, old: ShardIndex) -> frozenset[PackageName]:
        """Return the names whose shards differ from an older commit's."""
        return diff_indexes(old, self.commit.index).names
