"""Checks outputs: whether each file of the registry exists, shows the commit, and agrees with the shards."""

import bz2
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lambdas.channel.errors import FairwayError, InvalidDocumentError
from lambdas.channel.layout import ChannelLayout
from lambdas.channel.names import Channel, PackageName, SubdirId
from lambdas.indexer.artifacts.record import Record
from lambdas.indexer.model import Limits, Outputs
from lambdas.indexer.outputs import registry
from lambdas.indexer.outputs.channel import SHOWN, hash_shown
from lambdas.indexer.outputs.channeldata import format_channeldata
from lambdas.indexer.outputs.form import WholeDocument, apply_shards_to_document, encode_whole, make_document
from lambdas.indexer.outputs.registry import (
    REPODATA,
    ZSTD,
    ChannelContents,
    SubdirOutput,
    form_of,
    subdir_filenames,
    wanted_subdir_filenames,
)
from lambdas.indexer.outputs.repodata import iter_repodata
from lambdas.indexer.outputs.size_limit import SizeLimit
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.tree.encoding import decode_json, decompress
from lambdas.indexer.tree.index_files import get_file, head_file
from lambdas.indexer.tree.shards import Shard
from lambdas.indexer.tree.subdir import Commit, Subdir
from lambdas.indexer.upkeep.findings import Finding, Problem
from lambdas.storage.protocol import ObjectStorage, StoredObject

_UNWANTED: Final = "this deployment does not write it"
_DECODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "": lambda body: body,
    ZSTD.suffix: lambda body: decompress(body, what="the file"),
    ".bz2": bz2.decompress,
}


class ExpectedDocuments:
    """The documents that a subdir's shards make, gathered batch by batch."""

    def __init__(self, subdir: SubdirId, limits: Limits) -> None:
        self.subdir = subdir
        self.limits = limits
        self._documents: dict[str, WholeDocument] = {
            output.name: make_document(output.form, subdir.name)
            for output in registry.SUBDIR_OUTPUTS
            if output.form is not None
        }

    def add(self, shards: Mapping[PackageName, Shard | None], unpatched: Mapping[PackageName, Shard | None]) -> None:
        """Add some names, as readers see them and as they would without patches."""
        for output in registry.SUBDIR_OUTPUTS:
            if output.form is not None:
                some = unpatched if output.is_unpatched else shards
                self._documents[output.name] = apply_shards_to_document(output.form, self._documents[output.name], some)

    def value(self, output: SubdirOutput) -> Any:  # noqa: ANN401 - JSON is anything
        """Return a document as a JSON value."""
        return decode_json(encode_whole(form_of(output), self._documents[output.name]), what=output.name)

    @property
    def total(self) -> int:
        """The number of records."""
        return sum(len(entries) for entries in self._documents[REPODATA.name].sections.values())

    def newest(self) -> Iterator[tuple[str, Record]]:
        """Yield every record with its filename."""
        return iter_repodata(self._documents[REPODATA.name])

    def document(self) -> Mapping[str, Any]:
        """Return repodata.json as a JSON value."""
        document: dict[str, Any] = self.value(REPODATA)
        return document


def check_subdir_outputs(
    subdir: Subdir,
    commit: Commit,
    outputs: Outputs,
    expected: ExpectedDocuments,
    *,
    is_complete: bool,
    is_deferred: bool,
) -> Iterator[Finding]:
    """Yield what is wrong with the outputs of a subdir.

    ``is_complete`` says that every shard could be read; with ``is_deferred``, files may show an older
    commit for now.
    """
    wanted = wanted_subdir_filenames(outputs, commit.index)
    for filename in sorted(set(subdir_filenames()) - set(wanted)):
        key = subdir.layout.file(filename)
        if head_file(subdir.storage, key) is not None:
            yield Finding(problem=Problem.OUTPUT_UNWANTED, key=key, message=_UNWANTED)
    for output in registry.SUBDIR_OUTPUTS:
        stored = {
            filename: _get_output(subdir.storage, subdir.layout.file(filename))
            for filename in output.wanted_filenames(outputs, commit.index)
        }
        if output is REPODATA and outputs.max_repodata_bytes is not None:
            limit = SizeLimit(max_bytes=outputs.max_repodata_bytes)
            yield from _check_size(stored[REPODATA.name], limit)
            _take_compressed_where_limited(stored, limit)
        for filename, one in stored.items():
            key = subdir.layout.file(filename)
            yield from _check_shown(key, one, (COMMIT, commit.sha256), is_deferred=is_deferred)
        plain = stored.get(output.name)
        if plain is None:
            continue
        yield from _check_encodings(output, plain, stored, is_deferred=is_deferred)
        shows_commit = plain.info.metadata.get(COMMIT) == commit.sha256
        if shows_commit and (output.form is not None or is_complete) and not _is_expected(output, plain, expected):
            yield Finding(
                problem=Problem.OUTPUT_WRONG, key=plain.info.key, message="it does not say what the shards say"
            )


def check_channel_outputs(
    storage: ObjectStorage,
    channel: Channel,
    etags: Mapping[str, str | None],
    merged: Mapping[str, Any] | None,
    *,
    outputs: Outputs,
    limits: Limits,
    is_deferred: bool,
) -> Iterator[Finding]:
    """Yield what is wrong with the outputs of a channel; ``merged`` is None if it is unknown what they should say."""
    for output in registry.CHANNEL_OUTPUTS:
        key = ChannelLayout(channel=channel).file(output.name)
        if not output.is_wanted(outputs):
            if head_file(storage, key) is not None:
                yield Finding(problem=Problem.OUTPUT_UNWANTED, key=key, message=_UNWANTED)
            continue
        stored = _get_output(storage, key)
        found = list(_check_shown(key, stored, (SHOWN, hash_shown(etags)), is_deferred=is_deferred))
        yield from found
        if found or stored is None or merged is None:
            continue
        if output.render is None:
            is_right = _decode_or_none(stored.body) == format_channeldata(merged)
        else:
            contents = ChannelContents(
                channel=channel, merged=merged, total=len(merged["packages"]), url=outputs.url, limits=limits
            )
            is_right = stored.body == output.render(contents)
        if not is_right:
            yield Finding(problem=Problem.OUTPUT_WRONG, key=key, message="it does not say what the shards say")


def _get_output(storage: ObjectStorage, key: str) -> StoredObject | None:
    """Read an output; None if it is missing, or S3 says that it can't be read."""
    try:
        return get_file(storage, key)
    except InvalidDocumentError:
        return None


def _check_size(plain: StoredObject | None, limit: SizeLimit) -> Iterator[Finding]:
    """Warn of a file that is close to the operator's limit, before it is removed."""
    if plain is None or plain.info.size <= limit.warning_bytes:
        return
    when = "once it exceeds that" if plain.info.size <= limit.max_bytes else "by the reconciliation after a publish"
    message = f"{plain.info.size:,} bytes, of {limit.max_bytes:,} allowed: it is removed {when}; its .zst stays"
    yield Finding(problem=Problem.OUTPUT_TOO_LARGE, key=plain.info.key, message=message)


def _take_compressed_where_limited(stored: dict[str, StoredObject | None], limit: SizeLimit) -> None:
    """Replace a plain file that was removed for its size by what its compressed form decodes to."""
    compressed = stored[REPODATA.name + ZSTD.suffix]
    if stored[REPODATA.name] is None and compressed is not None and limit.keeps_away(compressed.info):
        with contextlib.suppress(InvalidDocumentError):  # then both files are reported
            body = decompress(compressed.body, what=compressed.info.key)
            stored[REPODATA.name] = StoredObject(info=compressed.info, body=body)


def _check_shown(
    key: str, stored: StoredObject | None, shown: tuple[str, str], *, is_deferred: bool
) -> Iterator[Finding]:
    """Check that a file is there and shows what it should; ``shown`` is the metadata that says so."""
    if stored is None:
        yield Finding(problem=Problem.OUTPUT_MISSING, key=key, message="the file is missing, or can't be read")
    elif stored.info.metadata.get(shown[0]) != shown[1]:
        yield Finding(
            problem=Problem.OUTPUT_BEHIND, key=key, message="it shows another commit", is_harmless=is_deferred
        )


def _check_encodings(
    output: SubdirOutput, plain: StoredObject, stored: Mapping[str, StoredObject | None], *, is_deferred: bool
) -> Iterator[Finding]:
    """Check that every encoding decodes to the plain file, unless one of them may be behind."""
    for filename, one in stored.items():
        if one is None or one is plain:
            continue
        if is_deferred and one.info.metadata.get(COMMIT) != plain.info.metadata.get(COMMIT):
            continue
        try:
            is_equal = _DECODERS[filename.removeprefix(output.name)](one.body) == plain.body
        except (FairwayError, ValueError, OSError):
            is_equal = False
        if not is_equal:
            yield Finding(
                problem=Problem.ENCODINGS_DISAGREE, key=one.info.key, message=f"it is not {output.name}, compressed"
            )


def _is_expected(output: SubdirOutput, plain: StoredObject, expected: ExpectedDocuments) -> bool:
    if output.render is not None:
        return plain.body == output.render(expected)
    return bool(_decode_or_none(plain.body) == expected.value(output))


def _decode_or_none(body: bytes) -> object:
    try:
        return decode_json(body, what="an output")
    except InvalidDocumentError:
        return None
