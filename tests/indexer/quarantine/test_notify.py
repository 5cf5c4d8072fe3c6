"""Events and invalidations, and failures to send them."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import ANY, Stubber

from lambdas.channel.errors import RejectedError, UnavailableError
from lambdas.channel.layout import rejected_object_key
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.model import Rejection
from lambdas.indexer.quarantine.cdn import MAX_FOLDERS, MAX_PATHS
from lambdas.indexer.quarantine.notify import AwsNotifier
from lambdas.indexer.quarantine.rejections import make_rejection, parse_rejection
from lambdas.storage.protocol import ObjectInfo

KEYS = ["team/noarch/foo-1.0-0.conda"]
INFO = ObjectInfo(key=KEYS[0], size=3, etag="e", last_modified_ms=1_700_000_000_000)
REJECTION = make_rejection(INFO, RejectedError(RejectionCode.ARCHIVE_EMPTY, "it is empty", hint="upload it again"))


class Aws:
    """Both services, stubbed."""

    def __init__(self) -> None:
        access: Any = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.events: Any = boto3.client("events", **access)
        self.cloudfront: Any = boto3.client("cloudfront", **access)
        self.stubbed_events, self.stubbed_cloudfront = Stubber(self.events), Stubber(self.cloudfront)

    def notifier(self, **more: Any) -> AwsNotifier:  # noqa: ANN401 - as there
        settings: Any = {"event_bus": "bus", "distribution_id": "E1", **more}
        return AwsNotifier(events=self.events, cloudfront=self.cloudfront, **settings)

    def expect_invalidation(self, *paths: str) -> None:
        self.stubbed_cloudfront.add_response(
            "create_invalidation",
            {},
            {
                "DistributionId": "E1",
                "InvalidationBatch": {
                    "Paths": {"Quantity": len(paths), "Items": list(paths)},
                    "CallerReference": ANY,
                },
            },
        )


@pytest.fixture
def aws() -> Iterator[Aws]:
    aws = Aws()
    with aws.stubbed_events, aws.stubbed_cloudfront:
        yield aws
    aws.stubbed_events.assert_no_pending_responses()
    aws.stubbed_cloudfront.assert_no_pending_responses()


def test_publish_rejection__one_event(aws: Aws) -> None:
    detail = {
        "key": KEYS[0],
        "id": REJECTION.id,
        "code": "archive-empty",
        "message": "it is empty",
        "hint": "upload it again",
        "size": 3,
        "etag": "e",
        "uploaded_at": "2023-11-14T22:13:20+00:00",
    }
    entry = {
        "Source": "fairway",
        "DetailType": "Upload Rejected",
        "Detail": json.dumps(detail),
        "EventBusName": "bus",
    }
    aws.stubbed_events.add_response("put_events", {"FailedEntryCount": 0, "Entries": []}, {"Entries": [entry]})
    aws.notifier().publish_rejection(REJECTION)


def test_publish_rejection__no_bus(aws: Aws) -> None:
    aws.notifier(event_bus=None).publish_rejection(REJECTION)


def test_publish_rejection__entry_failed(aws: Aws) -> None:
    aws.stubbed_events.add_response(
        "put_events", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
    )
    with pytest.raises(UnavailableError):
        aws.notifier().publish_rejection(REJECTION)


@pytest.mark.parametrize("code", ["InternalFailure", "ThrottlingException", "AccessDeniedException"])
def test_publish_rejection__bus_fails(aws: Aws, code: str) -> None:
    aws.stubbed_events.add_client_error("put_events", code, http_status_code=500)
    with pytest.raises(UnavailableError):
        aws.notifier().publish_rejection(REJECTION)


def test_publish_rejection__no_answer(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ConnectTimeoutError(endpoint_url="https://events")

    monkeypatch.setattr(aws.events, "put_events", fail)
    with pytest.raises(UnavailableError):
        aws.notifier().publish_rejection(REJECTION)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("team/noarch/foo-1.0-0.conda", "/team/noarch/foo-1.0-0.conda"),
        ("team/noarch/foo-1!2.0-0.conda", "/team/noarch/foo-1!2.0-0.conda"),
        ("team/noarch/foo-1.0+cu118-0.conda", "/team/noarch/foo-1.0%2Bcu118-0.conda"),
        ("team/noarch/_foo-1.0_1-0.tar.bz2", "/team/noarch/_foo-1.0_1-0.tar.bz2"),
        ("team/odd name.conda", "/team/odd%20name.conda"),
        ("team/é%.conda", "/team/%C3%A9%25.conda"),
    ],
)
def test_invalidate__paths_as_the_edge_caches_them(aws: Aws, key: str, path: str) -> None:
    """With needless escapes, CloudFront would not find the file."""
    aws.expect_invalidation(path)
    aws.notifier().invalidate([key])


def test_invalidate__several_keys(aws: Aws) -> None:
    aws.expect_invalidation("/a/noarch/x.conda", "/a/noarch/y.conda")
    aws.notifier().invalidate(["a/noarch/x.conda", "a/noarch/y.conda"])


def test_invalidate__many_keys_by_their_folders(aws: Aws) -> None:
    aws.expect_invalidation("/a/noarch/*", "/b/noarch/*")
    aws.notifier().invalidate(["b/noarch/x.conda", *(f"a/noarch/{number}.conda" for number in range(MAX_PATHS))])


def test_invalidate__many_folders_by_one_pattern(aws: Aws) -> None:
    aws.expect_invalidation("/*")
    aws.notifier().invalidate(
        [f"{number % (MAX_FOLDERS + 1)}/noarch/{number}.conda" for number in range(MAX_PATHS + 1)]
    )


def test_invalidate__no_keys_or_no_distribution(aws: Aws) -> None:
    aws.notifier().invalidate([])
    aws.notifier(distribution_id=None).invalidate(KEYS)


@pytest.mark.parametrize("code", ["TooManyInvalidationsInProgress", "NoSuchDistribution", "AccessDenied"])
def test_invalidate__cloudfront_fails(aws: Aws, code: str) -> None:
    aws.stubbed_cloudfront.add_client_error("create_invalidation", code, http_status_code=400)
    with pytest.raises(UnavailableError):
        aws.notifier().invalidate(KEYS)


def test_parse_rejection__round_trip() -> None:
    document = {slot: getattr(REJECTION, slot) for slot in Rejection.__slots__}
    assert parse_rejection(json.dumps(document).encode()) == REJECTION
    assert rejected_object_key(REJECTION.key, REJECTION.id).startswith(".fairway/rejected/team/noarch/foo-1.0-0.conda/")
