"""Memory is reserved before it is used, and processor time is one budget for all readers."""

from __future__ import annotations

import bz2
import json
import math
import sys
import tarfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lambdas.channel.artifact_kinds import parse_filename
from lambdas.channel.errors import LimitExceededError, RejectedError
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.archives.conda_format import frame_window_bytes
from lambdas.indexer.artifacts.budgets import (
    MemoryPermits,
    MoreMemoryNeededError,
    ProcessorBudget,
    ReadingBudgets,
    ReadingMemory,
    Reservation,
    UnboundedMemory,
)
from lambdas.indexer.artifacts.read import ArtifactLimits, read_artifact
from lambdas.indexer.artifacts.strict_json import parsing_bytes
from lambdas.indexer.artifacts.texts import cut_texts
from tests.builders import METADATA, PAYLOAD, MemorySource, conda_package, index_json, tar, zipped
from tests.indexer.reading import FOO_BZ2, FOO_CONDA, STEM, Builder, both_formats, foo_bz2, foo_conda, info_tar, read

MIB = 1024 * 1024


def budgets(memory: Any = None, processor: ProcessorBudget | None = None) -> ReadingBudgets:  # noqa: ANN401 - a MemoryBudget
    return ReadingBudgets(
        memory=memory or UnboundedMemory(), processor=processor or ProcessorBudget(math.inf, time.thread_time)
    )


# Memory


def test_memory_permits__are_returned() -> None:
    permits = MemoryPermits(100)
    for _ in range(10):
        with permits.reserve(60) as first:
            assert not permits.take(50)
            assert first.grow(100)
            assert first.grow(50)
            assert not permits.take(1)
    with permits.reserve(100):
        pass


def test_memory_permits__are_returned_after_an_error() -> None:
    permits = MemoryPermits(100)
    with pytest.raises(RejectedError), permits.reserve(100):
        raise RejectedError(RejectionCode.ARCHIVE_BROKEN, "damaged")
    with permits.reserve(100):
        pass


def test_memory_permits__grow_never_waits() -> None:
    permits = MemoryPermits(100)
    with permits.reserve(60) as first, permits.reserve(30):
        assert first.grow(70)
        assert not first.grow(71)


def test_memory_permits__a_request_for_more_than_everything_is_granted_alone() -> None:
    permits = MemoryPermits(100)
    with permits.reserve(10**12) as reservation:
        assert reservation.grow(10**15)
        assert not permits.take(1)
    with permits.reserve(10) as reservation:
        assert reservation.grow(10**12)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_memory_permits__first_come_first_served() -> None:
    """A small request does not overtake a large one, which would wait for ever."""
    permits = MemoryPermits(100)
    order: list[int] = []

    def reserve(count: int) -> None:
        with permits.reserve(count):
            order.append(count)

    threads = [threading.Thread(target=reserve, args=(count,)) for count in (90, 5, 6)]
    with permits.reserve(50):
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda waiting=waiting: len(permits._waiting) == waiting)  # type: ignore[misc]
        assert order == []
    for thread in threads:
        thread.join(timeout=10)
    assert order[0] == 90
    assert sorted(order) == [5, 6, 90]


def test_memory_permits__never_exceed_the_total_nor_deadlock() -> None:
    permits = MemoryPermits(100)
    lock = threading.Lock()
    held = most = 0

    def work(number: int) -> None:
        nonlocal held, most
        for step in range(50):
            count = (number * 37 + step * 17) % 130 + 1
            with permits.reserve(count) as reservation:
                granted = min(count, 100)
                if reservation.grow(count + 10):
                    granted = min(max(count + 10, granted), 100)
                with lock:
                    held += granted
                    most = max(most, held)
                with lock:
                    held -= granted

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result(timeout=60)
    assert 0 < most <= 100
    with permits.reserve(100):
        pass


def test_reading_memory__adds_purposes_up() -> None:
    permits = MemoryPermits(100)
    with permits.reserve(30) as reservation, permits.reserve(20):
        memory = ReadingMemory(reservation, 30)
        memory.use("fetched", 20)
        memory.use("decompressor", 60)
        memory.use("decompressor", 0)
        memory.use("documents", 60)
        with pytest.raises(MoreMemoryNeededError) as caught:
            memory.use("parsing", 10)
    assert caught.value.count == 90


class Recorder:
    """A memory budget that records requests, and lets none grow beyond ``free``."""

    def __init__(self, free: float = math.inf) -> None:
        self.free = free
        self.reserved: list[int] = []
        self.grown: list[int] = []

    @contextmanager
    def reserve(self, count: int) -> Iterator[Reservation]:
        self.reserved.append(count)
        yield self

    def grow(self, count: int) -> bool:
        if count <= self.free:
            self.grown.append(count)
        return count <= self.free


def conda_with_window(window_log: int, *, part: str = "pkg", frames: int = 1) -> bytes:
    """A small .conda, one part of which needs a large window."""
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: window_log,
        zstd.CompressionParameter.compression_level: 1,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    tars = {"pkg": tar(PAYLOAD), "info": info_tar()}
    parts = {name: zstd.compress(plain) for name, plain in tars.items()}
    size = -(-len(tars[part]) // frames)
    pieces = [tars[part][at : at + size] for at in range(0, len(tars[part]), size)]
    compressed = []
    for number, piece in enumerate(pieces):
        compressor = zstd.ZstdCompressor(options=options if number == len(pieces) - 1 else None)
        compressed.append(compressor.compress(piece) + compressor.flush())
    parts[part] = b"".join(compressed)
    return zipped([("metadata.json", METADATA), *((f"{name}-{STEM}.tar.zst", body) for name, body in parts.items())])


@pytest.mark.parametrize("part", ["pkg", "info"])
@pytest.mark.parametrize("frames", [1, 3])
def test_read_artifact__reserves_a_window_before_decompressing(part: str, frames: int) -> None:
    recorder = Recorder()
    content = conda_with_window(27, part=part, frames=frames)

    info = read_artifact(MemorySource(content=content), FOO_CONDA, budgets=budgets(recorder))

    assert info.index == index_json()
    assert max(recorder.grown) >= 128 * MIB
    assert len(recorder.reserved) == 1


def test_read_artifact__begins_again_where_memory_is_not_free() -> None:
    recorder = Recorder(free=0)

    info = read_artifact(MemorySource(content=conda_with_window(27)), FOO_CONDA, budgets=budgets(recorder))

    assert info.index == index_json()
    assert len(recorder.reserved) == 2
    assert recorder.reserved[1] >= 128 * MIB


@both_formats
def test_read_artifact__an_ordinary_artifact_reserves_once(build: Builder) -> None:
    recorder = Recorder(free=0)
    filename, content = build(run_exports=["foo"], about={"summary": "x"})

    read_artifact(MemorySource(content=content), parse_filename(filename), budgets=budgets(recorder))

    assert len(recorder.reserved) == 1
    assert recorder.reserved[0] <= 32 * MIB


@pytest.mark.parametrize("build", [foo_conda, bz2.compress])
def test_read_artifact__reserves_large_documents_before_reading_them(build: Callable[[bytes], bytes]) -> None:
    paths = json.dumps({"paths": [{"_path": f"share/{number}"} for number in range(200_000)]}).encode()
    members = [("info/index.json", json.dumps(index_json()).encode()), ("info/paths.json", paths)]
    recorder = Recorder()
    filename = "foo-1.0-0.conda" if build is foo_conda else "foo-1.0-0.tar.bz2"

    read_artifact(MemorySource(content=build(tar(members))), parse_filename(filename), budgets=budgets(recorder))

    assert max(recorder.grown) >= len(paths) + parsing_bytes(paths)


def test_read_artifact__many_hostile_windows_stay_within_the_budget() -> None:
    """Windows of 128 MiB, sixteen readers, and memory for two of them."""
    content = conda_with_window(27)
    permits = MemoryPermits(300 * MIB)
    shared = budgets(permits)

    def read_one(_: int) -> object:
        return read_artifact(MemorySource(content=content), FOO_CONDA, budgets=shared).index

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(read_one, range(32), timeout=120)) == [index_json()] * 32
    with permits.reserve(300 * MIB):
        pass


@pytest.mark.parametrize("window_log", [10, 17, 23, 27])
def test_frame_window_bytes__of_frames_with_a_window(window_log: int) -> None:
    compressor = zstd.ZstdCompressor(
        options={zstd.CompressionParameter.window_log: window_log, zstd.CompressionParameter.content_size_flag: 0}
    )
    head = (compressor.compress(b"x" * 10) + compressor.flush())[:18]

    assert frame_window_bytes(head) == 1 << window_log


@pytest.mark.parametrize("size", [1, 255, 256, 65_791, 65_792, 300_000])
def test_frame_window_bytes__of_single_segments(size: int) -> None:
    compressed = zstd.compress(bytes(size))

    assert compressed[4] & 0x20
    assert frame_window_bytes(compressed[:18]) == size


@pytest.mark.parametrize("head", [b"", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18" + bytes(14), b"PK\x03\x04" + bytes(20)])
def test_frame_window_bytes__of_other_data(head: bytes) -> None:
    assert frame_window_bytes(head) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[]," * 100_000 + b"1]",
        b"[" + b"{}," * 100_000 + b"1]",
        b"[" + b'{"a":1},' * 50_000 + b"1]",
        b"[" + b'"ab",' * 100_000 + b"1]",
        b"[" + b"12345," * 100_000 + b"1]",
        b"[" + b'{"_path":"a"},' * 30_000 + b"1]",
        ("[" + '"\U0001f40d",' * 50_000 + "1]").encode(),
        (b"[" + b'"x",' * 100_000 + b'"\xf0\x9f\x90\x8d"]'),
    ],
)
def test_parsing_bytes__is_not_exceeded(content: bytes) -> None:
    tracemalloc.start()
    try:
        document = json.loads(content.decode(), object_pairs_hook=dict)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert document
    assert peak <= parsing_bytes(content)


# Bounds of documents


@pytest.mark.parametrize("name", ["index", "run_exports"])
@pytest.mark.parametrize("build", [foo_conda, bz2.compress])
def test_read_artifact__attack_documents_with_many_values(name: str, build: Callable[[bytes], bytes]) -> None:
    members = [] if name == "index" else [("info/index.json", json.dumps(index_json()).encode())]
    many = json.dumps({**index_json(), "x": [[]] * 20_000}, separators=(",", ":")).encode()
    large = json.dumps({**index_json(), "x": "x" * 300_000}).encode()
    filename = parse_filename("foo-1.0-0.conda" if build is foo_conda else "foo-1.0-0.tar.bz2")

    for body, code in ((many, "json-oversized"), (large, "member-oversized")):
        content = build(tar([*members, (f"info/{name}.json", body)]))
        with pytest.raises(RejectedError) as caught:
            read_artifact(MemorySource(content=content), filename)
        assert caught.value.code == code
        assert name in str(caught.value)


def test_read_artifact__accepts_documents_up_to_the_bounds() -> None:
    index = {**index_json(), "x": [[]] * 9_000, "y": "y" * 200_000}

    assert read(*conda_package(index_extra={"x": index["x"], "y": index["y"]})).index == index


def test_read_artifact__passes_over_an_about_with_many_values() -> None:
    assert read(*conda_package(about={"summary": "x", "y": [[]] * 20_000})).about == {}


# Texts


@both_formats
def test_read_artifact__cuts_texts_for_pages(build: Builder) -> None:
    about = {
        "summary": "s" * 100_000,
        "description": "ü" * 100_000,
        "home": "https://example.org/" + "h" * 100_000,
        "doc_url": ["https://example.org/" + "d" * 3_000] * 100,
        "license": "l" * 100_000,
        "tags": ["t" * 3_000] * 200,
        "keywords": [f"{number}" for number in range(1_000)],
    }

    info = read(*build(about=about))

    assert info.about["summary"] == "s" * 1024
    assert info.about["description"] == "ü" * 8192
    assert len(info.about["home"]) == len(info.about["license"]) == 2048
    assert [len(url) for url in info.about["doc_url"]] == [2048] * 64
    assert [len(tag) for tag in info.channeldata["tags"]] == [2048] * 64
    assert info.channeldata["keywords"] == about["keywords"][:64]


def test_read_artifact__cuts_urls_of_the_recipe() -> None:
    urls = "".join(f"    - https://example.org/{number}\n" for number in range(100))
    info = read(*conda_package(recipe=f"source:\n  url:\n{urls}"))
    assert len(info.channeldata["source_url"]) == 64

    info = read(*conda_package(recipe=f"source:\n  url: https://example.org/{'x' * 5000}\n"))
    assert len(info.channeldata["source_url"]) == 2048


@pytest.mark.parametrize("text", ["x" * 1024, "ü" * 512, "\U0001f40d" * 256])
def test_cut_texts__at_the_bound(text: str) -> None:
    assert cut_texts({"summary": text}) == {"summary": text}
    assert cut_texts({"summary": "a" + text})["summary"] == ("a" + text)[: len(text)]
    assert len(cut_texts({"summary": "a" + text})["summary"].encode()) <= 1024


# Processor time


class Clock:
    """Each look at the clock costs a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_processor_budget__stops_one_artifact() -> None:
    meter = ProcessorBudget(1000, Clock()).start(3)
    for _ in range(3):
        meter.check()

    with pytest.raises(LimitExceededError) as caught:
        meter.check()

    assert caught.value.scope == "artifact"
    assert caught.value.limit == "3 s of processor time for one artifact"


def test_processor_budget__stops_the_run() -> None:
    budget = ProcessorBudget(10, Clock())
    for _ in range(2):
        meter = budget.start(100)
        for _ in range(5):
            meter.check()

    with pytest.raises(LimitExceededError) as caught:
        budget.start(100).check()

    assert caught.value.scope == "run"
    assert budget.spent == 11


def test_processor_budget__is_shared_by_threads() -> None:
    budget = ProcessorBudget(math.inf, lambda: 0.0)

    def work() -> None:
        for _ in range(1000):
            budget.charge(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert budget.spent == 4000


@pytest.mark.parametrize("size", [None, 1])
@both_formats
def test_read_artifact__charges_the_budget_of_the_run(build: Builder, size: int | None) -> None:
    filename, content = build()
    limits = ArtifactLimits() if size is None else ArtifactLimits(max_at_once_bytes=size, max_whole_tar_bytes=size)
    budget = ProcessorBudget(0.5, Clock())

    with pytest.raises(LimitExceededError) as caught:
        read_artifact(MemorySource(content=content), parse_filename(filename), limits, budgets(processor=budget))

    assert caught.value.scope == "run"


def test_read_artifact__attack_tar_that_takes_long_to_walk() -> None:
    """Extended headers cost much time for few compressed bytes: time is charged between the pieces of the tar."""
    record = b"".join(b"7 %03d=\n" % number for number in range(60))
    header = b""
    for kind, body in ((b"x", record), (b"0", b"")):
        member = tarfile.TarInfo("share/x")
        member.type, member.size = kind, len(body)
        header += member.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)
    content = foo_conda(payload=header * 20_000 + bytes(1024))
    budget = ProcessorBudget(0.05, time.thread_time)

    started = time.thread_time()
    with pytest.raises(LimitExceededError):
        read_artifact(MemorySource(content=content), FOO_CONDA, budgets=budgets(processor=budget))

    assert time.thread_time() - started < 1


def test_read_artifact__several_bzip2_streams_are_charged() -> None:
    content = foo_bz2([("share/x", b"x")])
    with pytest.raises(LimitExceededError):
        read_artifact(
            MemorySource(content=content * 3), FOO_BZ2, budgets=budgets(processor=ProcessorBudget(0.5, Clock()))
        )
