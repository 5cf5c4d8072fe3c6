import json

import pytest

from scripts.emulated.transcript import Transcript


def test_transcript__text(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript()
    with transcript.concluded():
        transcript.begin("Install")
        transcript.tell("it prints:\nhello", 1.5)
    out = capsys.readouterr().out
    assert "1. Install" in out
    assert "1.50 s  it prints:\n            hello\n" in out
    assert "Every step succeeded" in out


def test_transcript__json(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript(as_json=True)
    with transcript.concluded():
        transcript.begin("Install")
        transcript.tell("done", 1.5)
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["ok"] is True
    assert verdict["steps"] == [{"step": "Install", "facts": [{"fact": "done", "seconds": 1.5}]}]


def test_transcript__step_starts_with_its_first_fact(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript()
    transcript.report_step("Start", "one", 1)
    transcript.report_step("Start", "two", 2)
    transcript.report_step("Deploy", "three", 3)
    out = capsys.readouterr().out
    assert out.count("1. Start") == 1
    assert out.count("2. Deploy") == 1


def test_transcript__failed_step(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript(as_json=True)
    with pytest.raises(ValueError, match="not so"), transcript.concluded():
        raise ValueError("not so")
    captured = capsys.readouterr()
    assert json.loads(captured.out) | {"seconds": 0} == {"ok": False, "seconds": 0, "error": "not so", "steps": []}
    assert "Every step succeeded" not in captured.err


def test_transcript__interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Transcript(as_json=True).concluded():
        raise KeyboardInterrupt
    assert json.loads(capsys.readouterr().out)["ok"] is False
