"""``fairway rejected``: list, show and retry rejected uploads."""

from dataclasses import asdict

import click

from lambdas.channel.errors import ConflictError, PermanentError, UsageError
from lambdas.channel.layout import rejected_object_key, rejection_key
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.quarantine.rejections import fetch_rejections, list_rejections
from lambdas.storage.protocol import IfAbsent, ObjectStorage
from scripts.fairway.session import Session, with_session
from scripts.fairway.status import strip_bucket
from scripts.fairway.terminal import format_table


@click.group(
    epilog="""\b
Example:
  fairway rejected list tools/
"""
)
def rejected() -> None:
    """List, show and retry rejected uploads.

    A rejected upload is moved to the quarantine, under .fairway/rejected/ in the bucket, together
    with the reason.
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
    """List rejected uploads whose keys start with PREFIX, oldest first."""
    found = sorted(
        list_rejections(session.storage, strip_bucket(session, prefix)), key=lambda one: (one.uploaded_at, one.key)
    )
    rows = [(one.uploaded_at[:19], one.key, one.code, one.id) for one in found]
    session.show(
        [asdict(one) for one in found],
        format_table(("UPLOADED (UTC)", "KEY", "REASON", "ID"), rows) if rows else "no rejected uploads",
    )


@rejected.command(
    epilog="""\b
Examples:
  fairway rejected show tools/noarch/hello-1.0-0.conda
  fairway rejected show --json tools/noarch/hello-1.0-0.conda
"""
)
@click.argument("key")
@click.option("--id", "identity", default=None, help="ID of the rejection, if the key has several; see 'list'.")
@with_session
def show(session: Session, key: str, identity: str | None) -> None:
    """Show why an upload was rejected, and where its bytes are."""
    found = _fetch_rejection(session, key, identity)
    copy = None if found.code == RejectionCode.NOT_READABLE else rejected_object_key(found.key, found.id)
    lines = [
        f"{found.key} was rejected: {found.code}",
        f"  {found.message}",
        *([f"  hint: {found.hint}"] if found.hint else []),
        f"  uploaded {found.uploaded_at}, {found.size} bytes",
        f"  bytes: s3://{session.require_bucket()}/{copy}" if copy else "  bytes: there is no copy",
    ]
    session.show({**asdict(found), "object_key": copy}, lines)


@rejected.command(
    epilog="""\b
Examples:
  fairway rejected release tools/noarch/hello-1.0-0.conda
"""
)
@click.argument("key")
@click.option("--id", "identity", default=None, help="ID of the rejection, if the key has several; see 'list'.")
@with_session
def release(session: Session, key: str, identity: str | None) -> None:
    """Move a rejected upload back to its key, to be indexed again.

    It is rejected again unless the reason no longer holds, for example because another artifact of
    that name was removed. An object that is stored under the key now is never overwritten.
    """
    found = _fetch_rejection(session, key, identity)
    release_upload(session.storage, found, bucket=session.require_bucket())
    session.show(
        {"key": found.key, "released": True},
        f"{found.key} is uploaded again; see its state: fairway status --wait {found.key}",
    )


def release_upload(storage: ObjectStorage, rejection: Rejection, *, bucket: str) -> None:
    """Copy a rejected upload back to its key, and delete it from the quarantine.

    Raises:
        UsageError: its bytes have expired, or were never copied.
        PermanentError: another object is stored under its key.
    """
    if rejection.code == RejectionCode.NOT_READABLE:
        raise UsageError(f"there is no copy of the rejected upload {rejection.key!r}", hint=rejection.hint)
    info = storage.head(rejected_object_key(rejection.key, rejection.id))
    if info is None:
        raise UsageError(
            f"the bytes of the rejected upload {rejection.key!r} have expired", hint="upload the file again"
        )
    try:
        storage.copy(info, rejection.key, metadata={}, condition=IfAbsent())
    except ConflictError as error:
        raise PermanentError(
            f"another object is stored under {rejection.key!r}",
            hint=f"remove it first: aws s3 rm s3://{bucket}/{rejection.key}",
        ) from error
    for leftover in (rejected_object_key(rejection.key, rejection.id), rejection_key(rejection.key, rejection.id)):
        if (old := storage.head(leftover)) is not None:
            storage.delete(old)


def _fetch_rejection(session: Session, key: str, identity: str | None) -> Rejection:
    wanted = strip_bucket(session, key)
    found = [one for one in fetch_rejections(session.storage, wanted) if identity in {None, one.id}]
    if not found:
        raise UsageError(f"no upload to {wanted!r} was rejected", hint="see 'fairway rejected list'")
    return found[-1]
