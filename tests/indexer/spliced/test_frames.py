"""One frame out of many chunks: every decoder reads all of it, and it can be split again."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.spliced.frames import (
    HEADER_BYTES,
    LAST_BLOCK,
    RESET_BLOCK,
    RESET_TEXT,
    FrameSplitter,
    decode_chunk,
    encode_chunk,
    encode_header,
    join_chunks,
)
from lambdas.indexer.tree.encoding import compress, decompress

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda word, times: word * times, st.binary(min_size=1, max_size=40), st.integers(0, 3000)),
    ),
    min_size=1,
    max_size=8,
)


def frame_of(texts: list[bytes], level: int = 3) -> bytes:
    return join_chunks((len(text), encode_chunk(text, level=level)) for text in texts)


def split(frame: bytes, step: int) -> list[bytes]:
    splitter = FrameSplitter()
    chunks: list[bytes] = []
    for start in range(0, len(frame), step):
        chunks += splitter.feed(frame[start : start + step])
    assert splitter.is_complete
    return chunks


@given(TEXTS, st.sampled_from([1, 3, 12, 19]))
def test_join_chunks__any_texts_and_levels(texts: list[bytes], level: int) -> None:
    frame = frame_of(texts, level)
    assert decompress(frame, what="frame") == RESET_TEXT.join(texts)


def test_join_chunks__larger_than_a_block_and_than_the_window() -> None:
    texts = [bytes(range(256)) * 2000, b"", b"x" * (9 * 1024 * 1024), b"tail"]
    assert decompress(frame_of(texts), what="frame") == RESET_TEXT.join(texts)


@given(TEXTS)
def test_join_chunks__one_frame_with_its_size_and_a_window_of_8_mib(texts: list[bytes]) -> None:
    frame = frame_of(texts)
    info = zstd.get_frame_info(frame)
    assert info.decompressed_size == len(RESET_TEXT.join(texts))
    assert info.dictionary_id == 0
    assert zstd.get_frame_size(frame) == len(frame)  # nothing behind it
    assert frame[4] & 0b100 == 0  # no checksum
    assert 2 ** (10 + (frame[5] >> 3)) == 8 * 1024 * 1024


def test_join_chunks__repeat_offsets_do_not_leak() -> None:
    # Without a reset block, matches at a repeat offset of the first text would appear in the second.
    first = b"abcdefghijklmnopqrstuvwxyz" * 50
    second = b"0123456789-" * 400
    blocks = encode_chunk(second, level=19)
    assert decompress(frame_of([first, second], 19), what="frame").endswith(second)
    assert decode_chunk(blocks, what="chunk") == second


def test_join_chunks__is_read_in_a_stream_with_little_memory() -> None:
    texts = [f'"{number}":{{"a":{number}}},'.encode() * 5000 for number in range(20)]
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    frame = frame_of(texts, 12)
    plain = b"".join(
        decompressor.decompress(frame[start : start + 1000])
        if not decompressor.eof
        else pytest.fail("the frame ended early")
        for start in range(0, len(frame), 1000)
    )
    assert plain == RESET_TEXT.join(texts)
    assert decompressor.eof
    assert decompressor.unused_data == b""


@given(TEXTS, st.integers(1, 500))
def test_frame_splitter__inverts_join_chunks(texts: list[bytes], step: int) -> None:
    blocks = [encode_chunk(text, level=3) for text in texts]
    assert split(frame_of(texts), step) == blocks
    assert [decode_chunk(chunk, what="chunk") for chunk in blocks] == texts


def test_frame_splitter__frame_of_another_encoder() -> None:
    with pytest.raises(InvalidDocumentError, match="not joined from chunks"):
        split(compress(b"plain text, " * 100, level=3), 1000)


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04" + bytes(100), b"\x28\xb5\x2f\xfd\xc0\x68" + b"\xff" * 40])
def test_frame_splitter__not_a_frame(broken: bytes) -> None:
    splitter = FrameSplitter()
    try:
        list(splitter.feed(broken))
    except InvalidDocumentError:
        return
    assert not splitter.is_complete


def test_decode_chunk__truncated() -> None:
    blocks = encode_chunk(b"0123456789" * 1000, level=3)
    with pytest.raises(InvalidDocumentError):
        decode_chunk(blocks[:-1], what="chunk")


def test_encode_header__fixed_size() -> None:
    assert len(encode_header(0)) == len(encode_header(2**40)) == HEADER_BYTES


def test_reset_block__decompresses_to_reset_text_and_resets_offsets() -> None:
    # Sequences with literal lengths 8, 8, 8 and explicit offsets 8, 4, 1: afterwards 1, 4, 8 are the repeat offsets.
    frame = encode_header(33) + RESET_BLOCK + LAST_BLOCK
    assert decompress(frame, what="frame") == RESET_TEXT
