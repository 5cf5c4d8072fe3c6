from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import RejectedError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.artifacts.record import (
    CLOCK_SKEW_MS,
    DROPPED_KEYS,
    SERVER_KEYS,
    Record,
    check_fields,
    indexed_timestamp_of,
    is_v3,
    make_record,
)
from tests.builders import BUILD_TIMESTAMP_MS, MemorySource, conda_package, index_json, tar_bz2_package

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
UPLOADED_MS = 1_800_000_000_000
MD5, SHA256 = "a" * 32, "b" * 64


def info_of(index: dict[str, Any]) -> ArtifactInfo:
    return ArtifactInfo(index=index, run_exports={}, about={}, channeldata={}, md5=MD5, sha256=SHA256, size=5)


def key_of(filename: str = "foo-1.0-0.conda", subdir: str = "noarch") -> ArtifactKey:
    return parse_artifact_key(f"team/{subdir}/{filename}")


def record_of(**fields: Any) -> Record:  # noqa: ANN401 - any JSON
    return make_record(info_of(index_json(index_extra=fields)), key_of(), last_modified_ms=UPLOADED_MS)


def rejection(index: dict[str, Any], key: ArtifactKey | None = None) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        make_record(info_of(index), key or key_of(), last_modified_ms=UPLOADED_MS)
    return caught.value


def test_make_record__is_the_index_with_the_facts_of_the_file() -> None:
    assert record_of(depends=["bar >=1"], license="MIT") == {
        "build": "0",
        "build_number": 0,
        "depends": ["bar >=1"],
        "indexed_timestamp": UPLOADED_MS,
        "license": "MIT",
        "md5": MD5,
        "name": "foo",
        "noarch": "generic",
        "sha256": SHA256,
        "size": 5,
        "subdir": "noarch",
        "timestamp": BUILD_TIMESTAMP_MS,
        "version": "1.0",
    }


def test_make_record__leaves_its_input_alone() -> None:
    index = index_json()
    before = json.dumps(index)

    make_record(info_of(index), key_of(), last_modified_ms=UPLOADED_MS)

    assert json.dumps(index) == before


@pytest.mark.parametrize("build", [conda_package, tar_bz2_package])
def test_make_record__of_an_artifact_that_was_read(build: Any) -> None:  # noqa: ANN401 - either builder
    filename, content = build(name="bar", version="2!1.0+x.1", build="py311_7", subdir="linux-64", timestamp=None)
    key = key_of(filename, "linux-64")

    record = make_record(
        read_artifact(MemorySource(content=content), key.distribution), key, last_modified_ms=UPLOADED_MS
    )

    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert record["size"] == len(content)
    assert record["version"] == "2!1.0+x.1"
    assert record["build_number"] == 7
    assert "timestamp" not in record


@pytest.mark.parametrize("key", sorted(DROPPED_KEYS))
def test_make_record__drops_what_conda_index_drops(key: str) -> None:
    assert key not in record_of(**{key: {"any": "thing"}})


def test_make_record__carries_unknown_keys() -> None:
    unknown = {"app": {"a": [1, None, {"b": 1.5}]}, "zzz": "é", "constrains": ["x"], "preferred_env": 1}

    record = record_of(**unknown)

    assert {key: record[key] for key in unknown} == unknown


@pytest.mark.parametrize("value", [None, "x", 1, "0" * 64])
@pytest.mark.parametrize("key", sorted(SERVER_KEYS))
def test_make_record__rejects_forged_keys(key: str, value: object) -> None:
    error = rejection(index_json(index_extra={key: value}))

    assert error.code == "server-key-forged"
    assert repr(key) in str(error)


@pytest.mark.parametrize("key", ["name", "version", "build", "build_number"])
@pytest.mark.parametrize("value", [..., None])
def test_make_record__rejects_what_is_missing(key: str, value: object) -> None:
    error = rejection(index_json(index_extra={key: value}))

    assert error.code == ("field-invalid" if (key, value) == ("build_number", None) else "field-missing")
    assert repr(key) in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("name", ["foo"]),
        ("version", 1),
        ("version", 1.0),
        ("build", 0),
        ("build", {}),
        ("subdir", None),
        ("subdir", 64),
        ("build_number", "0"),
        ("build_number", 0.0),
        ("build_number", True),
        ("build_number", -1),
        ("depends", None),
        ("depends", "bar"),
        ("depends", ["bar", 1]),
        ("depends", {"bar": "1"}),
        ("constrains", None),
        ("constrains", "bar"),
        ("constrains", [None]),
        ("license", ["MIT"]),
        ("license", 1),
        ("license_family", ["BSD"]),
        ("features", ["mkl"]),
        ("features", None),
        ("track_features", None),
        ("track_features", {}),
        ("track_features", 1),
        ("track_features", [1]),
        ("noarch", "weird"),
        ("noarch", 1),
        ("noarch", 0),
        ("noarch", []),
        ("timestamp", 1.5),
        ("timestamp", "1700000000000"),
        ("timestamp", True),
        ("timestamp", -1),
        ("purls", "pkg:pypi/foo"),
        ("purls", ["foo"]),
        ("purls", ["pkg:pypi/foo", "pkg:pypi"]),
        ("purls", ["pkg:"]),
        ("purls", ["pkg:/x"]),
        ("purls", ["pkg:pypi/numpy@1.0?bad"]),
        ("purls", [1]),
        ("python_site_packages_path", 1),
        ("extra_depends", ["a"]),
        ("extra_depends", {"test": "a"}),
        ("extra-depends", {"test": [1]}),
        ("flags", "cuda"),
        ("flags", ["A b"]),
        ("flags", [1]),
        ("schema_version", "3"),
        ("schema_version", True),
    ],
)
def test_make_record__rejects_types_that_clients_choke_on(key: str, value: object) -> None:
    error = rejection(index_json(index_extra={key: value}))

    assert error.code == "field-invalid"
    assert repr(key) in str(error)
    assert "info/index.json" in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depends", ...),
        ("timestamp", ...),
        ("timestamp", None),
        ("timestamp", 0),
        ("license", None),
        ("features", "mkl"),
        ("track_features", "a b"),
        ("track_features", ["a", "b"]),
        ("track_features", ""),
        ("noarch", ...),
        ("noarch", None),
        ("noarch", True),
        ("noarch", False),
        ("noarch", "python"),
        ("purls", None),
        ("purls", ["pkg:pypi/foo@1.0"]),
        ("python_site_packages_path", None),
        ("extra_depends", {"test": ["pytest >=8"]}),
        ("flags", ["cuda", "blas:mkl"]),
        ("run_exports", None),
        ("run_exports", {"weak": ["foo"]}),
        ("schema_version", 1),
        ("subdir", ...),
        ("build_number", 2**63),
    ],
)
def test_make_record__accepts_what_clients_read(key: str, value: object) -> None:
    record = record_of(**{key: value})

    assert record.get(key, ...) == value


@pytest.mark.parametrize(("key", "value"), [("noarch", ""), ("schema_version", None)])
def test_make_record__leaves_out_what_says_nothing(key: str, value: object) -> None:
    record = record_of(**{key: value})

    assert key not in record
    assert not is_v3(record)


@pytest.mark.parametrize("value", [["foo"], "foo", {"weak": "foo"}, {"strong": [1]}])
def test_make_record__rejects_run_exports_that_clients_cannot_read(value: object) -> None:
    assert rejection(index_json(index_extra={"run_exports": value})).code == "run-exports-invalid"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("name", "bar", "name-mismatch"),
        ("name", "", "name-invalid"),
        ("name", "Foo", "name-invalid"),
        ("name", "föö", "name-invalid"),
        ("name", "foo ", "name-invalid"),
        ("name", "foo\n", "name-invalid"),
        ("name", "__foo", "name-invalid"),
        ("name", "../foo", "name-invalid"),
        ("name", "f" * 65, "name-invalid"),
        ("version", "99.0", "version-mismatch"),
        ("version", "1.0-1", "version-invalid"),
        ("version", "1.0 RC", "version-invalid"),
        ("version", "", "version-invalid"),
        ("version", "1" * 65, "version-invalid"),
        ("build", "1", "build-mismatch"),
        ("build", "a-b", "build-invalid"),
        ("build", "", "build-invalid"),
        ("build", "0" * 65, "build-invalid"),
        ("subdir", "linux-64", "subdir-mismatch"),
        ("subdir", "NoArch", "subdir-invalid"),
        ("subdir", "../noarch", "subdir-invalid"),
        ("subdir", "", "subdir-invalid"),
    ],
)
def test_make_record__rejects_names_that_are_illegal_or_contradict_the_key(field: str, value: str, code: str) -> None:
    assert rejection(index_json(index_extra={field: value})).code == code


@pytest.mark.parametrize(
    "version",
    ["1..0", "1.", ".1", "_1", "1+", "+1", "1+1+1", "!1", "1!", "1!1!1", "a!1", "1.__", "1_.1", "1+a_", "_", "9" * 20],
)
def test_make_record__rejects_versions_that_clients_cannot_compare(version: str) -> None:
    index = index_json(version=version)

    error = rejection(index, key_of(f"foo-{version}-0.conda"))

    assert error.code == "version-invalid"


@pytest.mark.parametrize(
    "version",
    [
        "1",
        "1.0_",
        "1.0__",
        "1.1.1k",
        "2024a",
        "1!2.0",
        "1.0+cu118",
        "1.0.dev3+g12ab.d2",
        "0.0_1",
        "a",
        "9" * 19,
        "1.2.3_Beta1",
        "R15B01",
        "Release_2017_09",
        "1.0RC1",
    ],
)
def test_make_record__accepts_versions_that_clients_compare(version: str) -> None:
    index = index_json(version=version)

    record = make_record(info_of(index), key_of(f"foo-{version}-0.conda"), last_modified_ms=UPLOADED_MS)

    assert record["version"] == version


def test_make_record__says_which_subdir_an_artifact_belongs_to() -> None:
    error = rejection(index_json(subdir="osx-arm64"), key_of(subdir="linux-64"))

    assert error.code == "subdir-mismatch"
    assert error.hint is not None
    assert "team/osx-arm64/" in error.hint


def test_make_record__says_how_a_renamed_artifact_was_built() -> None:
    error = rejection(index_json(name="beta", version="99.0"), key_of("spoof-9.9-0.conda"))

    assert error.hint is not None
    assert "beta-99.0-0.conda" in error.hint


@pytest.mark.parametrize(
    ("platform", "arch", "noarch", "subdir"),
    [
        ("linux", "x86_64", ..., "linux-64"),
        ("win", "x86", ..., "win-32"),
        ("osx", "arm64", ..., "osx-arm64"),
        ("linux", "aarch64", ..., "linux-aarch64"),
        (None, None, "generic", "noarch"),
        (..., ..., ..., "noarch"),
        (None, None, ..., "linux-64"),
        ("linux", None, ..., "linux-64"),
        ("linux", "x86_64", "python", "noarch"),
    ],
)
def test_make_record__derives_the_subdir_of_old_packages(
    platform: object, arch: object, noarch: object, subdir: str
) -> None:
    index = index_json(index_extra={"subdir": ..., "platform": platform, "arch": arch, "noarch": noarch})

    record = make_record(info_of(index), key_of(subdir=subdir), last_modified_ms=UPLOADED_MS)

    assert "subdir" not in record


def test_make_record__rejects_an_old_package_for_another_platform() -> None:
    index = index_json(index_extra={"subdir": ..., "platform": "linux", "arch": "x86_64", "noarch": ...})

    assert rejection(index, key_of(subdir="win-64")).code == "subdir-mismatch"


def test_make_record__rejects_a_schema_of_the_future() -> None:
    assert rejection(index_json(index_extra={"schema_version": 4})).code == "schema-unsupported"


@pytest.mark.parametrize(
    ("timestamp", "indexed"),
    [
        (None, UPLOADED_MS),
        (0, UPLOADED_MS),
        (1_400_000_000, UPLOADED_MS),  # seconds
        (BUILD_TIMESTAMP_MS, UPLOADED_MS),
        (UPLOADED_MS, UPLOADED_MS),
        (UPLOADED_MS + 1, UPLOADED_MS + 1),
        (UPLOADED_MS + CLOCK_SKEW_MS, UPLOADED_MS + CLOCK_SKEW_MS),
    ],
)
def test_indexed_timestamp_of__is_the_upload_but_never_before_the_build(timestamp: int | None, indexed: int) -> None:
    assert indexed_timestamp_of(timestamp, UPLOADED_MS) == indexed


@pytest.mark.parametrize(
    "timestamp",
    [UPLOADED_MS + CLOCK_SKEW_MS + 1, UPLOADED_MS // 1000 + 301, UPLOADED_MS * 1000, 2**63, 253_402_300_799],
)
def test_indexed_timestamp_of__rejects_the_future(timestamp: int) -> None:
    with pytest.raises(RejectedError) as caught:
        indexed_timestamp_of(timestamp, UPLOADED_MS)

    assert caught.value.code == "timestamp-in-future"


@pytest.mark.parametrize(
    ("fields", "expected"), [({}, False), ({"schema_version": 2}, False), ({"schema_version": 3}, True)]
)
def test_is_v3__keeps_from_old_clients_what_they_would_misread(fields: dict[str, Any], expected: bool) -> None:
    assert is_v3(record_of(**fields)) is expected


def test_check_fields__takes_a_part_of_a_record() -> None:
    check_fields({"depends": []})
    check_fields({})
    with pytest.raises(RejectedError, match="'depends' is 'bar', not a list of texts"):
        check_fields({"depends": "bar"})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KNOWN = ["name", "version", "build", "build_number", "depends", "subdir", "noarch", "timestamp", "run_exports", "flags"]


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), VALUES, max_size=4))
def test_make_record__makes_a_record_or_rejects_whatever_the_index_holds(fields: dict[str, Any]) -> None:
    index = index_json() | fields
    try:
        record = make_record(info_of(index), key_of(), last_modified_ms=UPLOADED_MS)
    except RejectedError:
        return
    assert (record["name"], record["version"], record["build"]) == ("foo", "1.0", "0")
    assert (record["md5"], record["sha256"], record["size"]) == (MD5, SHA256, 5)
    assert record.get("subdir", "noarch") == "noarch"


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no packages by other people at {CORPUS}")
def test_make_record__equals_conda_index_on_packages_by_other_people() -> None:
    compared = 0
    for path in sorted(CORPUS.glob("packages/*/*")):
        key = key_of(path.name, path.parent.name)
        info = read_artifact(MemorySource(content=path.read_bytes()), key.distribution)
        record = make_record(info, key, last_modified_ms=UPLOADED_MS)
        assert record.pop("indexed_timestamp") == UPLOADED_MS
        golden = CORPUS / "golden" / path.parent.name
        if golden.is_dir():
            assert not is_v3(record)
            section = key.distribution.kind.section
            assert record == json.loads((golden / "repodata.json").read_text())[section][path.name]
            exports = json.loads((golden / "run_exports.json").read_text())[section][path.name]
            assert info.run_exports == exports["run_exports"]
            compared += 1
    assert compared == sum(
        len(json.loads(path.read_text())[section])
        for path in CORPUS.glob("golden/*/repodata.json")
        for section in ("packages", "packages.conda")
    )
