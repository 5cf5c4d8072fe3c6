import json

import pytest

from scripts.emulated.transcript import Transcript


def test_transcript__for_people(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript()
    with transcript.judged():
        transcript.begin("Install")
        transcript.tell("it says:\nhello", 1.5)
    out = capsys.readouterr().out
    assert "1. Install" in out
    assert "1.50 s  it says:\n            hello\n" in out
    assert "All of it was so" in out


def test_transcript__for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript(as_json=True)
    with transcript.judged():
        transcript.begin("Install")
        transcript.tell("done", 1.5)
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["ok"] is True
    assert verdict["steps"] == [{"step": "Install", "facts": [{"fact": "done", "seconds": 1.5}]}]


def test_transcript__steps_begin_with_their_first_fact(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript()
    transcript.announce("Start", "one", 1)
    transcript.announce("Start", "two", 2)
    transcript.announce("Deploy", "three", 3)
    out = capsys.readouterr().out
    assert out.count("1. Start") == 1
    assert out.count("2. Deploy") == 1


def test_transcript__something_was_not_so(capsys: pytest.CaptureFixture[str]) -> None:
    transcript = Transcript(as_json=True)
    with pytest.raises(ValueError, match="not so"), transcript.judged():
        raise ValueError("not so")
    captured = capsys.readouterr()
    assert json.loads(captured.out) | {"seconds": 0} == {"ok": False, "seconds": 0, "error": "not so", "steps": []}
    assert "All of it was so" not in captured.err


def test_transcript__interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Transcript(as_json=True).judged():
        raise KeyboardInterrupt
    assert json.loads(capsys.readouterr().out)["ok"] is False
