"""How Hypothesis runs here: no test depends on how fast the machine is; and documents that are large sooner."""

import pytest
from hypothesis import settings

from lambdas.indexer.outputs import channel as project_channel
from lambdas.indexer.outputs import subdir as project_subdir
from lambdas.indexer.outputs.repodata import RepodataForm
from lambdas.indexer.outputs.run_exports import RunExportsForm
from lambdas.indexer.spliced import files, segments
from lambdas.storage import protocol as storage

settings.register_profile("fairway", deadline=None)
settings.load_profile("fairway")


@pytest.fixture
def scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a handful of packages fill segments and parts."""
    monkeypatch.setattr(project_subdir, "LARGE_BYTES", 2500)
    monkeypatch.setattr(project_channel, "LARGE_CHANNELDATA_BYTES", 1200)
    monkeypatch.setattr(files, "WHOLE_BYTES", 500)
    monkeypatch.setattr(files, "MIN_PART_BYTES", 600)
    monkeypatch.setattr(files, "PART_BYTES", 2000)
    monkeypatch.setattr(segments, "ROUND_BYTES", 64)
    monkeypatch.setattr(storage, "MIN_PART_BYTES", 600)
    monkeypatch.setattr(RepodataForm, "segment_bytes", 1200)
    monkeypatch.setattr(RunExportsForm, "segment_bytes", 400)
