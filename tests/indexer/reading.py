"""Reads artifacts that tests build, valid and invalid."""

from __future__ import annotations

import bz2
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from lambdas.channel.artifact_kinds import Distribution, parse_filename
from lambdas.channel.errors import RejectedError
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from tests.builders import (
    PAYLOAD,
    Members,
    MemorySource,
    conda,
    conda_package,
    index_json,
    info_members,
    tar,
    tar_bz2_package,
)

FOO_CONDA = parse_filename("foo-1.0-0.conda")
FOO_BZ2 = parse_filename("foo-1.0-0.tar.bz2")
STEM = "foo-1.0-0"
STREAMED = ArtifactLimits(
    max_at_once_bytes=1, max_whole_tar_bytes=1, max_walk_bytes=1
)  # every artifact counts as large

Builder = Callable[..., tuple[str, bytes]]
BUILDERS = [conda_package, tar_bz2_package]
both_formats = pytest.mark.parametrize("build", BUILDERS)


def read(filename: str, content: bytes, limits: ArtifactLimits | None = None) -> ArtifactInfo:
    return read_artifact(MemorySource(content=content), parse_filename(filename), limits or ArtifactLimits())


def rejection(content: bytes, distribution: Distribution, limits: ArtifactLimits | None = None) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        read_artifact(MemorySource(content=content), distribution, limits or ArtifactLimits())
    return caught.value


def info_tar(*more: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    return tar([*info_members(index_json()), *more])


def foo_conda(info: bytes | None = None, payload: bytes | None = None) -> bytes:
    return conda(STEM, info_tar() if info is None else info, tar(PAYLOAD) if payload is None else payload)


def foo_bz2(members: Members) -> bytes:
    return bz2.compress(tar(members))


@st.composite
def damages(draw: st.DrawFn, content: bytes) -> bytes:
    """Truncate, flip, overwrite, cut out, repeat and append, several times."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        count = draw(st.sampled_from([1, 2, 4, 22, 46, 512]))
        kind = draw(st.sampled_from(["flip", "flip", "set", "cut", "remove", "repeat", "append"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at : at + count] = draw(st.binary(min_size=count, max_size=count))
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + count]
        elif kind == "repeat":
            data[at:at] = data[at : at + count]
        else:
            data += draw(st.binary(max_size=count))
    return bytes(data)
