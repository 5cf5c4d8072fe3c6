"""Joins separately compressed chunks into one zstd frame, and splits such a frame again. Pure.

``repodata.json.zst`` must be exactly one frame (invariant 11), and compressing all of a large file
for one new record is too expensive. If a chunk was compressed as its own frame, its blocks depend on
nothing before them except the three repeat offsets. A *reset block* before each chunk restores these.
It decompresses to 33 spaces, which JSON allows between any two tokens.

Deals with bytes and blocks, not with records.

Source: RFC 8878, 3.1.1 (frames, blocks) and 3.1.1.5 (repeat offsets).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.tree.encoding import compress, decompress

RESET_TEXT: Final = b" " * 33
"""What the reset block decompresses to; the plain file has it at the same places."""
RESET_BLOCK: Final = bytes.fromhex("4c0000c12003440800b8dd4a")
"""Literals: 24 spaces (RLE). Three sequences of 8 literals and a match of 3, at offsets 8, 4 and 1."""
LAST_BLOCK: Final = b"\x01\x00\x00"
HEADER_BYTES: Final = 14

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_WINDOW_8_MIB: Final = (23 - 10) << 3
_LONG_CONTENT_SIZE: Final = 0b11 << 6
_BLOCK_HEADER_BYTES: Final = 3
_RLE: Final = 1
_RESERVED: Final = 3
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)


def encode_header(content_bytes: int) -> bytes:
    """Encode a frame header: 8-byte content size, a window of 8 MiB, no checksum, no dictionary."""
    return _MAGIC + bytes([_LONG_CONTENT_SIZE, _WINDOW_8_MIB]) + content_bytes.to_bytes(8, "little")


def encode_chunk(text: bytes, *, level: int) -> bytes:
    """Compress a chunk into blocks that may follow any reset block; none is marked as the last block."""
    frame = compress(text, level=level)
    start = _first_block_offset(frame)
    blocks = bytearray(frame[start:])
    at = 0
    while True:
        header = int.from_bytes(blocks[at : at + _BLOCK_HEADER_BYTES], "little")
        if header & 1:
            break
        at += _block_bytes(header)
    blocks[at] &= 0xFE
    return bytes(blocks)


def decode_chunk(blocks: bytes, *, what: str) -> bytes:
    """Decompress the blocks of one chunk; reset blocks before and between them are allowed.

    Raises:
        InvalidDocumentError: not valid blocks; ``what`` names them in the message.
    """
    frame = _MAGIC + bytes([0, _WINDOW_8_MIB]) + blocks + LAST_BLOCK  # of unknown size
    return decompress(frame, what=what)


def join_chunks(chunks: Iterable[tuple[int, bytes]]) -> bytes:
    """Join chunks, given as ``(size of the text, blocks)``, into one frame."""
    content_bytes = 0
    parts: list[bytes] = []
    for text_bytes, blocks in chunks:
        content_bytes += text_bytes + (len(RESET_TEXT) if parts else 0)
        parts.append((RESET_BLOCK if parts else b"") + blocks)
    return b"".join([encode_header(content_bytes), *parts, LAST_BLOCK])


class FrameSplitter:
    """Splits a frame at its reset blocks; its bytes may arrive in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._chunk = bytearray()
        self._inside = False
        self.is_complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield the blocks of each complete chunk.

        Raises:
            InvalidDocumentError: not a frame that was joined from chunks.
        """
        self._buffer += data
        if not self._inside:
            if len(self._buffer) < HEADER_BYTES + 4:  # the longest header is 18 bytes
                return
            del self._buffer[: _first_block_offset(bytes(self._buffer[: HEADER_BYTES + 4]))]
            self._inside = True
        at = 0
        while not self.is_complete and len(self._buffer) >= at + _BLOCK_HEADER_BYTES:
            header = int.from_bytes(self._buffer[at : at + _BLOCK_HEADER_BYTES], "little")
            size = _block_bytes(header)
            if len(self._buffer) < at + size:
                break
            block = self._buffer[at : at + size]
            at += size
            if header & 1:
                if block != LAST_BLOCK:
                    raise InvalidDocumentError("the frame was not joined from chunks")
                self.is_complete = True
                yield bytes(self._chunk)
            elif block == RESET_BLOCK:
                yield bytes(self._chunk)
                self._chunk.clear()
            else:
                self._chunk += block
        del self._buffer[:at]


def _first_block_offset(frame: bytes) -> int:
    if frame[:4] != _MAGIC or len(frame) <= len(_MAGIC):
        raise InvalidDocumentError("not a zstd frame")
    descriptor = frame[4]
    single_segment = bool(descriptor & 0b0010_0000)
    content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or (1 if single_segment else 0)
    return 5 + (0 if single_segment else 1) + _DICTIONARY_BYTES[descriptor & 0b11] + content_size_bytes


def _block_bytes(header: int) -> int:
    """Return the size of a block, including its header."""
    kind = (header >> 1) & 0b11
    if kind == _RESERVED:
        raise InvalidDocumentError("not a zstd frame: a block of a reserved type")
    return _BLOCK_HEADER_BYTES + (1 if kind == _RLE else header >> 3)
