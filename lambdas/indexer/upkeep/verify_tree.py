"""Checks the tree: whether shards, cards, records, artifacts and attestations agree."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError, UnreadableError, VanishedError
from lambdas.channel.layout import ATTESTATIONS_SUFFIX, is_artifact_like, parse_artifact_key, parse_attestations_copy
from lambdas.channel.names import PackageName
from lambdas.indexer.change.differences import list_changed_attestations, list_current
from lambdas.indexer.change.recorded import is_same
from lambdas.indexer.tree.cards import Card, Cards
from lambdas.indexer.tree.patches import PatchInstructions
from lambdas.indexer.tree.shards import Shard, decode_shard, encode_shard, iter_records, make_shard
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.indexer.upkeep.findings import Depth, Finding, Problem
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectInfo, ObjectStorage


class TreeVerifier:
    """Checks the shards of one subdir against its listing."""

    def __init__(self, subdir: Subdir, depth: Depth) -> None:
        self._subdir = subdir
        self._storage = subdir.storage
        self._depth = depth
        self._artifacts: dict[str, ObjectInfo] = {}
        """By filename, with files that are named like an artifact and can't be indexed."""
        self._attestations: dict[str, ObjectInfo] = {}
        """By the artifact's filename."""
        self._copies: dict[str, ObjectInfo] = {}
        """The immutable copies of attestations, by filename."""
        self._oldest_versions: dict[str, str | None] = {}
        """Of artifacts, with the same ETag, by filename; where it is another than the current version."""
        prefix = subdir.layout.prefix
        for info, oldest_version in list_current(subdir.storage, prefix):
            filename = info.key[len(prefix) :]
            if "/" in filename:
                continue  # shards, or what can't be indexed
            if oldest_version != info.version:
                self._oldest_versions[filename] = oldest_version
            artifact = filename.removesuffix(ATTESTATIONS_SUFFIX)
            if is_artifact_like(filename):
                (self._artifacts if artifact == filename else self._attestations)[artifact] = info
            elif parse_attestations_copy(filename) is not None:
                self._copies[filename] = info
        self._unlisted = set(self._artifacts)
        self._recorded: dict[str, str] = {}
        """``{filename: hex SHA-256 of the attestations that its record names}``"""

    @property
    def has_artifacts(self) -> bool:
        """Whether the subdir has artifacts."""
        return bool(self._artifacts)

    @property
    def artifact_count(self) -> int:
        """The number of artifacts."""
        return len(self._artifacts)

    def read_shards(self, commit: Commit, names: Sequence[PackageName]) -> list[Shard | Finding]:
        """Return the shards of some names, or what is wrong with them."""
        return in_parallel(lambda name: self._read_shard(commit, name), names)

    def check_name(
        self, name: PackageName, shard: Shard, cards: Cards | None, patches: PatchInstructions | None
    ) -> Iterator[Finding]:
        """Yield what is wrong with the records of one name; ``patches`` is None if they are lost."""
        key = str(self._subdir)
        if cards is None:
            yield Finding(
                problem=Problem.CARDS_MISSING, key=key, message=f"the cards of {name!r} are missing or unreadable"
            )
        elif patches is not None and encode_shard(make_shard(cards, patches)) != encode_shard(shard):
            yield Finding(
                problem=Problem.SHARD_NOT_FROM_CARDS,
                key=key,
                message=f"the shard of {name!r} is not what its cards and the patches make",
            )
        self._recorded |= _recorded_attestations(shard, cards)
        yield from self._check_records(shard, cards or {})
        self._unlisted -= {filename for filename, _ in iter_records(shard)} | set(shard.removed)

    def finish(self) -> Iterator[Finding]:
        """Yield what no record accounts for; call it once, after every name."""
        for filename in sorted(self._unlisted):
            key = self._subdir.layout.file(filename)
            try:
                parse_artifact_key(key)
                message = "the index does not list it"
            except InvalidNameError as error:
                message = f"the index can't list it: {error}"
            yield Finding(problem=Problem.ARTIFACT_WITHOUT_RECORD, key=key, message=message)
        yield from self._check_attestations()
        yield from self._check_attestation_copies()

    def _read_shard(self, commit: Commit, name: PackageName) -> Shard | Finding:
        sha256 = commit.index.shards[name]
        key = self._subdir.layout.shard(sha256)
        stored = self._storage.get(key)
        if stored is None:
            return Finding(problem=Problem.SHARD_MISSING, key=key, message=f"the index names it for {name!r}")
        if hashlib.sha256(stored.body).hexdigest() != sha256:
            return Finding(problem=Problem.SHARD_BROKEN, key=key, message="its hash is not what its name says")
        try:
            return decode_shard(stored.body)
        except InvalidDocumentError as error:
            return Finding(problem=Problem.SHARD_BROKEN, key=key, message=str(error))

    def _check_records(self, shard: Shard, cards: Cards) -> Iterator[Finding]:
        # Yanked artifacts have no record, and lock files still lead to them.
        yanked = {name: cards[name].record for name in shard.removed if name in cards and name in self._artifacts}
        for filename, record in (*iter_records(shard), *yanked.items()):
            info, key = self._artifacts.get(filename), self._subdir.layout.file(filename)
            if info is None:
                yield Finding(problem=Problem.RECORD_WITHOUT_ARTIFACT, key=key, message="the artifact is missing")
                continue
            try:
                message = self._describe_difference(info, record, cards.get(filename))
            except UnreadableError as error:
                yield Finding(problem=Problem.ARTIFACT_UNREADABLE, key=key, message=str(error))
                continue
            if message is not None:
                yield Finding(problem=Problem.HASH_MISMATCH, key=key, message=message)

    def _describe_difference(self, info: ObjectInfo, record: Mapping[str, Any], card: Card | None) -> str | None:
        """Say how an artifact differs from its record; it is read if it may have changed since it was indexed.

        Raises:
            UnreadableError: it can't be read.
        """
        oldest_version = self._oldest_versions.get(info.key.rpartition("/")[2], info.version)
        has_changed = card is not None and not is_same(card.etag, card.version, info, oldest_version)
        if info.size != record["size"]:
            self._storage.check_readable(info)
            return f"{info.size} bytes, and the record says {record['size']}"
        if self._depth.read_artifacts or has_changed or info.is_archived:
            return _compare_hashes(self._storage, info.key, record)
        return None

    def _check_attestations(self) -> Iterator[Finding]:
        """Check that the records name the attestations in the bucket."""
        found, recorded = self._attestations, self._recorded
        for filename in sorted(found.keys() - recorded.keys()):
            is_alone = filename not in self._artifacts
            yield Finding(
                problem=Problem.ATTESTATIONS_WITHOUT_RECORD,
                key=found[filename].key,
                message="there is no such artifact" if is_alone else "no record names them",
                is_harmless=is_alone,
            )
        for filename in sorted(recorded.keys() - found.keys()):
            yield Finding(
                problem=Problem.ATTESTATIONS_MISMATCH,
                key=self._subdir.layout.attestations(filename),
                message="the record names them, and they are missing",
            )
        copies = {} if self._depth.read_artifacts else self._recorded_copies()
        for filename in sorted(list_changed_attestations(self._storage, found, copies, recorded)):
            yield Finding(
                problem=Problem.ATTESTATIONS_MISMATCH,
                key=found[filename].key,
                message="the record names others",
            )

    def _check_attestation_copies(self) -> Iterator[Finding]:
        copies = self._recorded_copies()
        for filename, sha256 in sorted(self._recorded.items()):
            key = self._subdir.layout.attestations_copy(filename, sha256)
            if filename not in copies:
                yield Finding(
                    problem=Problem.ATTESTATIONS_MISMATCH, key=key, message="the record names it, and it is missing"
                )
            elif self._depth.read_artifacts and _hash(self._storage, key) != sha256:
                yield Finding(problem=Problem.HASH_MISMATCH, key=key, message="its hash is not what its name says")

    def _recorded_copies(self) -> dict[str, ObjectInfo]:
        """Return the immutable copies that records name, by the artifact's filename."""
        by_artifact = {parse_attestations_copy(name): info for name, info in self._copies.items()}
        return {
            filename: by_artifact[filename, sha256]
            for filename, sha256 in self._recorded.items()
            if (filename, sha256) in by_artifact
        }


def check_patches(subdir: Subdir, commit: Commit) -> Iterator[Finding]:
    """Check that the patch instructions in the bucket are in force."""
    key = subdir.layout.patch_instructions
    sha256 = _hash(subdir.storage, key)
    if sha256 is None and commit.index.patches_sha256 is not None:
        yield Finding(problem=Problem.PATCHES_NOT_IN_FORCE, key=key, message="they are missing, and still in force")
    elif sha256 != commit.index.patches_sha256:
        yield Finding(problem=Problem.PATCHES_NOT_IN_FORCE, key=key, message="others are in force, or none")


def list_unreferenced(subdir: Subdir, commit: Commit, depth: Depth) -> Iterator[Finding]:
    """Yield shards that the commit does not name."""
    referenced = set(commit.index.shards.values())
    for info in subdir.storage.list_objects(subdir.layout.shards_prefix):
        if subdir.layout.shard_of(info.key) not in referenced:
            yield Finding(
                problem=Problem.UNREFERENCED_SHARD,
                key=info.key,
                message="no commit names it",
                # It may have been named until a moment ago: garbage is collected within twice the grace period.
                is_harmless=depth.now_ms - info.last_modified_ms <= 2 * depth.grace_ms,
            )


def _recorded_attestations(shard: Shard, cards: Cards | None) -> dict[str, str]:
    """Return ``{filename: hex SHA-256 of its attestations}``; cards know those of yanked artifacts as well."""
    if cards is not None:
        return {name: card.attestations_sha256 for name, card in cards.items() if card.attestations_sha256 is not None}
    records = dict(iter_records(shard))
    return {name: record["attestations_sha256"] for name, record in records.items() if "attestations_sha256" in record}


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


def _hash(storage: ObjectStorage, key: str) -> str | None:
    """Return the hex SHA-256 of an object; None if it is missing, and no hash if it can't be read."""
    try:
        stored = storage.get(key)
    except UnreadableError:
        return ""
    return None if stored is None else hashlib.sha256(stored.body).hexdigest()
