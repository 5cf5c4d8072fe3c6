"""Indexes a batch of keys in any number of subdirs, for the queue's handler and for the command.

Keys are grouped by subdir over the whole batch, so that each subdir is committed once. One subdir that
fails does not stop the others (invariant 3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lambdas.channel.errors import FairwayError
from lambdas.channel.layout import ATTESTATIONS_SUFFIX
from lambdas.channel.names import SubdirId
from lambdas.indexer.change.inspect import UNHURRIED, ReadingRules
from lambdas.indexer.change.results import guard
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Report
from lambdas.indexer.quarantine.rejections import invalid_key_rejection
from lambdas.indexer.queue.work import plan_work


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """The results of a batch."""

    subdirs: Mapping[SubdirId, Report] = field(default_factory=dict)
    invalid_keys: Report = field(default_factory=lambda: Report(outcomes=(), failures={}))
    """Of uploads under keys where nothing can be indexed."""
    subdir_failures: Mapping[SubdirId, FairwayError] = field(default_factory=dict)
    """Subdirs that failed as a whole."""
    failures: Mapping[str, FairwayError] = field(default_factory=dict)
    """``{key: error}``: every key to be tried again."""


def index_batch(indexer: Indexer, keys: Iterable[str], *, rules: ReadingRules = UNHURRIED) -> BatchReport:
    """Index the objects under some keys; errors of single keys and subdirs are in the report."""
    work = plan_work(keys)
    rejected = indexer.reject({key: invalid_key_rejection(error) for key, error in work.invalid_keys.items()})
    failures: dict[str, FairwayError] = dict(rejected.failures)
    reports: dict[SubdirId, Report] = {}
    subdir_failures: dict[SubdirId, FairwayError] = {}
    for subdir, subdir_keys in work.subdirs.items():
        result = guard(
            lambda subdir=subdir, subdir_keys=subdir_keys: indexer.index(  # type: ignore[misc]  # defaults bind now
                subdir, subdir_keys, rules=rules
            ),
            f"index {subdir}",
        )
        if isinstance(result, FairwayError):
            subdir_failures[subdir] = result
            failures |= dict.fromkeys(subdir_keys.list_keys(subdir), result)
            continue
        reports[subdir] = result
        for key, failure in result.failures.items():
            failures |= {key: failure, f"{key}{ATTESTATIONS_SUFFIX}": failure}
    return BatchReport(subdirs=reports, invalid_keys=rejected, subdir_failures=subdir_failures, failures=failures)
