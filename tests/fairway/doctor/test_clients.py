"""The clients on this machine, as the step ``versions`` shows them."""

from pathlib import Path

import pytest

from scripts.fairway.doctor.steps_account import find_clients


def test_find_clients__versions_of_those_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"conda": "echo conda 26.7.1", "mamba": "echo 2.8.1; echo more", "pixi": "exit 3"}
    for name, program in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_clients() == ["conda 26.7.1", "mamba 2.8.1", "pixi does not run"]
