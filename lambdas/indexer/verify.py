"""Checks a subdir from outside: does every file say the same, and is it so?

Reads everything and writes nothing. Trusts no metadata that it can compute.
"""

import bz2
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from lambdas.channel.errors import FairwayError, InvalidDocumentError, InvalidNameError, VanishedError
from lambdas.channel.names import SIGNATURES_SUFFIX, Channel, PackageName, SubdirPath, parse_artifact_key
from lambdas.indexer.commit import Commit, fetch_cards, fetch_commit, fetch_patches
from lambdas.indexer.encoding import decode_json, decompress
from lambdas.indexer.flat import is_large
from lambdas.indexer.parallel import in_parallel
from lambdas.indexer.patches import PatchInstructions
from lambdas.indexer.project import COMMIT, FROM_PACKAGES, REPODATA, RUN_EXPORTS
from lambdas.indexer.projections.repodata import apply_to_repodata, make_repodata
from lambdas.indexer.projections.run_exports import apply_to_run_exports, make_run_exports
from lambdas.indexer.reconcile import list_artifacts
from lambdas.indexer.storage import ObjectInfo, ObjectStorage
from lambdas.indexer.tree import (
    SHARDS_FOLDER,
    Cards,
    Shard,
    ShardHash,
    decode_shard,
    encode_shard,
    iter_records,
    make_shard,
    shard_key,
)

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


def verify_subdir(
    storage: ObjectStorage, path: SubdirPath, depth: Depth, *, progress: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield everything that is wrong with one subdir."""
    progress(f"{path}: listing")
    artifacts = {info.key.rpartition("/")[2]: info for info in list_artifacts(storage, path)}
    commit = fetch_commit(storage, path)
    if commit.etag is None:
        if artifacts or path.subdir == "noarch":
            yield Finding(
                problem=Problem.INDEX_MISSING, key=path.key(""), message=f"no index, and {len(artifacts)} artifacts"
            )
        return
    patches = fetch_patches(storage, path, commit.index.patches_sha256)
    names = sorted(commit.index.shards)
    documents: dict[str, dict[str, Any]] = {
        REPODATA: make_repodata(path.subdir),
        RUN_EXPORTS: make_run_exports(path.subdir),
    }
    from_packages = make_repodata(path.subdir)
    unlisted = {filename for filename in artifacts if not filename.endswith(SIGNATURES_SUFFIX)}
    for start in range(0, len(names), _NAMES):
        some = names[start : start + _NAMES]
        progress(f"{path}: {start + len(some)} of {len(names)} names")
        cards = fetch_cards(storage, path, commit.index, some)
        shards: dict[PackageName, Shard | None] = {}
        for name, result in zip(some, in_parallel(_reader(storage, path, commit), some), strict=True):
            if isinstance(result, Finding):
                yield result
                continue
            shards[name] = result
            yield from _check_cards(path, name, result, cards[name], patches)
            yield from _check_records(storage, path, result, artifacts, depth)
            unlisted -= {filename for filename, _ in iter_records(result)} | set(result.removed)
        documents[REPODATA] = apply_to_repodata(documents[REPODATA], shards)
        documents[RUN_EXPORTS] = apply_to_run_exports(documents[RUN_EXPORTS], shards)
        unpatched: dict[PackageName, Shard | None] = {name: make_shard(cards[name] or {}) for name in shards}
        from_packages = apply_to_repodata(from_packages, unpatched)
    for filename in sorted(unlisted):
        yield _find_unlisted(path, filename)
    progress(f"{path}: projections")
    if commit.index.patches_sha256 is not None:
        documents[FROM_PACKAGES] = from_packages
    is_deferred = _is_deferred(storage, path, commit, depth)
    for filename, document in documents.items():
        yield from _check_projection(storage, path, filename, document, commit, is_deferred=is_deferred)
    yield from _find_orphans(storage, path, commit, depth)


def verify_channel(storage: ObjectStorage, channel: Channel) -> Iterator[Finding]:
    """Yield what is wrong with the documents of a channel as a whole."""
    for name in ("channeldata.json", "rss.xml", "index.html"):
        if storage.head(f"{channel}/{name}") is None:
            yield Finding(problem=Problem.PROJECTION_MISSING, key=f"{channel}/{name}", message="it is not there")


def _reader(storage: ObjectStorage, path: SubdirPath, commit: Commit) -> Callable[[PackageName], Shard | Finding]:
    def read(name: PackageName) -> Shard | Finding:
        sha256 = commit.index.shards[name]
        key = shard_key(path, sha256)
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
    path: SubdirPath, name: PackageName, shard: Shard, cards: Cards | None, patches: PatchInstructions
) -> Iterator[Finding]:
    if cards is None:
        yield Finding(problem=Problem.CARDS_MISSING, key=str(path), message=f"the cards of {name!r} are lost or broken")
    elif encode_shard(make_shard(cards, patches)) != encode_shard(shard):
        yield Finding(
            problem=Problem.SHARD_NOT_FROM_CARDS,
            key=str(path),
            message=f"the shard of {name!r} is not what its cards and the patches make",
        )


def _check_records(
    storage: ObjectStorage, path: SubdirPath, shard: Shard, artifacts: Mapping[str, ObjectInfo], depth: Depth
) -> Iterator[Finding]:
    for filename, record in iter_records(shard):
        info = artifacts.get(filename)
        if info is None:
            yield Finding(
                problem=Problem.RECORD_WITHOUT_ARTIFACT, key=path.key(filename), message="the artifact is not there"
            )
        elif info.size != record["size"]:
            yield Finding(
                problem=Problem.HASH_MISMATCH,
                key=path.key(filename),
                message=f"{info.size} bytes, and the record says {record['size']}",
            )
        elif depth.read_artifacts and (message := _compare_hashes(storage, path.key(filename), record)):
            yield Finding(problem=Problem.HASH_MISMATCH, key=path.key(filename), message=message)


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


def _find_unlisted(path: SubdirPath, filename: str) -> Finding:
    try:
        parse_artifact_key(path.key(filename))
        message = "the index does not list it"
    except InvalidNameError as error:
        message = f"the index can't list it: {error}"
    return Finding(problem=Problem.ARTIFACT_WITHOUT_RECORD, key=path.key(filename), message=message)


def _is_deferred(storage: ObjectStorage, path: SubdirPath, commit: Commit, depth: Depth) -> bool:
    """Tell whether files may lie there that are to be brought up to date before long."""
    packed = storage.head(path.key(f"{REPODATA}.zst"))
    return (
        packed is not None
        and is_large(packed)
        and packed.metadata.get(COMMIT) == commit.sha256
        and depth.now_ms - packed.last_modified_ms <= _DEFERRAL_MS
    )


def _check_projection(
    storage: ObjectStorage, path: SubdirPath, name: str, document: object, commit: Commit, *, is_deferred: bool
) -> Iterator[Finding]:
    """Check that both encodings are there, agree, show the commit, and say what the shards say.

    With ``is_deferred``, they may be behind for now.
    """
    plain = storage.get(path.key(name))
    packed = storage.get(path.key(f"{name}.zst"))
    for stored, filename in ((plain, name), (packed, f"{name}.zst")):
        key = path.key(filename)
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
        yield Finding(problem=Problem.PROJECTION_WRONG, key=path.key(name), message=str(error))
        return
    bzipped = storage.get(path.key(f"{name}.bz2"))
    if bzipped is not None and bz2.decompress(bzipped.body) != plain.body:
        yield Finding(problem=Problem.ENCODINGS_DISAGREE, key=bzipped.info.key, message=f"it is not {name}, compressed")
    if found != document and plain.info.metadata.get(COMMIT) == commit.sha256:
        yield Finding(
            problem=Problem.PROJECTION_WRONG, key=path.key(name), message="it does not say what the shards say"
        )


def _find_orphans(storage: ObjectStorage, path: SubdirPath, commit: Commit, depth: Depth) -> Iterator[Finding]:
    named = set(commit.index.shards.values())
    prefix = path.key(SHARDS_FOLDER)
    for info in storage.list_objects(prefix):
        if ShardHash(info.key[len(prefix) :].partition(".")[0]) not in named:
            age_ms = depth.now_ms - info.last_modified_ms
            yield Finding(
                problem=Problem.ORPHAN_SHARD,
                key=info.key,
                message="no index names it",
                # It may have been named until a moment ago: twice the grace is time enough to sweep it.
                is_harmless=age_ms <= 2 * depth.grace_ms,
            )
