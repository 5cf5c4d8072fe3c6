"""The steps about access: the token, the authorizer's answers, and what the bucket's policy denies."""

from collections.abc import Mapping
from typing import Any, Final

from lambdas.access.changes import apply_token_created, apply_token_revoked, apply_visibility
from lambdas.access.document import Visibility, parse_scope
from lambdas.channel.caching import NO_STORE
from lambdas.channel.errors import PermanentError
from lambdas.channel.names import DOCTOR_CHANNEL
from lambdas.key_refresher.store import change_access
from scripts.fairway.doctor.canaries import NOARCH_SUBDIR
from scripts.fairway.doctor.cleaning import TOKEN_NAME
from scripts.fairway.doctor.examination import Examination, require_header, require_status
from scripts.fairway.doctor.run import NotEnforced
from scripts.fairway.tokens import make_token

ACCESS_SECONDS: Final = 90
"""Longest wait until the authorizer knows a change: 60 seconds are promised."""
TOKEN_SECONDS: Final = 3600
"""How long the token is valid if the run is interrupted."""
MISSING: Final = f"/{NOARCH_SUBDIR}/canary-0.0-0.conda"
_CUSTOMER_KEY: Final = "fairway doctor: not a secret key"  # of 32 bytes
DENIED_UPLOADS: Final[Mapping[str, Mapping[str, Any]]] = {
    "storage class GLACIER": {"StorageClass": "GLACIER"},
    "KMS": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/aws/s3"},
    "SSE-C": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": _CUSTOMER_KEY},
}
"""Uploads that readers could not GET, with the arguments of PutObject: the bucket's policy denies them."""


def create_token(examination: Examination) -> str:
    """Create a token for the channel, and wait until the authorizer accepts it: then a missing file is 404."""
    now = int(examination.clock.now())
    secret, entry = make_token(
        TOKEN_NAME,
        parse_scope((DOCTOR_CHANNEL,), None),
        now=now,
        expires=now + TOKEN_SECONDS,
        creator=examination.caller,
    )
    change_access(
        examination.bucket,
        lambda document: apply_token_created(
            apply_visibility(document, DOCTOR_CHANNEL, Visibility.PRIVATE, now=now, by=examination.caller), entry
        ),
        now=now,
        sleep=examination.clock.sleep,
    )
    examination.token = secret
    examination.wait_until(
        lambda: examination.ask(MISSING).status not in {401, 403}, "the token is accepted", seconds=ACCESS_SECONDS
    )
    answer = examination.ask(MISSING)
    require_status(answer, 404, MISSING)
    require_header(answer, "cache-control", NO_STORE, MISSING)
    return "a new token is accepted, and a missing artifact is 404, which no cache keeps"


def check_unauthenticated(examination: Examination) -> str:
    """Read without a token, and with an unknown one, once the authorizer knows that the channel is private."""
    examination.wait_until(
        lambda: examination.reader.fetch(MISSING).status != 404,  # noqa: PLR2004 - HTTP
        "a request without a token is rejected",
        seconds=ACCESS_SECONDS,
    )
    unknown, _ = make_token(TOKEN_NAME, parse_scope((DOCTOR_CHANNEL,), None), now=0, expires=None, creator="")
    for token in (None, unknown):
        answer = examination.reader.fetch(MISSING, token=token)
        require_status(answer, 401, MISSING)
        require_header(answer, "cache-control", NO_STORE, MISSING)
        if "www-authenticate" not in answer.headers:
            raise PermanentError(f"{MISSING} was answered with 401, but without www-authenticate")
    return "401 without a token and with an unknown one"


def check_upload_policy(examination: Examination) -> str:
    """Try uploads that the bucket's policy denies."""
    accepted = []
    for number, (name, arguments) in enumerate(DENIED_UPLOADS.items()):
        if examination.account.try_upload(f"{NOARCH_SUBDIR}/unreadable-{number}.txt", arguments):
            accepted.append(name)
    if accepted and examination.account.is_emulated:
        raise NotEnforced(f"uploads with {', '.join(accepted)}")
    if accepted:
        raise PermanentError(
            f"the bucket accepts uploads with {', '.join(accepted)}, which readers could not download",
            hint="the bucket's policy was changed: deploy again, and see 'scripts/deploy diff'",
        )
    return f"denied: {', '.join(DENIED_UPLOADS)}"


def check_revoke(examination: Examination) -> str:
    """Revoke the token, and wait until it is rejected."""
    now, started = int(examination.clock.now()), examination.clock.monotonic()
    change_access(
        examination.bucket,
        lambda document: apply_token_revoked(document, TOKEN_NAME, now=now, by=examination.caller),
        now=now,
        sleep=examination.clock.sleep,
    )
    examination.wait_until(
        lambda: examination.ask(MISSING).status == 401,  # noqa: PLR2004 - HTTP
        "the revoked token is rejected",
        seconds=ACCESS_SECONDS,
    )
    return f"401 after {examination.clock.monotonic() - started:.0f} s"
