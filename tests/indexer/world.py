"""A bucket with publishers and an indexer, an index built from nothing, and the readers' guarantees."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from lambdas.channel.errors import FairwayError, InvalidNameError
from lambdas.channel.layout import SHARD_INDEX, parse_key
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.indexer import Indexer
from lambdas.indexer.model import LIMITS, Limits, Outputs, Policy, Report
from lambdas.indexer.queue.index_keys import index_batch
from lambdas.indexer.spliced.sizes import Sizes
from lambdas.indexer.tree.encoding import decompress
from lambdas.indexer.tree.shard_index import decode_index, encode_index
from lambdas.indexer.tree.shards import Shard, decode_shard, iter_records
from lambdas.storage.protocol import ObjectStorage
from tests.builders import conda_package
from tests.memory import MemoryStorage, RecordingNotifier

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOARCH = parse_subdir_id("team/noarch")
LINUX = parse_subdir_id("team/linux-64")
URL = "https://conda.example.org"
POLICY = Policy(outputs=Outputs(url=URL))
SMALL = Limits(
    sizes=Sizes(
        large=2500,
        large_uncompressed=1200,
        whole=500,
        min_part=600,
        max_part=2000,
        deferred=2500,
        segment_scale=4 * 1200 / 1024**2,
    )
)
"""A handful of packages fills segments and parts."""
HIDDEN_PREFIX = ".fairway/"
PATCHES = "patch_instructions.json"


def pause(seconds: float) -> None:
    """Wait a little: without any pause, one of many threads may lose every swap."""
    time.sleep(seconds / 20)


@dataclass(kw_only=True)
class World:
    """A storage, and an indexer that works on it without waiting."""

    storage: MemoryStorage = field(default_factory=MemoryStorage)
    notifier: RecordingNotifier = field(default_factory=RecordingNotifier)
    policy: Policy = POLICY
    defers: bool = False
    requeued: list[SubdirId] = field(default_factory=list)
    """Subdirs whose outputs were deferred."""
    listings: list[SubdirId] = field(default_factory=list)
    """Subdirs whose listing was asked for."""
    limits: Limits = LIMITS
    sleep: Callable[[float], None] = lambda _: None

    def __post_init__(self) -> None:
        self.storage.min_part_bytes = self.limits.sizes.min_part

    def indexer(self, storage: ObjectStorage | None = None) -> Indexer:
        return Indexer(
            storage or self.storage,
            self.notifier,
            self.policy,
            requeue=self.requeue if self.defers else None,
            limits=self.limits,
            sleep=self.sleep,
        )

    def requeue(self, key: str) -> None:
        folder, _, name = key.rpartition("/")
        (self.listings if name == "*" else self.requeued).append(parse_subdir_id(folder))

    def upload(self, path: SubdirId, package: tuple[str, bytes], *, last_modified_ms: int | None = None) -> str:
        filename, body = package
        key = f"{path}/{filename}"
        self.storage.upload(key, body, last_modified_ms=last_modified_ms)
        return key

    def publish(self, path: SubdirId, *packages: tuple[str, bytes]) -> Report:
        """Upload, and index in one batch."""
        keys = [self.upload(path, package) for package in packages]
        (report,) = self.index(*keys)
        return report

    def index(self, *keys: str) -> list[Report]:
        """Index the keys of one batch, like the queue's handler."""
        return index_keys(self.indexer(), keys)

    def catch_up(self) -> None:
        """Write deferred outputs, like the queue's handler when requeued messages arrive."""
        paths, self.requeued[:] = list(self.requeued), []
        self.index(*(f"{path}/" for path in paths))

    def index_json(self, path: SubdirId, name: str = "repodata.json") -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.storage.body(f"{path}/{name}"))

    def listed(self, path: SubdirId) -> set[str]:
        """The filenames that repodata.json lists."""
        document = self.index_json(path)
        return {*document["packages"], *document["packages.conda"]}

    def record(self, path: SubdirId, filename: str) -> dict[str, Any]:
        document = self.index_json(path)
        record: dict[str, Any] = {**document["packages"], **document["packages.conda"]}[filename]
        return record


def index_own_writes(world: World) -> None:
    """Index what S3 notifies of because the indexer wrote it, until it writes nothing more."""
    for _ in range(3):
        written = sorted({key for kind, key in world.storage.log if kind == "put" and is_source(key)})
        world.storage.log.clear()
        if not written:
            return
        world.index(*written)
    raise AssertionError("the queue does not come to rest")


class InlinePool:
    """Runs threads one after another, so that the order of requests is always the same."""

    def __init__(self, _threads: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., object], *items: Sequence[object]) -> Iterator[object]:
        return map(function, *items)


def index_keys(indexer: Indexer, keys: Iterable[str]) -> list[Report]:
    """Index like the queue's handler; raise the first error of a whole subdir."""
    report = index_batch(indexer, keys)
    with suppress(FairwayError):  # a failed invalidation delays nothing
        indexer.invalidate_rejected()
    for failure in report.subdir_failures.values():
        raise failure
    return list(report.subdirs.values())


def package(
    name: str = "foo", version: str = "1.0", build: str = "0", path: SubdirId = NOARCH, **more: object
) -> tuple[str, bytes]:
    return conda_package(name=name, version=version, build=build, subdir=path.name, **more)  # type: ignore[arg-type]  # as there


def sources(storage: MemoryStorage) -> list[str]:
    """The keys of uploads that concern the index."""
    return [key for key in storage.list_keys() if is_source(key)]


def is_source(key: str) -> bool:
    try:
        return parse_key(key) is not None
    except InvalidNameError:
        return False


def build_from_nothing(storage: MemoryStorage, policy: Policy = POLICY, limits: Limits = LIMITS) -> MemoryStorage:
    """Index the uploads again, in a bucket that has nothing else but copies of attestations.

    The copies tell what was accepted from more than one upload.
    """
    fresh = World(policy=policy, limits=limits)
    fresh.storage.clock_ms = storage.clock_ms
    there = set(storage.list_keys())
    for key in sources(storage):
        info = storage.head(key)
        assert info is not None
        fresh.storage.upload(key, storage.body(key), last_modified_ms=info.last_modified_ms)
        copy = f"{key}.{hashlib.sha256(storage.body(key)).hexdigest()}"
        if copy in there:
            fresh.storage.upload(copy, storage.body(copy))
    for report in fresh.index(*sources(storage)):
        assert not report.failures
        assert not any(outcome.rejection for outcome in report.outcomes)
    return fresh.storage


class Reference:
    """Indexes built from nothing, each built once."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self._policy = policy
        self._built: dict[tuple[object, ...], MemoryStorage] = {}

    def build(self, storage: MemoryStorage) -> MemoryStorage:
        infos = [storage.head(key) for key in sources(storage)]
        identity = tuple((info.key, info.etag, info.last_modified_ms) for info in infos if info is not None)
        if identity not in self._built:
            self._built[identity] = build_from_nothing(storage, self._policy)
        return self._built[identity]


def public_view(storage: MemoryStorage, *, times: bool = True) -> dict[str, bytes]:
    """What readers can reach, without superseded shards and superseded copies of attestations.

    With ``times=False``, without the commit's ``created_at``, which does not go back when artifacts are removed.
    """
    snapshot = storage.snapshot()
    shown: set[str] = set()
    for path in subdirs(storage):
        index = decode_index(snapshot[f"{path}/{SHARD_INDEX}"])
        if not times:
            snapshot[f"{path}/{SHARD_INDEX}"] = encode_index(replace(index, created_ms=0))
        for sha256 in index.shards.values():
            key = f"{path}/shards/{sha256}.msgpack.zst"
            shown.add(key)
            for filename, record in iter_records(decode_shard(snapshot[key])):
                shown.add(f"{path}/{filename}.sigs.{record.get('attestations_sha256')}")
    return {
        key: body
        for key, body in snapshot.items()
        if key in shown or ("/shards/" not in key and ".sigs." not in key.rpartition("/")[2])
    }


def assert_same_as_from_nothing(storage: MemoryStorage, policy: Policy = POLICY, *, times: bool = True) -> None:
    assert_same(storage, build_from_nothing(storage, policy), times=times)


def assert_same(storage: MemoryStorage, other: MemoryStorage, *, times: bool = True) -> None:
    ours, theirs = public_view(storage, times=times), public_view(other, times=times)
    assert sorted(ours) == sorted(theirs)
    for key in ours:
        if ours[key] != theirs[key]:
            assert (key, readable(key, ours[key])) == (key, readable(key, theirs[key]))
            raise AssertionError(f"{key} differs in its encoding alone")


def readable(key: str, body: bytes) -> object:
    plain = zstd.decompress(body) if key.endswith(".zst") else body
    if ".msgpack" in key:
        return decode_index(body) if key.endswith(SHARD_INDEX) else decode_shard(body)
    return plain


def subdirs(storage: MemoryStorage) -> list[SubdirId]:
    """Every subdir that has a commit."""
    return [
        parse_subdir_id(key.rpartition("/")[0])
        for key in storage.list_keys()
        if key.endswith(f"/{SHARD_INDEX}") and not key.startswith(HIDDEN_PREFIX)
    ]


def shards_of(storage: MemoryStorage, path: SubdirId) -> list[Shard]:
    index = decode_index(storage.body(f"{path}/{SHARD_INDEX}"))
    return [decode_shard(storage.body(f"{path}/shards/{sha256}.msgpack.zst")) for sha256 in index.shards.values()]


def check_readable(storage: MemoryStorage, *, gone: Iterable[str] = (), replaced: Iterable[str] = ()) -> None:
    """Check invariant 1 as a reader would: everything that is named exists, and everything that exists is readable.

    ``gone`` and ``replaced`` are keys that a publisher deleted or replaced, and that were not inspected since.
    """
    there = set(storage.list_keys()) | set(gone)
    excused = {*gone, *replaced}
    for path in subdirs(storage):
        index = decode_index(storage.body(f"{path}/{SHARD_INDEX}"))
        assert index.subdir == path.name
        for package_name, sha256 in index.shards.items():
            body = storage.body(f"{path}/shards/{sha256}.msgpack.zst")
            assert hashlib.sha256(body).hexdigest() == sha256
            shard = decode_shard(body)
            assert {record["name"] for _, record in iter_records(shard)} <= {package_name}
            for filename, record in iter_records(shard):
                check_artifact(storage, f"{path}/{filename}", record["sha256"], there, excused)
                if attestation := record.get("attestations_sha256"):
                    copy = storage.body(f"{path}/{filename}.sigs.{attestation}")
                    assert hashlib.sha256(copy).hexdigest() == attestation
        for name in ("repodata.json", "repodata_from_packages.json", "current_repodata.json"):
            for key in (f"{path}/{name}", f"{path}/{name}.zst"):
                if key not in there:
                    continue
                body = storage.body(key)
                document = json.loads(decompress(body, what=key) if key.endswith(".zst") else body)
                assert document["info"]["subdir"] == path.name
                for filename, record in {**document["packages"], **document["packages.conda"]}.items():
                    check_artifact(storage, f"{path}/{filename}", record["sha256"], there, excused)


def check_attestations(storage: MemoryStorage) -> None:
    """Check that no bundle was lost: each artifact's attestations hold those of the immutable copies beside them.

    That is so where the artifact was there all the time, for copies that a commit named, and for all copies
    where the attestations were never deleted: what is deleted before it is accepted does not count.
    """
    named = list_named_copies(storage)
    for key in storage.list_keys():
        file, separator, sha256 = key.rpartition(".sigs.")
        if not separator or key.startswith(HIDDEN_PREFIX) or len(storage.versions[file]) != 1:
            continue
        was_deleted = any(one.body is None for one in storage.versions.get(f"{file}.sigs", []))
        body = storage.body(key)
        if hashlib.sha256(body).hexdigest() == sha256 and (key in named or not was_deleted):
            assert file + ".sigs" in storage.list_keys(), key
            present = json.loads(storage.body(f"{file}.sigs"))
            assert [one for one in json.loads(body) if one not in present] == [], key
            assert len({json.dumps(one, sort_keys=True) for one in present}) == len(present)


def list_named_copies(storage: MemoryStorage) -> set[str]:
    """The immutable copies of attestations that a record of any commit names."""
    named: set[str] = set()
    for path in subdirs(storage):
        commits = [decode_index(one.body) for one in storage.versions[f"{path}/{SHARD_INDEX}"] if one.body is not None]
        for sha256 in {sha256 for commit in commits for sha256 in commit.shards.values()}:
            for filename, record in iter_records(decode_shard(storage.body(f"{path}/shards/{sha256}.msgpack.zst"))):
                if "attestations_sha256" in record:
                    named.add(f"{path}/{filename}.sigs.{record['attestations_sha256']}")
    return named


def check_artifact(storage: MemoryStorage, key: str, sha256: str, there: set[str], excused: set[str]) -> None:
    assert key in there, key
    if key not in excused:
        assert hashlib.sha256(storage.body(key)).hexdigest() == sha256, key


def check_encodings(storage: MemoryStorage) -> None:
    """Check that each compressed document decompresses to the plain one."""
    snapshot = storage.snapshot()
    for key, body in snapshot.items():
        if key.endswith(".json.zst"):
            assert zstd.decompress(body) == snapshot[key.removesuffix(".zst")], key
