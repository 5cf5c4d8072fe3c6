"""Publishers take turns within a batch."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lambdas.indexer.queue.turns import FIRST_TURN, list_offenders, take_turns


def test_take_turns__one_upload_behind_a_thousand_of_another_publisher() -> None:
    flood = {f"team/noarch/bad{number}-1-0.conda": "AWS:mallory" for number in range(1000)}
    rounds = list(take_turns({**flood, "team/noarch/zz-1-0.conda": "AWS:alice"}))
    assert "team/noarch/zz-1-0.conda" in rounds[0]
    assert len(rounds[0]) == FIRST_TURN + 1
    assert len(rounds) == 2, "the rest of a single publisher is one round"


def test_take_turns__single_publisher_is_one_round() -> None:
    keys = {f"k{number:04}": "alice" for number in range(1000)}
    assert list(take_turns(keys)) == [sorted(keys)]
    probe, rest = take_turns(keys, is_probing=True)
    assert (probe, rest) == (sorted(keys)[:FIRST_TURN], sorted(keys)[FIRST_TURN:])


def test_take_turns__rounds_grow() -> None:
    keys = {f"{publisher}{number:04}": publisher for publisher in ("alice", "bob") for number in range(1000)}
    rounds = list(take_turns(keys))
    assert [len(one) for one in rounds] == [8, 32, 128, 512, 1320]


def test_list_offenders__half_or_more_rejected() -> None:
    publishers = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "b3": "b", "c1": "c"}
    assert list_offenders(list(publishers), {"a1", "b1", "c1"}, publishers) == {"a", "c"}
    assert list_offenders([], set(), publishers) == frozenset()


def test_take_turns__nothing() -> None:
    assert list(take_turns({})) == []


@given(st.dictionaries(st.text(max_size=3), st.sampled_from("abc"), max_size=300))
def test_take_turns__each_key_once_and_no_publisher_before_its_turn(publishers: dict[str, str]) -> None:
    rounds = list(take_turns(publishers))
    assert sorted(key for one in rounds for key in one) == sorted(publishers)
    counts = [{name: sum(publishers[key] == name for key in one) for name in "abc"} for one in rounds]
    for one, rest in itertools.pairwise(counts):
        for name in "abc":
            assert one[name] == max(one.values()) or not rest[name], "a publisher with less has no more waiting"
