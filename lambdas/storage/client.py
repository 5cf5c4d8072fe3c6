"""Makes the S3 client of a process that sends many requests.

boto3 parses each answer's timestamps with dateutil, which takes a sixth of the processor time of a small request.
S3's two formats need no such parser. It composes its User-Agent twice per request, which takes an eighth: a name that
is set is used without that. And it asks S3 before each body whether to send it (``Expect: 100-continue``), a whole
round trip: a small body is sent at once, as AWS's SDKs for Go and Java do.
"""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
import botocore.session
import botocore.utils
from botocore.config import Config

from lambdas.storage.parallel import THREADS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER_AGENT: Final = f"fairway Boto3/{boto3.__version__}"
EXPECT_ABOVE_BYTES: Final = 1024 * 1024


def make_s3_client() -> "S3Client":
    """Return a client whose connections suffice for two runs of ``in_parallel`` at once."""
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parse_timestamp)
    config = Config(
        user_agent=USER_AGENT,
        max_pool_connections=2 * THREADS,
        retries={"mode": "standard", "max_attempts": 5},
    )
    client = boto3.Session(botocore_session=session).client("s3", config=config)
    client.meta.events.register_last("before-call.s3", send_small_body_at_once)
    return client


def send_small_body_at_once(params: dict[str, Any], **_: object) -> None:
    """Handle botocore's ``before-call`` event: drop ``Expect`` from a request with a small body."""
    size = botocore.utils.determine_content_length(params.get("body"))
    if size is not None and size <= EXPECT_ABOVE_BYTES:
        params["headers"].pop("Expect", None)


def parse_timestamp(value: Any) -> datetime:  # noqa: ANN401 - what a parser found
    """Parse a timestamp as botocore does: ``Wed, 25 Nov 2026 12:00:00 GMT`` of a header, or ISO 8601 of a listing."""
    if isinstance(value, str):
        try:
            return parsedate_to_datetime(value) if value[3:4] == "," else datetime.fromisoformat(value)
        except ValueError:
            pass
    parsed: datetime = botocore.utils.parse_timestamp(value)
    return parsed
