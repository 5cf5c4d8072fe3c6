"""The benchmark with a small share of a core: that it measures, not what."""

from pathlib import Path
from subprocess import CalledProcessError

import pytest

from lambdas.access.document import AccessDocument, ChannelRule, Visibility, encode_access
from scripts.benchmarks import processor_share
from scripts.benchmarks.processor_share import PHASES, measure_share

DOCUMENT = encode_access(AccessDocument(channels={"open": ChannelRule(visibility=Visibility.PUBLIC)}))


def test_measure_share__each_phase_against_an_empty_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor_share, "_CGROUPS", tmp_path / "none")
    found = measure_share(DOCUMENT, "/open/noarch/repodata.json", repeats=1)
    assert found["share_limit"] == "processor time"
    assert found["share_document_bytes"] == len(DOCUMENT)
    assert found["share_empty_function_s"] > 0
    assert all(found[f"share_{name}_ratio"] >= 0 for name in PHASES)


def test_measure_share__the_authorizer_must_forward_the_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An answer of its own, such as 503, would be measured otherwise."""
    monkeypatch.setattr(processor_share, "_CGROUPS", tmp_path / "none")
    with pytest.raises(CalledProcessError):
        measure_share(DOCUMENT, "/closed/noarch/repodata.json", repeats=1)
