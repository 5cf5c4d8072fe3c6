"""What ``fairway doctor`` asks of AWS besides the bucket: the stack, quotas, functions, the bucket's policy.

Errors are botocore's: ``run`` says them in plain words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from lambdas.channel.errors import UsageError

if TYPE_CHECKING:
    import boto3

EDGE_REGION: Final = "us-east-1"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BUCKET: Final = re.compile(r"fairway-(?P<name>.+)-[0-9]{12}-(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9])\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """The stack of a deployment."""

    name: str
    status: str
    """As CloudFormation says it, such as ``UPDATE_COMPLETE``."""
    outputs: Mapping[str, str] = field(default_factory=dict)


class Account(Protocol):
    """The account of a deployment."""

    @property
    def region(self) -> str:
        """The region of the bucket."""

    @property
    def is_emulated(self) -> bool:
        """Whether requests go to an emulator on this machine."""

    def fetch_stack(self) -> Stack:
        """Return the stack that the bucket belongs to."""

    def fetch_distribution_status(self, distribution: str) -> str:
        """Return CloudFront's status of a distribution: ``Deployed`` or ``InProgress``."""

    def fetch_runtime(self, function: str) -> str:
        """Return the runtime of a function, such as ``python3.13``."""

    def fetch_max_concurrency(self, function: str) -> int:
        """Return how many instances of a function the queue may start."""

    def fetch_concurrency(self, region: str) -> int:
        """Return how many functions the account may run at once in a region."""

    def count_policies(self) -> dict[str, int]:
        """Return how many custom policies CloudFront has: ``{kind: count}``."""

    def try_upload(self, key: str, arguments: Mapping[str, Any]) -> bool:
        """Upload an empty object with more arguments of PutObject; False if S3 denies it."""


class AwsAccount:
    """The account behind an AWS session."""

    def __init__(self, session: boto3.Session, bucket: str | None, region: str) -> None:
        self._session = session
        self._bucket = bucket
        self._region = region

    @property
    def region(self) -> str:
        """The region in the bucket's name, or else the session's."""
        match = _BUCKET.match(self._bucket or "")
        return match["region"] if match else self._region

    @property
    def is_emulated(self) -> bool:
        """Whether the endpoint is on this machine."""
        return urlsplit(self._client("s3").meta.endpoint_url).hostname in _LOOPBACK

    def fetch_stack(self) -> Stack:
        """Describe the stack that the bucket is named after.

        Raises:
            UsageError: the bucket is not named like a deployment's.
        """
        match = _BUCKET.match(self._bucket or "")
        if match is None:
            raise UsageError(
                f"{self._bucket!r} is not the bucket of a deployment",
                hint="set FAIRWAY_BUCKET to the output BucketName of 'cdk deploy'",
            )
        name = f"fairway-{match['name']}"
        (stack,) = self._client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        return Stack(name=name, status=stack["StackStatus"], outputs=outputs)

    def fetch_distribution_status(self, distribution: str) -> str:
        """Ask CloudFront."""
        return str(self._client("cloudfront").get_distribution(Id=distribution)["Distribution"]["Status"])

    def fetch_runtime(self, function: str) -> str:
        """Ask Lambda."""
        return str(self._client("lambda").get_function_configuration(FunctionName=function)["Runtime"])

    def fetch_max_concurrency(self, function: str) -> int:
        """Ask Lambda for the queue's event source."""
        (source,) = self._client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        return int(source["ScalingConfig"]["MaximumConcurrency"])

    def fetch_concurrency(self, region: str) -> int:
        """Ask Lambda for the account's limit."""
        settings = self._client("lambda", region).get_account_settings()
        return int(settings["AccountLimit"]["ConcurrentExecutions"])

    def count_policies(self) -> dict[str, int]:
        """Ask CloudFront for the account's own policies."""
        cloudfront = self._client("cloudfront")
        caching = self._list_pages(cloudfront.list_cache_policies, "CachePolicyList")
        headers = self._list_pages(cloudfront.list_response_headers_policies, "ResponseHeadersPolicyList")
        return {
            "cache policies": sum(page["Quantity"] for page in caching),
            "response headers policies": sum(page["Quantity"] for page in headers),
        }

    def try_upload(self, key: str, arguments: Mapping[str, Any]) -> bool:
        """Upload; only a denial is an answer, any other error is raised."""
        try:
            self._client("s3").put_object(Bucket=self._bucket, Key=key, Body=b"", **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDenied":
                return False
            raise
        return True

    @staticmethod
    def _list_pages(request: Any, member: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - boto3's
        marker: dict[str, str] = {}
        while True:
            page = request(Type="custom", **marker)[member]
            yield page
            if not page.get("NextMarker"):
                return
            marker = {"Marker": page["NextMarker"]}

    def _client(self, service: str, region: str | None = None) -> Any:  # noqa: ANN401 - boto3's
        make_client: Any = self._session.client  # its overloads take names of services as literals
        return make_client(service, region_name=region or self.region)
