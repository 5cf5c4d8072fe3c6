"""``fairway rejected``: look at refused uploads, and let them in again."""

from dataclasses import asdict

import click

from lambdas.channel.errors import ConflictError, PermanentError, UsageError
from lambdas.indexer.model import Rejection
from lambdas.indexer.quarantine import fetch_rejections, list_rejections, object_key, reason_key
from lambdas.storage.protocol import IfAbsent
from scripts.fairway.session import Session, format_table, with_session
from scripts.fairway.status import strip_bucket


@click.group()
def rejected() -> None:
    """Look at refused uploads, and let them in again.

    A refused upload leaves its public key; its bytes and the reason are kept under
    .fairway/rejected/ in the bucket.
    """


@rejected.command(
    name="list",
    epilog="""\b
Examples:
  fairway rejected list
  fairway rejected list tools/noarch/
  fairway rejected list --json | jq -r '.[].code' | sort | uniq -c
""",
)
@click.argument("prefix", default="")
@with_session
def list_rejected(session: Session, prefix: str) -> None:
    """List refused uploads whose keys start with PREFIX, oldest first."""
    found = sorted(
        list_rejections(session.storage, strip_bucket(session, prefix)), key=lambda one: (one.uploaded_at, one.key)
    )
    rows = [(one.uploaded_at[:19], one.key, one.code, one.id) for one in found]
    session.show(
        [asdict(one) for one in found],
        format_table(("UPLOADED (UTC)", "KEY", "REASON", "ID"), rows) if rows else "nothing was refused",
    )


@rejected.command(
    epilog="""\b
Examples:
  fairway rejected show tools/noarch/hello-1.0-0.conda
  fairway rejected show --json tools/noarch/hello-1.0-0.conda
"""
)
@click.argument("key")
@click.option("--id", "identity", default=None, help="Which one, where a key was refused several times.")
@with_session
def show(session: Session, key: str, identity: str | None) -> None:
    """Show why an upload was refused, and where its bytes are."""
    found = _find(session, key, identity)
    lines = [
        f"{found.key} was refused: {found.code}",
        f"  {found.message}",
        *([f"  hint: {found.hint}"] if found.hint else []),
        f"  uploaded {found.uploaded_at}, {found.size} bytes",
        f"  bytes: s3://{session.require_bucket()}/{object_key(found)}",
    ]
    session.show({**asdict(found), "object_key": object_key(found)}, "\n".join(lines))


@rejected.command(
    epilog="""\b
Examples:
  fairway rejected release tools/noarch/hello-1.0-0.conda
"""
)
@click.argument("key")
@click.option("--id", "identity", default=None, help="Which one, where a key was refused several times.")
@with_session
def release(session: Session, key: str, identity: str | None) -> None:
    """Put refused bytes back under their key, to be looked at again.

    They are judged as any upload is: what made them refused must have changed (a clock that has moved
    on, an artifact that was removed). What lies under the key is never overwritten.
    """
    found = _find(session, key, identity)
    info = session.storage.head(object_key(found))
    if info is None:
        raise UsageError(f"the refused bytes of {found.key!r} are gone", hint="they are kept for a while only")
    try:
        session.storage.copy(info, found.key, metadata={}, condition=IfAbsent())
    except ConflictError as error:
        raise PermanentError(
            f"{found.key!r} is taken by another upload",
            hint=f"remove that one first: aws s3 rm s3://{session.require_bucket()}/{found.key}",
        ) from error
    for leftover in (object_key(found), reason_key(found)):
        if (old := session.storage.head(leftover)) is not None:
            session.storage.delete(old)
    session.show(
        {"key": found.key, "released": True},
        f"{found.key} is there again; see what becomes of it: fairway status --wait {found.key}",
    )


def _find(session: Session, key: str, identity: str | None) -> "Rejection":

    wanted = strip_bucket(session, key)
    found = [one for one in fetch_rejections(session.storage, wanted) if identity in {None, one.id}]
    if not found:
        raise UsageError(f"nothing was refused under {wanted!r}", hint="fairway rejected list")
    return found[-1]
