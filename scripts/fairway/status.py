"""``fairway status``: the state of uploads, decided from what is in the bucket."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import click

from lambdas.channel.errors import InvalidNameError, UnavailableError, UnreadableError, UsageError
from lambdas.channel.layout import PATCH_INSTRUCTIONS, ArtifactKey, is_artifact_like, is_subdir_key, parse_artifact_key
from lambdas.indexer.model import Rejection
from lambdas.indexer.outputs.registry import REPODATA, ZSTD
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.quarantine.rejections import fetch_rejections
from lambdas.indexer.spliced.files import is_large
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.shards import Shard, iter_records
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.protocol import ObjectInfo, ObjectStorage
from scripts.fairway.channel_status import show_channels
from scripts.fairway.session import Session, with_session
from scripts.fairway.targets import is_channel
from scripts.fairway.terminal import format_table
from scripts.fairway.waiting import with_wait

POLL_SECONDS: Final = 0.5
RECENT_SECONDS: Final = 60 * 60
"""A rejection within this time decides the state; an older one is shown beside the state of the artifact."""
_ANY_BYTES: Final[Mapping[ArtifactKey, str]] = MappingProxyType({})


class State(Enum):
    """The state of an upload."""

    INDEXED = "indexed"  # every client can install it
    WAITING = "waiting"  # uploaded, but not indexed yet
    REJECTED = "rejected"
    YANKED = "yanked"  # downloadable, but not in the index
    REPLACED = "replaced"  # other bytes are indexed under its key
    REMOVED = "removed"  # the artifact was deleted; its record is still in the index
    UNKNOWN = "unknown"  # nothing was uploaded under this key


FINAL_STATES: Final = frozenset({State.INDEXED, State.REJECTED, State.YANKED, State.REPLACED})


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadStatus:
    """The state of one key, with its record and rejection if there are any."""

    key: str
    state: State
    record: dict[str, Any] | None = None
    rejection: Rejection | None = None
    """If the state is not REJECTED: of a later upload under the same key."""
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "key": self.key,
            "state": self.state.value,
            "record": self.record,
            "rejection": None if self.rejection is None else asdict(self.rejection),
            "hint": self.hint,
        }


def decide_status(
    key: ArtifactKey,
    info: ObjectInfo | None,
    card: Card | None,
    shard: Shard | None,
    rejection: Rejection | None,
    *,
    is_flat: bool,
    since_ms: int = 0,
    sha256: str | None = None,
) -> UploadStatus:
    """Decide the state of an upload from what is in the bucket. Pure.

    With ``sha256``, the result is about an upload of exactly these bytes. Without it, the result is
    about the last upload: a rejection decides the state if it was uploaded at or after ``since_ms``, or
    if there is no artifact; an older rejection is returned beside the state of the artifact.

    ``is_flat`` is true if ``repodata.json`` shows the commit that has the shard. ``rejection`` is the
    latest one under the key.
    """
    record = None if shard is None else dict(iter_records(shard)).get(key.filename)
    is_inspected = info is not None and card is not None and card.etag == info.etag
    if rejection is not None and info is not None and _uploaded_ms(rejection) < info.last_modified_ms:
        rejection = None  # the artifact was uploaded later
    is_other = sha256 is not None and (card is None or card.sha256 != sha256)
    if is_other:
        record = None
    if sha256 is not None and is_inspected and not is_other:
        rejection = None  # it is about other bytes
    if rejection is not None and (info is None or sha256 is not None or _uploaded_ms(rejection) >= since_ms):
        state = State.REJECTED
    elif info is None:
        state = State.UNKNOWN if card is None else State.REMOVED
    elif not is_inspected:
        state = State.WAITING
    elif is_other:
        state = State.REPLACED
    elif record is None:
        state = State.YANKED
    else:
        state = State.INDEXED if is_flat else State.WAITING
    return UploadStatus(key=str(key), state=state, record=record, rejection=rejection)


def fetch_status(storage: ObjectStorage, key: ArtifactKey, *, since_ms: int, sha256: str | None = None) -> UploadStatus:
    """Fetch what ``decide_status`` needs, and return its decision."""
    # The artifact first: the index that is read afterwards is at least as new.
    try:
        info = storage.head(str(key))
    except UnreadableError as error:
        return UploadStatus(key=str(key), state=State.WAITING, hint=f"{error}; the indexer will reject it")
    subdir = open_subdir(storage, key.subdir)
    commit = subdir.fetch_commit()
    names = [key.distribution.name] if key.distribution.name in commit.index.shards else []
    cards = subdir.fetch_cards(commit.index, names).get(key.distribution.name) or {}
    shard = subdir.fetch_shards(commit.index, names).get(key.distribution.name)
    flat = storage.head(subdir.layout.file(REPODATA.name + ZSTD.suffix))
    if not is_large(flat):  # written last; in a large subdir it is deferred, and clients read the .zst
        flat = storage.head(subdir.layout.file(REPODATA.name))
    rejections = fetch_rejections(storage, str(key))
    status = decide_status(
        key,
        info,
        cards.get(key.filename),
        shard,
        rejections[-1] if rejections else None,
        is_flat=flat is not None and flat.metadata.get(COMMIT) == commit.sha256,
        since_ms=since_ms,
        sha256=sha256,
    )
    if status.state == State.UNKNOWN and storage.head(str(key.subdir)) is not None:
        hint = f"there is an object {str(key.subdir)!r}: end the target of 'aws s3 cp' with a slash"
        return replace(status, hint=hint)
    return status


def fetch_rejected(storage: ObjectStorage, key: str) -> UploadStatus:
    """Return the state of a key that is not an artifact key: it may be rejected, or about to be."""
    info = storage.head(key)  # first: a rejection is written before the object is deleted
    rejections = fetch_rejections(storage, key)
    if rejections and (info is None or _uploaded_ms(rejections[-1]) >= info.last_modified_ms):
        return UploadStatus(key=key, state=State.REJECTED, rejection=rejections[-1])
    is_waiting = info is not None and (is_artifact_like(key) or is_subdir_key(key))
    return UploadStatus(key=key, state=State.WAITING if is_waiting else State.UNKNOWN)


def wait_for(
    session: Session,
    keys: Sequence[ArtifactKey | str],
    *,
    timeout_seconds: float,
    sha256s: Mapping[ArtifactKey, str] = _ANY_BYTES,
) -> list[UploadStatus]:
    """Wait until every upload has a final state, or until the timeout.

    Keys that are not artifact keys are given as text. ``sha256s`` holds the hashes of the uploads if
    they are known.
    """
    deadline = time.monotonic() + timeout_seconds
    since_ms = (session.now - RECENT_SECONDS) * 1000  # fixed, however long the wait
    found: dict[ArtifactKey | str, UploadStatus] = {}
    while True:
        for key in keys:
            if key not in found or found[key].state not in FINAL_STATES:
                if isinstance(key, str):
                    found[key] = fetch_rejected(session.storage, key)
                else:
                    found[key] = fetch_status(session.storage, key, since_ms=since_ms, sha256=sha256s.get(key))
        waiting = sum(status.state not in FINAL_STATES for status in found.values())
        if waiting and timeout_seconds and time.monotonic() >= deadline:
            session.note(
                f"timed out after {timeout_seconds:g} s: {waiting} of {len(found)} uploads are not indexed yet"
            )
        if not waiting or time.monotonic() >= deadline:
            return [found[key] for key in keys]
        time.sleep(POLL_SECONDS)


def wait_for_state(session: Session, keys: Sequence[ArtifactKey], wanted: State, *, timeout_seconds: float) -> None:
    """Wait until all artifacts have a state.

    Raises:
        UnavailableError: one still had another state at the timeout.
    """
    deadline = time.monotonic() + timeout_seconds
    for key in keys:
        # A later upload that was rejected says nothing about the artifact that is indexed.
        while (state := fetch_status(session.storage, key, since_ms=session.now * 1000).state) != wanted:
            if time.monotonic() >= deadline:
                raise UnavailableError(
                    f"timed out after {timeout_seconds:.0f} s: {key} is {state.value}, not {wanted.value}",
                    hint=f"wait longer (--timeout), or see 'fairway status {key}'",
                )
            time.sleep(POLL_SECONDS)


def format_statuses(statuses: Sequence[UploadStatus]) -> list[str]:
    """Return the states as lines for people."""
    lines = format_table(("UPLOAD", "STATE"), [(status.key, status.state.value) for status in statuses])
    for status in statuses:
        if status.rejection is not None:
            later = (
                ""
                if status.state == State.REJECTED
                else f"a later upload, {status.rejection.uploaded_at}, was rejected: "
            )
            lines += ["", f"{status.key}: {later}{status.rejection.message} [{status.rejection.code}]"]
            if status.rejection.hint:
                lines.append(f"  hint: {status.rejection.hint}")
            lines.append(f"  details: fairway rejected show {status.key}")
        if status.hint is not None:
            lines += ["", f"{status.key}: {status.hint}"]
    return lines


@click.command(
    epilog="""\b
Examples:
  fairway status tools/noarch/hello-1.0-0.conda
  fairway status --wait s3://BUCKET/tools/linux-64/hello-1.0-h1_0.conda
  fairway status --json tools/noarch/hello-1.0-0.conda | jq -r .state
  fairway status tools

\b
States:
  indexed   every client can install it
  waiting   uploaded, but not indexed yet
  rejected  moved to the quarantine, with a reason
  yanked    downloadable, but not in the index
  removed   deleted; its record will be removed as well
  unknown   nothing was uploaded under this key

If an upload was rejected within the last hour, its state is 'rejected', even if an earlier artifact
is still served under that name. After that hour, the state is that of the earlier artifact, and the
rejection is shown beside it.

Of a channel, or of all channels if none is named, the number of subdirs is shown, and which of them
exceed the limit.

Exit code 0 if all uploads are indexed and no limit is exceeded, 1 if not, 2 on a usage error.
"""
)
@click.argument("keys", nargs=-1, metavar="[CHANNEL/SUBDIR/FILENAME...|CHANNEL...]")
@with_wait("each is indexed, rejected or yanked")
@with_session
def status(session: Session, keys: tuple[str, ...], *, wait: float | None) -> int:
    """Show the status of uploads, or of channels."""
    if all(is_channel(key) and not is_artifact_like(key) and key != PATCH_INSTRUCTIONS for key in keys):
        return show_channels(session, keys)
    parsed: list[ArtifactKey | str] = []
    errors: list[InvalidNameError] = []
    for key in [strip_bucket(session, key) for key in keys]:
        try:
            parsed.append(parse_artifact_key(key))
        except InvalidNameError as error:  # it may be of an upload that is, or will be, rejected
            if fetch_rejected(session.storage, key).state == State.UNKNOWN:
                errors.append(error)
            else:
                parsed.append(key)
    if errors and not parsed:
        raise errors[0]
    found = wait_for(session, parsed, timeout_seconds=wait or 0)
    document = [one.to_json() for one in found]
    session.show(document[0] if len(keys) == 1 else document, format_statuses(found))
    if errors:  # after the states of the other keys
        raise errors[0]
    return 0 if all(one.state == State.INDEXED for one in found) else 1


def strip_bucket(session: Session, text: str) -> str:
    """Return ``KEY`` for ``s3://BUCKET/KEY``, and other text unchanged.

    Raises:
        UsageError: the bucket is another one.
    """
    if not text.startswith("s3://"):
        return text
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if bucket != session.require_bucket():
        raise UsageError(f"{text!r} is not in the bucket {session.bucket!r}", hint="see --bucket")
    return key


def _uploaded_ms(rejection: Rejection) -> int:
    return round(datetime.fromisoformat(rejection.uploaded_at).timestamp() * 1000)
