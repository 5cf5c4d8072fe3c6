"""Makes the record of an artifact: info/index.json, once it may be believed.

Owns what a record may say: every field that some client chokes on, agreement with the key, and the
keys that the server alone sets. Pure.

Source: CEP 34 (index.json), CEP 36 (records), CEP 47 (indexed_timestamp), CEP 48 (section v3), and
what clients were seen to reject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from lambdas.channel.errors import InvalidNameError, RejectedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import parse_build, parse_package_name, parse_subdir, parse_version
from lambdas.indexer.artifacts.info import ArtifactInfo, check_run_exports
from lambdas.indexer.artifacts.purl import is_purl

Record = dict[str, Any]

CLOCK_SKEW_MS = 5 * 60 * 1000
MAX_SECONDS_TIMESTAMP = 253_402_300_799  # the end of the year 9999: larger ones are milliseconds
MAX_VERSION_NUMBER = 2**64 - 1  # rattler reads the numbers of a version into 64 bits
NEWEST_SCHEMA = 3

DROPPED_KEYS = frozenset(
    {  # conda-index's list: facts of the build machine that no client reads
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

_VERSION = re.compile(
    r"""(?:[0-9]+!)?                               # epoch
        [0-9a-z]+ (?:[._][0-9a-z]+)* (?:[._]?_)?   # release; a trailing '_' sorts before, as OpenSSL has it
        (?:\+[0-9a-z]+(?:[._][0-9a-z]+)*)?\Z       # local
    """,
    re.VERBOSE,
)
_FLAG = re.compile(r"[a-z0-9_]+(?::[a-z0-9_]+)?\Z")
_BITS = {"x86": "32", "x86_64": "64"}


def make_record(info: ArtifactInfo, key: ArtifactKey, *, last_modified_ms: int, now_ms: int | None = None) -> Record:
    """Return the record as it stands in repodata.json (hashes in hex).

    Keys that nobody knows are carried as they are. ``last_modified_ms`` is when the storage got the
    artifact; ``now_ms`` bounds its timestamp, where a file's times may be older than the file.

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
    record["indexed_timestamp"] = find_indexed_timestamp(index.get("timestamp"), last_modified_ms, now_ms=now_ms)
    return record


def is_v3(record: Record) -> bool:
    """Tell whether the record belongs under ``v3`` of repodata, whatever the artifact's kind.

    Source: CEP 48: older clients must not see records that they would misread.
    """
    return bool(record.get("schema_version", 1) >= NEWEST_SCHEMA)


def find_indexed_timestamp(timestamp: int | None, last_modified_ms: int, *, now_ms: int | None = None) -> int:
    """Return when the artifact became available, in ms; never before its own ``timestamp``.

    A ``timestamp`` that is in seconds (old packages) counts as such.

    Raises:
        RejectedError: ``timestamp-in-future``.

    Source: CEP 47.
    """
    if timestamp is None:
        return last_modified_ms
    check_timestamp(timestamp, max(last_modified_ms, now_ms or 0), place=" in info/index.json")
    return max(last_modified_ms, _in_ms(timestamp))


def check_timestamp(timestamp: int, uploaded_ms: int, *, place: str = "") -> None:
    """Check that a build did not begin after its upload; ``place`` is how the message goes on after the field.

    Raises:
        RejectedError: ``timestamp-in-future``.

    Source: CEP 47.
    """
    late_ms = _in_ms(timestamp) - uploaded_ms
    if late_ms > CLOCK_SKEW_MS:
        raise RejectedError(
            "timestamp-in-future",
            f"'timestamp'{place} is {timestamp}, {late_ms // 1000} seconds after the upload",
            hint="it is when the build began, in milliseconds since 1970: check the build machine's clock",
        )


def _in_ms(timestamp: int) -> int:
    return timestamp if timestamp > MAX_SECONDS_TIMESTAMP else timestamp * 1000


def _is_absent(name: str, value: object) -> bool:
    """Whether the field says nothing, in a way that clients take for absent."""
    return (name == "noarch" and value == "") or (name == "schema_version" and value is None)


def _check_forged(index: dict[str, Any]) -> None:
    if forged := SERVER_KEYS & index.keys():
        raise RejectedError(
            "server-key-forged",
            f"info/index.json sets {min(forged)!r}, which the channel alone may set",
            hint="build the package again with a tool that leaves it out",
        )


def _check_identity(index: dict[str, Any], key: ArtifactKey) -> None:
    """Name, version and build: present, text, legal, and what the filename says."""
    distribution = key.distribution
    fields: list[tuple[str, Callable[[str], str], str]] = [
        ("name", parse_package_name, distribution.name),
        ("version", parse_version, distribution.version),
        ("build", parse_build, distribution.build),
    ]
    for field, parse, expected in fields:
        value = index.get(field)
        if value is None:
            raise RejectedError("field-missing", f"info/index.json has no {field!r}")
        if not isinstance(value, str):
            raise _wrong(field, value, "text")
        try:
            parse(value)
        except InvalidNameError as error:
            raise RejectedError(f"{field}-invalid", f"info/index.json: {error}", hint=error.hint) from error
        if value != expected:
            raise RejectedError(
                f"{field}-mismatch",
                f"the filename says {field} {expected!r}, and info/index.json {value!r}",
                hint=f"upload it under the name it was built with: {_find_filename(index, distribution.kind.extension)}",
            )
    numbers = re.findall(r"[0-9]+", distribution.version)
    if not _VERSION.match(distribution.version) or any(int(number) > MAX_VERSION_NUMBER for number in numbers):
        raise RejectedError(
            "version-invalid",
            f"info/index.json has a version that clients can't compare: {distribution.version!r}",
            hint="a version has no empty parts, like '1..0' or '1.0+', and no number of more than 64 bits",
        )


def _find_filename(index: dict[str, Any], extension: str) -> str:
    return f"{index.get('name')}-{index.get('version')}-{index.get('build')}{extension}"[:256]


def _check_subdir(index: dict[str, Any], key: ArtifactKey) -> None:
    subdir = index.get("subdir")
    if "subdir" in index:
        if not isinstance(subdir, str):
            raise _wrong("subdir", subdir, "text")
        try:
            parse_subdir(subdir)
        except InvalidNameError as error:
            raise RejectedError("subdir-invalid", f"info/index.json: {error}", hint=error.hint) from error
    else:
        subdir = _find_legacy_subdir(index)
    if subdir is not None and subdir != key.subdir.name:
        raise RejectedError(
            "subdir-mismatch",
            f"it was uploaded to {str(key.subdir.name)!r}, and info/index.json says {subdir!r}",
            hint=f"upload it to {key.subdir.channel}/{subdir}/",
        )


def _find_legacy_subdir(index: dict[str, Any]) -> str | None:
    """Return the subdir that packages from before ``subdir`` state by platform and arch, if they do."""
    platform, arch = index.get("platform"), index.get("arch")
    if index.get("noarch") or not (isinstance(platform, str) and isinstance(arch, str)):
        return None
    return f"{platform}-{_BITS.get(arch, arch)}"


def _check_fields(index: dict[str, Any]) -> None:
    """Every other field that a client is known to choke on."""
    if "build_number" not in index:
        raise RejectedError("field-missing", "info/index.json has no 'build_number'")
    check_fields(index, place=" in info/index.json")
    if (index.get("schema_version") or 1) > NEWEST_SCHEMA:
        raise RejectedError(
            "schema-unsupported",
            f"info/index.json has schema_version {index['schema_version']}, over {NEWEST_SCHEMA}",
            hint="this channel is older than the package's format: update it",
        )
    if index.get("run_exports") is not None:
        check_run_exports(index["run_exports"], "'run_exports' in info/index.json")


def check_fields(fields: Mapping[str, Any], *, place: str = "") -> None:
    """Check the types of those fields that are there; ``place`` is how the message goes on after a field.

    Raises:
        RejectedError: ``field-invalid``: some client can't read it.
    """
    for field, (check, expected) in _FIELDS.items():
        if field in fields and not check(fields[field]):
            raise _wrong(field, fields[field], expected, place)


def _wrong(field: str, value: object, expected: str, place: str = " in info/index.json") -> RejectedError:
    return RejectedError("field-invalid", f"{field!r}{place} is {_show(value)}, not {expected}")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"  # noqa: PLR2004 - what fits into a sentence


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


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


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "build_number": (_is_count, "a whole number from 0"),
    "constrains": (_is_texts, "a list of texts"),
    "depends": (_is_texts, "a list of texts"),
    "extra-depends": (_is_groups, "an object of lists of texts"),
    "extra_depends": (_is_groups, "an object of lists of texts"),
    "features": (_is_optional_text, "text"),
    "flags": (_is_flags, "a list of words like 'blas:mkl'"),
    "license": (_is_optional_text, "text"),
    "license_family": (_is_optional_text, "text"),
    "noarch": (_is_noarch, "'generic' or 'python'"),
    "purls": (_is_optional_purls, "a list of package URLs like 'pkg:pypi/numpy@2.0'"),
    "python_site_packages_path": (_is_optional_text, "text"),
    "schema_version": (_is_count, "a whole number from 0"),
    "timestamp": (lambda value: value is None or _is_count(value), "a whole number of milliseconds since 1970"),
    "track_features": (lambda value: isinstance(value, str) or _is_texts(value), "text or a list of texts"),
}
