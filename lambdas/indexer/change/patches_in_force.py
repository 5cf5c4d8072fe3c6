"""Which patch instructions are in force in a subdir: the last good ones that an operator uploaded."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lambdas.channel.errors import InvalidDocumentError, InvalidNameError, RejectedError, UnreadableError, VanishedError
from lambdas.channel.layout import parse_artifact_key
from lambdas.channel.names import PackageName
from lambdas.indexer.change.results import Results
from lambdas.indexer.quarantine.quarantine import Quarantine
from lambdas.indexer.quarantine.unreadable import find_unreadable
from lambdas.indexer.tree.patches import NO_PATCHES, PatchInstructions, check_protected, parse_patches
from lambdas.indexer.tree.subdir import Commit, Subdir

_CHECKED_TOGETHER: Final = 100  # names whose cards are in memory at once
MAX_REJECTED_VERSIONS: Final = 20  # bad versions of one key that one run rejects


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchesInForce:
    """Patch instructions, and the hash by which a commit names them."""

    instructions: PatchInstructions
    sha256: str | None
    """Hex; None if there are none."""


def fetch_in_force(subdir: Subdir, base: Commit, quarantine: Quarantine, results: Results) -> PatchesInForce:
    """Return the patch instructions that a commit names; if they are lost, those that are in the bucket.

    Raises:
        VanishedError: they kept changing.
    """
    sha256 = base.index.patches_sha256
    try:
        return PatchesInForce(instructions=subdir.fetch_patches(sha256), sha256=sha256)
    except (InvalidDocumentError, RejectedError):
        return inspect_patches(subdir, base, quarantine, results)


def inspect_patches(subdir: Subdir, base: Commit, quarantine: Quarantine, results: Results) -> PatchesInForce:
    """Return the patch instructions that are in the bucket now; invalid ones are rejected.

    Raises:
        VanishedError: they kept changing.
    """
    key = subdir.layout.patch_instructions
    for _ in range(MAX_REJECTED_VERSIONS):
        try:
            stored = subdir.storage.get(key)
        except UnreadableError:
            results.add_rejection(quarantine.reject(*find_unreadable(subdir.storage, key)))
            continue
        if stored is None:
            if base.index.patches_sha256 is not None:
                results.add(key, "removed")
            return PatchesInForce(instructions=NO_PATCHES, sha256=None)
        sha256 = hashlib.sha256(stored.body).hexdigest()
        if sha256 == base.index.patches_sha256:
            results.add(key, "unchanged")
            return _restore(subdir, sha256, stored.body)
        try:
            # A file's times may be older than the file: what is past by now is past.
            uploaded_ms = max(stored.info.last_modified_ms, time.time_ns() // 10**6)
            instructions = parse_patches(stored.body, uploaded_ms=uploaded_ms)
            _check_protected(subdir, base, instructions)
        except RejectedError as error:
            # The earlier version becomes current again: the last good one stays in force.
            results.add_rejection(quarantine.reject(stored.info, error))
            if stored.info.version is None:  # no earlier version can come back: keep what is in force
                return _keep_in_force(subdir, base)
            continue
        subdir.put_patches(sha256, stored.body)
        results.add(key, "indexed")
        return PatchesInForce(instructions=instructions, sha256=sha256)
    raise VanishedError(f"{key!r} kept changing")


def _keep_in_force(subdir: Subdir, base: Commit) -> PatchesInForce:
    sha256 = base.index.patches_sha256
    try:
        return PatchesInForce(instructions=subdir.fetch_patches(sha256), sha256=sha256)
    except (InvalidDocumentError, RejectedError):  # unknown
        return PatchesInForce(instructions=NO_PATCHES, sha256=None)


def _check_protected(subdir: Subdir, base: Commit, instructions: PatchInstructions) -> None:
    """Hold what the instructions say of protected fields against the records of the commit.

    Raises:
        RejectedError: they would change one.
    """
    names = sorted(_names_of(subdir, instructions.protected) & base.index.shards.keys())
    for start in range(0, len(names), _CHECKED_TOGETHER):
        for cards in subdir.fetch_cards(base.index, names[start : start + _CHECKED_TOGETHER]).values():
            records = {
                filename: {**card.record, "attestations_sha256": card.attestations_sha256}
                for filename, card in (cards or {}).items()
            }
            check_protected(instructions, records)


def _restore(subdir: Subdir, sha256: str, body: bytes) -> PatchesInForce:
    """Return the patch instructions in force; if the indexer's copy is lost, it is stored again."""
    try:
        return PatchesInForce(instructions=subdir.fetch_patches(sha256), sha256=sha256)
    except (InvalidDocumentError, RejectedError):
        subdir.put_patches(sha256, body)
        return PatchesInForce(instructions=parse_patches(body), sha256=sha256)


def list_patched_names(subdir: Subdir, base: Commit, new: PatchInstructions) -> set[PackageName]:
    """Return the names whose records may change when ``new`` replaces the patch instructions in force."""
    try:
        old = subdir.fetch_patches(base.index.patches_sha256)
    except (InvalidDocumentError, RejectedError):  # unknown: they may have changed any record
        return set(base.index.shards)
    return _names_of(subdir, old.filenames | new.filenames) & base.index.shards.keys()


def _names_of(subdir: Subdir, filenames: Iterable[str]) -> set[PackageName]:
    names = set()
    for filename in filenames:
        try:
            names.add(parse_artifact_key(subdir.layout.file(filename)).distribution.name)
        except InvalidNameError:
            continue  # patches may name old artifacts that could not be indexed here
    return names
