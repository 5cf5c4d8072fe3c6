"""current_repodata.json: the newest of each name and what it needs, for conda's classic solver. Pure.

Source: conda-index's ``current_repodata.py``, without its list of pinned versions.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lambdas.channel.artifact_kinds import as_conda, as_tar_bz2, flat_sections, kind_of
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.artifacts.versions import VersionKey

_CLAUSE: Final = re.compile(r"(==|=|!=|>=|<=|>|<|~=)?\s*(.+)\Z")
_Artifacts = Mapping[str, Record]


def make_current_repodata(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the subset of a repodata document; a ``.conda`` replaces the ``.tar.bz2`` of the same package."""
    artifacts = _prefer_conda(document)
    by_name: dict[str, dict[str, Record]] = defaultdict(dict)
    for filename, record in artifacts.items():
        by_name[record["name"]][filename] = record
    kept: dict[str, Record] = {}
    for records in by_name.values():
        newest = _newest(records)
        kept |= newest
        if any(record.get("features") or record.get("track_features") for record in newest.values()):
            plain = {name: one for name, one in records.items() if not one.get("features")}
            kept |= _newest(plain)
    _add_what_is_needed(kept, by_name)
    sections: dict[str, dict[str, Any]] = {section: {} for section in flat_sections()}
    for filename, record in kept.items():
        if (kind := kind_of(filename)) is not None and kind.section is not None:
            sections[kind.section][filename] = record
    info = {key: value for key, value in document["info"].items() if key != "repodata_revisions"}
    return {"info": info, "removed": [], "repodata_version": 1, **sections}


def _prefer_conda(document: Mapping[str, Any]) -> dict[str, Record]:
    old, new = document["packages"], document["packages.conda"]
    artifacts: dict[str, Record] = {}
    for filename, record in new.items():
        same = old.get(as_tar_bz2(filename))
        extra = {} if same is None else {"legacy_bz2_md5": same["md5"], "legacy_bz2_size": same["size"]}
        artifacts[filename] = {**record, **extra}
    return artifacts | {name: record for name, record in old.items() if as_conda(name) not in new}


def _newest(records: _Artifacts) -> dict[str, Record]:
    """Return all builds of the newest version."""
    if not records:
        return {}
    version = max((record["version"] for record in records.values()), key=VersionKey)
    return {filename: record for filename, record in records.items() if record["version"] == version}


def _add_what_is_needed(kept: dict[str, Record], by_name: Mapping[str, _Artifacts]) -> None:
    """Add, for each dependency that nothing kept satisfies, the newest version that does."""
    waiting = list(kept.values())
    seen: set[str] = set()
    while waiting:
        for spec in waiting.pop().get("depends", ()):
            if spec in seen:
                continue
            seen.add(spec)
            name, _, rest = spec.partition(" ")
            candidates = by_name.get(name, {})
            matching = {filename: one for filename, one in candidates.items() if _matches(rest.split(), one)}
            if matching and not matching.keys() & kept.keys():
                added = _newest(matching)
                kept |= added
                waiting.extend(added.values())


def _matches(constraint: list[str], record: Record) -> bool:
    """Tell whether a record satisfies the version and build of a dependency, as far as is simple.

    What is not understood matches: a superset does no harm.
    """
    if not constraint:
        return True
    if len(constraint) > 1 and not _globs([constraint[1]], record["build"]):
        return False
    return any(
        all(_satisfies(clause, record["version"]) for clause in choice.split(","))
        for choice in constraint[0].split("|")
    )


def _satisfies(clause: str, version: str) -> bool:
    match = _CLAUSE.match(clause)
    if match is None:
        return True
    operator, wanted = match.groups()
    if operator in {None, "=", "==", "!="}:
        fuzzy = [f"{wanted.rstrip('*').rstrip('.')}.*", wanted.rstrip("*").rstrip(".")] if operator == "=" else [wanted]
        return _globs(fuzzy, version) != (operator == "!=")
    ours, theirs = VersionKey(version), VersionKey(wanted.rstrip("*").rstrip("."))
    return {
        ">=": not ours < theirs,
        "<": ours < theirs,
        ">": theirs < ours,
        "<=": not theirs < ours,
        "~=": not ours < theirs,
    }[str(operator)]


def _globs(patterns: Iterable[str], text: str) -> bool:
    return any(_matches_glob(pattern.replace(".*", "*"), text) for pattern in patterns)


def _matches_glob(pattern: str, text: str) -> bool:
    """Match ``*`` in one pass: a publisher's pattern may not cost more than its length."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    if not text.startswith(first):
        return False
    position = len(first)
    for part in rest[:-1]:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return text.endswith(rest[-1]) and len(text) - len(rest[-1]) >= position
