"""Rebuilds an index from its artifacts alone."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lambdas.channel.errors import RejectedError
from lambdas.channel.layout import ArtifactKey, is_artifact_like, parse_key
from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report, SubdirKeys
from lambdas.indexer.quarantine.rejections import invalid_key_rejection
from lambdas.indexer.tree.subdir import Subdir
from lambdas.indexer.upkeep.listing import list_files
from lambdas.indexer.upkeep.reconcile import check_key

_PROGRESS_STEP: Final = 100
Progress = Callable[[str], None]


def rebuild(
    subdir: Subdir,
    indexer: Indexer,
    *,
    replaceable: frozenset[ArtifactKey] = frozenset(),
    progress: Progress = lambda _: None,
) -> Report:
    """Make one subdir's index again from its artifacts.

    Where the index tells an artifact's SHA-256, other bytes are rejected, unless it is ``replaceable``.

    The time at which each artifact was first indexed is kept (CEP 47), because no artifact contains it.
    """
    artifacts: set[ArtifactKey] = set()
    invalid_keys: dict[str, RejectedError] = {}
    for filename, info in list_files(subdir):
        if not is_artifact_like(filename):
            continue
        if errors := dict(check_key(info.key)):
            invalid_keys |= {key: invalid_key_rejection(error) for key, error in errors.items()}
        elif isinstance(key := parse_key(info.key), ArtifactKey):
            artifacts.add(key)
    rejected = indexer.reject(invalid_keys)
    keys = SubdirKeys(artifacts=frozenset(artifacts), attestations=frozenset(artifacts), patches=True)
    rules = ReadingRules(on_read=_count_reads(subdir, len(artifacts), progress))
    report = indexer.rebuild(subdir.id, keys, replaceable=replaceable, rules=rules)
    return replace(
        report, outcomes=(*rejected.outcomes, *report.outcomes), failures={**rejected.failures, **report.failures}
    )


def _count_reads(subdir: Subdir, total: int, progress: Progress) -> Callable[[], None]:
    """Return a function that is called for each artifact that was read, and reports some of the calls."""
    progress(f"{subdir}: reading {total} artifacts")
    numbers = itertools.count(1)

    def count() -> None:
        number = next(numbers)
        if number % _PROGRESS_STEP == 0 and number < total:
            progress(f"{subdir}: {number} of {total} artifacts read")
        elif number == total:
            progress(f"{subdir}: all artifacts read; writing the index")

    return count
