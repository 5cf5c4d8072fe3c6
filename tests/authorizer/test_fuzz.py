import os

import pytest

from tests.access_documents import make_request
from tests.authorizer import fuzz

PATHS = int(os.environ.get("FAIRWAY_FUZZ_PATHS", "20000"))


def test_answer_request__attack_fuzzed_paths_and_headers_never_differ_from_the_oracle() -> None:
    counts = fuzz.run(PATHS, seed=20_260_131)
    # All kinds of answers are reached, or the fuzzer has gone stale.
    assert set(counts) >= {"200", "200 (garbage)", "302", "400", "401", "403", "404", "405"}
    assert counts["200"] > PATHS / 50


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "/secret/noarch/repodata.json"},  # another channel
        {"uri": "/team/noarch/../../secret/x"},  # S3 takes dots literally, others do not
        {"uri": "/team/noarch/foo-1.0+cu1-0.conda"},  # S3 reads a space
        {"uri": "/team/noarch/%252e"},
        {"uri": "/.fairway/access.json"},
        {"uri": "/team/noarch/other.json"},  # not what was asked for
        {"querystring": "list-type=2"},
        {"headers": {"authorization": [{"key": "Authorization", "value": "x"}]}},
        {"headers": {"referer": [{"key": "Referer", "value": fuzz.TEAM}]}},
    ],
)
def test_check__finds_an_authorizer_that_is_wrong(change: dict[str, object]) -> None:
    request = make_request(f"/t/{fuzz.TEAM}/team/noarch/repodata.json")
    case = fuzz.Case(request=request, presented=frozenset({fuzz.TEAM}))
    right = {**make_request("/team/noarch/repodata.json"), "querystring": ""}
    assert fuzz.check(case, right) == "200"
    with pytest.raises(fuzz.DifferenceError):
        fuzz.check(case, {**right, **change})


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "302", "405"])
def test_check__finds_an_authorizer_that_rejects_too_much(status: str) -> None:
    case = fuzz.Case(request=make_request("/tools/noarch/repodata.json"), presented=frozenset())
    with pytest.raises(fuzz.DifferenceError):
        fuzz.check(case, {"status": status})
