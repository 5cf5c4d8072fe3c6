"""Writing large files: what is copied from the file that is replaced."""

import pytest

from lambdas.indexer.spliced.files import LargeFiles
from lambdas.indexer.spliced.parts import Span
from lambdas.storage.protocol import ContentHeaders
from tests.indexer.world import SMALL
from tests.memory import MemoryStorage

HEADERS = ContentHeaders(content_type="application/json", cache_control="no-store")
KEY = "team/noarch/repodata.json"


@pytest.mark.parametrize("size", [SMALL.sizes.min_part, SMALL.sizes.min_part + 1])
def test_write__base_too_small_for_ranges_is_not_copied(size: int) -> None:
    """S3 takes no range of a source of at most the minimum part size; the storage in memory neither."""
    storage = MemoryStorage(min_part_bytes=SMALL.sizes.min_part)
    old = [Span(identity="first", size=size - 300), Span(identity="second", size=300)]
    base = storage.upload(KEY, b"a" * (size - 300) + b"b" * 300)
    body = {"new": b"n" * 700, "second": b"b" * 300}
    new = [Span(identity=identity, size=len(text)) for identity, text in body.items()]
    read: list[str] = []

    def read_spans(first: int, last: int) -> bytes:
        read.extend(list(body)[first:last])
        return b"".join(list(body.values())[first:last])

    files = LargeFiles(storage=storage, sizes=SMALL.sizes)
    files._write(KEY, old, new, read_spans, base=base, headers=HEADERS, metadata={})
    assert storage.body(KEY) == b"n" * 700 + b"b" * 300
    assert read == (["new", "second"] if size == SMALL.sizes.min_part else ["new"])
