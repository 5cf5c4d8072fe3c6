"""Canonical JSON, msgpack and zstd: the only user of those libraries. Pure.

The same document always becomes the same bytes: keys are sorted, floats and separators are fixed,
each zstd body is one frame with its content size, made by one thread at a fixed level (invariant 11).
"""

import json
import sys
from typing import Any, Final

import msgpack

from lambdas.channel.errors import InvalidDocumentError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SHARD_LEVEL: Final = 12  # shards are small, written once and read by everybody
FLAT_LEVEL: Final = 12  # written whole at each publish: the next level that pays (16) takes 3 times as long
BEST_LEVEL: Final = 17  # large flat files, segment by segment: 19 takes twice as long for 1.5 %
PRIVATE_LEVEL: Final = 3  # cards: read by the indexer alone
MAX_DECODED_BYTES: Final = 2 * 1024**3

_WINDOW_LOG: Final = 23  # 8 MiB: the most that every client accepts


def encode_json(document: object) -> bytes:
    """Encode as conda-index does: sorted keys, no spaces, ASCII, no newline at the end."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode_json(body: bytes, *, what: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Decode a JSON document that Fairway wrote.

    Raises:
        InvalidDocumentError: it is not JSON; ``what`` names it in the message.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{what} is not JSON: {error}") from error


def encode_msgpack(document: object) -> bytes:
    """Encode with sorted keys, text as str and bytes as bin."""
    return bytes(msgpack.packb(_sort_keys(document), use_bin_type=True))


def decode_msgpack(body: bytes, *, what: str) -> Any:  # noqa: ANN401 - msgpack is anything
    """Decode a msgpack document that Fairway wrote.

    Raises:
        InvalidDocumentError: it is not msgpack; ``what`` names it in the message.
    """
    try:
        return msgpack.unpackb(body, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidDocumentError(f"{what} is not msgpack: {error}") from error


def split_msgpack_map(body: bytes, *, what: str) -> dict[str, bytes]:
    """Return the encoded values of a map by key; unlike decoding, it takes no more memory than ``body``.

    Raises:
        InvalidDocumentError: it is not one map with text as keys; ``what`` names it in the message.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(body) + 1, max_map_len=0, max_array_len=0)
    unpacker.feed(body)
    values: dict[str, bytes] = {}
    try:
        count = unpacker.read_map_header()
        for _ in range(count):
            key = unpacker.unpack()
            start = unpacker.tell()
            unpacker.skip()
            values[key] = body[start : unpacker.tell()]
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise InvalidDocumentError(f"{what} is not a map of msgpack: {error!r}") from error
    if len(values) != count or not all(isinstance(key, str) for key in values):
        raise InvalidDocumentError(f"{what} has a key twice, or one that is not text")
    if unpacker.tell() != len(body):
        raise InvalidDocumentError(f"{what} has bytes after its end")
    return values


def compress(body: bytes, *, level: int) -> bytes:
    """Compress into exactly one zstd frame with its content size and a window of at most 8 MiB.

    Source: RFC 8878.
    """
    parameters = zstd.CompressionParameter
    options: dict[int, int] = {
        parameters.compression_level: level,
        parameters.window_log: min(_WINDOW_LOG, max(10, len(body).bit_length())),
        parameters.content_size_flag: 1,
        parameters.checksum_flag: 0,
    }
    return zstd.compress(body, options=options)


def decompress(body: bytes, *, what: str, max_bytes: int = MAX_DECODED_BYTES) -> bytes:
    """Decompress one zstd frame that Fairway wrote.

    Raises:
        InvalidDocumentError: not one complete zstd frame, or larger than ``max_bytes``.
    """
    decompressor = zstd.ZstdDecompressor()
    try:
        plain = decompressor.decompress(body, max_length=max_bytes)
    except zstd.ZstdError as error:
        raise InvalidDocumentError(f"{what} is not zstd: {error}") from error
    if decompressor.unused_data:
        raise InvalidDocumentError(f"{what} has bytes after its frame")
    if not decompressor.eof:
        raise InvalidDocumentError(f"{what} is truncated, or larger than {max_bytes} bytes")
    return plain


def measure(body: bytes) -> int:
    """Return how many bytes a frame of Fairway holds, as its header says."""
    return int(zstd.get_frame_info(body).decompressed_size or 0)


def _sort_keys(value: Any) -> Any:  # noqa: ANN401 - msgpack is anything
    if isinstance(value, dict):
        return {key: _sort_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sort_keys(item) for item in value]
    return value
