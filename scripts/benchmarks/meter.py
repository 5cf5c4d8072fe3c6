"""An S3 storage that counts requests by operation and transferred bytes, and times its writes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.storage.client import make_s3_client
from lambdas.storage.protocol import Condition, ContentHeaders, ObjectInfo, Part
from lambdas.storage.s3 import S3Storage
from scripts.fairway.prices import WRITES

_COPIES: Final = ("UploadPartCopy", "CompleteMultipartUpload")


@dataclass(kw_only=True)
class Meter:
    """Requests, transferred bytes and times."""

    requests: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    written_bytes: int = 0
    copying_s: float = 0.0
    """Seconds during which S3 was copying between objects: at least one such request was in progress."""
    written: dict[str, float] = field(default_factory=dict)
    """``{key: time of its last write}``, of ``time.perf_counter``."""

    @property
    def writes(self) -> int:
        """The number of write requests."""
        return sum(count for kind, count in self.requests.items() if kind in WRITES)

    def reset(self) -> None:
        """Set all counts to zero."""
        self.requests.clear()
        self.written.clear()
        self.read_bytes = self.written_bytes = 0
        self.copying_s = 0.0


class MeteredStorage(S3Storage):
    """The indexer's storage with a meter."""

    def __init__(self, bucket: str, meter: Meter) -> None:
        client = make_s3_client()
        super().__init__(bucket, client)
        self._meter = meter
        self._lock = threading.Lock()
        self._copies = 0
        self._copying_since = 0.0
        for kind in _COPIES:
            client.meta.events.register_first(f"before-call.s3.{kind}", self._begin_copy)
            client.meta.events.register(f"after-call.s3.{kind}", self._end_copy)
            client.meta.events.register(f"after-call-error.s3.{kind}", self._end_copy)
        client.meta.events.register("before-send.s3", self._count_request)
        client.meta.events.register("response-received.s3", self._count_response)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Write, and record the time."""
        info = super().put(key, body, headers=headers, metadata=metadata, condition=condition)
        self._meter.written[key] = time.perf_counter()
        return info

    def splice(
        self,
        key: str,
        parts: Iterable[Part],
        *,
        base: ObjectInfo | None,
        headers: ContentHeaders,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Splice, and record the time."""
        info = super().splice(key, parts, base=base, headers=headers, metadata=metadata)
        self._meter.written[key] = time.perf_counter()
        return info

    def _begin_copy(self, **_: object) -> None:
        with self._lock:
            if not self._copies:
                self._copying_since = time.perf_counter()
            self._copies += 1

    def _end_copy(self, **_: object) -> None:
        with self._lock:
            self._copies -= 1
            if not self._copies:
                self._meter.copying_s += time.perf_counter() - self._copying_since

    def _count_request(self, event_name: str, request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's
        self._meter.requests[event_name.rpartition(".")[2]] += 1
        if request.method in {"PUT", "POST"}:
            self._meter.written_bytes += int(request.headers.get("Content-Length") or 0)

    def _count_response(self, parsed_response: Mapping[str, Any] | None = None, **_: object) -> None:
        if parsed_response and "Body" in parsed_response:
            self._meter.read_bytes += int(parsed_response.get("ContentLength") or 0)
