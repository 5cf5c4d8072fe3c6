"""Reads an artifact: the documents of its ``info/`` folder and its hashes.

Owns which documents are read and which of their facts the index keeps. ``record`` decides whether the
result may be indexed under the artifact's key; ``archives`` turns bytes into members.

Source: CEP 34 (contents of packages), CEP 12 (run exports), CEP 38 (channeldata).
"""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lambdas.channel.artifact_kinds import CONDA, TAR_BZ2, Distribution
from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.artifact_source import MIB, RECIPES, ArtifactLimits, ArtifactSource, Contents
from lambdas.indexer.artifacts.archives.conda_format import fetch_conda
from lambdas.indexer.artifacts.archives.decompression import AGAIN
from lambdas.indexer.artifacts.archives.tar_bz2_format import fetch_tar_bz2
from lambdas.indexer.artifacts.budgets import (
    MoreMemoryNeededError,
    ProcessorBudget,
    Reading,
    ReadingBudgets,
    ReadingMemory,
    UnboundedMemory,
)
from lambdas.indexer.artifacts.info import ArtifactInfo, parse_run_exports
from lambdas.indexer.artifacts.recipe import parse_source
from lambdas.indexer.artifacts.strict_json import (
    MAX_DOCUMENT_VALUES,
    Pairs,
    parse_object,
    parsing_bytes,
    read_leniently,
)
from lambdas.indexer.artifacts.texts import cut_texts

__all__ = ["ArtifactInfo", "ArtifactLimits", "ArtifactSource", "read_artifact"]


Reader = Callable[[ArtifactSource, Distribution, ArtifactLimits, Reading], Contents]
READERS: dict[str, Reader] = {
    CONDA.extension: fetch_conda,
    TAR_BZ2.extension: lambda source, _, limits, reading: fetch_tar_bz2(source, limits, reading),
}
"""``{extension: reader}``: how the bytes of each artifact kind become members."""

_ABOUT_TEXTS = ("description", "dev_url", "doc_source_url", "doc_url", "home", "license", "summary")
_ABOUT_FACTS = (
    "icon_hash",
    "icon_url",
    "identifiers",
    "keywords",
    "recipe_origin",
    "source_git_url",
    "source_url",
    "tags",
)
_ONE_LINE = frozenset({"description", "summary"})
_ACTIVATION = ("activate.d", "deactivate.d")
_LINK_SCRIPTS = ("pre-link", "post-link", "pre-unlink")
_POST_INSTALL = ("binary_prefix", "text_prefix", *_ACTIVATION, *(kind.replace("-", "_") for kind in _LINK_SCRIPTS))
_DEFAULT_LIMITS = ArtifactLimits()
_BASE_BYTES = 16 * MIB  # enough for most artifacts: an 8 MiB window, and documents of some MiB


def read_artifact(
    source: ArtifactSource,
    distribution: Distribution,
    limits: ArtifactLimits = _DEFAULT_LIMITS,
    budgets: ReadingBudgets | None = None,
) -> ArtifactInfo:
    """Read one version of one artifact.

    ``budgets`` are those of all readers of a run. Without them, memory is not limited, and processor time by
    ``limits`` alone. Where more memory is needed than is free, reading begins again once it is.

    Raises:
        RejectedError: the archive or a document in it is damaged, hostile, or not what its name says.
        LimitExceededError: the artifact or the run has no processor time left.
        VanishedError: the artifact changed meanwhile.
        UnavailableError: passed on from the source.
    """
    budgets = budgets or unbounded_budgets()
    needed_bytes = _BASE_BYTES + min(source.size, limits.max_at_once_bytes)
    while True:
        try:
            with budgets.memory.reserve(needed_bytes) as reservation:
                memory = ReadingMemory(reservation, needed_bytes)
                meter = budgets.processor.start(limits.max_cpu_seconds)
                return _read(source, distribution, limits, Reading(memory=memory, meter=meter))
        except MoreMemoryNeededError as error:
            needed_bytes = max(error.count, 2 * needed_bytes)


def unbounded_budgets() -> ReadingBudgets:
    """Return the budgets of a reader that is alone: processor time is measured, but shared with no other reader."""
    return ReadingBudgets(memory=UnboundedMemory(), processor=ProcessorBudget(math.inf, time.thread_time))


def _read(source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits, reading: Reading) -> ArtifactInfo:
    contents = _fetch_contents(source, distribution, limits, reading)
    members = contents.members
    if "info/index.json" not in members:
        raise RejectedError(
            RejectionCode.MEMBER_MISSING, "the archive has no 'info/index.json'", hint="is this a conda package?"
        )
    reading.memory.use("parsing", max(map(parsing_bytes, members.values())))  # one document after the other
    index = parse_object(members["info/index.json"], "info/index.json", max_values=MAX_DOCUMENT_VALUES)
    about = read_leniently(members.get("info/about.json", b"{}"))
    recipe = next((content for name, content in members.items() if name in RECIPES), b"")
    return ArtifactInfo(
        index=index,
        run_exports=parse_run_exports(members.get("info/run_exports.json", b"{}")),
        about=cut_texts(_about_texts(about)),
        channeldata=parse_post_install(members.get("info/paths.json", b"{}"))
        | cut_texts(_other_facts(about | index) | parse_source(recipe)),
        md5=contents.md5,
        sha256=contents.sha256,
        size=source.size,
    )


def _fetch_contents(
    source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits, reading: Reading
) -> Contents:
    if source.size == 0:
        raise RejectedError(RejectionCode.ARCHIVE_EMPTY, "the file is empty", hint=AGAIN)
    if source.size > limits.max_artifact_bytes:
        raise RejectedError(
            RejectionCode.ARTIFACT_OVERSIZED, f"the file has {source.size} bytes, over {limits.max_artifact_bytes}"
        )
    return READERS[distribution.kind.extension](source, distribution, limits, reading)


@dataclass(frozen=True, slots=True)
class _PathFacts:
    """The facts of one entry of info/paths.json."""

    facts: frozenset[str]


def parse_post_install(content: bytes) -> dict[str, bool]:
    """Return the installation steps of CEP 38 that the package needs, from info/paths.json.

    Entries are reduced while they are parsed: the file of a large package has 100,000 of them.

    Raises:
        RejectedError: not a JSON object.
    """
    document = parse_object(content, "info/paths.json", shape=_shape_paths, may_repeat=_is_path)
    paths = document.get("paths")
    entries = [entry for entry in paths if isinstance(entry, _PathFacts)] if isinstance(paths, list) else []
    found: frozenset[str] = frozenset().union(*{entry.facts for entry in entries})
    return {key: key in found for key in _POST_INSTALL}


_NOTHING = _PathFacts(frozenset())


def _is_path(pairs: Pairs) -> bool:
    """Whether it is an entry of a path: an index does not depend on duplicate keys there."""
    return any(key == "_path" for key, _ in pairs)


def _shape_paths(pairs: Pairs) -> dict[str, Any] | _PathFacts:
    entry = dict(pairs)
    path = entry.get("_path")
    if not isinstance(path, str):
        return entry
    facts = set()
    if entry.get("prefix_placeholder") and entry.get("file_mode") in ("binary", "text"):
        facts.add(f"{entry['file_mode']}_prefix")
    if path.startswith("etc/conda/"):
        facts.update(kind for kind in _ACTIVATION if path.startswith(f"etc/conda/{kind}"))
    if "link." in path:
        facts.update(kind.replace("-", "_") for kind in _LINK_SCRIPTS if fnmatch.fnmatchcase(path, f"*/.*-{kind}.*"))
    return _PathFacts(frozenset(facts)) if facts else _NOTHING


def _about_texts(about: dict[str, Any]) -> dict[str, Any]:
    """Return the texts of info/about.json that channeldata shows; a list of lines is joined."""
    found = {}
    for key in _ABOUT_TEXTS:
        value = about.get(key)
        if key in _ONE_LINE:
            if isinstance(value, list) and all(isinstance(line, str) for line in value):
                value = "".join(value)
            value = value.strip().replace("\n", " ") if isinstance(value, str) else None
        if value and _is_text(value):
            found[key] = value
    return found


def _other_facts(documents: dict[str, Any]) -> dict[str, Any]:
    return {key: documents[key] for key in _ABOUT_FACTS if documents.get(key) and _is_text(documents[key])}


def _is_text(value: object) -> bool:
    """Whether it is a string, or a list of strings, that can be encoded."""
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) and _is_unicode(text) for text in texts)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
