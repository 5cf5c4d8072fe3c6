"""Brings what readers see up to date with a commit: I/O around ``projections/``.

Each object written here carries the commit that it shows, as metadata, and is replaced only where
nobody else has replaced it meanwhile. To catch up, two commits are compared and the names that
differ are spliced in, so that one missed commit costs what ten cost. Where the old commit is no
longer known, everything is made again from the tree.
"""

import bz2
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.errors import ConflictError, InvalidDocumentError
from lambdas.channel.names import PRIVATE_PREFIX, Channel, PackageName, SubdirPath
from lambdas.indexer.commit import Branch, Commit, fetch_cards, fetch_commit, fetch_shards
from lambdas.indexer.encoding import FLAT_LEVEL, PRIVATE_LEVEL, compress, decode_json, decompress, encode_json
from lambdas.indexer.parallel import in_parallel
from lambdas.indexer.projections.channeldata import (
    apply_to_part,
    format_channeldata,
    make_entry,
    make_part,
    merge_parts,
)
from lambdas.indexer.projections.current_repodata import make_current_repodata
from lambdas.indexer.projections.feed import format_feed
from lambdas.indexer.projections.pages import format_channel_page, format_subdir_page
from lambdas.indexer.projections.repodata import apply_to_repodata, iter_repodata, make_repodata
from lambdas.indexer.projections.run_exports import apply_to_run_exports, make_run_exports
from lambdas.indexer.storage import (
    CACHE_CONTROL_METADATA,
    CACHE_CONTROL_PRIVATE,
    ContentHeaders,
    IfAbsent,
    IfMatch,
    ObjectInfo,
    ObjectStorage,
    StoredObject,
)
from lambdas.indexer.tree import SHARD_INDEX, Cards, Shard, ShardIndex, diff_indexes, make_shard

COMMIT: Final = "fairway-commit"
COMMIT_VERSION: Final = "fairway-commit-version"
PARTS: Final = "fairway-parts"
PARTS_COLLECTION: Final = "channeldata"
PART: Final = "part.json.zst"

REPODATA: Final = "repodata.json"
FROM_PACKAGES: Final = "repodata_from_packages.json"
RUN_EXPORTS: Final = "run_exports.json"
CURRENT_REPODATA: Final = "current_repodata.json"
SUBDIR_PAGE: Final = "index.html"

_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".html": "text/html; charset=utf-8",
    ".xml": "application/rss+xml; charset=utf-8",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """Which optional outputs are made, and how they name the channel's address."""

    current_repodata: bool = False
    bz2: bool = False
    url: str = ""
    """The address that channels hang under, without a slash at the end; empty where unknown."""


@dataclass(kw_only=True)
class SubdirProjector:
    """Brings one subdir's projections to one commit."""

    storage: ObjectStorage
    path: SubdirPath
    commit: Commit
    outputs: Outputs
    branches: Mapping[PackageName, Branch] = field(default_factory=dict)
    """What the caller has just committed: needn't be read again."""
    from_scratch: bool = False
    """Write everything again, whatever is there."""

    def __post_init__(self) -> None:
        self._shards: dict[PackageName, Shard] = {name: branch.shard for name, branch in self.branches.items()}
        self._cards: dict[PackageName, Cards] = {name: branch.cards for name, branch in self.branches.items()}
        self._old_indexes: dict[str, ShardIndex | None] = {}

    def project(self) -> None:
        """Write what does not show the commit yet.

        Raises:
            ConflictError: another writer was quicker: read the commit again, and project again.
        """
        names = [REPODATA, RUN_EXPORTS]
        found = self._look([key for name in names for key in self._variants(name)] + self._derived())
        part = self.storage.head(self.path.private_key(PARTS_COLLECTION, PART))
        self._require_current()
        documents = {
            REPODATA: self._update(REPODATA, found, make_repodata, apply_to_repodata),
            RUN_EXPORTS: self._update(RUN_EXPORTS, found, make_run_exports, apply_to_run_exports),
        }
        # Law 1: compressed before plain, repodata before what is made of it.
        if (repodata := documents[REPODATA]) is not None:
            self._put_document(REPODATA, repodata, found)
        if (run_exports := documents[RUN_EXPORTS]) is not None:
            self._put_document(RUN_EXPORTS, run_exports, found)
        self._project_from_packages(found)
        if repodata is not None:
            if self._is_behind(found, SUBDIR_PAGE):
                self._put(SUBDIR_PAGE, format_subdir_page(self.path, iter_repodata(repodata)), found)
            if self.outputs.current_repodata:
                self._put_document(CURRENT_REPODATA, make_current_repodata(repodata), found)
        self._project_part(part)

    def _require_current(self) -> None:
        """Look at the pointer after what is to be replaced, never before.

        What was found then shows this commit or an older one; otherwise a newer one might be
        overwritten with ours.

        Raises:
            ConflictError: there is a newer commit.
        """
        info = self.storage.head(self.path.key(SHARD_INDEX))
        if info is None or info.etag != self.commit.etag:
            raise ConflictError(f"{self.path} has a newer commit")

    def _derived(self) -> list[str]:
        names = [SUBDIR_PAGE]
        if self.outputs.current_repodata:
            names += self._variants(CURRENT_REPODATA)
        if self.commit.index.patches_sha256 is not None:
            names += self._variants(FROM_PACKAGES)
        return names

    def _variants(self, name: str) -> list[str]:
        """Return the encodings of a document in the order in which they are written."""
        return [*([f"{name}.bz2"] if self.outputs.bz2 else []), f"{name}.zst", name]

    def _look(self, names: Iterable[str]) -> dict[str, ObjectInfo | None]:
        wanted = list(names)
        infos = in_parallel(lambda name: self.storage.head(self.path.key(name)), wanted)
        return dict(zip(wanted, infos, strict=True))

    def _is_behind(self, found: Mapping[str, ObjectInfo | None], name: str) -> bool:
        info = found[name]
        return self.from_scratch or info is None or info.metadata.get(COMMIT) != self.commit.sha256

    def _update(
        self,
        name: str,
        found: Mapping[str, ObjectInfo | None],
        make: Callable[..., dict[str, Any]],
        apply: Callable[..., dict[str, Any]],
    ) -> dict[str, Any] | None:
        """Return the document at the commit, or None where all that depends on it is up to date."""
        dependent = self._variants(name) + (self._derived() if name == REPODATA else [])
        if not any(self._is_behind(found, one) for one in dependent if not one.startswith(FROM_PACKAGES)):
            return None
        shown = self._read_shown(self.path.key(name))
        if shown is not None:
            document, names = shown
            try:
                return apply(document, self._fetch_shards(names)) if names else document
            except InvalidDocumentError:
                pass  # somebody else's file under our name: make it again
        return apply(make(self.path.subdir), self._fetch_shards(self.commit.index.shards))

    def _read_shown(self, key: str, *, packed: bool = False) -> tuple[dict[str, Any], frozenset[PackageName]] | None:
        """Read a document and tell which names differ between what it shows and the commit.

        None where it is missing, broken, or shows a commit that nobody knows any more.
        """
        if self.from_scratch:
            return None
        stored = self.storage.get(key)
        if stored is None or COMMIT not in stored.info.metadata:
            return None
        index = self._fetch_index_shown(stored)
        if index is None:
            return None
        try:
            document = decode_json(decompress(stored.body, what=key) if packed else stored.body, what=key)
        except InvalidDocumentError:
            return None
        names = diff_indexes(index, self.commit.index).names
        return document, names

    def _fetch_index_shown(self, stored: StoredObject) -> ShardIndex | None:
        sha256 = stored.info.metadata[COMMIT]
        if sha256 == self.commit.sha256:
            return self.commit.index
        if sha256 not in self._old_indexes:
            version = stored.info.metadata.get(COMMIT_VERSION)
            old = fetch_commit(self.storage, self.path, version=version) if version else None
            self._old_indexes[sha256] = old.index if old is not None and old.sha256 == sha256 else None
        return self._old_indexes[sha256]

    def _fetch_shards(self, names: Iterable[PackageName]) -> dict[PackageName, Shard | None]:
        wanted = list(names)
        missing = [name for name in wanted if name not in self._shards and name in self.commit.index.shards]
        self._shards |= fetch_shards(self.storage, self.path, self.commit.index, missing)
        return {name: self._shards[name] if name in self.commit.index.shards else None for name in wanted}

    def _fetch_cards(self, names: Iterable[PackageName]) -> dict[PackageName, Cards]:
        wanted = list(names)
        missing = [name for name in wanted if name not in self._cards and name in self.commit.index.shards]
        fetched = fetch_cards(self.storage, self.path, self.commit.index, missing)
        self._cards |= {name: cards or {} for name, cards in fetched.items()}
        return {name: self._cards.get(name, {}) for name in wanted if name in self.commit.index.shards}

    def _project_from_packages(self, found: Mapping[str, ObjectInfo | None]) -> None:
        """Keep the unpatched view while patches are in force, and take it away when they end."""
        if self.commit.index.patches_sha256 is None:
            for index in self._old_indexes.values():
                if index is None or index.patches_sha256 is not None:
                    self._delete_document(FROM_PACKAGES)
                    return
            return
        if not any(self._is_behind(found, name) for name in self._variants(FROM_PACKAGES)):
            return
        shown = self._read_shown(self.path.key(FROM_PACKAGES))
        document, names = shown or (make_repodata(self.path.subdir), frozenset(self.commit.index.shards))
        cards = self._fetch_cards(names)
        shards = {name: make_shard(cards[name]) if name in cards else None for name in names}
        self._put_document(FROM_PACKAGES, apply_to_repodata(document, shards), found)

    def _delete_document(self, name: str) -> None:
        for info in self._look(self._variants(name)).values():
            if info is not None:
                self.storage.delete(info)

    def _project_part(self, info: ObjectInfo | None) -> None:
        """Keep what this subdir says of its names, for the channel's documents."""
        key = self.path.private_key(PARTS_COLLECTION, PART)
        if info is not None and info.metadata.get(COMMIT) == self.commit.sha256 and not self.from_scratch:
            return
        shown = self._read_shown(key, packed=True)
        part, names = shown or (make_part(self.path.subdir), frozenset(self.commit.index.shards))
        shards = self._fetch_shards(names)
        cards = self._fetch_cards(names)
        entries = {
            name: None if shard is None else make_entry(self.path.subdir, shard, cards[name])
            for name, shard in shards.items()
        }
        body = compress(encode_json(apply_to_part(part, entries)), level=PRIVATE_LEVEL)
        headers = ContentHeaders(content_type=_CONTENT_TYPES[".zst"], cache_control=CACHE_CONTROL_PRIVATE)
        self.storage.put(key, body, headers=headers, metadata=self._metadata(), condition=_unchanged(info))

    def _put_document(self, name: str, document: object, found: Mapping[str, ObjectInfo | None]) -> None:
        behind = [variant for variant in self._variants(name) if self._is_behind(found, variant)]
        if not behind:
            return
        plain = encode_json(document)
        for variant in behind:
            self._put(variant, _encode_variant(plain, variant), found)

    def _put(self, name: str, body: bytes, found: Mapping[str, ObjectInfo | None]) -> None:
        self.storage.put(
            self.path.key(name),
            body,
            headers=_headers(name),
            metadata=self._metadata(),
            condition=_unchanged(found[name]),
        )

    def _metadata(self) -> dict[str, str]:
        version = {} if self.commit.version is None else {COMMIT_VERSION: self.commit.version}
        return {COMMIT: self.commit.sha256, **version}


def project_channel(storage: ObjectStorage, channel: Channel, outputs: Outputs) -> None:
    """Bring channeldata.json, rss.xml and index.html of a channel up to date with its parts.

    Raises:
        ConflictError: another writer was quicker: do it again.
    """
    prefix = f"{PRIVATE_PREFIX}{PARTS_COLLECTION}/{channel}/"
    names = ("channeldata.json", "rss.xml", "index.html")
    # What is replaced is looked at before the parts: who lists parts later, writes later or loses.
    found = dict(zip(names, in_parallel(lambda name: storage.head(f"{channel}/{name}"), names), strict=True))
    listed = list(storage.list_objects(prefix))
    digest = hashlib.sha256(repr([(info.key, info.etag) for info in listed]).encode()).hexdigest()
    behind = [name for name, info in found.items() if info is None or info.metadata.get(PARTS) != digest]
    if not behind:
        return
    merged = merge_parts(_read_parts(storage, listed))
    make: dict[str, Callable[[], bytes]] = {
        "channeldata.json": lambda: encode_json(format_channeldata(merged)) + b"\n",  # as conda-index ends it
        "rss.xml": lambda: format_feed(channel, merged, url=outputs.url),
        "index.html": lambda: format_channel_page(channel, merged, url=outputs.url),
    }
    for name in behind:
        storage.put(
            f"{channel}/{name}",
            make[name](),
            headers=_headers(name),
            metadata={PARTS: digest},
            condition=_unchanged(found[name]),
        )


def _read_parts(storage: ObjectStorage, listed: Iterable[ObjectInfo]) -> list[dict[str, Any]]:
    def read(info: ObjectInfo) -> dict[str, Any]:
        stored = storage.get(info.key)
        if stored is None or stored.info.etag != info.etag:
            raise ConflictError(f"{info.key!r} was replaced meanwhile")
        part: dict[str, Any] = decode_json(decompress(stored.body, what=info.key), what=info.key)
        return part

    return in_parallel(read, listed)


def _encode_variant(plain: bytes, name: str) -> bytes:
    if name.endswith(".zst"):
        return compress(plain, level=FLAT_LEVEL)
    return bz2.compress(plain) if name.endswith(".bz2") else plain


def _headers(name: str) -> ContentHeaders:
    suffix = name[name.rindex(".") :]
    return ContentHeaders(content_type=_CONTENT_TYPES[suffix], cache_control=CACHE_CONTROL_METADATA)


def _unchanged(info: ObjectInfo | None) -> IfAbsent | IfMatch:
    return IfAbsent() if info is None else IfMatch(etag=info.etag)
