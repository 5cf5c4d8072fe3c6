"""Runs the command as people do: by its words, to its exit code and what it prints."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from scripts.fairway.main import main


@dataclass
class Result:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run_fairway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["fairway", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        code = caught.value.code
        return Result(code=code if isinstance(code, int) else 1, out=captured.out, err=captured.err)

    return run_command
