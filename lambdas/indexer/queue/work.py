"""Groups keys by subdir, so that each subdir is committed once. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lambdas.channel.errors import InvalidNameError
from lambdas.channel.layout import (
    ArtifactKey,
    AttestationsKey,
    FolderKey,
    ParsedKey,
    PatchesKey,
    WholeSubdirKey,
    parse_key,
)
from lambdas.channel.names import SubdirId
from lambdas.indexer.model import SubdirKeys


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a batch of keys asks for."""

    subdirs: Mapping[SubdirId, SubdirKeys] = field(default_factory=dict)
    invalid_keys: Mapping[str, InvalidNameError] = field(default_factory=dict)
    """``{key: error}`` of uploads under keys where nothing can be indexed."""


def plan_work(keys: Iterable[str]) -> Work:
    """Parse keys and group them by subdir; keys that concern no index are left out."""
    parsed: dict[SubdirId, list[ParsedKey]] = {}
    invalid_keys: dict[str, InvalidNameError] = {}
    for key in keys:
        try:
            found = parse_key(key)
        except InvalidNameError as error:
            if key.rpartition("/")[2]:  # a folder is no upload
                invalid_keys[key] = error
            continue
        if found is not None:
            parsed.setdefault(_subdir_of(found), []).append(found)
    return Work(
        subdirs={subdir: _group(found) for subdir, found in sorted(parsed.items(), key=lambda item: str(item[0]))},
        invalid_keys=invalid_keys,
    )


def _subdir_of(key: ParsedKey) -> SubdirId:
    return key.artifact.subdir if isinstance(key, AttestationsKey) else key.subdir


def _group(keys: Sequence[ParsedKey]) -> SubdirKeys:
    return SubdirKeys(
        artifacts=frozenset(key for key in keys if isinstance(key, ArtifactKey)),
        attestations=frozenset(key.artifact for key in keys if isinstance(key, AttestationsKey)),
        patches=any(isinstance(key, PatchesKey) for key in keys),
        deferred=any(isinstance(key, FolderKey) for key in keys),
        whole=any(isinstance(key, WholeSubdirKey) for key in keys),
    )
