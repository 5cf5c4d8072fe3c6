"""The values of fields that conda fails on are rejected.

``FAILS`` was derived once from conda's source, at version 26.7.1 (``conda/models/records.py``): a complete record
was made into a ``PackageRecord`` with one field set to each of ``VALUES`` in turn; then every field of the record
was read, and the record dumped, hashed and printed, with its dependencies parsed. The values listed are those that
raised. Beside ``PackageRecord``, conda reads ``record_version`` (``core/subdir_data.py`` compares it with 1) and
conda-libmamba-solver 26.6 ``defaulted_keys`` (``index.py`` makes a list of it).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.record import DROPPED_KEYS, SERVER_KEYS, Record, check_fields, make_record
from tests.builders import index_json
from tests.indexer.artifacts.test_record import UPLOADED_MS, info_of, key_of

VALUES = (
    "null", "true", "0", "-1", "1.5", '""', '"x"', '"generic"', '"noarch_python"', "[]", '["x"]', "[1]", "[null]", "{}",
    '{"a": 1}',
)  # fmt: skip
FAILS: dict[str, list[str]] = {
    "name": ["null", "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "version": ["null", "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "build": ["null", "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "build_number": [
        "null",
        "1.5",
        '""',
        '"x"',
        '"generic"',
        '"noarch_python"',
        "[]",
        '["x"]',
        "[1]",
        "[null]",
        "{}",
        '{"a": 1}',
    ],
    "channel": ["true", "0", "-1", "1.5", "[]", '["x"]', "[1]", "[null]", '{"a": 1}'],
    "subdir": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "fn": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "md5": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "legacy_bz2_md5": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "legacy_bz2_size": [
        "1.5",
        '""',
        '"x"',
        '"generic"',
        '"noarch_python"',
        "[]",
        '["x"]',
        "[1]",
        "[null]",
        "{}",
        '{"a": 1}',
    ],
    "url": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "sha256": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "arch": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "platform": [
        "true",
        "0",
        "-1",
        "1.5",
        '""',
        '"x"',
        '"generic"',
        '"noarch_python"',
        "[]",
        '["x"]',
        "[1]",
        "[null]",
        "{}",
        '{"a": 1}',
    ],
    "depends": ["null", "true", "0", "-1", "1.5", '""', '"x"', '"generic"', '"noarch_python"', "[1]", "[null]"],
    "constrains": ["null", "true", "0", "-1", "1.5", '""', '"x"', '"generic"', '"noarch_python"', "[1]", "[null]"],
    "flags": ["true", "0", "-1", "1.5", '""', '"x"', '"generic"', '"noarch_python"', "[1]", "[null]"],
    "track_features": ["null", "true", "0", "-1", "1.5", "[1]", "[null]"],
    "features": ["null", "true", "0", "-1", "1.5", "[1]", "[null]"],
    "noarch": ["0", "-1", "1.5", '"x"', '"noarch_python"', "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "preferred_env": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "python_site_packages_path": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "license": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "license_family": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "package_type": [
        "true",
        "0",
        "-1",
        "1.5",
        '""',
        '"x"',
        '"generic"',
        "[]",
        '["x"]',
        "[1]",
        "[null]",
        "{}",
        '{"a": 1}',
    ],
    "timestamp": ['""', '"x"', '"generic"', '"noarch_python"', "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "indexed_timestamp": [
        '""',
        '"x"',
        '"generic"',
        '"noarch_python"',
        "[]",
        '["x"]',
        "[1]",
        "[null]",
        "{}",
        '{"a": 1}',
    ],
    "date": ["[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "size": ["1.5", '""', '"x"', '"generic"', '"noarch_python"', "[]", '["x"]', "[1]", "[null]", "{}", '{"a": 1}'],
    "record_version": ["null", '""', '"x"', '"generic"', '"noarch_python"', "[]", '["x"]', "[1]", "[null]", "{}"],
    "defaulted_keys": ["true", "1.5"],
}
REJECTED_FOR_OTHER_CLIENTS = {
    "license": "rattler reads text",
    "license_family": "rattler reads text",
    "python_site_packages_path": "rattler reads text",
    "features": "rattler reads text",
    "track_features": "rattler reads text or a list of texts",
    "flags": "rattler reads a list of words",
    "depends": "an object has no specs",
    "constrains": "an object has no specs",
    "timestamp": "rattler reads a whole number",
    "build_number": "rattler reads a whole number from 0",
    "record_version": "a whole number, as conda-build wrote it",
    "defaulted_keys": "mamba reads a list of texts",
    "subdir": "must equal the key",
    "name": "must equal the key",
    "version": "must equal the key",
    "build": "must equal the key",
    "noarch": "rattler reads 'generic', 'python' and booleans",
}


def make(field: str, value: object) -> Record:
    return make_record(
        info_of(index_json(index_extra={field: value})), key_of("foo-1.0-0.conda"), last_modified_ms=UPLOADED_MS
    )


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in FAILS.items() for text in texts])
def test_make_record__rejects_what_conda_fails_on(field: str, text: str) -> None:
    if field in DROPPED_KEYS:
        assert field not in make(field, json.loads(text))
        return
    with pytest.raises(RejectedError) as caught:
        make(field, json.loads(text))
    codes = {"field-invalid", "field-missing", "subdir-invalid", "subdir-mismatch"}
    assert caught.value.code in ({"server-key-forged"} if field in SERVER_KEYS else codes)


@pytest.mark.parametrize("field", sorted(FAILS.keys() - SERVER_KEYS - DROPPED_KEYS))
def test_make_record__accepts_what_conda_reads_unless_another_client_fails(field: str) -> None:
    for text in VALUES:
        if text in FAILS[field] or field in REJECTED_FOR_OTHER_CLIENTS:
            continue
        value: Any = json.loads(text)
        assert make(field, value)[field] == value


def accepts(field: str, value: object) -> bool:
    try:
        check_fields({field: value})
    except RejectedError:
        return False
    return True


@pytest.mark.parametrize(
    "value",
    [None, "noarch_python", "NOARCH_GENERIC", "virtual_private_env", "virtual_python_egg_link"],
)
def test_check_fields__package_types_of_conda(value: object) -> None:
    assert accepts("package_type", value)


@pytest.mark.parametrize("value", ["", "python", "Noarch_Python", ["noarch_python"], 1])
def test_check_fields__other_package_types(value: object) -> None:
    assert not accepts("package_type", value)


@pytest.mark.parametrize("version", ["3.11.0", "2.7.18"])
def test_make_record__python_without_depends(version: str) -> None:
    """conda appends pip to the dependencies of python, and fails on the whole subdir if they are missing."""
    index = index_json(name="python", version=version, index_extra={"depends": ...})

    with pytest.raises(RejectedError) as caught:
        make_record(info_of(index), key_of(f"python-{version}-0.conda"), last_modified_ms=UPLOADED_MS)

    assert caught.value.code == "field-missing"
    assert "'depends'" in str(caught.value)


def test_make_record__others_without_depends() -> None:
    assert "depends" not in make("depends", ...)


@pytest.mark.parametrize("field", ["depends", "constrains"])
@pytest.mark.parametrize("spec", ["zlib===", "foo ^(.*$", ""])
def test_make_record__rejects_specs_that_clients_cannot_parse(field: str, spec: str) -> None:
    with pytest.raises(RejectedError) as caught:
        make(field, ["bar", spec])

    assert caught.value.code == "spec-invalid"
    assert f"'{field}' in info/index.json" in str(caught.value)


@pytest.mark.parametrize("field", ["extra_depends", "extra-depends"])
def test_make_record__rejects_specs_of_extras_that_clients_cannot_parse(field: str) -> None:
    with pytest.raises(RejectedError) as caught:
        make(field, {"test": ["pytest", "zlib==="]})

    assert caught.value.code == "spec-invalid"
