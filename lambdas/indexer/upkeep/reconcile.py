"""Reconciles an index with its listing: finds what events did not say, and indexes it as they do.

The listing also shows uploads under keys where nothing can be indexed, and attestations that differ
from the immutable copy beside them.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from lambdas.channel.errors import DeadlineError, InvalidNameError, RejectedError, UnreadableError
from lambdas.channel.layout import (
    PRIVATE_PREFIX,
    ChannelLayout,
    is_artifact_like,
    is_subdir_key,
    parse_key,
)
from lambdas.channel.names import Channel
from lambdas.indexer.artifacts.attestations import MAX_READ_BYTES, hash_attestations, hash_mismatch
from lambdas.indexer.change.differences import compare, list_current
from lambdas.indexer.change.inspect import UNHURRIED, ReadingRules
from lambdas.indexer.change.recorded import fetch_rows, keep, read_kept, summarize, without
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report, SubdirKeys
from lambdas.indexer.quarantine.rejections import invalid_key_rejection
from lambdas.indexer.quarantine.unreadable import not_readable
from lambdas.indexer.tree.subdir import ForeignIndexError, Subdir
from lambdas.indexer.upkeep.listing import is_channel, is_subdir
from lambdas.storage.protocol import ObjectStorage

DAY_MS: Final = 24 * 60 * 60 * 1000
BATCH: Final = 2000
"""Artifacts that are indexed at a time: bounds memory, and what is lost when time runs out."""

_REJECTIONS_AT_ONCE: Final = 500


def list_invalid_keys(storage: ObjectStorage, channel: Channel | None) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield uploads named like an artifact in a channel, but in no subdir: ``(key, error)``.

    For None, those outside all channels. Only folders in which nothing is indexed are listed whole.
    """
    prefix = "" if channel is None else ChannelLayout(channel=channel).prefix
    for info in storage.list_files(prefix):
        yield from check_key(info.key)
    is_indexed = is_channel if channel is None else is_subdir
    for name in storage.list_folders(prefix):
        if not is_indexed(name) and f"{prefix}{name}/" != PRIVATE_PREFIX:
            for info in storage.list_objects(f"{prefix}{name}/"):
                yield from check_key(info.key)


def reject_invalid_keys(storage: ObjectStorage, indexer: Indexer, channel: Channel | None) -> Iterator[Report]:
    """Reject uploads under invalid keys, in batches; yields a report for each."""
    yield from _reject(indexer, list_invalid_keys(storage, channel))


def reconcile(
    subdir: Subdir, indexer: Indexer, *, deep: bool = True, rules: ReadingRules = UNHURRIED
) -> Iterator[Report]:
    """Make one subdir's index agree with its listing, in batches; yields a report for each.

    At least one batch is run, even if nothing differs: it brings outputs up to date and inspects the
    patch instructions. With ``deep``, uploads in folders of the subdir are rejected as well, and copies of
    attestations that are not what their name says. Without it, as in a directory, folders are not listed, and a
    copy of what cards say of objects is kept between runs. Once the time for reading is over, no further batch is
    run: the last report has a ``DeadlineError``, for the key that asks for the rest.
    """
    try:
        commit = subdir.fetch_commit()
    except ForeignIndexError:  # healing reconciles as well
        yield indexer.index(subdir.id, SubdirKeys(patches=True, deferred=True), rules=rules)
        commit = subdir.fetch_commit()
    known = {} if deep else read_kept(subdir)
    rows = fetch_rows(subdir, commit, known)
    prefix = subdir.layout.prefix
    listed = (
        list_current(subdir.storage, prefix)
        if deep
        else ((info, info.version) for info in subdir.storage.list_files(prefix))
    )
    differences = compare(subdir, summarize(rows), listed)
    waiting = sorted(differences.artifacts | differences.attestations, key=str)
    inspected = {key.distribution.name for key in waiting}
    first = True
    while first or waiting:
        if not first and rules.is_over():
            key = subdir.layout.whole
            yield Report(outcomes=(), failures={key: DeadlineError(f"{len(waiting)} keys are left in {str(subdir)!r}")})
            return
        batch, waiting = frozenset(waiting[:BATCH]), waiting[BATCH:]
        yield indexer.index(
            subdir.id,
            SubdirKeys(
                artifacts=batch & differences.artifacts,
                attestations=batch & differences.attestations,
                patches=first,
                deferred=not waiting,
            ),
            rules=rules,
        )
        first = False
    # Last: however many they are, they keep nothing from being indexed.
    yield from _reject(indexer, differences.invalid_keys.items())
    if deep:
        yield from _reject(indexer, differences.nested_keys.items())
        # One by one: a wrong copy is rejected at once, before another writer can put it right.
        for key, etag, error in list_wrong_copies(subdir.storage, differences.new_copies):
            yield indexer.reject({key: error}, etags={} if etag is None else {key: etag})
    else:
        # Cards may have changed behind a shard that did not: those of names that were inspected are read again.
        keep(subdir, fetch_rows(subdir, subdir.fetch_commit(), without(rows, inspected)), known=known)


def list_wrong_copies(storage: ObjectStorage, keys: Iterable[str]) -> Iterator[tuple[str, str | None, RejectedError]]:
    """Yield the immutable copies of attestations whose hash is not the one in their name: ``(key, ETag, error)``.

    The ETag is None for a copy that can't be read.
    """
    for key in keys:
        try:
            found = storage.fetch(key, max_bytes=MAX_READ_BYTES)
        except UnreadableError as error:
            yield key, None, not_readable(error)
            continue
        if found is not None and (found.body is None or hash_attestations(found.body) != key.rpartition(".")[2]):
            yield key, found.info.etag, hash_mismatch()


def check_key(key: str) -> Iterator[tuple[str, InvalidNameError]]:
    """Yield the key and an error, if it was meant to be an artifact and can't be indexed there."""
    if is_artifact_like(key) or is_subdir_key(key):
        try:
            parse_key(key)
        except InvalidNameError as error:
            yield key, error


def _reject(indexer: Indexer, invalid_keys: Iterable[tuple[str, InvalidNameError]]) -> Iterator[Report]:
    waiting = iter(invalid_keys)
    while batch := {key: invalid_key_rejection(error) for key, error in islice(waiting, _REJECTIONS_AT_ONCE)}:
        yield indexer.reject(batch)
