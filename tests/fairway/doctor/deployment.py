"""A deployment in memory: a bucket with an indexer and an edge, and a clock that drives them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from lambdas.access.decisions import AccessRules, Decision, compile_rules, decide
from lambdas.access.document import AccessDocument
from lambdas.authorizer.origin_response import decide_headers
from lambdas.channel.caching import NO_STORE
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import Policy
from lambdas.indexer.settings import parse_settings, publish_settings
from lambdas.key_refresher.store import create_access, fetch_access
from scripts.fairway.doctor.account import Stack
from scripts.fairway.doctor.cleaning import PREFIXES
from scripts.fairway.doctor.clock import Clock
from scripts.fairway.doctor.examination import Examination
from scripts.fairway.doctor.meter import Meter
from scripts.fairway.doctor.reader import Answer
from scripts.fairway.doctor.report import Result
from scripts.fairway.doctor.run import run_steps
from scripts.fairway.doctor.steps import list_steps
from tests.fairway.buckets import index_keys
from tests.indexer.world import SMALL, is_source
from tests.memory import MemoryStorage, RecordingNotifier

VERSION = "1.2.3"
OUTPUTS = {
    "BucketName": "fairway-conda-123456789012-eu-central-1",
    "ChannelUrl": "https://d111111abcdef8.cloudfront.net",
    "DistributionId": "E123",
    "FairwayVersion": VERSION,
    "IndexerFunctionName": "fairway-conda-indexer",
}


@dataclass
class FakeAccount:
    """An account with enough of everything."""

    region: str = "eu-central-1"
    is_emulated: bool = False
    stack: Stack = field(default_factory=lambda: Stack(name="fairway-conda", status="CREATE_COMPLETE", outputs=OUTPUTS))
    distribution_status: str = "Deployed"
    max_concurrency: int = 5
    concurrency: Mapping[str, int] = field(default_factory=lambda: {"eu-central-1": 10, "us-east-1": 10})
    policies: Mapping[str, int] = field(default_factory=lambda: {"cache policies": 3, "response headers policies": 0})
    accepts: bool = False
    uploads: list[str] = field(default_factory=list)

    def fetch_stack(self) -> Stack:
        return self.stack

    def fetch_distribution_status(self, distribution: str) -> str:
        assert distribution == OUTPUTS["DistributionId"]
        return self.distribution_status

    def fetch_runtime(self, function: str) -> str:
        assert function == OUTPUTS["IndexerFunctionName"]
        return "python3.13"

    def fetch_max_concurrency(self, function: str) -> int:
        assert function == OUTPUTS["IndexerFunctionName"]
        return self.max_concurrency

    def fetch_concurrency(self, region: str) -> int:
        return self.concurrency[region]

    def count_policies(self) -> dict[str, int]:
        return dict(self.policies)

    def try_upload(self, key: str, arguments: Mapping[str, Any]) -> bool:
        assert arguments
        self.uploads.append(key)
        return self.accepts


@dataclass
class Deployment:
    """Everything that an examination touches. Time passes only while the doctor sleeps."""

    bucket: MemoryStorage = field(default_factory=MemoryStorage)
    account: FakeAccount = field(default_factory=FakeAccount)
    meter: Meter = field(default_factory=Meter)
    is_indexing: bool = True
    """Whether the indexer works."""
    knows_access: bool = True
    """Whether the edge reads the access document."""
    public_channels: tuple[str, ...] = ()
    answer: Callable[[str, Answer], Answer] = lambda _path, answer: answer
    """Changes the edge's answer to a path."""
    on_sleep: Callable[[], None] = lambda: None
    seconds: float = 1_000.0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket.clock_ms = time.time_ns() // 10**6  # the indexer compares timestamps with the real time
        self.bucket.min_part_bytes = SMALL.sizes.min_part
        create_access(self.bucket)
        publish_settings(self.bucket, parse_settings({"FAIRWAY_BUCKET": OUTPUTS["BucketName"]}))
        self.queue: list[tuple[float, str]] = []
        self._known: dict[str, str | None] = {}
        self._rules = self._compile()
        self._deployment = OUTPUTS["BucketName"]
        self.is_indexer_running = False

    def examine(self, *names: str, hurry: bool = False) -> dict[str, Result]:
        """Run the steps with these names, or all of them; ``hurry`` leaves no time to wait."""
        examination = Examination(
            bucket=self.bucket,
            reader=self,
            account=self.account,
            caller="arn:aws:iam::123456789012:user/ada",
            version=VERSION,
            note=self.notes.append,
            deadline=self.seconds + (0 if hurry else 400),
            clock=self.clock,
        )
        steps = [step for step in list_steps(examination) if not names or step.name in names]
        return {
            result.name: result for result in run_steps(steps, self.meter, note=self.notes.append, clock=self.clock)
        }

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, monotonic=lambda: self.seconds, sleep=self.sleep)

    def leftovers(self) -> list[str]:
        return [version.info.key for prefix in PREFIXES for version in self.bucket.list_versions(prefix)]

    @property
    def access(self) -> AccessDocument:
        return fetch_access(self.bucket)

    def sleep(self, seconds: float) -> None:
        self.on_sleep()
        self.seconds += seconds
        self.bucket.clock_ms += round(seconds * 1000)
        if self.knows_access:
            self._rules = self._compile()
        if self.is_indexing:
            self._index()

    def fetch(self, path: str, *, token: str | None = None) -> Answer:
        """Answer a reader as the edge does, by the rules of the last time."""
        answer = self.answer(path, self._answer(path, token))
        self.meter.count_response(answer.body)
        return answer

    def _answer(self, path: str, token: str | None) -> Answer:
        key = unquote(path).removeprefix("/")
        channel, _, below = key.partition("/")
        credentials = [] if token is None else [token]
        decision = decide(self._rules, channel=channel, path=below, credentials=credentials, now=int(self.seconds))
        if decision is Decision.UNAUTHENTICATED:
            return Answer(status=401, headers={"cache-control": NO_STORE, "www-authenticate": "Basic"})
        if decision is Decision.FORBIDDEN:
            return Answer(status=403, headers={"cache-control": NO_STORE})
        is_found = key in self.bucket.list_keys()
        stored = self.bucket.headers(key).cache_control if is_found else ""
        headers = decide_headers(
            {"cache-control": [{"key": "Cache-Control", "value": stored}]} if is_found else {},
            status="200" if is_found else "404",
            uri=f"/{key}",
        )
        return Answer(
            status=200 if is_found else 404,
            headers={name: values[0]["value"] for name, values in headers.items()},
            body=self.bucket.body(key) if is_found else b"",
        )

    def _compile(self) -> AccessRules:
        return compile_rules(fetch_access(self.bucket), public_globs=self.public_channels)

    def _index(self) -> None:
        """Index what was uploaded or deleted since the last time, and what the indexer itself asked for."""
        current = {
            key: versions[-1].info.version if versions else None
            for key, versions in list(self.bucket.versions.items())
            if is_source(key)
        }
        keys = {key for key in {*current, *self._known} if current.get(key) != self._known.get(key)}
        keys |= {key for due, key in self.queue if due <= self.seconds}
        self.queue = [(due, key) for due, key in self.queue if due > self.seconds]
        self._known = current
        indexer = Indexer(
            self.bucket,
            RecordingNotifier(),
            Policy(deployment=self._deployment),
            requeue=lambda key: self.queue.append((self.seconds + 60, key)),
            limits=SMALL,
            sleep=lambda _: None,
        )
        self.is_indexer_running = True
        index_keys(indexer, sorted(keys))
        self.is_indexer_running = False
