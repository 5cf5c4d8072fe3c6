"""The subset for conda's classic solver."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.indexer.outputs.current_repodata import make_current_repodata


def record(name: str, version: str, *depends: str, build: str = "0", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"name": name, "version": version, "build": build, "depends": list(depends), "md5": "m", "size": 1, **more}


def make(*records: dict[str, Any], old: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    def listed(several: tuple[dict[str, Any], ...], extension: str) -> dict[str, Any]:
        return {f"{one['name']}-{one['version']}-{one['build']}{extension}": one for one in several}

    document = {
        "info": {"subdir": "noarch", "repodata_revisions": {"v3": {}}},
        "packages": listed(old, ".tar.bz2"),
        "packages.conda": listed(records, ".conda"),
        "removed": ["gone-1-0.conda"],
        "repodata_version": 1,
        "v3": {"conda": {"x": {}}},
    }
    return make_current_repodata(document)


def kept(*records: dict[str, Any], old: tuple[dict[str, Any], ...] = ()) -> list[str]:
    document = make(*records, old=old)
    return sorted([*document["packages"], *document["packages.conda"]])


def test_make_current_repodata__newest_of_each_name_in_all_builds() -> None:
    assert kept(
        record("a", "1.0"), record("a", "1.10", build="x"), record("a", "1.10", build="y"), record("a", "1.9")
    ) == ["a-1.10-x.conda", "a-1.10-y.conda"]


def test_make_current_repodata__form() -> None:
    document = make(record("a", "1"))
    assert {key: value for key, value in document.items() if key != "packages.conda"} == {
        "info": {"subdir": "noarch"},
        "packages": {},
        "removed": [],
        "repodata_version": 1,
    }


def test_make_current_repodata__conda_replaces_its_tar_bz2() -> None:
    document = make(record("a", "1"), old=(record("a", "1", md5="old", size=9), record("b", "1")))
    assert list(document["packages"]) == ["b-1-0.tar.bz2"]
    shown = document["packages.conda"]["a-1-0.conda"]
    assert (shown["legacy_bz2_md5"], shown["legacy_bz2_size"]) == ("old", 9)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("a", []),
        ("a >=2", []),
        ("a <2", ["1.1"]),
        ("a <=1.1", ["1.1"]),
        ("a 1.0", ["1.0"]),
        ("a 1.0.*", ["1.0"]),
        ("a 1.0*", ["1.0"]),
        ("a =1", ["1.1"]),
        ("a =1.0", ["1.0"]),
        ("a ==1.0", ["1.0"]),
        ("a >=1,<1.1", ["1.0"]),
        ("a <1|1.0", ["1.0"]),
        ("a >1.0,<2", ["1.1"]),
        ("a !=2", ["1.1"]),
        ("a ~=1.0", []),
        ("a 1.1 0", ["1.1"]),
        ("a 1.1 other", []),
        ("a * *", []),
        ("a >=9", []),
        ("unknown", []),
        ("a >=", []),
        ("a |", []),
        ("a ,,", []),
        ("", []),
    ],
)
def test_make_current_repodata__dependency_on_an_older_version(spec: str, expected: list[str]) -> None:
    found = kept(record("a", "1.0"), record("a", "1.1"), record("a", "2"), record("user", "1", spec))
    assert found == sorted(["a-2-0.conda", "user-1-0.conda", *(f"a-{version}-0.conda" for version in expected)])


def test_make_current_repodata__indirect_dependency() -> None:
    found = kept(
        record("a", "1"), record("a", "2"), record("b", "1", "a <2"), record("b", "2"), record("c", "1", "b <2")
    )
    assert found == ["a-1-0.conda", "a-2-0.conda", "b-1-0.conda", "b-2-0.conda", "c-1-0.conda"]


def test_make_current_repodata__features_need_a_plain_one() -> None:
    found = kept(record("a", "1"), record("a", "2", features="debug"), record("a", "0"))
    assert found == ["a-1-0.conda", "a-2-0.conda"]


HOSTILE = [
    "a >=" + "9" * 5000,
    "a >=" + "9" * 5000 + "!1",
    "a * " + "*a" * 40 + "*b",
    "a " + "*a" * 40 + "*b",
    "a ==" + "1*" * 200 + "x",
    "a =" + ".*" * 3000,
    "a " + "|".join(["<1"] * 3000),
    "a (((((((" + "a" * 3000,
    "a >=[x]{99}",
]


@pytest.mark.parametrize("spec", HOSTILE, ids=range(len(HOSTILE)))
def test_make_current_repodata__hostile_dependency(spec: str) -> None:
    victims = [record("a", "a" * 60, build="a" * 64), record("a", "1" * 60, build="a" * 64), record("a", "2")]
    assert "user-1-0.conda" in kept(*victims, record("user", "1", spec))


def test_make_current_repodata__cycle() -> None:
    assert kept(record("a", "1", "b <2"), record("b", "1", "a <1"), record("b", "2"), record("a", "0", "b <2")) == [
        "a-0-0.conda",
        "a-1-0.conda",
        "b-1-0.conda",
        "b-2-0.conda",
    ]


specs = st.builds(
    "{} {}{}".format,
    st.sampled_from("abc"),
    st.sampled_from(["", ">=", "<", "==", "=", "!=", "~=", "<="]),
    st.text("0123.*|,abc", max_size=6),
)


@given(
    st.lists(
        st.builds(record, st.sampled_from("abc"), st.sampled_from(["1", "1.1", "2", "2a", "3"]), specs), max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_make_current_repodata__always_has_the_newest(records: list[dict[str, Any]], random: Any) -> None:  # noqa: ANN401 - a Random
    unique = {f"{one['name']}-{one['version']}": one for one in records}
    found = kept(*unique.values())
    for name in {one["name"] for one in unique.values()}:
        newest = max(version for version in (one["version"] for one in unique.values() if one["name"] == name))
        assert f"{name}-{'2' if newest == '2a' and f'{name}-2' in unique else newest}-0.conda" in found
    shuffled = list(unique.values())
    random.shuffle(shuffled)
    assert kept(*shuffled) == found
