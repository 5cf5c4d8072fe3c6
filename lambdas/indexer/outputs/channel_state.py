"""The state of a channel: the pointer that says which commits the channel's outputs show.

It is replaced by compare-and-swap, as the shard index of a subdir is. Its bytes name versions, so that
the same bytes mean the same commits, which channeldata.json can't promise: many commits leave it as it was.
channeldata.json names the state that it was made with, which may be older than the current one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel import caching
from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import SubdirName
from lambdas.indexer.outputs.leaves import Leaf
from lambdas.indexer.outputs.newest import NameRow
from lambdas.indexer.tree.encoding import PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectStorage

_HEADERS: Final = ContentHeaders(content_type="application/zstd", cache_control=caching.NO_STORE)

Place = tuple[str, str | None]
"""The ETag of a shard index, and its version if the storage keeps versions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelState:
    """Which commits are shown, and what an update would otherwise have to read everything for."""

    shown: Mapping[SubdirName, Place] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    """The table of channeldata.json, if that is large, as ``Tables.tables``."""
    newest: Sequence[NameRow] = ()
    leaves: Sequence[Leaf] = ()
    is_complete: bool = True
    """False for a state of an earlier version, which was not replaced by compare-and-swap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredState:
    """The current state, and where it was found."""

    state: ChannelState | None
    """None if it is missing, invalid or unreadable."""
    etag: str | None
    """None if it is missing."""
    sha256: str = ""
    version: str | None = None

    @property
    def reference(self) -> str:
        """What channeldata.json says to name it."""
        return f"{self.sha256} {self.version or ''}".strip()


@dataclass(frozen=True, slots=True)
class StateFile:
    """The state of one channel in a storage."""

    storage: ObjectStorage
    key: str

    def fetch(self) -> StoredState:
        """Read the current state."""
        try:
            stored = get_file(self.storage, self.key)
        except InvalidDocumentError:
            return StoredState(state=None, etag=self.fetch_etag())
        if stored is None:
            return StoredState(state=None, etag=None)
        return StoredState(
            state=_decode_or_none(stored.body),
            etag=stored.info.etag,
            sha256=hashlib.sha256(stored.body).hexdigest(),
            version=stored.info.version,
        )

    def fetch_etag(self) -> str | None:
        """Return the ETag of the current state; None if it is missing."""
        info = head_file(self.storage, self.key)
        return None if info is None else info.etag

    def fetch_named(self, reference: str, current: StoredState) -> ChannelState | None:
        """Return the state that a file names; None if it is missing or invalid."""
        sha256, _, version = reference.partition(" ")
        if sha256 == current.sha256:
            return current.state
        try:
            stored = get_file(self.storage, self.key, version=version) if version else None
        except InvalidDocumentError:
            return None
        if stored is None or hashlib.sha256(stored.body).hexdigest() != sha256:
            return None
        return _decode_or_none(stored.body)

    def swap(self, base: StoredState, state: ChannelState) -> StoredState:
        """Replace the current state.

        Raises:
            ConflictError: ``base`` is no longer the current state.
        """
        document = {
            "shown": state.shown,
            "tables": state.tables,
            "newest": state.newest,
            "leaves": [[leaf.first, leaf.sha256, leaf.version] for leaf in state.leaves],
        }
        body = compress(encode_json(document), level=PRIVATE_LEVEL)
        condition = IfAbsent() if base.etag is None else IfMatch(etag=base.etag)
        info = self.storage.put(self.key, body, headers=_HEADERS, condition=condition)
        return StoredState(state=state, etag=info.etag, sha256=hashlib.sha256(body).hexdigest(), version=info.version)


def _decode_or_none(body: bytes) -> ChannelState | None:
    try:
        document = decode_json(decompress(body, what="the state of a channel"), what="the state of a channel")
        return ChannelState(
            shown={SubdirName(name): (str(etag), version) for name, (etag, version) in document["shown"].items()},
            tables=dict(document["tables"]),
            newest=[(str(name), dict(entry)) for name, entry in document["newest"]],
            leaves=[
                Leaf(first=first, sha256=sha256, version=version)
                for first, sha256, version in document.get("leaves", ())
            ],
            is_complete="leaves" in document,
        )
    except (InvalidDocumentError, KeyError, TypeError, AttributeError, ValueError):
        return None
