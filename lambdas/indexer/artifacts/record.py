"""Makes the record of an artifact from its info/index.json, after validation.

Owns the rules for records: the fields that clients fail on, agreement with the key, and the keys that
only the server sets. Pure.

Source: CEP 34 (index.json), CEP 36 (records), CEP 47 (indexed_timestamp), CEP 48 (section v3), and
failures that were observed in clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from lambdas.channel.errors import InvalidNameError, RejectedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import parse_build, parse_package_name, parse_subdir, parse_version
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.info import ArtifactInfo, check_run_exports
from lambdas.indexer.artifacts.match_spec import check_match_specs
from lambdas.indexer.artifacts.purl import is_purl
from lambdas.indexer.artifacts.version_literal import is_version_literal

Record = dict[str, Any]

CLOCK_SKEW_MS = 5 * 60 * 1000
MAX_SECONDS_TIMESTAMP = 253_402_300_799  # the end of the year 9999: larger ones are milliseconds
NEWEST_SCHEMA = 3

DROPPED_KEYS = frozenset(
    {  # as in conda-index: facts of the build machine that no client reads
        "arch",
        "binstar",
        "has_prefix",
        "machine",
        "mtime",
        "operatingsystem",
        "platform",
        "requires_features",
        "target-triplet",
        "ucs",
    }
)
SERVER_KEYS = frozenset(
    {
        "attestations_sha256",
        "channel",
        "fn",
        "indexed_timestamp",
        "legacy_bz2_md5",
        "legacy_bz2_size",
        "md5",
        "revoked",
        "sha256",
        "signatures",
        "size",
        "url",
    }
)

_FLAG = re.compile(r"[a-z0-9_]+(?::[a-z0-9_]+)?\Z")
_BITS = {"x86": "32", "x86_64": "64"}


def make_record(info: ArtifactInfo, key: ArtifactKey, *, last_modified_ms: int, now_ms: int | None = None) -> Record:
    """Return the record for repodata.json (hashes in hex).

    Unknown keys are kept unchanged. ``last_modified_ms`` is when the artifact was uploaded; ``now_ms``
    bounds its timestamp where modification times may be older than the upload (files in a directory).

    Raises:
        RejectedError: a field is missing, wrong, forged, or contradicts the key.
    """
    index = {name: value for name, value in info.index.items() if not _is_absent(name, value)}
    _check_forged(index)
    _check_identity(index, key)
    _check_subdir(index, key)
    _check_fields(index)
    record = {name: value for name, value in index.items() if name not in DROPPED_KEYS}
    record["md5"] = info.md5
    record["sha256"] = info.sha256
    record["size"] = info.size
    record["indexed_timestamp"] = indexed_timestamp_of(index.get("timestamp"), last_modified_ms, now_ms=now_ms)
    return record


def is_v3(record: Record) -> bool:
    """Tell whether the record belongs under ``v3`` of repodata, whatever the artifact's kind.

    Source: CEP 48: older clients must not read records that they would misinterpret.
    """
    return bool(record.get("schema_version", 1) >= NEWEST_SCHEMA)


def indexed_timestamp_of(timestamp: int | None, last_modified_ms: int, *, now_ms: int | None = None) -> int:
    """Return when the artifact became available, in ms; never before its own ``timestamp``.

    A ``timestamp`` may be in seconds (old packages).

    Raises:
        RejectedError: ``timestamp-in-future``.

    Source: CEP 47.
    """
    if timestamp is None:
        return last_modified_ms
    check_timestamp(timestamp, max(last_modified_ms, now_ms or 0), place=" in info/index.json")
    return max(last_modified_ms, _in_ms(timestamp))


def check_timestamp(timestamp: int, uploaded_ms: int, *, place: str = "") -> None:
    """Check that a build did not begin after its upload; ``place`` follows the field in messages.

    Raises:
        RejectedError: ``timestamp-in-future``.

    Source: CEP 47.
    """
    late_ms = _in_ms(timestamp) - uploaded_ms
    if late_ms > CLOCK_SKEW_MS:
        raise RejectedError(
            RejectionCode.TIMESTAMP_IN_FUTURE,
            f"'timestamp'{place} is {timestamp}, {late_ms // 1000} seconds after the upload",
            hint="it is when the build began, in milliseconds since 1970: check the build machine's clock",
        )


def _in_ms(timestamp: int) -> int:
    return timestamp if timestamp > MAX_SECONDS_TIMESTAMP else timestamp * 1000


def _is_absent(name: str, value: object) -> bool:
    """Whether clients treat the value as a missing field."""
    return (name == "noarch" and value == "") or (name == "schema_version" and value is None)


def _check_forged(index: dict[str, Any]) -> None:
    if forged := SERVER_KEYS & index.keys():
        raise RejectedError(
            RejectionCode.SERVER_KEY_FORGED,
            f"info/index.json sets {min(forged)!r}, which only the channel may set",
            hint="build the package again with a tool that leaves it out",
        )


def _check_identity(index: dict[str, Any], key: ArtifactKey) -> None:
    """Check that name, version and build are present, valid, and equal to those in the filename."""
    distribution = key.distribution
    fields: list[tuple[str, Callable[[str], str], str]] = [
        ("name", parse_package_name, distribution.name),
        ("version", parse_version, distribution.version),
        ("build", parse_build, distribution.build),
    ]
    for field, parse, expected in fields:
        value = index.get(field)
        if value is None:
            raise RejectedError(RejectionCode.FIELD_MISSING, f"info/index.json has no {field!r}")
        if not isinstance(value, str):
            raise _wrong(field, value, "text")
        try:
            parse(value)
        except InvalidNameError as error:
            raise RejectedError(
                RejectionCode(f"{field}-invalid"), f"info/index.json: {error}", hint=error.hint
            ) from error
        if value != expected:
            raise RejectedError(
                RejectionCode(f"{field}-mismatch"),
                f"the filename has {field} {expected!r}, but info/index.json has {value!r}",
                hint=f"upload it under its original name: {_filename_of(index, distribution.kind.extension)}",
            )
    if not is_version_literal(distribution.version):
        raise RejectedError(
            RejectionCode.VERSION_INVALID,
            f"info/index.json has a version that clients cannot compare: {distribution.version!r}",
            hint="a version must not have empty parts, as in '1..0' or '1.0+', or numbers of more than 64 bits",
        )


def _filename_of(index: dict[str, Any], extension: str) -> str:
    return f"{index.get('name')}-{index.get('version')}-{index.get('build')}{extension}"[:256]


def _check_subdir(index: dict[str, Any], key: ArtifactKey) -> None:
    subdir = index.get("subdir")
    if "subdir" in index:
        if not isinstance(subdir, str):
            raise _wrong("subdir", subdir, "text")
        try:
            parse_subdir(subdir)
        except InvalidNameError as error:
            raise RejectedError(RejectionCode.SUBDIR_INVALID, f"info/index.json: {error}", hint=error.hint) from error
    else:
        subdir = _legacy_subdir_of(index)
    if subdir is not None and subdir != key.subdir.name:
        raise RejectedError(
            RejectionCode.SUBDIR_MISMATCH,
            f"it was uploaded to {str(key.subdir.name)!r}, but info/index.json has subdir {subdir!r}",
            hint=f"upload it to {key.subdir.channel}/{subdir}/",
        )


def _legacy_subdir_of(index: dict[str, Any]) -> str | None:
    """Return the subdir that old packages, without ``subdir``, state by platform and arch."""
    platform, arch = index.get("platform"), index.get("arch")
    if index.get("noarch") or not (isinstance(platform, str) and isinstance(arch, str)):
        return None
    return f"{platform}-{_BITS.get(arch, arch)}"


def _check_fields(index: dict[str, Any]) -> None:
    """Check every other field that some client is known to fail on."""
    required = ["build_number"]
    if index["name"] == "python" and index["version"].startswith(("2.", "3.")):
        required.append("depends")  # conda appends pip to it, and fails on the whole subdir without
    for field in required:
        if field not in index:
            raise RejectedError(RejectionCode.FIELD_MISSING, f"info/index.json has no {field!r}")
    check_fields(index, place=" in info/index.json")
    if (index.get("schema_version") or 1) > NEWEST_SCHEMA:
        raise RejectedError(
            RejectionCode.SCHEMA_UNSUPPORTED,
            f"info/index.json has schema_version {index['schema_version']}, over {NEWEST_SCHEMA}",
            hint="this channel is older than the package's format: update it",
        )
    if index.get("run_exports") is not None:
        check_run_exports(index["run_exports"], "'run_exports' in info/index.json")


def check_fields(fields: Mapping[str, Any], *, place: str = "") -> None:
    """Check the types of the fields that are present; ``place`` follows the field in messages.

    Raises:
        RejectedError: ``field-invalid`` or ``spec-invalid``: some client cannot read it.
    """
    for field, (check, expected) in _FIELDS.items():
        if field in fields and not check(fields[field]):
            raise _wrong(field, fields[field], expected, place)
    schema_version = fields.get("schema_version", 1)
    for field in _SPECS & fields.keys():
        check_match_specs(fields[field], f"{field!r}{place}", schema_version=schema_version)
    for field in _SPEC_GROUPS & fields.keys():
        for specs in fields[field].values():
            check_match_specs(specs, f"{field!r}{place}", schema_version=schema_version)


def _wrong(field: str, value: object, expected: str, place: str = " in info/index.json") -> RejectedError:
    return RejectedError(RejectionCode.FIELD_INVALID, f"{field!r}{place} is {_show(value)}, not {expected}")


def _show(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"  # noqa: PLR2004 - longer values are cut


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_optional_scalar(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_optional_texts(value: object) -> bool:
    return value is None or _is_texts(value)


def _is_package_type(value: object) -> bool:
    return value is None or (
        isinstance(value, str) and (value in _PACKAGE_TYPES or (value.isupper() and value.lower() in _PACKAGE_TYPES))
    )


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_groups(value: object) -> bool:
    return isinstance(value, dict) and all(_is_texts(specs) for specs in value.values())


def _is_flags(value: object) -> bool:
    return _is_texts(value) and all(_FLAG.match(flag) for flag in value)


def _is_optional_purls(value: object) -> bool:
    return value is None or (_is_texts(value) and all(map(is_purl, value)))


def _is_noarch(value: object) -> bool:
    return value is None or isinstance(value, bool) or value in ("generic", "python")


_SPECS = frozenset({"constrains", "depends"})
_SPEC_GROUPS = frozenset({"extra-depends", "extra_depends"})
_PACKAGE_TYPES = frozenset(
    {
        "noarch_generic",
        "noarch_python",
        "virtual_private_env",
        "virtual_python_egg_link",
        "virtual_python_egg_manageable",
        "virtual_python_egg_unmanageable",
        "virtual_python_wheel",
        "virtual_system",
    }
)
# What the clients expect: conda's PackageRecord (tests/indexer/artifacts/test_record_fields.py says how its
# table was derived), conda-libmamba-solver and rattler's IndexJson.
_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "build_number": (_is_count, "a whole number from 0"),
    "constrains": (_is_texts, "a list of texts"),
    "date": (_is_optional_scalar, "text"),
    "defaulted_keys": (_is_optional_texts, "a list of texts"),
    "depends": (_is_texts, "a list of texts"),
    "extra-depends": (_is_groups, "an object of lists of texts"),
    "extra_depends": (_is_groups, "an object of lists of texts"),
    "features": (lambda value: isinstance(value, str), "text"),
    "flags": (_is_flags, "a list of words like 'blas:mkl'"),
    "license": (_is_optional_text, "text"),
    "license_family": (_is_optional_text, "text"),
    "noarch": (_is_noarch, "'generic' or 'python'"),
    "package_type": (_is_package_type, "one of conda's package types"),
    "preferred_env": (_is_optional_scalar, "text"),
    "purls": (_is_optional_purls, "a list of package URLs like 'pkg:pypi/numpy@2.0'"),
    "python_site_packages_path": (_is_optional_text, "text"),
    "record_version": (_is_count, "a whole number from 0"),
    "schema_version": (_is_count, "a whole number from 0"),
    "timestamp": (lambda value: value is None or _is_count(value), "a whole number of milliseconds since 1970"),
    "track_features": (lambda value: isinstance(value, str) or _is_texts(value), "text or a list of texts"),
}
