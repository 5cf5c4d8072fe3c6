"""Counts what the doctor's requests cost."""

from collections import Counter
from dataclasses import dataclass, field

from scripts.fairway.doctor.report import Usage


@dataclass(kw_only=True)
class Meter:
    """Requests so far."""

    requests: Counter[str] = field(default_factory=Counter)
    """To S3: ``{operation: count}``."""
    viewer_requests: int = 0
    """To the channel's URL."""
    sent_bytes: int = 0
    """By the channel's URL."""

    def count_request(self, event_name: str, **_: object) -> None:
        """Count a request of boto3's, as a handler of the event ``before-send``."""
        service, operation = event_name.split(".")[1:]
        if service == "s3":
            self.requests[operation] += 1

    def count_response(self, body: bytes) -> None:
        """Count a request to the channel's URL, by its response."""
        self.viewer_requests += 1
        self.sent_bytes += len(body)

    def copy(self) -> "Meter":
        """Return the counts as they are now."""
        return Meter(requests=Counter(self.requests), viewer_requests=self.viewer_requests, sent_bytes=self.sent_bytes)

    def usage_since(self, before: "Meter", *, seconds: float, indexed: int) -> Usage:
        """Return what was used since a copy was made."""
        return Usage(
            seconds=seconds,
            requests=self.requests - before.requests,
            viewer_requests=self.viewer_requests - before.viewer_requests,
            sent_bytes=self.sent_bytes - before.sent_bytes,
            indexed=indexed,
        )
