"""Checks a subdir from outside: does every file say the same, and is it so?

Reads everything and writes nothing. Trusts no metadata that it can compute.
"""

import bz2
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from lambdas.channel.errors import FairwayError, InvalidDocumentError, InvalidNameError, VanishedError
from lambdas.channel.layout import (
    ATTESTATIONS_SUFFIX,
    PATCH_INSTRUCTIONS,
    SHARDS_FOLDER,
    is_artifact_like,
    parse_artifact_key,
)
from lambdas.channel.names import NOARCH, Channel, PackageName, SubdirId
from lambdas.indexer.outputs.channel import CHANNELDATA, FEED, PAGE, SHOWN, fetch_etags, hash_shown
from lambdas.indexer.outputs.channeldata import (
    ChannelPart,
    apply_to_part,
    format_channeldata,
    make_entry,
    make_part,
    merge_parts,
)
from lambdas.indexer.outputs.feed import format_feed
from lambdas.indexer.outputs.pages import format_channel_page, format_subdir_page
from lambdas.indexer.outputs.repodata import apply_to_repodata, iter_repodata, make_repodata
from lambdas.indexer.outputs.run_exports import apply_to_run_exports, make_run_exports
from lambdas.indexer.outputs.subdir import COMMIT, FROM_PACKAGES, REPODATA, RUN_EXPORTS, SUBDIR_PAGE
from lambdas.indexer.spliced.files import LARGE_CHANNELDATA_BYTES, is_large
from lambdas.indexer.tree.cards import Cards
from lambdas.indexer.tree.commit import Commit, fetch_cards, fetch_commit, fetch_patches
from lambdas.indexer.tree.encoding import decode_json, decompress
from lambdas.indexer.tree.patches import PatchInstructions
from lambdas.indexer.tree.shard_index import ShardHash
from lambdas.indexer.tree.shards import Shard, decode_shard, encode_shard, iter_records, make_shard, shard_key
from lambdas.indexer.upkeep.listing import list_files, list_subdirs
from lambdas.indexer.upkeep.reconcile import find_changed_sidecars
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage

_NAMES: Final = 500  # read at a time
_DEFERRAL_MS: Final = 15 * 60 * 1000  # what a publish left for later has been written by then


class Problem(Enum):
    """What can be wrong."""

    ARTIFACT_WITHOUT_RECORD = "artifact-without-record"
    RECORD_WITHOUT_ARTIFACT = "record-without-artifact"
    HASH_MISMATCH = "hash-mismatch"
    SHARD_MISSING = "shard-missing"
    SHARD_BROKEN = "shard-broken"
    SHARD_NOT_FROM_CARDS = "shard-not-from-cards"
    CARDS_MISSING = "cards-missing"
    INDEX_MISSING = "index-missing"
    PROJECTION_MISSING = "projection-missing"
    PROJECTION_BEHIND = "projection-behind"
    PROJECTION_WRONG = "projection-wrong"
    ENCODINGS_DISAGREE = "encodings-disagree"
    SIGNATURES_WITHOUT_RECORD = "signatures-without-record"
    SIGNATURES_MISMATCH = "signatures-mismatch"
    PATCHES_NOT_IN_FORCE = "patches-not-in-force"
    ORPHAN_SHARD = "orphan-shard"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or, for orphans within their grace, merely so."""

    problem: Problem
    key: str
    message: str
    is_harmless: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How closely to look."""

    read_artifacts: bool = False
    """Hash every artifact again."""
    now_ms: int
    grace_ms: int
    """Orphans younger than this are harmless."""


@dataclass(kw_only=True, slots=True)
class ChannelView:
    """What the subdirs of a channel say together: gathered while each is verified."""

    url: str
    """The address that channels hang under, as links in the channel's files have it."""
    etags: dict[str, str | None] = field(default_factory=dict)
    """Which commit of each subdir was verified."""
    parts: list[ChannelPart] = field(default_factory=list)
    is_complete: bool = True
    """Whether every shard could be read."""
    is_young: bool = False
    """Whether one of the commits was made a moment ago."""
    is_deferred: bool = False
    """Whether that was in a large subdir, where a publish leaves the channel's files for later."""

    def add(
        self,
        subdir: SubdirId,
        commit: Commit,
        entries: Mapping[PackageName, dict[str, Any] | None],
        *,
        is_complete: bool,
        is_young: bool,
        is_deferred: bool,
    ) -> None:
        """Add what one subdir says."""
        self.etags[subdir.name] = commit.etag
        self.parts.append(apply_to_part(make_part(subdir.name), entries))
        self.is_complete = self.is_complete and is_complete
        self.is_young = self.is_young or is_young
        self.is_deferred = self.is_deferred or is_deferred


def verify_subdir(
    storage: ObjectStorage,
    subdir: SubdirId,
    depth: Depth,
    *,
    view: ChannelView | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """Yield everything that is wrong with one subdir; add what it says of its channel to the view."""
    progress(f"{subdir}: listing")
    listing = _list(storage, subdir)
    artifacts = listing.artifacts
    commit = fetch_commit(storage, subdir)
    if commit.etag is None:
        if artifacts or subdir.name == NOARCH:
            yield Finding(
                problem=Problem.INDEX_MISSING, key=subdir.key(""), message=f"no index, and {len(artifacts)} artifacts"
            )
        return
    patches = fetch_patches(storage, subdir, commit.index.patches_sha256)
    yield from _check_patches(storage, subdir, commit)
    names = sorted(commit.index.shards)
    documents: dict[str, dict[str, Any]] = {
        REPODATA: make_repodata(subdir.name),
        RUN_EXPORTS: make_run_exports(subdir.name),
    }
    from_packages = make_repodata(subdir.name)
    unlisted = set(artifacts)
    named: dict[str, str] = {}
    entries: dict[PackageName, dict[str, Any] | None] = {}
    is_complete = True
    for start in range(0, len(names), _NAMES):
        some = names[start : start + _NAMES]
        progress(f"{subdir}: {start + len(some)} of {len(names)} names")
        cards = fetch_cards(storage, subdir, commit.index, some)
        shards: dict[PackageName, Shard | None] = {}
        for name, result in zip(some, in_parallel(_reader(storage, subdir, commit), some), strict=True):
            if isinstance(result, Finding):
                is_complete = False
                yield result
                continue
            shards[name] = result
            entries[name] = make_entry(subdir.name, result, cards[name] or {})
            named |= _find_named(result, cards[name])
            yield from _check_cards(subdir, name, result, cards[name], patches)
            yield from _check_records(storage, subdir, result, artifacts, depth)
            unlisted -= {filename for filename, _ in iter_records(result)} | set(result.removed)
        documents[REPODATA] = apply_to_repodata(documents[REPODATA], shards)
        documents[RUN_EXPORTS] = apply_to_run_exports(documents[RUN_EXPORTS], shards)
        unpatched: dict[PackageName, Shard | None] = {name: make_shard(cards[name] or {}) for name in shards}
        from_packages = apply_to_repodata(from_packages, unpatched)
    for filename in sorted(unlisted):
        yield _find_unlisted(subdir, filename)
    yield from _check_signatures(storage, subdir, listing, named, depth)
    progress(f"{subdir}: projections")
    if commit.index.patches_sha256 is not None:
        documents[FROM_PACKAGES] = from_packages
    packed = storage.head(subdir.key(f"{REPODATA}.zst"))
    is_young = _is_young(packed, commit, depth)
    is_deferred = is_young and is_large(packed)
    for filename, document in documents.items():
        yield from _check_projection(storage, subdir, filename, document, commit, is_deferred=is_deferred)
    page = format_subdir_page(subdir, iter_repodata(documents[REPODATA]))
    yield from _check_file(
        storage,
        subdir.key(SUBDIR_PAGE),
        (COMMIT, commit.sha256),
        lambda body: body == page or not is_complete,
        is_deferred=is_deferred,
    )
    yield from _find_orphans(storage, subdir, commit, depth)
    if view is not None:
        view.add(subdir, commit, entries, is_complete=is_complete, is_young=is_young, is_deferred=is_deferred)


def verify_channel(
    storage: ObjectStorage,
    channel: Channel,
    view: ChannelView,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """Yield what is wrong with the documents of a channel as a whole, all of whose subdirs are in the view."""
    progress(f"{channel}: projections")
    etags = fetch_etags(storage, list(list_subdirs(storage, channel)))
    merged = merge_parts(view.parts)
    document = format_channeldata(merged)
    feed = format_feed(channel, merged, url=view.url)
    page = format_channel_page(channel, merged, url=view.url)
    checks: dict[str, Callable[[bytes], bool]] = {
        CHANNELDATA: lambda body: _parse_or_none(body) == document,
        FEED: lambda body: body == feed,
        PAGE: lambda body: body == page,
    }
    if not view.is_complete or etags != view.etags:  # nobody knows what they should say
        checks = dict.fromkeys(checks, lambda _: True)
    info = storage.head(f"{channel}/{CHANNELDATA}")
    is_deferred = view.is_deferred or (view.is_young and info is not None and info.size > LARGE_CHANNELDATA_BYTES)
    for name, is_right in checks.items():
        shown = (SHOWN, hash_shown(etags))
        yield from _check_file(storage, f"{channel}/{name}", shown, is_right, is_deferred=is_deferred)


def _check_file(
    storage: ObjectStorage,
    key: str,
    shown: tuple[str, str],
    is_right: Callable[[bytes], bool],
    *,
    is_deferred: bool,
) -> Iterator[Finding]:
    """Check that a file that is kept in one encoding is there, shows what it should, and says it.

    ``shown`` is the attribute that says what it shows, with its value.
    """
    stored = storage.get(key)
    if stored is None:
        yield Finding(problem=Problem.PROJECTION_MISSING, key=key, message="it is not there")
    elif stored.info.metadata.get(shown[0]) != shown[1]:
        yield Finding(
            problem=Problem.PROJECTION_BEHIND, key=key, message="it shows another commit", is_harmless=is_deferred
        )
    elif not is_right(stored.body):
        yield Finding(problem=Problem.PROJECTION_WRONG, key=key, message="it does not say what the shards say")


def _parse_or_none(body: bytes) -> object:
    try:
        return decode_json(body, what=CHANNELDATA)
    except InvalidDocumentError:
        return None


def _reader(storage: ObjectStorage, subdir: SubdirId, commit: Commit) -> Callable[[PackageName], Shard | Finding]:
    def read(name: PackageName) -> Shard | Finding:
        sha256 = commit.index.shards[name]
        key = shard_key(subdir, sha256)
        stored = storage.get(key)
        if stored is None:
            return Finding(problem=Problem.SHARD_MISSING, key=key, message=f"the index names it for {name!r}")
        if hashlib.sha256(stored.body).hexdigest() != sha256:
            return Finding(problem=Problem.SHARD_BROKEN, key=key, message="its bytes are not what its name says")
        try:
            return decode_shard(stored.body)
        except InvalidDocumentError as error:
            return Finding(problem=Problem.SHARD_BROKEN, key=key, message=str(error))

    return read


def _check_cards(
    subdir: SubdirId, name: PackageName, shard: Shard, cards: Cards | None, patches: PatchInstructions
) -> Iterator[Finding]:
    if cards is None:
        yield Finding(
            problem=Problem.CARDS_MISSING, key=str(subdir), message=f"the cards of {name!r} are lost or broken"
        )
    elif encode_shard(make_shard(cards, patches)) != encode_shard(shard):
        yield Finding(
            problem=Problem.SHARD_NOT_FROM_CARDS,
            key=str(subdir),
            message=f"the shard of {name!r} is not what its cards and the patches make",
        )


def _check_patches(storage: ObjectStorage, subdir: SubdirId, commit: Commit) -> Iterator[Finding]:
    key = subdir.key(PATCH_INSTRUCTIONS)
    sha256 = _hash(storage, key)
    if sha256 is None and commit.index.patches_sha256 is not None:
        yield Finding(problem=Problem.PATCHES_NOT_IN_FORCE, key=key, message="they are gone, and still in force")
    elif sha256 != commit.index.patches_sha256:
        yield Finding(problem=Problem.PATCHES_NOT_IN_FORCE, key=key, message="others are in force, or none")


@dataclass(kw_only=True, slots=True)
class _Listing:
    """What lies in a subdir."""

    artifacts: dict[str, ObjectInfo] = field(default_factory=dict)
    """By filename, with what is named like an artifact and can't be one."""
    sidecars: dict[str, ObjectInfo] = field(default_factory=dict)
    """By the artifact's filename."""
    copies: dict[str, ObjectInfo] = field(default_factory=dict)
    """The sidecars' immutable copies, by filename."""


def _list(storage: ObjectStorage, subdir: SubdirId) -> _Listing:
    listing = _Listing()
    for filename, info in list_files(storage, subdir):
        artifact = filename.removesuffix(ATTESTATIONS_SUFFIX)
        if is_artifact_like(filename):
            (listing.artifacts if artifact == filename else listing.sidecars)[artifact] = info
        elif f"{ATTESTATIONS_SUFFIX}." in filename:
            listing.copies[filename] = info
    return listing


def _find_named(shard: Shard, cards: Cards | None) -> dict[str, str]:
    """Return ``{filename: hex SHA-256 of its sidecar}``: cards know it of what was yanked as well."""
    if cards is not None:
        return {name: card.attestations_sha256 for name, card in cards.items() if card.attestations_sha256 is not None}
    records = dict(iter_records(shard))
    return {name: record["attestations_sha256"] for name, record in records.items() if "attestations_sha256" in record}


def _check_signatures(
    storage: ObjectStorage, subdir: SubdirId, listing: _Listing, named: Mapping[str, str], depth: Depth
) -> Iterator[Finding]:
    """Check that the records name the sidecars that are there."""
    for filename in sorted(listing.sidecars.keys() - named.keys()):
        is_alone = filename not in listing.artifacts
        yield Finding(
            problem=Problem.SIGNATURES_WITHOUT_RECORD,
            key=listing.sidecars[filename].key,
            message="there is no such artifact" if is_alone else "no record names them",
            is_harmless=is_alone,
        )
    for filename in sorted(named.keys() - listing.sidecars.keys()):
        yield Finding(
            problem=Problem.SIGNATURES_MISMATCH,
            key=subdir.key(filename + ATTESTATIONS_SUFFIX),
            message="the record names them, and they are not there",
        )
    copies = {
        filename: info
        for filename, sha256 in named.items()
        if (info := listing.copies.get(f"{filename}{ATTESTATIONS_SUFFIX}.{sha256}")) is not None
    }
    trusted = {} if depth.read_artifacts else copies
    for filename in sorted(find_changed_sidecars(storage, listing.sidecars, trusted, named)):
        yield Finding(
            problem=Problem.SIGNATURES_MISMATCH,
            key=listing.sidecars[filename].key,
            message="the record names others",
        )
    for filename in sorted(named):
        key = subdir.key(f"{filename}{ATTESTATIONS_SUFFIX}.{named[filename]}")
        if filename not in copies:
            yield Finding(problem=Problem.SIGNATURES_MISMATCH, key=key, message="the record names it: it is not there")
        elif depth.read_artifacts and _hash(storage, key) != named[filename]:
            yield Finding(problem=Problem.HASH_MISMATCH, key=key, message="its bytes are not what its name says")


def _hash(storage: ObjectStorage, key: str) -> str | None:
    stored = storage.get(key)
    return None if stored is None else hashlib.sha256(stored.body).hexdigest()


def _check_records(
    storage: ObjectStorage, subdir: SubdirId, shard: Shard, artifacts: Mapping[str, ObjectInfo], depth: Depth
) -> Iterator[Finding]:
    for filename, record in iter_records(shard):
        info = artifacts.get(filename)
        if info is None:
            yield Finding(
                problem=Problem.RECORD_WITHOUT_ARTIFACT, key=subdir.key(filename), message="the artifact is not there"
            )
        elif info.size != record["size"]:
            yield Finding(
                problem=Problem.HASH_MISMATCH,
                key=subdir.key(filename),
                message=f"{info.size} bytes, and the record says {record['size']}",
            )
        elif depth.read_artifacts and (message := _compare_hashes(storage, subdir.key(filename), record)):
            yield Finding(problem=Problem.HASH_MISMATCH, key=subdir.key(filename), message=message)


def _compare_hashes(storage: ObjectStorage, key: str, record: Mapping[str, Any]) -> str | None:
    info = storage.head(key)
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        for chunk in storage.stream(info) if info is not None else ():
            md5.update(chunk)
            sha256.update(chunk)
    except VanishedError:
        return "it changed while it was read"
    for name, found in (("sha256", sha256.hexdigest()), ("md5", md5.hexdigest())):
        if found != record[name]:
            return f"its {name} is {found}, and the record says {record[name]}"
    return None


def _find_unlisted(subdir: SubdirId, filename: str) -> Finding:
    try:
        parse_artifact_key(subdir.key(filename))
        message = "the index does not list it"
    except InvalidNameError as error:
        message = f"the index can't list it: {error}"
    return Finding(problem=Problem.ARTIFACT_WITHOUT_RECORD, key=subdir.key(filename), message=message)


def _is_young(packed: ObjectInfo | None, commit: Commit, depth: Depth) -> bool:
    """Tell from repodata.json.zst whether files may lie there that are to be brought up to date before long."""
    shows_commit = packed is not None and packed.metadata.get(COMMIT) == commit.sha256
    return packed is not None and shows_commit and depth.now_ms - packed.last_modified_ms <= _DEFERRAL_MS


def _check_projection(
    storage: ObjectStorage, subdir: SubdirId, name: str, document: object, commit: Commit, *, is_deferred: bool
) -> Iterator[Finding]:
    """Check that both encodings are there, agree, show the commit, and say what the shards say.

    With ``is_deferred``, they may be behind for now.
    """
    plain = storage.get(subdir.key(name))
    packed = storage.get(subdir.key(f"{name}.zst"))
    for stored, filename in ((plain, name), (packed, f"{name}.zst")):
        key = subdir.key(filename)
        if stored is None:
            yield Finding(problem=Problem.PROJECTION_MISSING, key=key, message="it is not there")
        elif stored.info.metadata.get(COMMIT) != commit.sha256:
            yield Finding(
                problem=Problem.PROJECTION_BEHIND,
                key=key,
                message="it shows another commit",
                is_harmless=is_deferred,
            )
    if plain is None or packed is None:
        return
    are_equal = plain.info.metadata.get(COMMIT) == packed.info.metadata.get(COMMIT)
    try:
        if (are_equal or not is_deferred) and decompress(packed.body, what=packed.info.key) != plain.body:
            yield Finding(
                problem=Problem.ENCODINGS_DISAGREE, key=packed.info.key, message=f"it is not {name}, compressed"
            )
        found = decode_json(plain.body, what=plain.info.key)
    except FairwayError as error:
        yield Finding(problem=Problem.PROJECTION_WRONG, key=subdir.key(name), message=str(error))
        return
    bzipped = storage.get(subdir.key(f"{name}.bz2"))
    if bzipped is not None and bz2.decompress(bzipped.body) != plain.body:
        yield Finding(problem=Problem.ENCODINGS_DISAGREE, key=bzipped.info.key, message=f"it is not {name}, compressed")
    if found != document and plain.info.metadata.get(COMMIT) == commit.sha256:
        yield Finding(
            problem=Problem.PROJECTION_WRONG, key=subdir.key(name), message="it does not say what the shards say"
        )


def _find_orphans(storage: ObjectStorage, subdir: SubdirId, commit: Commit, depth: Depth) -> Iterator[Finding]:
    named = set(commit.index.shards.values())
    prefix = subdir.key(SHARDS_FOLDER)
    for info in storage.list_objects(prefix):
        if ShardHash(info.key[len(prefix) :].partition(".")[0]) not in named:
            age_ms = depth.now_ms - info.last_modified_ms
            yield Finding(
                problem=Problem.ORPHAN_SHARD,
                key=info.key,
                message="no index names it",
                # It may have been named until a moment ago: twice the grace is time enough to collect_garbage it.
                is_harmless=age_ms <= 2 * depth.grace_ms,
            )
