"""Missing and denied keys are distinguished, even if the caller may list only a part of the bucket."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from lambdas.channel.errors import AccessDeniedError, UnavailableError
from scripts.fairway.aws_errors import explain
from scripts.fairway.bucket import ListedStorage

MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "team/noarch/repodata.json"
REQUESTS: list[tuple[str, Callable[[ListedStorage], object]]] = [
    ("head_object", lambda storage: storage.head(KEY)),
    ("get_object", lambda storage: storage.get(KEY)),
]
Stubbed = tuple[ListedStorage, Stubber]


@pytest.fixture
def stubbed() -> Iterator[Stubbed]:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with Stubber(client) as stubber:
        yield ListedStorage("bucket", client), stubber


def list_keys(stubber: Stubber, *keys: str) -> None:
    contents = [{"Key": key, "Size": 1, "ETag": '"e"', "LastModified": MODIFIED} for key in keys]
    stubber.add_response("list_objects_v2", {"Contents": contents}, {"Bucket": "bucket", "Prefix": KEY})


@pytest.mark.parametrize(("request_name", "send"), REQUESTS)
def test_request__missing_if_the_listing_confirms_it(
    stubbed: Stubbed, request_name: str, send: Callable[[ListedStorage], object]
) -> None:
    storage, stubber = stubbed
    stubber.add_client_error(request_name, http_status_code=403)
    list_keys(stubber, f"{KEY}.zst")
    assert send(storage) is None


@pytest.mark.parametrize(("request_name", "send"), REQUESTS)
def test_request__denied_if_listed(
    stubbed: Stubbed, request_name: str, send: Callable[[ListedStorage], object]
) -> None:
    storage, stubber = stubbed
    stubber.add_client_error(request_name, http_status_code=403)
    list_keys(stubber, KEY)
    stubber.add_client_error(request_name, http_status_code=403)
    with pytest.raises(AccessDeniedError):
        send(storage)


@pytest.mark.parametrize(("request_name", "send"), REQUESTS)
@pytest.mark.parametrize(("status", "error"), [(403, AccessDeniedError), (503, UnavailableError)])
def test_request__failed_listing_raises(
    stubbed: Stubbed, request_name: str, send: Callable[[ListedStorage], object], status: int, error: type[Exception]
) -> None:
    storage, stubber = stubbed
    stubber.add_client_error(request_name, http_status_code=403)
    stubber.add_client_error("list_objects_v2", http_status_code=status)
    with pytest.raises(error):
        send(storage)


def test_request__listing_says_that_the_session_has_expired(stubbed: Stubbed) -> None:
    storage, stubber = stubbed
    stubber.add_client_error("head_object", "400", http_status_code=400)
    stubber.add_client_error("list_objects_v2", "ExpiredToken", http_status_code=400)
    with pytest.raises(AccessDeniedError) as caught:
        storage.head(KEY)
    assert str(explain(caught.value)) == "the AWS session has expired"
