"""A deployment in memory, with small limits on what is spliced."""

import pytest

from scripts.fairway.doctor import canaries, steps_channel
from tests.fairway.doctor.deployment import Deployment
from tests.indexer.world import SMALL


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setattr(canaries, "RECORD_BYTES", 900)
    monkeypatch.setattr(steps_channel, "LARGE_CANARIES", 8)
    monkeypatch.setattr(steps_channel, "LARGE_BYTES", SMALL.sizes.deferred)
    monkeypatch.setattr("scripts.fairway.doctor.steps_account.CLIENTS", ())
    return Deployment()
