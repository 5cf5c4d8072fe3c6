"""Whether artifacts are read in parallel or one at a time."""

import threading
from typing import Any

import pytest

from lambdas.indexer.change.inspect import ReadingRules
from lambdas.indexer.model import Mode
from lambdas.indexer.queue.index_keys import index_batch
from tests.indexer.world import NOARCH, World, package


class Gauge:
    """Reads artifacts, and records how many were read at once."""

    def __init__(self, real: Any, parties: int) -> None:  # noqa: ANN401 - a function
        self._real = real
        self._meeting = threading.Barrier(parties)
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def read(self, *args: Any) -> Any:  # noqa: ANN401 - as the real one
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._meeting.wait(timeout=60)
        try:
            return self._real(*args)
        finally:
            with self._lock:
                self._now -= 1


@pytest.mark.parametrize(("mode", "at_once"), [(None, 4), ("together", 4), ("alone", 1), ("final", 1)])
def test_inspect_artifact__at_once(mode: Mode | None, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from lambdas.indexer.artifacts.read import read_artifact

    gauge = Gauge(read_artifact, parties=at_once)  # those that may be read at once wait for each other
    monkeypatch.setattr("lambdas.indexer.change.inspect.read_artifact", gauge.read)
    world = World()
    keys = [world.upload(NOARCH, package(name=name)) for name in "abcd"]
    report = index_batch(world.indexer(), keys, rules=ReadingRules(mode=mode))
    assert report.failures == {}
    assert gauge.most == at_once
