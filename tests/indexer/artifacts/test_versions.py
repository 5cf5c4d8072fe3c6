"""The order of versions, as in CEP 33."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.indexer.artifacts.versions import VersionKey

ORDERED = [  # CEP 33's own list, each smaller than the next; those in one row are equal
    ["0.4", "0.4.0"],
    ["0.4.1.rc", "0.4.1.RC"],
    ["0.4.1"],
    ["0.5a1"],
    ["0.5b3"],
    ["0.5C1"],
    ["0.5"],
    ["0.9.6"],
    ["0.960923"],
    ["1.0"],
    ["1.1dev1"],
    ["1.1_"],
    ["1.1a1"],
    ["1.1.0dev1", "1.1.dev1"],
    ["1.1.a1"],
    ["1.1.0rc1"],
    ["1.1.0", "1.1"],
    ["1.1.0post1", "1.1.post1"],
    ["1.1post1"],
    ["1996.07.12"],
    ["1!0.4.1"],
    ["1!3.1.1.6"],
    ["2!0.4.1"],
]
FLAT = [(rank, version) for rank, versions in enumerate(ORDERED) for version in versions]
versions = st.text("0123456789abdevpostrc._+!-*", min_size=1, max_size=16)


@pytest.mark.parametrize(("rank", "version"), FLAT)
def test_version_key__against_all_others(rank: int, version: str) -> None:
    for other_rank, other in FLAT:
        assert (VersionKey(version) < VersionKey(other)) is (rank < other_rank), (version, other)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("1.0.1_", "1.0.1a"),  # OpenSSL
        ("1.0.1a", "1.0.1b"),
        ("1.9", "1.10"),
        ("1.0+local", "1.0"),  # text precedes the implied number 0
        ("1.0", "1.0+1"),
        ("1.0+a.1", "1.0+a.2"),
        ("1.0+9", "1.0+10"),
        ("2024.9.9", "2024.10.1"),
        ("9", "10"),
        ("1." + "9" * 60, "1.1" + "0" * 60),
    ],
)
def test_version_key__pairs(smaller: str, larger: str) -> None:
    assert VersionKey(smaller) < VersionKey(larger)
    assert not VersionKey(larger) < VersionKey(smaller)


@pytest.mark.parametrize(
    "version", ["9" * 5000, "9" * 5000 + "!1", "", "!", "+", "..", "1!!2", "١٢", "1.0*", "x" * 10_000]
)
def test_version_key__anything_can_be_compared(version: str) -> None:
    assert not VersionKey(version) < VersionKey(version)
    assert (VersionKey(version) < VersionKey("1.0")) in {True, False}


@given(versions)
def test_version_key__nothing_precedes_itself(version: str) -> None:
    assert not VersionKey(version) < VersionKey(version)


@given(versions, versions)
def test_version_key__at_most_one_precedes(one: str, other: str) -> None:
    assert not (VersionKey(one) < VersionKey(other) and VersionKey(other) < VersionKey(one))


@given(versions, versions, versions)
def test_version_key__transitive(one: str, two: str, three: str) -> None:
    first, second, third = sorted([one, two, three], key=VersionKey)
    assert not VersionKey(third) < VersionKey(first), (first, second, third)
