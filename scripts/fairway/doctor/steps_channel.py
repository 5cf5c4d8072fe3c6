"""The steps about artifacts: publish, read, reject, release, yank, delete, and splice."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from lambdas.channel.caching import IMMUTABLE, METADATA, METADATA_SECONDS, NO_STORE
from lambdas.channel.errors import PermanentError
from lambdas.channel.layout import SHARD_INDEX, SubdirLayout
from lambdas.indexer.artifacts.record import CLOCK_SKEW_MS
from lambdas.indexer.outputs.registry import REPODATA, ZSTD
from lambdas.indexer.outputs.subdir import COMMIT
from lambdas.indexer.quarantine.rejections import fetch_rejections
from lambdas.indexer.settings import DEFERRAL_SECONDS
from lambdas.indexer.spliced.files import is_large
from lambdas.indexer.spliced.sizes import SIZES
from lambdas.indexer.tree.encoding import decode_json, decompress
from lambdas.indexer.tree.shard_index import decode_index
from lambdas.indexer.tree.shards import decode_shard, iter_records
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.storage.parallel import in_parallel
from lambdas.storage.protocol import ContentHeaders
from scripts.fairway.doctor.canaries import (
    NOARCH_SUBDIR,
    SPLICED_SUBDIR,
    Canary,
    make_canary,
    make_large_canary,
)
from scripts.fairway.doctor.examination import Examination, require_header, url_path
from scripts.fairway.rejected import release_upload
from scripts.fairway.status import State
from scripts.fairway.yank import add_yanked

EARLY_SECONDS: Final = (30, 120)
"""How long the indexer has to notice an upload whose timestamp is in the future: once, and once more."""
LARGE_CANARIES: Final = 80
LARGE_BYTES: Final = SIZES.deferred
PLUS: Final = make_canary("canary", "1.0+doctor")
_INDEX: Final = f"/{NOARCH_SUBDIR}/{SHARD_INDEX}"
_REPODATA: Final = f"/{NOARCH_SUBDIR}/{REPODATA.name}"
_PRIVATE: Final = ContentHeaders(content_type="text/plain", cache_control=NO_STORE)
_PATCHES: Final = ContentHeaders(content_type="application/json", cache_control=METADATA)


def check_publish(examination: Examination) -> str:
    """Upload an artifact, and wait until it is indexed."""
    started = examination.clock.monotonic()
    examination.publish(PLUS)
    examination.wait_for(PLUS, State.INDEXED)
    return f"{PLUS.key.filename} was indexed {examination.clock.monotonic() - started:.1f} s after its upload began"


def check_install(examination: Examination) -> str:
    """Read as clients do, sharded and flat, and check every hash."""
    name = PLUS.key.distribution.name
    sha256 = decode_index(examination.require(_INDEX).body).shards[name]
    path = f"/{SubdirLayout(subdir=NOARCH_SUBDIR).shard(sha256)}"
    body = examination.require(path).body
    _require_hash(body, sha256, path)
    record = dict(iter_records(decode_shard(body)))[PLUS.key.filename]
    for artifact in (url_path(PLUS.key), f"/{PLUS.key}"):  # clients send either
        _require_hash(examination.require(artifact).body, record["sha256"], artifact)
    _require_hash(PLUS.body, record["sha256"], f"the record of {PLUS.key.filename}")
    packed = examination.require(f"{_REPODATA}{ZSTD.suffix}").body
    for flat in (examination.require(_REPODATA).body, decompress(packed, what=REPODATA.name)):
        _require_record(decode_json(flat, what=REPODATA.name), PLUS)
    return "index, shard, flat files and artifact agree, with '+' in the URL and encoded"


def check_headers(examination: Examination) -> str:
    """Check how long responses may be cached, and that none is encoded."""
    shards = decode_index(examination.require(_INDEX).body).shards
    shard = f"/{SubdirLayout(subdir=NOARCH_SUBDIR).shard(shards[PLUS.key.distribution.name])}"
    files = (_INDEX, _REPODATA, f"{_REPODATA}{ZSTD.suffix}")
    expected = {**dict.fromkeys(files, METADATA), **dict.fromkeys((shard, url_path(PLUS.key)), IMMUTABLE)}
    for path, cache_control in expected.items():
        answer = examination.require(path)
        require_header(answer, "cache-control", cache_control, path)
        require_header(answer, "content-encoding", None, path)
    return f"metadata {METADATA_SECONDS} s, shards and artifacts a year, no content-encoding"


def check_quarantine(examination: Examination) -> str:
    """Have an upload rejected because its timestamp is in the future, and release it once that has passed.

    The indexer judges by the time of its run. If it runs late, the timestamp has passed by then, and another
    upload has more time.
    """
    for seconds in EARLY_SECONDS:
        passes = examination.clock.monotonic() + seconds + 2
        canary = _make_early_canary(examination, seconds)
        examination.publish(canary)
        if examination.wait_for(canary, State.REJECTED, State.INDEXED) is State.REJECTED:
            break
    else:
        raise PermanentError(f"{canary.key} was indexed, although its timestamp was {seconds} s in the future")
    rejection = fetch_rejections(examination.bucket, str(canary.key))[-1]
    examination.wait_until(
        lambda: examination.clock.monotonic() > passes, "the rejected timestamp has passed", seconds=seconds + 5
    )
    release_upload(examination.bucket, rejection, bucket="BUCKET")
    examination.wait_for(canary, State.INDEXED)
    return f"rejected as {rejection.code!r}, released, and indexed"


def _make_early_canary(examination: Examination, seconds: int) -> Canary:
    """Return an artifact that may be indexed in some seconds, by S3's clock."""
    probe = SubdirLayout(subdir=NOARCH_SUBDIR).file("clock.txt")
    examination.bucket.put(probe, b"", headers=_PRIVATE)
    info = examination.bucket.head(probe)
    if info is None:
        raise PermanentError(f"{probe} is missing right after its upload")
    timestamp = info.last_modified_ms + CLOCK_SKEW_MS + seconds * 1000
    return make_canary("canary-early", f"1.{seconds}", extra={"timestamp": timestamp})


def check_yank(examination: Examination) -> str:
    """Yank an artifact, and add it again; it stays downloadable."""
    bucket, key = examination.bucket, SubdirLayout(subdir=NOARCH_SUBDIR).patch_instructions
    note = {"reason": "fairway doctor", "by": examination.caller, "at": int(examination.clock.now())}
    instructions = add_yanked({}, [PLUS.key.filename], note)
    info = bucket.put(key, json.dumps(instructions).encode(), headers=_PATCHES)
    examination.wait_for(PLUS, State.YANKED)
    examination.require(url_path(PLUS.key))
    bucket.delete(replace(info, version=None))
    examination.wait_for(PLUS, State.INDEXED)
    return "yanked, still downloadable, and indexed again"


def check_delete(examination: Examination) -> str:
    """Delete an artifact as ``aws s3 rm`` does, and wait until its record is removed."""
    info = examination.bucket.head(str(PLUS.key))
    if info is None:
        raise PermanentError(f"{PLUS.key} is missing")
    examination.bucket.delete(replace(info, version=None))
    examination.wait_for(PLUS, State.UNKNOWN)
    return f"{PLUS.key.filename} is removed from the index"


def check_splice(examination: Examination) -> str:
    """Fill a subdir above 16 MiB, publish one more artifact, and read the spliced files."""
    canaries = [make_large_canary(number) for number in range(LARGE_CANARIES)]
    in_parallel(examination.publish, canaries)
    _wait_for_spliced(examination, len(canaries))
    started = examination.clock.monotonic()
    last = make_canary(f"canary-{LARGE_CANARIES // 2:03}x", "1.0", subdir=SPLICED_SUBDIR)
    examination.publish(last)
    sha256 = _wait_for_spliced(examination, len(canaries) + 1)
    seconds = examination.clock.monotonic() - started
    layout = SubdirLayout(subdir=SPLICED_SUBDIR)
    path = f"/{layout.file(REPODATA.name)}"
    plain = decompress(examination.require(f"{path}{ZSTD.suffix}").body, what=path)  # exactly one frame
    if len(plain) <= LARGE_BYTES:
        raise PermanentError(f"{path} has {len(plain)} bytes, too few to be spliced")
    document = decode_json(plain, what=path)
    for canary in (*canaries, last):
        _require_record(document, canary)

    def is_written() -> bool:
        info = examination.bucket.head(layout.file(REPODATA.name))
        return info is not None and info.metadata.get(COMMIT) == sha256

    examination.wait_until(is_written, "the deferred repodata.json", seconds=3 * DEFERRAL_SECONDS)
    if examination.require(path).body != plain:
        raise PermanentError(f"{path} differs from its compressed form")
    return f"{len(plain) / 2**20:.1f} MiB; one more artifact was in repodata.json.zst after {seconds:.1f} s"


def _wait_for_spliced(examination: Examination, count: int) -> str:
    """Wait until the compressed file is large and shows that many names; return the commit that it shows."""
    subdir = open_subdir(examination.bucket, SPLICED_SUBDIR)
    shown = ""

    def is_shown() -> bool:
        nonlocal shown
        commit = subdir.fetch_commit()
        info = examination.bucket.head(subdir.layout.file(REPODATA.name + ZSTD.suffix))
        shown = commit.sha256
        is_current = info is not None and info.metadata.get(COMMIT) == shown
        return len(commit.index.shards) == count and is_large(info) and is_current

    examination.wait_until(is_shown, f"repodata.json.zst of {SPLICED_SUBDIR} shows {count} artifacts")
    return shown


def _require_hash(body: bytes, sha256: str, what: str) -> None:
    if (found := hashlib.sha256(body).hexdigest()) != sha256:
        raise PermanentError(f"{what} has SHA-256 {found}, not {sha256}")


def _require_record(document: Mapping[str, Any], canary: Canary) -> None:
    record = document["packages.conda"].get(canary.key.filename)
    if record is None:
        raise PermanentError(f"repodata.json has no record of {canary.key.filename}")
    if record["sha256"] != canary.sha256:
        raise PermanentError(f"repodata.json has SHA-256 {record['sha256']} for {canary.key.filename}")
