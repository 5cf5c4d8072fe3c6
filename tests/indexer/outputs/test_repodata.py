"""repodata.json and run_exports.json: a document and its changes give the next document."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import NOARCH, PackageName
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.patches import parse_patches
from lambdas.indexer.tree.shards import Shard, make_shard
from tests.indexer.outputs.whole import (
    apply_to_repodata,
    apply_to_run_exports,
    iter_records,
    make_repodata,
    make_run_exports,
)

FOO, BAR = PackageName("foo"), PackageName("bar")
NAMES = [PackageName(name) for name in ("foo", "foo-bar", "bar", "foo.bar")]


def make_card(filename: str, **more: Any) -> Card:  # noqa: ANN401 - JSON
    name, version, rest = filename.rsplit("-", 2)
    record = {
        "name": name,
        "version": version,
        "build": rest.removesuffix(".conda").removesuffix(".tar.bz2"),
        "depends": [],
        "md5": "0a" * 16,
        "sha256": "0b" * 32,
        "size": 1,
        "indexed_timestamp": 1_700_000_000_000 + len(filename),
        **more,
    }
    return Card(record=record, run_exports={"weak": [name]} if version == "2" else {}, facts={}, etag="e")


def shard_of(*filenames: str, patches: bytes = b"{}", **more: Any) -> Shard:  # noqa: ANN401 - JSON
    return make_shard({filename: make_card(filename, **more) for filename in filenames}, parse_patches(patches))


def shard_of_versions(name: str, versions: dict[str, tuple[str, int | None, bool]]) -> Shard | None:
    if not versions:
        return None
    cards = {}
    for version, (extension, schema, _) in versions.items():
        more = {} if schema is None else {"schema_version": schema}
        cards[f"{name}-{version}-0{extension}"] = make_card(f"{name}-{version}-0{extension}", **more)
    removed = [f'"{name}-{version}-0{extension}"' for version, (extension, _, gone) in versions.items() if gone]
    return make_shard(cards, parse_patches(f'{{"remove": [{",".join(removed)}]}}'.encode()))


some_versions = st.dictionaries(
    st.sampled_from(["1", "2", "3"]),
    st.tuples(st.sampled_from([".conda", ".tar.bz2"]), st.sampled_from([None, None, 1, 3]), st.booleans()),
)


@st.composite
def trees(draw: st.DrawFn) -> dict[PackageName, Shard | None]:
    return {name: shard_of_versions(name, draw(some_versions)) for name in NAMES if draw(st.booleans())}


# repodata


def test_make_repodata__is_a_full_skeleton() -> None:
    assert encode_json(make_repodata(NOARCH)) == (
        b'{"info":{"subdir":"noarch"},"packages":{},"packages.conda":{},"removed":[],"repodata_version":1}'
    )


def test_apply_to_repodata__records_without_run_exports() -> None:
    document = apply_to_repodata(make_repodata(NOARCH), {FOO: shard_of("foo-2-0.conda", "foo-2-0.tar.bz2")})
    assert list(document["packages"]) == ["foo-2-0.tar.bz2"]
    assert list(document["packages.conda"]) == ["foo-2-0.conda"]
    assert document["packages.conda"]["foo-2-0.conda"] == make_card("foo-2-0.conda").record


def test_apply_to_repodata__replaces_all_records_of_a_name() -> None:
    first = apply_to_repodata(make_repodata(NOARCH), {FOO: shard_of("foo-1-0.conda", "foo-2-0.conda")})
    second = apply_to_repodata(first, {FOO: shard_of("foo-3-0.tar.bz2")})
    assert list(second["packages.conda"]) == []
    assert list(second["packages"]) == ["foo-3-0.tar.bz2"]


def test_apply_to_repodata__a_name_that_starts_like_another() -> None:
    both = {FOO: shard_of("foo-1-0.conda"), PackageName("foo-bar"): shard_of("foo-bar-1-0.conda")}
    document = apply_to_repodata(make_repodata(NOARCH), both)
    assert list(apply_to_repodata(document, {FOO: None})["packages.conda"]) == ["foo-bar-1-0.conda"]


def test_apply_to_repodata__removed_by_patches() -> None:
    shard = shard_of("foo-1-0.conda", "foo-2-0.conda", patches=b'{"remove": ["foo-1-0.conda"]}')
    document = apply_to_repodata(make_repodata(NOARCH), {FOO: shard, BAR: shard_of("bar-1-0.conda")})
    assert document["removed"] == ["foo-1-0.conda"]
    assert apply_to_repodata(document, {BAR: None})["removed"] == ["foo-1-0.conda"]
    assert apply_to_repodata(document, {FOO: shard_of("foo-1-0.conda")})["removed"] == []


def test_apply_to_repodata__version_3_records() -> None:
    shard = shard_of("foo-1-0.conda", "foo-1-0.tar.bz2", schema_version=3)
    document = apply_to_repodata(make_repodata(NOARCH), {FOO: shard})
    assert (document["packages"], document["packages.conda"]) == ({}, {})
    assert {kind: list(records) for kind, records in document["v3"].items()} == {
        "conda": ["foo-1-0"],
        "tar.bz2": ["foo-1-0"],
    }
    assert document["repodata_version"] == 1
    assert document["info"]["repodata_revisions"]["v3"]["n_packages"] == 2
    assert sorted(name for name, _ in iter_records(document)) == ["foo-1-0.conda", "foo-1-0.tar.bz2"]
    assert apply_to_repodata(document, {FOO: None}) == make_repodata(NOARCH)


@given(trees(), trees())
def test_apply_to_repodata__equals_one_made_at_once(
    old: dict[PackageName, Shard | None], new: dict[PackageName, Shard | None]
) -> None:
    step_by_step = apply_to_repodata(apply_to_repodata(make_repodata(NOARCH), old), new)
    at_once = apply_to_repodata(make_repodata(NOARCH), {**old, **new})
    assert encode_json(step_by_step) == encode_json(at_once)


@given(trees(), st.randoms(use_true_random=False))
def test_apply_to_repodata__name_by_name_in_any_order(tree: dict[PackageName, Shard | None], random: Any) -> None:  # noqa: ANN401 - a Random
    document, run_exports = make_repodata(NOARCH), make_run_exports(NOARCH)
    items = list(tree.items())
    random.shuffle(items)
    for name, shard in items:
        document = apply_to_repodata(document, {name: shard})
        run_exports = apply_to_run_exports(run_exports, {name: shard})
    assert encode_json(document) == encode_json(apply_to_repodata(make_repodata(NOARCH), tree))
    assert encode_json(run_exports) == encode_json(apply_to_run_exports(make_run_exports(NOARCH), tree))


@given(trees(), trees())
def test_apply__leaves_its_input_alone(
    old: dict[PackageName, Shard | None], new: dict[PackageName, Shard | None]
) -> None:
    document = apply_to_repodata(make_repodata(NOARCH), old)
    run_exports = apply_to_run_exports(make_run_exports(NOARCH), old)
    kept = copy.deepcopy((document, run_exports))
    apply_to_repodata(document, new)
    apply_to_run_exports(run_exports, new)
    assert (document, run_exports) == kept


@given(trees(), trees())
def test_apply__again_changes_nothing(
    old: dict[PackageName, Shard | None], new: dict[PackageName, Shard | None]
) -> None:
    document = apply_to_repodata(apply_to_repodata(make_repodata(NOARCH), old), new)
    run_exports = apply_to_run_exports(apply_to_run_exports(make_run_exports(NOARCH), old), new)
    assert encode_json(apply_to_repodata(document, new)) == encode_json(document)
    assert encode_json(apply_to_run_exports(run_exports, new)) == encode_json(run_exports)


@given(trees())
def test_apply__lists_what_the_shards_list(tree: dict[PackageName, Shard | None]) -> None:
    document = apply_to_repodata(make_repodata(NOARCH), tree)
    run_exports = apply_to_run_exports(make_run_exports(NOARCH), tree)
    listed = {filename for filename, _ in iter_records(document)}
    assert listed == {*run_exports["packages"], *run_exports["packages.conda"]}
    assert not listed & set(document["removed"])
    for section in ("packages", "packages.conda"):
        assert all(record["name"] in tree for record in document[section].values())


FOREIGN: list[Any] = [
    {},
    {"info": 1},
    {"info": {"subdir": "noarch"}},
    {"info": {"subdir": "noarch"}, "packages": [], "packages.conda": {}, "removed": []},
    {"info": {"subdir": "noarch"}, "packages": {"a": 1}, "packages.conda": {}, "removed": []},
    {"info": {"subdir": "noarch"}, "packages": {"a": {}}, "packages.conda": {}, "removed": []},
    [],
    None,
    "text",
]


@pytest.mark.parametrize("document", FOREIGN)
def test_apply_to_repodata__foreign_document(document: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(InvalidDocumentError):
        apply_to_repodata(document, {})


# run_exports


def test_make_run_exports__form() -> None:
    assert make_run_exports(NOARCH) == {
        "info": {"subdir": "noarch", "version": 1},
        "packages": {},
        "packages.conda": {},
    }


def test_apply_to_run_exports__every_artifact_is_listed() -> None:
    document = apply_to_run_exports(
        make_run_exports(NOARCH), {FOO: shard_of("foo-1-0.conda", "foo-2-0.conda", "foo-2-0.tar.bz2")}
    )
    assert document["packages"] == {"foo-2-0.tar.bz2": {"run_exports": {"weak": ["foo"]}}}
    assert document["packages.conda"] == {
        "foo-1-0.conda": {"run_exports": {}},
        "foo-2-0.conda": {"run_exports": {"weak": ["foo"]}},
    }


def test_apply_to_run_exports__version_3_too() -> None:
    document = apply_to_run_exports(make_run_exports(NOARCH), {FOO: shard_of("foo-2-0.conda", schema_version=3)})
    assert list(document["packages.conda"]) == ["foo-2-0.conda"]


@pytest.mark.parametrize("document", [{}, [], None, {"packages": []}, {"packages": {}, "packages.conda": 1}])
def test_apply_to_run_exports__foreign_document(document: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(InvalidDocumentError):
        apply_to_run_exports(document, {})
