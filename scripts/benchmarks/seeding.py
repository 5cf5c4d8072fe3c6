"""Fills a bucket with a synthetic subdir, as if it had been published earlier.

The indexer's code writes everything. Shards and cards are written only for the names that a benchmark
publishes to: no other shard or card is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lambdas.channel.names import PackageName, SubdirId, SubdirName
from lambdas.indexer.model import LIMITS, Outputs
from lambdas.indexer.outputs.channel import ChannelUpdater
from lambdas.indexer.outputs.channel_tree import ChannelReader
from lambdas.indexer.outputs.channeldata import make_entry
from lambdas.indexer.outputs.subdir import SubdirUpdater
from lambdas.indexer.tree.cards import Cards
from lambdas.indexer.tree.reader import CommitReader
from lambdas.indexer.tree.shard_index import ShardHash, ShardIndex, apply_shards
from lambdas.indexer.tree.shards import Shard, encode_shard, make_shard
from lambdas.indexer.tree.subdir import Commit, EncodedShard, Subdir, open_subdir
from lambdas.storage.protocol import ObjectStorage
from scripts.benchmarks.synthetic import Channel


def seed(
    storage: ObjectStorage,
    subdir_id: SubdirId,
    channel: Channel,
    *,
    names: Iterable[PackageName],
    has_outputs: bool = True,
) -> Commit:
    """Write the tree, and the outputs of subdir and channel if there are any; shards and cards only of ``names``."""
    subdir = open_subdir(storage, subdir_id)
    base = subdir.fetch_commit()
    stored = set(names)
    hashes: dict[PackageName, ShardHash | None] = {}
    newest = 0
    for name in channel.list_names():
        if name not in stored:
            hashes[name] = ShardHash(hashlib.sha256(name.encode()).hexdigest())
            continue
        cards = channel.make_cards(name)
        shard = make_shard(cards)
        sha256, body = encode_shard(shard)
        subdir.put_shards([EncodedShard(shard=shard, cards=cards, sha256=sha256, body=body)])
        hashes[name] = sha256
        newest = max([newest, *(card.record["indexed_timestamp"] for card in cards.values())])
    commit = subdir.swap(base, apply_shards(base.index, hashes, created_ms=newest))
    if has_outputs:
        SubdirUpdater(_Reader(subdir, commit, channel), Outputs(), LIMITS).update()
        _update_channel(subdir, channel)
    return commit


def publish_cards(
    storage: ObjectStorage, subdir_id: SubdirId, names: Mapping[PackageName, Cards], *, deployment: str = ""
) -> None:
    """Commit the cards of some names; write no output."""
    subdir = open_subdir(storage, subdir_id, deployment=deployment)
    base = subdir.fetch_commit()
    hashes: dict[PackageName, ShardHash | None] = {}
    for name, cards in names.items():
        shard = make_shard(cards)
        sha256, body = encode_shard(shard)
        subdir.put_shards([EncodedShard(shard=shard, cards=cards, sha256=sha256, body=body)])
        hashes[name] = sha256
    subdir.swap(base, apply_shards(base.index, hashes, created_ms=0))


class _Reader(CommitReader):
    """Makes the synthetic shards instead of fetching them."""

    def __init__(self, subdir: Subdir, commit: Commit, channel: Channel) -> None:
        super().__init__(subdir, commit)
        self._channel = channel

    def fetch_shards(self, names: Iterable[PackageName], *, keep: bool = True) -> dict[PackageName, Shard | None]:  # noqa: ARG002 - signature of the base class
        return {name: make_shard(self._channel.make_cards(name)) for name in names}


class _ChannelReader(ChannelReader):
    """Makes what the synthetic subdir says instead of reading it."""

    def __init__(self, storage: ObjectStorage, channel: Channel, subdir: SubdirId) -> None:
        super().__init__(storage, subdir.channel, max_bytes=LIMITS.max_kept_bytes)
        self._synthetic = channel

    def fetch_entries(
        self,
        subdir_name: SubdirName,
        index: ShardIndex,  # noqa: ARG002 - signature of the base class
        names: Sequence[PackageName],
    ) -> dict[PackageName, dict[str, Any]]:
        entries = {}
        for name in names:
            cards = self._synthetic.make_cards(name)
            entry = make_entry(subdir_name, make_shard(cards), cards)
            if entry is not None:
                entries[name] = entry
        return entries


def _update_channel(subdir: Subdir, channel: Channel) -> None:
    ChannelUpdater(
        storage=subdir.storage,
        channel=subdir.id.channel,
        reader=_ChannelReader(subdir.storage, channel, subdir.id),
        outputs=Outputs(),
        limits=LIMITS,
    ).update(None)
