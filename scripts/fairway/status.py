"""``fairway status``: what became of an upload."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import click

from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.names import ArtifactKey, is_artifact_like, parse_artifact_key
from lambdas.indexer.model import Rejection
from lambdas.indexer.outputs.subdir import COMMIT, REPODATA
from lambdas.indexer.quarantine import fetch_rejections
from lambdas.indexer.spliced.files import is_large
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.commit import fetch_cards, fetch_commit, fetch_shards
from lambdas.indexer.tree.shards import Shard, iter_records
from lambdas.storage.protocol import ObjectInfo, ObjectStorage
from scripts.fairway.session import Session, format_table, with_session

POLL_SECONDS: Final = 0.5
RECENT_SECONDS: Final = 60 * 60
"""How long an upload is the one that is asked about: a rejection of an older one is told beside what is there."""
_ANY_BYTES: Final[Mapping[ArtifactKey, str]] = MappingProxyType({})


class State(Enum):
    """What became of an upload."""

    INDEXED = "indexed"  # every client can install it
    WAITING = "waiting"  # it is there, and the index does not say so yet
    REJECTED = "rejected"
    YANKED = "yanked"  # downloadable, and not in the index
    REPLACED = "replaced"  # it was there, and other bytes took its place
    REMOVED = "removed"  # the artifact is gone, its record not yet
    UNKNOWN = "unknown"  # nothing is known under this key


FINAL_STATES: Final = frozenset({State.INDEXED, State.REJECTED, State.YANKED, State.REPLACED})


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadStatus:
    """What is known of one key."""

    key: str
    state: State
    record: dict[str, Any] | None = None
    rejection: "Rejection | None" = None
    """Of the upload that is refused; where the state is another, of a later upload under the same key."""

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "key": self.key,
            "state": self.state.value,
            "record": self.record,
            "rejection": None if self.rejection is None else asdict(self.rejection),
        }


def decide_status(
    key: ArtifactKey,
    info: "ObjectInfo | None",
    card: "Card | None",
    shard: "Shard | None",
    rejection: "Rejection | None",
    *,
    is_flat: bool,
    since_ms: int = 0,
    sha256: str | None = None,
) -> UploadStatus:
    """Tell what became of an upload, from what lies in the bucket. Pure.

    Who knows the SHA-256 of what was uploaded is told of these bytes alone. Otherwise the last upload
    counts: one that was refused decides if it came since ``since_ms``, or if nothing else is there; a
    refused one from before is told beside what is there.

    ``is_flat`` says that the flat files show what the shard says. ``rejection`` is the latest.
    """
    record = None if shard is None else dict(iter_records(shard)).get(key.filename)
    is_read = info is not None and card is not None and card.etag == info.etag
    if rejection is not None and info is not None and _uploaded_ms(rejection) < info.last_modified_ms:
        rejection = None  # what is there came after it
    is_theirs = sha256 is not None and (card is None or card.sha256 != sha256)
    if is_theirs:
        record = None
    if sha256 is not None and is_read and not is_theirs:
        rejection = None  # of other bytes
    if rejection is not None and (info is None or sha256 is not None or _uploaded_ms(rejection) >= since_ms):
        state = State.REJECTED
    elif info is None:
        state = State.UNKNOWN if card is None else State.REMOVED
    elif not is_read:
        state = State.WAITING
    elif is_theirs:
        state = State.REPLACED
    elif record is None:
        state = State.YANKED
    else:
        state = State.INDEXED if is_flat else State.WAITING
    return UploadStatus(key=str(key), state=state, record=record, rejection=rejection)


def fetch_status(
    storage: "ObjectStorage", key: ArtifactKey, *, since_ms: int, sha256: str | None = None
) -> UploadStatus:
    """Look into the bucket and tell what became of an upload, as ``decide_status`` does."""
    # The artifact first: what is found of it in the index afterwards is at least as new.
    info = storage.head(str(key))
    commit = fetch_commit(storage, key.path)
    names = [key.distribution.name] if key.distribution.name in commit.index.shards else []
    cards = fetch_cards(storage, key.path, commit.index, names).get(key.distribution.name) or {}
    shard = fetch_shards(storage, key.path, commit.index, names).get(key.distribution.name)
    flat = storage.head(key.path.key(f"{REPODATA}.zst"))
    if not is_large(flat):  # the last one of the two, where it need not be waited for
        flat = storage.head(key.path.key(REPODATA))
    rejections = fetch_rejections(storage, str(key))
    return decide_status(
        key,
        info,
        cards.get(key.filename),
        shard,
        rejections[-1] if rejections else None,
        is_flat=flat is not None and flat.metadata.get(COMMIT) == commit.sha256,
        since_ms=since_ms,
        sha256=sha256,
    )


def fetch_refused(storage: "ObjectStorage", key: str) -> UploadStatus:
    """Do the same for a key that is no artifact's: all that is known of it is whether it was refused."""
    info = storage.head(key)  # first: a rejection is written before the object goes
    rejections = fetch_rejections(storage, key)
    if rejections and (info is None or _uploaded_ms(rejections[-1]) >= info.last_modified_ms):
        return UploadStatus(key=key, state=State.REJECTED, rejection=rejections[-1])
    waits = info is not None and is_artifact_like(key)
    return UploadStatus(key=key, state=State.WAITING if waits else State.UNKNOWN)


def wait_for(
    session: Session,
    keys: Sequence[ArtifactKey | str],
    *,
    timeout_seconds: float,
    sha256s: Mapping[ArtifactKey, str] = _ANY_BYTES,
) -> list[UploadStatus]:
    """Wait until each upload is indexed, refused or yanked, or time is up.

    What is no artifact's key is given as text. ``sha256s`` has what is known of the uploads' bytes.
    """
    deadline = time.monotonic() + timeout_seconds
    since_ms = (session.now - RECENT_SECONDS) * 1000  # however long we wait
    found: dict[ArtifactKey | str, UploadStatus] = {}
    while True:
        for key in keys:
            if key not in found or found[key].state not in FINAL_STATES:
                if isinstance(key, str):
                    found[key] = fetch_refused(session.storage, key)
                else:
                    found[key] = fetch_status(session.storage, key, since_ms=since_ms, sha256=sha256s.get(key))
        waiting = sum(status.state not in FINAL_STATES for status in found.values())
        if not waiting or time.monotonic() >= deadline:
            return [found[key] for key in keys]
        time.sleep(POLL_SECONDS)


def format_statuses(statuses: Sequence[UploadStatus]) -> str:
    """Lay statuses out for people."""
    lines = [format_table(("UPLOAD", "STATE"), [(status.key, status.state.value) for status in statuses])]
    for status in statuses:
        if status.rejection is not None:
            later = (
                ""
                if status.state == State.REJECTED
                else f"a later upload, {status.rejection.uploaded_at}, was refused: "
            )
            lines.append(f"\n{status.key}: {later}{status.rejection.message} [{status.rejection.code}]")
            if status.rejection.hint:
                lines.append(f"  hint: {status.rejection.hint}")
            lines.append(f"  the refused bytes: fairway rejected show {status.key}")
    return "\n".join(lines)


@click.command(
    epilog="""\b
Examples:
  fairway status tools/noarch/hello-1.0-0.conda
  fairway status --wait s3://BUCKET/tools/linux-64/hello-1.0-h1_0.conda
  fairway status --json tools/noarch/hello-1.0-0.conda | jq -r .state

\b
States:
  indexed   every client can install it        refused   it was set aside, with a reason
  waiting   the index does not say so yet      yanked    downloadable, but not in the index
  removed   gone; its record will follow       unknown   nothing lies under this key

An upload of the last hour that was refused is 'rejected', though an earlier artifact stays served
under its name. After that hour the state is the earlier artifact's, with the rejection beside it.

Exit code 0 if all are indexed, 1 if not, 2 for wrong usage.
"""
)
@click.argument("keys", nargs=-1, required=True, metavar="CHANNEL/SUBDIR/FILENAME...")
@click.option("--wait", is_flag=True, help="Wait until each is indexed, refused or yanked.")
@click.option("--timeout", default=300.0, show_default=True, metavar="SECONDS", help="With --wait: how long.")
@with_session
def status(session: Session, keys: tuple[str, ...], *, wait: bool, timeout: float) -> int:
    """Tell what became of uploads: waiting, indexed, or refused and why."""
    parsed: list[ArtifactKey | str] = []
    errors: list[InvalidNameError] = []
    for key in [strip_bucket(session, key) for key in keys]:
        try:
            parsed.append(parse_artifact_key(key))
        except InvalidNameError as error:  # refused, or to be refused, or nothing that anybody uploaded
            if fetch_refused(session.storage, key).state == State.UNKNOWN:
                errors.append(error)
            else:
                parsed.append(key)
    if errors and not parsed:
        raise errors[0]
    found = wait_for(session, parsed, timeout_seconds=timeout if wait else 0)
    document = [one.to_json() for one in found]
    session.show(document[0] if len(keys) == 1 else document, format_statuses(found))
    if errors:  # the other keys have had their answer
        raise errors[0]
    return 0 if all(one.state == State.INDEXED for one in found) else 1


def strip_bucket(session: Session, text: str) -> str:
    """Turn ``s3://BUCKET/KEY`` into ``KEY``.

    Raises:
        UsageError: it names another bucket.
    """
    if not text.startswith("s3://"):
        return text
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if bucket != session.require_bucket():
        raise UsageError(f"{text!r} is not in the bucket {session.bucket!r}", hint="see --bucket")
    return key


def _uploaded_ms(rejection: "Rejection") -> int:
    return round(datetime.fromisoformat(rejection.uploaded_at).timestamp() * 1000)
