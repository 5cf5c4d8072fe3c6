"""The report: what people and programs get to read."""

import pytest

from scripts.fairway.doctor.report import Result, State, Usage, format_results, is_healthy, to_json
from scripts.fairway.prices import READ_DOLLARS, VIEWER_DOLLARS, WRITE_DOLLARS

GOOD = Result(
    name="publish",
    state=State.PASSED,
    detail="indexed after 3.0 s",
    usage=Usage(
        seconds=3.21,
        requests={"PutObject": 2, "HeadObject": 3, "DeleteObject": 100, "ListObjectVersions": 1},
        viewer_requests=4,
    ),
)
BAD = Result(name="install", state=State.FAILED, detail="a hash\x1b differs", hint="do this")
SKIPPED = Result(name="yank", state=State.NOT_RUN, detail="needs 'publish', which did not pass")
LAX = Result(name="upload-policy", state=State.NOT_ENFORCED, detail="not enforced by this emulator: uploads with KMS")


@pytest.mark.parametrize(
    ("results", "healthy"),
    [([GOOD], True), ([GOOD, LAX], True), ([GOOD, BAD], False), ([SKIPPED, GOOD], False), ([], True)],
)
def test_is_healthy__every_step_counts(results: list[Result], *, healthy: bool) -> None:
    assert is_healthy(results) is healthy
    assert to_json(results)["healthy"] is healthy


def test_dollars__requests_of_each_kind() -> None:
    assert GOOD.dollars == pytest.approx(3 * WRITE_DOLLARS + 3 * READ_DOLLARS + 4 * VIEWER_DOLLARS)


def test_dollars__runs_of_the_indexer_and_transfer() -> None:
    indexed = Result(name="a", state=State.PASSED, detail="", usage=Usage(indexed=10))
    assert 10 * 12 * WRITE_DOLLARS < indexed.dollars < 20 * 12 * WRITE_DOLLARS
    sent = Result(name="a", state=State.PASSED, detail="", usage=Usage(sent_bytes=10**9))
    assert sent.dollars == pytest.approx(0.085)


def test_format_results__table_failures_and_verdict() -> None:
    assert format_results([GOOD, BAD]) == [
        "STEP     RESULT  SECONDS  DOLLARS",
        "publish  passed  3.2      0.0000   indexed after 3.0 s",
        r"install  failed  0.0      0.0000   a hash\x1b differs",
        "",
        "install: a hash\x1b differs",
        "  hint: do this",
        "",
        "not healthy; 3 s, about $0.0000 at list prices",
    ]
    assert format_results([GOOD])[-1] == "healthy; 3 s, about $0.0000 at list prices"


def test_to_json__every_step() -> None:
    document = to_json([GOOD, BAD])
    assert document["seconds"] == 3.2
    assert document["dollars"] == round(GOOD.dollars, 6)
    assert document["steps"][1] == {
        "name": "install",
        "state": "failed",
        "detail": "a hash\x1b differs",
        "hint": "do this",
        "seconds": 0.0,
        "dollars": 0.0,
        "requests": {},
        "viewer_requests": 0,
    }
    assert document["steps"][0]["requests"]["HeadObject"] == 3
