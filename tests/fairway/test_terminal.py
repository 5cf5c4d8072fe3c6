"""Names that publishers choose reach the terminal only as printable characters."""

import dataclasses

import pytest

from lambdas.indexer.quarantine import quarantine, rejections
from scripts.fairway.terminal import escape, format_table, print_error, print_lines
from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

HOSTILE = "team/noarch/a\x1b[2J\n\u202egpj.conda"
ESCAPED = r"team/noarch/a\x1b[2J\n\u202egpj.conda"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("hello-1.0-0.conda", "hello-1.0-0.conda"),
        ("grüße … 語", "grüße … 語"),
        (HOSTILE, ESCAPED),
        ("\r\t\x00\x7f\x9b", r"\r\t\x00\x7f\x9b"),
        ("\u2066\u200b\u2028", r"\u2066\u200b\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_escape__leaves_only_printable_characters(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    assert escape(escaped) == escaped


def test_format_table__aligns_escaped_cells() -> None:
    assert format_table(("KEY", "STATE"), [("a\n", "x"), ("abcde", "y")]) == ["KEY    STATE", r"a\n    x", "abcde  y"]


def test_print_lines__a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(["one\ntwo", "three"])
    print_error("four\x1b", "five\u202e")
    captured = capsys.readouterr()
    assert captured.out == "one\\ntwo\nthree\n"
    assert captured.err == "error: four\\x1b\nhint: five\\u202e\n"


def test_commands__escape_keys(bucket: Bucket, run_fairway: Run) -> None:
    """Each command that prints a key that its uploader chose; JSON has the key itself."""
    bucket.publish("team", conda_package())
    bucket.storage.upload(HOSTILE, b"anything")
    bucket.storage.upload(HOSTILE.replace("a\x1b", "b\x1b"), b"anything")
    bucket.index(HOSTILE)
    printed = [
        run_fairway("status", HOSTILE),
        run_fairway("rejected", "list"),
        run_fairway("rejected", "show", HOSTILE),
        run_fairway("verify", "team"),
        run_fairway("reconcile", "team"),
        run_fairway("rejected", "release", HOSTILE),
        run_fairway("status", "team/\x1b/\u202e.conda"),
    ]
    for number, result in enumerate(printed[:-1]):
        assert "\\x1b[2J\\n\\u202egpj" in result.out, number
    for result in printed:
        assert not {"\x1b", "\u202e"} & set(result.out + result.err)
    bucket.index(HOSTILE)
    assert run_fairway("rejected", "list", "--json").document[0]["key"] == HOSTILE


def test_rejected_show__escapes_the_reason(bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_rejection = rejections.make_rejection
    monkeypatch.setattr(
        quarantine,
        "make_rejection",
        lambda info, error: dataclasses.replace(make_rejection(info, error), message="bad\x1b\nname", hint="\u202e"),
    )
    key = "team/noarch/broken-1.0-0.conda"
    bucket.storage.upload(key, b"anything")
    bucket.index(key)
    for arguments in (("rejected", "show", key), ("status", key)):
        shown = run_fairway(*arguments).out
        assert r"bad\x1b\nname" in shown
        assert r"hint: \u202e" in shown
