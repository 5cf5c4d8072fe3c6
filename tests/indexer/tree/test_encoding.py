"""Canonical bytes: the same document always becomes the same bytes, and decodes to it."""

import json
import struct
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.tree.encoding import (
    FLAT_LEVEL,
    PRIVATE_LEVEL,
    SHARD_LEVEL,
    compress,
    decode_json,
    decode_msgpack,
    decompress,
    encode_json,
    encode_msgpack,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_BYTES = 8 * 1024 * 1024
LEVELS = sorted({SHARD_LEVEL, FLAT_LEVEL, PRIVATE_LEVEL})

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
binary_documents = st.recursive(
    scalars | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def shuffle(value: Any, random: Any) -> Any:  # noqa: ANN401 - any document
    """The same document with its keys in another order."""
    if isinstance(value, dict):
        items = [(key, shuffle(inner, random)) for key, inner in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffle(inner, random) for inner in value] if isinstance(value, list) else value


def read_frame_header(body: bytes) -> tuple[int | None, int, bool, bool]:
    """Return content size, window size, whether there is a dictionary id, whether there is a checksum.

    Source: RFC 8878, 3.1.1.1.
    """
    assert body[:4] == MAGIC
    descriptor = body[4]
    single, size_flag, dictionary = bool(descriptor & 0x20), descriptor >> 6, descriptor & 3
    position, window = 5, 0
    if not single:
        exponent, mantissa = body[5] >> 3, body[5] & 7
        window = (1 << (10 + exponent)) + ((1 << (10 + exponent)) // 8) * mantissa
        position = 6
    position += (0, 1, 2, 4)[dictionary]
    size: int | None
    if size_flag == 0:
        size = body[position] if single else None
    else:
        size = struct.unpack_from(("", "<H", "<I", "<Q")[size_flag], body, position)[0]
        size = size + 256 if size_flag == 1 else size
    return size, size if single and size is not None else window, dictionary != 0, bool(descriptor & 4)


def count_frames(body: bytes) -> int:
    frames = 0
    while body:
        decompressor = zstd.ZstdDecompressor()
        decompressor.decompress(body)
        assert decompressor.eof
        body = decompressor.unused_data
        frames += 1
    return frames


@given(documents)
def test_encode_json__decodes_to_the_same(document: object) -> None:
    assert decode_json(encode_json(document), what="it") == document


@given(documents, st.randoms(use_true_random=False))
def test_encode_json__order_of_keys_does_not_matter(document: object, random: object) -> None:
    assert encode_json(shuffle(document, random)) == encode_json(document)


def test_encode_json__equals_conda_index() -> None:
    document = {"b": [1, 2.5, None, True], "a": {"ü": "日本", "tab": "\t"}}
    assert encode_json(document) == b'{"a":{"tab":"\\t","\\u00fc":"\\u65e5\\u672c"},"b":[1,2.5,null,true]}'
    assert encode_json(document) == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nul"])
def test_decode_json__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError, match="the thing"):
        decode_json(body, what="the thing")


@given(binary_documents)
def test_encode_msgpack__decodes_to_the_same(document: object) -> None:
    assert decode_msgpack(encode_msgpack(document), what="it") == document


@given(binary_documents, st.randoms(use_true_random=False))
def test_encode_msgpack__order_of_keys_does_not_matter(document: object, random: object) -> None:
    assert encode_msgpack(shuffle(document, random)) == encode_msgpack(document)


def test_encode_msgpack__text_is_str_and_bytes_are_bin() -> None:
    assert encode_msgpack("a") == b"\xa1a"
    assert encode_msgpack(b"a") == b"\xc4\x01a"
    assert encode_msgpack({"a": b"\x00" * 32}) == b"\x81\xa1a\xc4\x20" + b"\x00" * 32


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x81",
        b"\xc1",
        b"\xa2\xff\xfe",
        msgpack.packb(1) + b"\x01",
        b"\x91" * 5000,
        b"\x81\x90\x00",
        b"\x81\x01\x00",
    ],
)
def test_decode_msgpack__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError, match="the thing"):
        decode_msgpack(body, what="the thing")


@given(st.binary(max_size=5000), st.sampled_from(LEVELS))
def test_compress__decompresses_to_the_same(body: bytes, level: int) -> None:
    assert decompress(compress(body, level=level), what="it") == body


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 1_000_000, 9_000_000])
def test_compress__one_frame_with_content_size_and_a_small_window(size: int, level: int) -> None:
    body = compress(bytes(range(256)) * (size // 256) + b"x" * (size % 256), level=level)
    content_size, window, dictionary, _ = read_frame_header(body)
    assert content_size == size
    assert window <= MAX_WINDOW_BYTES
    assert not dictionary
    assert count_frames(body) == 1


def test_compress__same_bytes_each_time() -> None:
    body = bytes(range(256)) * 20_000
    assert len({compress(body, level=FLAT_LEVEL) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"no zstd", compress(b"hello" * 100, level=3)[:-1], compress(b"hello", level=3)[:6], MAGIC],
    ids=["empty", "other", "truncated", "header", "magic"],
)
def test_decompress__broken(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError, match="the thing"):
        decompress(body, what="the thing")


def test_decompress__too_large() -> None:
    with pytest.raises(InvalidDocumentError, match="larger than 100 bytes"):
        decompress(compress(bytes(101), level=3), what="it", max_bytes=100)
    assert decompress(compress(bytes(100), level=3), what="it", max_bytes=100) == bytes(100)
