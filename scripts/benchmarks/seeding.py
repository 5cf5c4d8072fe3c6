"""Fills a bucket with a synthetic subdir, as if it had been published earlier.

The indexer's code writes everything. Shards and cards are written only for the names that a benchmark
publishes to: no other shard or card is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambdas.channel.names import Channel as ChannelName
from lambdas.channel.names import PackageName, SubdirId
from lambdas.indexer.model import Outputs
from lambdas.indexer.outputs import channel as project_channel
from lambdas.indexer.outputs.channeldata import make_entry, merge_parts
from lambdas.indexer.outputs.subdir import SubdirProjector
from lambdas.indexer.tree.commit import Commit, EncodedShard, fetch_commit, put_shards, replace_commit
from lambdas.indexer.tree.shard_index import ShardHash, apply_shards
from lambdas.indexer.tree.shards import Shard, encode_shard, make_shard
from lambdas.storage.protocol import ObjectStorage
from scripts.benchmarks.synthetic import Channel


def seed(storage: ObjectStorage, path: SubdirId, channel: Channel, *, names: Iterable[PackageName]) -> Commit:
    """Write the tree, the subdir outputs and the channel outputs; shards and cards only of ``names``."""
    base = fetch_commit(storage, path)
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
        put_shards(storage, path, [EncodedShard(shard=shard, cards=cards, sha256=sha256, body=body)])
        hashes[name] = sha256
        newest = max([newest, *(card.record["indexed_timestamp"] for card in cards.values())])
    commit = replace_commit(storage, path, base, apply_shards(base.index, hashes, created_ms=newest))
    _Projector(storage=storage, path=path, commit=commit, outputs=Outputs(), channel=channel).project()
    _project_channel(storage, path, channel)
    return commit


@dataclass(kw_only=True)
class _Projector(SubdirProjector):
    """Makes the synthetic shards instead of fetching them."""

    channel: Channel

    def _fetch_shards(self, names: Iterable[PackageName], *, keep: bool = True) -> dict[PackageName, Shard | None]:  # noqa: ARG002 - signature of the base class
        return {name: make_shard(self.channel.make_cards(name)) for name in names}


@dataclass(kw_only=True)
class _ChannelProjector(project_channel.ChannelProjector):
    subdir: SubdirId
    synthetic: Channel

    def _merge(self, names: Sequence[PackageName]) -> dict[str, dict[str, Any]]:
        entries = {}
        for name in names:
            cards = self.synthetic.make_cards(name)
            entries[name] = make_entry(self.subdir.subdir, make_shard(cards), cards)
        merged: dict[str, dict[str, Any]] = merge_parts([{"subdir": self.subdir.subdir, "packages": entries}])[
            "packages"
        ]
        return merged


def _project_channel(storage: ObjectStorage, path: SubdirId, channel: Channel) -> None:
    found: Mapping[str, Any] = {name: storage.head(f"{path.channel}/{name}") for name in project_channel.FILES}
    _ChannelProjector(
        storage=storage, channel=ChannelName(path.channel), url="", found=found, subdir=path, synthetic=channel
    ).project([path])
