"""Documents as JSON values, through the one implementation of forms."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.outputs.form import (
    ShardForm,
    apply_shards_to_document,
    encode_whole,
    make_document,
    parse_whole,
)
from lambdas.indexer.outputs.repodata import RepodataForm, iter_repodata
from lambdas.indexer.outputs.run_exports import RunExportsForm
from lambdas.indexer.tree.shards import Shard

Shards = Mapping[PackageName, Shard | None] | Mapping[PackageName, Shard]


def make_repodata(subdir: SubdirName) -> dict[str, Any]:
    return _make(RepodataForm(), subdir)


def apply_to_repodata(document: Any, shards: Shards) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    return _apply(RepodataForm(), document, shards)


def iter_records(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401 - JSON is anything
    return iter_repodata(parse_whole(RepodataForm(), document))


def make_run_exports(subdir: SubdirName) -> dict[str, Any]:
    return _make(RunExportsForm(), subdir)


def apply_to_run_exports(document: Any, shards: Shards) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    return _apply(RunExportsForm(), document, shards)


def _make(form: ShardForm, subdir: SubdirName) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode_whole(form, make_document(form, subdir)))
    return document


def _apply(form: ShardForm, document: Any, shards: Shards) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    applied = apply_shards_to_document(form, parse_whole(form, document), dict(shards))
    result: dict[str, Any] = json.loads(encode_whole(form, applied))
    return result
