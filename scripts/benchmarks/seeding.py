"""Fills a bucket with a made-up subdir, as if it had been published long ago.

Everything is written by the indexer's own code, but for the shards and cards of names that nothing will
be published to: nobody reads them.
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


def seed(storage: ObjectStorage, path: SubdirId, channel: Channel, *, touched: Iterable[PackageName]) -> Commit:
    """Write the tree, the flat files and the channel's files of a subdir."""
    base = fetch_commit(storage, path)
    wanted = set(touched)
    hashes: dict[PackageName, ShardHash | None] = {}
    newest = 0
    for name in channel.list_names():
        if name not in wanted:
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
    """Takes shards from where they are made up."""

    channel: Channel

    def _fetch_shards(self, names: Iterable[PackageName], *, keep: bool = True) -> dict[PackageName, Shard | None]:  # noqa: ARG002 - none are kept
        return {name: make_shard(self.channel.make_cards(name)) for name in names}


@dataclass(kw_only=True)
class _ChannelProjector(project_channel.ChannelProjector):
    subdir: SubdirId
    made_up: Channel

    def _merge(self, names: Sequence[PackageName]) -> dict[str, dict[str, Any]]:
        entries = {}
        for name in names:
            cards = self.made_up.make_cards(name)
            entries[name] = make_entry(self.subdir.subdir, make_shard(cards), cards)
        merged: dict[str, dict[str, Any]] = merge_parts([{"subdir": self.subdir.subdir, "packages": entries}])[
            "packages"
        ]
        return merged


def _project_channel(storage: ObjectStorage, path: SubdirId, channel: Channel) -> None:
    found: Mapping[str, Any] = {name: storage.head(f"{path.channel}/{name}") for name in project_channel.FILES}
    _ChannelProjector(
        storage=storage, channel=ChannelName(path.channel), url="", found=found, subdir=path, made_up=channel
    ).project([path])
