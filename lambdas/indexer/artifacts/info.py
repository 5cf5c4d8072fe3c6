"""The parsed documents of an artifact's info/ folder. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lambdas.channel.errors import RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.match_spec import CONDITIONAL_SCHEMA, check_match_specs
from lambdas.indexer.artifacts.strict_json import MAX_DOCUMENT_VALUES, parse_document

RUN_EXPORTS_KINDS = frozenset({"weak", "strong", "weak_constrains", "strong_constrains", "noarch"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactInfo:
    """The content of an artifact, not yet compared with its key.

    ``index`` is info/index.json. ``run_exports`` is in its object form, ``{}`` if there are none.
    ``about`` has the texts of info/about.json that channeldata shows, and ``channeldata`` its other facts
    (CEP 38): whether prefixes are replaced, which scripts run, where the source came from.
    """

    index: dict[str, Any]
    run_exports: dict[str, Any]
    about: dict[str, Any]
    channeldata: dict[str, Any]
    md5: str
    sha256: str
    size: int


def parse_run_exports(content: bytes) -> dict[str, Any]:
    """Parse info/run_exports.json into its object form: a list means ``weak``.

    Raises:
        RejectedError: not JSON, ``run-exports-invalid`` or ``spec-invalid``.

    Source: CEP 34, info/run_exports.json.
    """
    document = parse_document(content, "info/run_exports.json", max_values=MAX_DOCUMENT_VALUES)
    if isinstance(document, list):
        document = {"weak": document} if document else {}
    check_run_exports(document, "info/run_exports.json")
    return {key: value for key, value in document.items() if value is not None}


def check_run_exports(document: object, name: str) -> None:
    """Check that clients can read run exports; ``name`` is their name in messages.

    Raises:
        RejectedError: ``run-exports-invalid`` or ``spec-invalid``.
    """
    if not isinstance(document, dict):
        raise RejectedError(RejectionCode.RUN_EXPORTS_INVALID, f"{name} is neither an object nor a list")
    for kind in sorted(RUN_EXPORTS_KINDS & document.keys()):
        specs = document[kind]
        if specs is not None and not (isinstance(specs, list) and all(isinstance(spec, str) for spec in specs)):
            raise RejectedError(RejectionCode.RUN_EXPORTS_INVALID, f"{kind!r} in {name} is not a list of strings")
        # No client solves with run exports: they become dependencies of packages, whose specs are checked again.
        check_match_specs(specs or (), f"{kind!r} in {name}", schema_version=CONDITIONAL_SCHEMA)
