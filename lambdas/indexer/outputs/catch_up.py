"""Brings outputs up to the latest commit, whichever run made it.

The last writer to commit updates the outputs; the others leave it to it. If it crashes, its messages
are redelivered and the next run updates them, as does the daily reconciliation.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from lambdas.channel.errors import ConflictError
from lambdas.channel.names import PackageName, SubdirId, SubdirName
from lambdas.indexer.model import LIMITS, Limits, Outputs
from lambdas.indexer.outputs.channel import update_channel
from lambdas.indexer.outputs.channel_tree import Committed
from lambdas.indexer.outputs.registry import REPODATA, wanted_subdir_filenames
from lambdas.indexer.outputs.subdir import SubdirUpdater, Updated
from lambdas.indexer.tree.index_files import head_file
from lambdas.indexer.tree.reader import CommitReader
from lambdas.indexer.tree.shard_index import empty_index
from lambdas.indexer.tree.subdir import Commit, EncodedShard, Subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ObjectStorage
from lambdas.storage.retry import retry_conflicts


@dataclass(frozen=True, kw_only=True, slots=True)
class CatchUp:
    """Updates outputs until they show the latest commit."""

    storage: ObjectStorage
    outputs: Outputs
    limits: Limits = LIMITS
    is_rebuild: bool = False
    """Write every file again, whatever is there."""
    may_defer: bool = False
    """Defer what takes long to write in large subdirs and channels."""
    remove_unwanted: bool = False
    """Delete files that are outputs and that this deployment does not write."""
    bases: Mapping[SubdirId, Commit] = field(default_factory=dict)
    """The commits that a run began with: outputs usually show them, and not every storage keeps old versions."""
    sleep: Callable[[float], None] = time.sleep

    def update_subdir(self, subdir: Subdir, commit: Commit, known: Mapping[PackageName, EncodedShard]) -> bool:
        """Bring a subdir's outputs up to date, unless another run has committed since.

        Return whether files were deferred.

        ``known`` is what was committed, so that it is not read again.

        Raises:
            ConflictError: others were quicker every time.
        """
        current = commit
        remove_unwanted = self.remove_unwanted

        def attempt() -> bool:
            nonlocal current, remove_unwanted
            reader = CommitReader(subdir, current, known, base=self.bases.get(subdir.id))
            updated = self._update(reader, remove_unwanted=remove_unwanted)
            is_latest = subdir.fetch_etag() == current.etag
            if is_latest and not updated.was_lost:
                return updated.has_deferred
            if not is_latest:
                if not updated.has_written:
                    return False  # the other run updates them
                # What we wrote may have replaced what the later run wrote: an ETag says which bytes are
                # there, and the same bytes come back when a change is undone. So inspect once more.
                # That includes outputs that the later commit doesn't want any more.
                current = subdir.fetch_commit()
                remove_unwanted = True
            raise ConflictError(f"{subdir} kept changing")

        return retry_conflicts(attempt, sleep=self.sleep)

    def update_channel(self, committed: Committed, *, declared: Collection[SubdirName], compare_all: bool) -> bool:
        """Bring the outputs of a channel up to date; return whether they were deferred.

        Without ``compare_all``, for the subdir that was committed to and ``noarch`` alone, if that suffices: it
        does not if a ``declared`` subdir has not been shown yet.

        Raises:
            ConflictError: others were quicker every time.
        """
        return retry_conflicts(
            lambda: update_channel(
                self.storage,
                committed.subdir.channel,
                outputs=self.outputs,
                limits=self.limits,
                committed=committed,
                declared=declared,
                compare_all=compare_all,
                may_defer=self.may_defer,
                is_rebuild=self.is_rebuild,
                remove_unwanted=self.remove_unwanted,
            ),
            sleep=self.sleep,
        )

    def is_complete(self, subdir: Subdir) -> bool:
        """Tell whether a subdir has a commit and all outputs, whichever commit they show."""
        layout = subdir.layout
        if subdir.fetch_etag() is None:
            return False
        wanted = set(wanted_subdir_filenames(self.outputs, empty_index(subdir.id.name)))
        if self.outputs.max_repodata_bytes is not None:  # then it may have been removed
            wanted.discard(REPODATA.name)
        return None not in in_parallel(lambda name: head_file(self.storage, layout.file(name)), wanted)

    def _update(self, reader: CommitReader, *, remove_unwanted: bool) -> Updated:
        updater = SubdirUpdater(
            reader,
            self.outputs,
            self.limits,
            is_rebuild=self.is_rebuild,
            may_defer=self.may_defer,
            remove_unwanted=remove_unwanted,
        )
        return updater.update()
