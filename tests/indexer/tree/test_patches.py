"""Patch instructions: parsing, rejection, and their effect on records."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.record import CLOCK_SKEW_MS, SERVER_KEYS
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.patches import (
    MAX_PATCH_BYTES,
    NO_PATCHES,
    PROTECTED_FIELDS,
    PatchInstructions,
    apply_patches,
    check_protected,
    parse_patches,
)
from lambdas.indexer.tree.shards import encode_shard, make_shard

UPLOADED_MS = 1_800_000_000_000

Records = dict[str, dict[str, dict[str, Any]]]


def parse(**document: Any) -> PatchInstructions:  # noqa: ANN401 - JSON
    return parse_patches(json.dumps(document).encode())


def records() -> Records:
    return {
        "packages": {
            "foo-1.0-0.tar.bz2": {"name": "foo", "depends": ["a"], "license": "MIT"},
            "bar-1.0-0.tar.bz2": {"name": "bar", "depends": ["a"]},
        },
        "packages.conda": {
            "foo-1.0-0.conda": {"name": "foo", "depends": ["a"], "license": "MIT"},
            "foo-2.0-0.conda": {"name": "foo", "depends": ["b"], "extra_depends": {"x": ["y"], "z": []}},
        },
    }


def code_of(body: bytes) -> str:
    with pytest.raises(RejectedError) as caught:
        parse_patches(body)
    return caught.value.code


# Applying, as conda-index does


def test_apply_patches__none() -> None:
    patched = apply_patches(records(), NO_PATCHES)
    assert (patched.sections, patched.removed) == (records(), ())


def test_apply_patches__replaces_adds_and_deletes_fields() -> None:
    patches = parse(packages={"foo-1.0-0.tar.bz2": {"depends": ["c"], "license": None, "constrains": ["d"]}})
    patched = apply_patches(records(), patches).sections["packages"]["foo-1.0-0.tar.bz2"]
    assert patched == {"name": "foo", "depends": ["c"], "constrains": ["d"]}


def test_apply_patches__of_a_tar_bz2_apply_to_its_conda() -> None:
    patches = parse(packages={"foo-1.0-0.tar.bz2": {"depends": ["c"]}})
    assert apply_patches(records(), patches).sections["packages.conda"]["foo-1.0-0.conda"]["depends"] == ["c"]


def test_apply_patches__those_of_the_conda_come_last() -> None:
    patches = parse(
        packages={"foo-1.0-0.tar.bz2": {"depends": ["c"], "license": "BSD"}},
        **{"packages.conda": {"foo-1.0-0.conda": {"depends": ["d"]}}},
    )
    sections = apply_patches(records(), patches).sections
    assert sections["packages"]["foo-1.0-0.tar.bz2"]["depends"] == ["c"]
    assert sections["packages.conda"]["foo-1.0-0.conda"]["depends"] == ["d"]
    assert sections["packages.conda"]["foo-1.0-0.conda"]["license"] == "BSD"


def test_apply_patches__of_a_conda_do_not_apply_to_its_tar_bz2() -> None:
    patches = parse(**{"packages.conda": {"foo-1.0-0.conda": {"depends": ["d"]}}})
    assert apply_patches(records(), patches).sections["packages"] == records()["packages"]


def test_apply_patches__dictionaries_are_merged() -> None:
    patches = parse(**{"packages.conda": {"foo-2.0-0.conda": {"extra_depends": {"x": ["new"], "more": ["m"]}}}})
    patched = apply_patches(records(), patches).sections["packages.conda"]["foo-2.0-0.conda"]
    assert patched["extra_depends"] == {"x": ["new"], "z": [], "more": ["m"]}


def test_apply_patches__deleting_a_missing_field() -> None:
    patches = parse(packages={"bar-1.0-0.tar.bz2": {"license": None}})
    assert apply_patches(records(), patches).sections == records()


def test_apply_patches__revoke() -> None:
    patched = apply_patches(records(), parse(revoke=["foo-1.0-0.tar.bz2"])).sections
    for section, filename in (("packages", "foo-1.0-0.tar.bz2"), ("packages.conda", "foo-1.0-0.conda")):
        assert patched[section][filename]["revoked"] is True
        assert patched[section][filename]["depends"] == ["a", "package_has_been_revoked"]


def test_apply_patches__revoke_without_depends() -> None:
    patched = apply_patches({"packages": {"foo-1.0-0.tar.bz2": {}}}, parse(revoke=["foo-1.0-0.tar.bz2"]))
    assert patched.sections["packages"]["foo-1.0-0.tar.bz2"]["depends"] == ["package_has_been_revoked"]


def test_apply_patches__remove() -> None:
    patched = apply_patches(records(), parse(remove=["foo-1.0-0.tar.bz2", "unknown-1-0.conda"]))
    assert list(patched.sections["packages"]) == ["bar-1.0-0.tar.bz2"]
    assert list(patched.sections["packages.conda"]) == ["foo-2.0-0.conda"]
    assert patched.removed == ("foo-1.0-0.conda", "foo-1.0-0.tar.bz2")


def test_apply_patches__remove_of_a_conda_leaves_its_tar_bz2() -> None:
    patched = apply_patches(records(), parse(remove=["foo-1.0-0.conda"]))
    assert patched.sections["packages"] == records()["packages"]
    assert patched.removed == ("foo-1.0-0.conda",)


filenames = st.sampled_from(
    ["foo-1.0-0.tar.bz2", "foo-1.0-0.conda", "foo-2.0-0.conda", "bar-1.0-0.tar.bz2", "n-1-0.conda"]
)
specs = st.none() | st.lists(st.sampled_from(["a", "b"]), max_size=2)
fixes = st.fixed_dictionaries(
    {},
    optional={
        "depends": specs,
        "constrains": specs,
        "track_features": specs,
        "license": st.sampled_from([None, "BSD"]),
    },
)
instructions = st.fixed_dictionaries(
    {},
    optional={
        "packages": st.dictionaries(filenames, fixes, max_size=3),
        "packages.conda": st.dictionaries(filenames, fixes, max_size=3),
        "revoke": st.lists(filenames, max_size=2),
        "remove": st.lists(filenames, max_size=2),
    },
)


@given(instructions)
def test_apply_patches__leaves_its_input_unchanged_and_is_repeatable(document: dict[str, Any]) -> None:
    patches = parse(**document)
    before = records()
    kept = copy.deepcopy(before)
    first = apply_patches(before, patches)
    assert before == kept
    assert apply_patches(before, patches) == first


@given(instructions)
def test_apply_patches__changes_named_filenames_only(document: dict[str, Any]) -> None:
    patches = parse(**document)
    patched = apply_patches(records(), patches).sections
    for section, originals in records().items():
        for filename, original in originals.items():
            if filename not in patches.filenames:
                assert patched[section][filename] == original


@given(instructions, st.randoms(use_true_random=False))
def test_parse_patches__order_of_entries_does_not_matter(document: dict[str, Any], random: Any) -> None:  # noqa: ANN401 - a Random
    shuffled = {}
    for name, value in random.sample(sorted(document.items()), len(document)):
        items = sorted(value.items() if isinstance(value, dict) else value, key=repr)
        random.shuffle(items)
        shuffled[name] = dict(items) if isinstance(value, dict) else items
    assert apply_patches(records(), parse(**shuffled)) == apply_patches(records(), parse(**document))


# run_exports (version 2, CEP 21)


def shown_run_exports(patch: object, own: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    patches = parse(patch_instructions_version=2, **{"packages.conda": {"foo-1.0-0.conda": {"run_exports": patch}}})
    record = {"name": "foo", "version": "1.0", "build": "0", "md5": "0a" * 16, "sha256": "0b" * 32, "size": 1}
    card = Card(record=record, run_exports=own, facts={}, etag="e")
    return make_shard({"foo-1.0-0.conda": card}, patches).flat["packages.conda"]["foo-1.0-0.conda"]["run_exports"]


def test_make_shard__run_exports_patched() -> None:
    assert shown_run_exports({"weak": ["b"]}, {"strong": ["a"]}) == {"weak": ["b"], "strong": ["a"]}


def test_make_shard__run_exports_removed() -> None:
    assert shown_run_exports(None, {"strong": ["a"]}) == {}


def test_make_shard__one_kind_of_run_exports_removed() -> None:
    assert shown_run_exports({"strong": None}, {"strong": ["a"]}) == {}


@pytest.mark.parametrize("value", [["foo"], "foo", 1, {"weak": "foo"}, {"weak": [1]}, {"strong": {"a": 1}}])
def test_parse_patches__run_exports_that_clients_can_t_read(value: object) -> None:
    document = {
        "patch_instructions_version": 2,
        "packages.conda": {"foo-1.0-0.conda": {"run_exports": value}},
    }
    assert code_of(json.dumps(document).encode()) == "patches-malformed"


def test_parse_patches__run_exports_need_version_2() -> None:
    assert code_of(b'{"packages": {"foo-1.0-0.tar.bz2": {"run_exports": {}}}}') == "patches-protected-field"


# Rejections


OTHER_VALUES: dict[str, Any] = {"build_number": 7, "size": 7, "revoked": True, "schema_version": 2, "signatures": {}}


def record_with_all_protected_fields() -> dict[str, Any]:
    said = {"name": "foo", "version": "1.0", "build": "0", "build_number": 0, "revoked": False}
    return {field: said.get(field, "x") for field in PROTECTED_FIELDS} | {"depends": ["a"]}


@pytest.mark.parametrize("field", sorted(PROTECTED_FIELDS))
@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_check_protected__attack_fix_of_a_protected_field(field: str, version: int, *, is_deleted: bool) -> None:
    value = None if is_deleted else OTHER_VALUES.get(field, "other")
    document = {"patch_instructions_version": version, "packages": {"foo-1.0-0.tar.bz2": {field: value}}}
    for filename in ("foo-1.0-0.tar.bz2", "foo-1.0-0.conda"):  # both kinds
        with pytest.raises(RejectedError) as caught:
            check_protected(parse(**document), {filename: record_with_all_protected_fields()})
        assert caught.value.code == "patches-protected-field"
        assert repr(field) in str(caught.value)


@pytest.mark.parametrize("field", ["name", "version", "build"])
@pytest.mark.parametrize("value", ["1", None, 0, ["foo"]])
def test_parse_patches__protected_field_that_contradicts_the_filename(field: str, value: object) -> None:
    assert (
        code_of(json.dumps({"packages": {"foo-1.0-0.tar.bz2": {field: value}}}).encode()) == "patches-protected-field"
    )


@pytest.mark.parametrize("field", sorted(PROTECTED_FIELDS))
def test_check_protected__a_fix_that_changes_nothing(field: str) -> None:
    record = record_with_all_protected_fields()
    patches = parse(packages={"foo-1.0-0.tar.bz2": {field: record[field], "depends": ["b"]}})
    check_protected(patches, {"foo-1.0-0.tar.bz2": record})
    without = {key: value for key, value in record.items() if key != field}
    # Whatever the record says later, the fix is never applied.
    for one in (record, without, without | {field: "later"}):
        patched = apply_patches({"packages": {"foo-1.0-0.tar.bz2": one}}, patches).sections["packages"]
        assert patched["foo-1.0-0.tar.bz2"] == one | {"depends": ["b"]}


def test_check_protected__deleting_what_is_not_there_and_what_is_unknown() -> None:
    patches = parse(packages={"foo-1.0-0.tar.bz2": {"revoked": None, "md5": "x"}, "bar-1.0-0.conda": {"size": 1}})
    check_protected(patches, {"foo-1.0-0.tar.bz2": {"md5": "x"}})
    assert patches.fixes == {}
    assert patches.filenames == frozenset()


@pytest.mark.parametrize(("said", "recorded"), [(True, 1), (1, True), (0, False), (False, 0), ("1", 1)])
def test_check_protected__another_type_is_another_value(said: object, recorded: object) -> None:
    with pytest.raises(RejectedError):
        check_protected(
            parse(packages={"foo-1.0-0.conda": {"build_number": said}}), {"foo-1.0-0.conda": {"build_number": recorded}}
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depends", "a"),
        ("depends", [1]),
        ("constrains", {"a": 1}),
        ("license", ["MIT"]),
        ("timestamp", 1.5),
        ("timestamp", "now"),
        ("track_features", [1]),
        ("features", []),
        ("noarch", "rust"),
        ("purls", ["no purl"]),
        ("purls", ["pkg:pypi"]),
        ("purls", ["pkg:pypi/foo", "pkg:pypi/numpy@1.0?bad"]),
        ("flags", ["no flag!"]),
        ("extra_depends", {"x": "y"}),
        ("python_site_packages_path", 1),
    ],
)
def test_parse_patches__fields_that_clients_can_t_read(field: str, value: object) -> None:
    assert code_of(json.dumps({"packages": {"foo-1.0-0.tar.bz2": {field: value}}}).encode()) == "patches-malformed"


def test_parse_patches__attack_server_owned_field() -> None:
    """A patch may not set what an artifact may not state."""
    assert SERVER_KEYS <= PROTECTED_FIELDS


@pytest.mark.parametrize("late_ms", [CLOCK_SKEW_MS + 1, 10**12])
def test_parse_patches__attack_timestamp_in_the_future(late_ms: int) -> None:
    body = json.dumps({"packages": {"foo-1.0-0.tar.bz2": {"timestamp": UPLOADED_MS + late_ms}}}).encode()

    with pytest.raises(RejectedError) as caught:
        parse_patches(body, uploaded_ms=UPLOADED_MS)
    assert caught.value.code == "patches-malformed"
    assert "'timestamp'" in str(caught.value)


@pytest.mark.parametrize("timestamp", [None, 0, UPLOADED_MS // 1000, UPLOADED_MS, UPLOADED_MS + CLOCK_SKEW_MS])
def test_parse_patches__timestamp_of_the_past(timestamp: int | None) -> None:
    body = json.dumps({"packages": {"foo-1.0-0.tar.bz2": {"timestamp": timestamp}}}).encode()

    assert parse_patches(body, uploaded_ms=UPLOADED_MS).fixes["foo-1.0-0.tar.bz2"] == ({"timestamp": timestamp},)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "patches-not-json"),
        (b"{", "patches-not-json"),
        (b"\xff\xfe{}", "patches-not-json"),
        (b"\xef\xbb\xbf{}", "patches-not-json"),
        (b"[" * 100_000, "patches-not-json"),
        (b"[]", "patches-not-object"),
        (b"null", "patches-not-object"),
        (b'"text"', "patches-not-object"),
        (b'{"patch_instructions_version": 3}', "patches-version"),
        (b'{"patch_instructions_version": 0}', "patches-version"),
        (b'{"patch_instructions_version": true}', "patches-version"),
        (b'{"patch_instructions_version": "1"}', "patches-version"),
        (b'{"patch_instructions_version": null}', "patches-version"),
        (b'{"patch_instructions_version": [1]}', "patches-version"),
        (b'{"packages": []}', "patches-malformed"),
        (b'{"packages.conda": null}', "patches-malformed"),
        (b'{"packages": {"foo-1.0-0.tar.bz2": []}}', "patches-malformed"),
        (b'{"packages": {"foo-1.0-0.zip": {}}}', "patches-malformed"),
        (b'{"remove": "foo-1.0-0.conda"}', "patches-malformed"),
        (b'{"remove": [1]}', "patches-malformed"),
        (b'{"remove": {"foo-1.0-0.conda": 1}}', "patches-malformed"),
        (b'{"revoke": ["foo"]}', "patches-malformed"),
    ],
)
def test_parse_patches__invalid(body: bytes, code: str) -> None:
    assert code_of(body) == code


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"9" * 5000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"[" * 80 + b"]" * 80,
        b'{"a": 1, "a": 2}',
    ],
)
def test_parse_patches__values_that_no_encoding_can_carry(value: bytes) -> None:
    """Such a value would be committed, and break every output of the commit."""
    assert code_of(b'{"packages": {"foo-1.0-0.tar.bz2": {"x-unknown": ' + value + b"}}}").startswith("patches-")


def test_parse_patches__too_large() -> None:
    assert code_of(b" " * (MAX_PATCH_BYTES + 1)) == "patches-too-large"


def test_parse_patches__unknown_parts_are_ignored() -> None:
    assert parse(patch_instructions_version=2, more={"a": 1}) == NO_PATCHES


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | filenames,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        filenames
        | st.sampled_from(["packages", "packages.conda", "remove", "revoke", "patch_instructions_version", "depends",
                           "run_exports", "timestamp"])
        | st.text(max_size=4),
        inner,
        max_size=3,
    ),
    max_leaves=12,
)  # fmt: skip


@given(junk | st.fixed_dictionaries({"patch_instructions_version": st.just(2), "packages": junk, "remove": junk}))
def test_parse_patches__anything_is_rejected_or_can_be_published(document: object) -> None:
    try:
        patches = parse_patches(json.dumps(document).encode())
    except RejectedError as error:
        assert error.code.startswith("patches-")  # noqa: PT017 - either way is right
        return
    record = {"name": "foo", "version": "1.0", "build": "0", "md5": "0a" * 16, "sha256": "0b" * 32, "size": 1}
    cards = {
        filename: Card(record={**record, "name": filename.partition("-")[0]}, run_exports={}, facts={}, etag="e")
        for filename in ("foo-1.0-0.tar.bz2", "foo-1.0-0.conda")
    }
    shard = make_shard(cards, patches)
    encode_shard(shard)
    encode_json([shard.flat["packages"], shard.flat["packages.conda"]])
    assert all(isinstance(shown["run_exports"], dict) for shown in [*shard.flat["packages"].values()])
