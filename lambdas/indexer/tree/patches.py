"""Patch instructions: hotfixes of records, parsed and applied as conda-index applies them. Pure.

``patch_instructions.json`` of a subdir corrects records without rebuilding artifacts: it replaces
fields, deletes them (``null``), revokes and removes. The artifacts stay downloadable.

Some fields are protected. A fix of one is never applied. Where it says what the record says anyway, as
instructions made from whole records do, nothing is wrong; where it says something else, the file is
rejected: at once if the filename contradicts it, else when it is held against the records.

Source: CEP 21 (versions 1 and 2); conda-index's ``_apply_instructions`` is the reference.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.channel.artifact_kinds import CONDA, as_conda, extensions, kind_of, parse_filename
from lambdas.channel.errors import InvalidNameError, RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.info import check_run_exports
from lambdas.indexer.artifacts.record import SERVER_KEYS, Record, check_fields, check_timestamp
from lambdas.indexer.artifacts.strict_json import parse_document

PROTECTED_FIELDS: Final = SERVER_KEYS | {
    "name", "version", "build", "build_number", "subdir",  # identity: the filename says the same
    "schema_version",  # decides the section that a record stands in
}  # fmt: skip
MAX_PATCH_BYTES: Final = 64 * 1024 * 1024
_LISTS: Final = ("remove", "revoke")
_SECTIONS: Final = ("packages", "packages.conda")
_VERSIONS: Final = (1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchInstructions:
    """What to change, by exact filename; what holds for a ``.conda`` because of its ``.tar.bz2`` is spelled out."""

    fixes: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """``{filename: (fields, …)}``, applied in this order; ``None`` deletes a field. No protected fields."""
    protected: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """``{filename: (fields, …)}``: what the instructions say of protected fields, to be checked, not applied."""
    revoked: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    @property
    def filenames(self) -> frozenset[str]:
        """Every artifact that the instructions may change."""
        return self.revoked | self.removed | self.fixes.keys()


NO_PATCHES: Final = PatchInstructions()


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchedRecords:
    """Records after patches, and which ones patches removed."""

    sections: dict[str, dict[str, Record]]
    removed: tuple[str, ...]


def parse_patches(body: bytes, *, uploaded_ms: int | None = None) -> PatchInstructions:
    """Parse and validate ``patch_instructions.json``.

    ``uploaded_ms`` is when they were uploaded and bounds the timestamps in them; None if they were in
    force already.

    Raises:
        RejectedError: it is not of version 1 or 2, contradicts a filename in a protected field, or would
            make records that clients can't read.
    """
    if len(body) > MAX_PATCH_BYTES:
        raise RejectedError(
            RejectionCode.PATCHES_TOO_LARGE, f"patch instructions are larger than {MAX_PATCH_BYTES} bytes"
        )
    try:
        # As strict as for artifacts: what can't be encoded again would break every output of the commit.
        document = parse_document(body, "the file")
    except RejectedError as error:
        raise RejectedError(RejectionCode.PATCHES_NOT_JSON, f"patch instructions can't be read: {error}") from error
    if not isinstance(document, dict):
        raise RejectedError(RejectionCode.PATCHES_NOT_OBJECT, "patch instructions are not a JSON object")
    version = document.get("patch_instructions_version", 1)
    if isinstance(version, bool) or version not in _VERSIONS:
        raise RejectedError(
            RejectionCode.PATCHES_VERSION, f"unknown patch_instructions_version {version!r}", hint="use 1 or 2"
        )
    fixes: dict[str, list[Mapping[str, Any]]] = {}
    protected: dict[str, list[Mapping[str, Any]]] = {}
    for section in _SECTIONS:
        # A .conda in the section "packages": its own fixes come after those of the .tar.bz2 here too.
        for filename, fields in sorted(_mapping(document, section).items(), key=lambda item: kind_of(item[0]) is CONDA):
            _check_filename(filename, section)
            _check_fixes(filename, fields, version=version, uploaded_ms=uploaded_ms)
            # Fixes of a .tar.bz2 hold for the .conda of the same package too, before its own.
            conda = as_conda(filename) if section == "packages" else None
            applied = {key: value for key, value in fields.items() if key not in PROTECTED_FIELDS}
            checked = {key: value for key, value in fields.items() if key in PROTECTED_FIELDS}
            for each in filter(None, (filename, conda)):
                if applied or not checked:
                    fixes.setdefault(each, []).append(applied)
                if checked:
                    protected.setdefault(each, []).append(checked)
    lists = {name: _filenames(document, name) for name in _LISTS}
    return PatchInstructions(
        fixes={filename: tuple(several) for filename, several in fixes.items()},
        protected={filename: tuple(several) for filename, several in protected.items()},
        revoked=_with_condas(lists["revoke"]),
        removed=_with_condas(lists["remove"]),
    )


def check_protected(patches: PatchInstructions, records: Mapping[str, Record]) -> None:
    """Check that fixes of protected fields say what the records say; ``records`` is ``{filename: record}``.

    Records that are not given are not checked: whatever they will be, these fixes don't change them.

    Raises:
        RejectedError: a fix would change a protected field.
    """
    for filename, several in patches.protected.items():
        record = records.get(filename)
        if record is not None:
            # null deletes a field: that changes nothing in a record without it.
            _require_unchanged(filename, {key: value for fields in several for key, value in fields.items()}, record)


def _require_unchanged(filename: str, fields: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    changed = [key for key, value in fields.items() if not _is_same(value, record.get(key))]
    if changed:
        raise RejectedError(
            RejectionCode.PATCHES_PROTECTED_FIELD,
            f"{filename!r}: {', '.join(map(repr, sorted(changed)))} can't be patched",
            hint="leave these fields out, or give them the value that the record has",
        )


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def apply_patches(sections: Mapping[str, Mapping[str, Record]], patches: PatchInstructions) -> PatchedRecords:
    """Return the records with patches applied; the input is untouched.

    ``sections`` is ``{section: {filename: record}}``. Replaying changes nothing: patches always
    start from the records as the artifacts have them.
    """
    patched: dict[str, dict[str, Record]] = {}
    removed: list[str] = []
    for section, records in sections.items():
        patched[section] = {}
        for filename, record in records.items():
            if filename in patches.removed:
                removed.append(filename)
                continue
            patched[section][filename] = _apply_one(record, filename, patches)
    return PatchedRecords(sections=patched, removed=tuple(sorted(removed)))


def _apply_one(record: Record, filename: str, patches: PatchInstructions) -> Record:
    fixes = patches.fixes.get(filename, ())
    revoked = filename in patches.revoked
    if not fixes and not revoked:
        return record
    result = copy.deepcopy(record)
    for fields in fixes:
        _merge(result, fields)
    if "run_exports" in record:
        result.setdefault("run_exports", {})  # deleted means empty: every package has run exports (CEP 12)
    if revoked:
        result["revoked"] = True
        result["depends"] = [*result.get("depends", []), "package_has_been_revoked"]
    return result


def _merge(base: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Replace fields; dictionaries are merged, ``None`` deletes."""
    for key, value in new.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise RejectedError(RejectionCode.PATCHES_MALFORMED, f"{name!r} of the patch instructions is not an object")
    return value


def _filenames(document: Mapping[str, Any], name: str) -> frozenset[str]:
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RejectedError(
            RejectionCode.PATCHES_MALFORMED, f"{name!r} of the patch instructions is not a list of filenames"
        )
    for filename in value:
        _check_filename(filename, name)
    return frozenset(value)


def _check_filename(filename: str, where: str) -> None:
    # A wrong extension would never match, and a key that clients can't parse would break them.
    if kind_of(filename) is None:
        raise RejectedError(
            RejectionCode.PATCHES_MALFORMED,
            f"{filename!r} in {where!r} is not an artifact's filename",
            hint=f"filenames end in {' or '.join(extensions())}",
        )


def _check_fixes(filename: str, fields: object, *, version: int, uploaded_ms: int | None) -> None:
    if not isinstance(fields, dict):
        raise RejectedError(RejectionCode.PATCHES_MALFORMED, f"the fixes of {filename!r} are not an object")
    if version == 1 and "run_exports" in fields:
        raise RejectedError(
            RejectionCode.PATCHES_PROTECTED_FIELD,
            f"{filename!r}: 'run_exports' can't be patched",
            hint="run_exports may be patched with patch_instructions_version 2",
        )
    identity = _identity_in(filename)
    _require_unchanged(filename, {key: fields[key] for key in identity.keys() & fields.keys()}, identity)
    try:
        check_fields({key: value for key, value in fields.items() if value is not None and key not in PROTECTED_FIELDS})
        if uploaded_ms is not None and fields.get("timestamp") is not None:
            check_timestamp(fields["timestamp"], uploaded_ms)
        if fields.get("run_exports") is not None:
            check_run_exports(fields["run_exports"], "'run_exports'")
    except RejectedError as error:
        raise RejectedError(RejectionCode.PATCHES_MALFORMED, f"{filename!r}: {error}", hint=error.hint) from error


def _identity_in(filename: str) -> Mapping[str, str]:
    """Return the fields that a filename tells; none if no such file can be indexed."""
    try:
        found = parse_filename(filename)
    except InvalidNameError:
        return {}
    return {"name": found.name, "version": found.version, "build": found.build}


def _with_condas(filenames: frozenset[str]) -> frozenset[str]:
    return filenames | {conda for filename in filenames if (conda := as_conda(filename)) is not None}
