"""One zstd frame made of pieces that were compressed apart: taken apart, put together. Pure.

Readers of ``repodata.json.zst`` want exactly one frame (invariant 11), and compressing all of a large file
for one new record is out of proportion. The blocks of a piece that was compressed as a frame of its
own refer to nothing before them but the three repeat offsets; a *reset block* in front of each piece
sets these back. It regenerates 33 spaces, which JSON allows between any two of its signs.

Knows bytes and blocks, and nothing of records.

Source: RFC 8878, 3.1.1 (frames, blocks) and 3.1.1.5 (repeat offsets).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.tree.encoding import compress, decompress

JOINT: Final = b" " * 33
"""What the reset block regenerates; the plain file has it at the same places."""
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


def encode_piece(text: bytes, *, level: int) -> bytes:
    """Compress a piece into blocks that can stand anywhere behind a reset block; none is marked as last."""
    frame = compress(text, level=level)
    start = _find_first_block(frame)
    blocks = bytearray(frame[start:])
    at = 0
    while True:
        header = int.from_bytes(blocks[at : at + _BLOCK_HEADER_BYTES], "little")
        if header & 1:
            break
        at += _block_bytes(header)
    blocks[at] &= 0xFE
    return bytes(blocks)


def decode_piece(blocks: bytes, *, what: str) -> bytes:
    """Decompress the blocks of one piece, with or without reset blocks before and between.

    Raises:
        InvalidDocumentError: they are no such blocks; ``what`` names them in the message.
    """
    frame = _MAGIC + bytes([0, _WINDOW_8_MIB]) + blocks + LAST_BLOCK  # of unknown size
    return decompress(frame, what=what)


def join_pieces(pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """Make one frame of pieces: ``(size of the text, blocks)``."""
    content_bytes = 0
    parts: list[bytes] = []
    for text_bytes, blocks in pieces:
        content_bytes += text_bytes + (len(JOINT) if parts else 0)
        parts.append((RESET_BLOCK if parts else b"") + blocks)
    return b"".join([encode_header(content_bytes), *parts, LAST_BLOCK])


class FrameSplitter:
    """Takes a frame apart again, however its bytes arrive: the joints are the reset blocks."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._piece = bytearray()
        self._inside = False
        self.is_complete = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield the blocks of each piece that is complete.

        Raises:
            InvalidDocumentError: this is no frame of ours.
        """
        self._buffer += chunk
        if not self._inside:
            if len(self._buffer) < HEADER_BYTES + 4:  # the longest header is 18 bytes
                return
            del self._buffer[: _find_first_block(bytes(self._buffer[: HEADER_BYTES + 4]))]
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
                    raise InvalidDocumentError("the frame was not put together of pieces")
                self.is_complete = True
                yield bytes(self._piece)
            elif block == RESET_BLOCK:
                yield bytes(self._piece)
                self._piece.clear()
            else:
                self._piece += block
        del self._buffer[:at]


def _find_first_block(frame: bytes) -> int:
    if frame[:4] != _MAGIC or len(frame) <= len(_MAGIC):
        raise InvalidDocumentError("not a zstd frame")
    descriptor = frame[4]
    single_segment = bool(descriptor & 0b0010_0000)
    content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or (1 if single_segment else 0)
    return 5 + (0 if single_segment else 1) + _DICTIONARY_BYTES[descriptor & 0b11] + content_size_bytes


def _block_bytes(header: int) -> int:
    """Return the size of a block with its header."""
    kind = (header >> 1) & 0b11
    if kind == _RESERVED:
        raise InvalidDocumentError("not a zstd frame: a block of a reserved type")
    return _BLOCK_HEADER_BYTES + (1 if kind == _RLE else header >> 3)
