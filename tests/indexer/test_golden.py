"""The published files of a small channel, kept in tests/golden.

``uploads/`` is what publishers uploaded, ``published/`` what readers get, decompressed, and
msgpack as JSON, so that a newer zstd changes nothing here. After an intended change, check the
difference that this prints:

    FAIRWAY_WRITE_GOLDEN=1 .venv/bin/pytest tests/indexer/test_golden.py && git diff tests/golden
"""

import json
import os
from pathlib import Path
from typing import Any

from lambdas.channel.layout import SHARD_INDEX
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.tree.encoding import decode_msgpack, decompress
from lambdas.indexer.tree.shard_index import decode_index
from tests.builders import conda_package, tar_bz2_package
from tests.indexer.world import LINUX, NOARCH, URL, World, subdirs

GOLDEN = Path(__file__).parents[1] / "golden"
UPLOADS, PUBLISHED = GOLDEN / "uploads", GOLDEN / "published"
WRITE = bool(os.environ.get("FAIRWAY_WRITE_GOLDEN"))
POLICY = Policy(outputs=Outputs(current_repodata=True, url=URL))
ABOUT = {"summary": "Says <hello> & more", "home": "https://example.org/foo", "license": "BSD-3-Clause"}
PATCHES = {
    "patch_instructions_version": 2,
    "packages": {"foo-1.0-0.tar.bz2": {"depends": ["bar >=1"]}},
    "packages.conda": {"exporter-2.0-h1_3.conda": {"run_exports": {"weak": ["exporter >=2.0,<3"]}}},
    "remove": ["yanked-0.1-0.conda"],
    "revoke": ["revoked-1.0-0.conda"],
}


def make_uploads() -> dict[str, bytes]:
    linux: str = LINUX.name
    several = {
        NOARCH: [
            conda_package(about=ABOUT, depends=["python >=3.11", "bar"]),
            tar_bz2_package(about=ABOUT, depends=["python >=3.11", "bar"]),
            conda_package(version="1.1", about={"summary": "Sägt hallo 🦔"}, index_extra={"x-unknown": {"b": 1.5}}),
            conda_package(name="bar", version="1!2.0+local", build="py_0", timestamp=None),
            conda_package(name="yanked", version="0.1"),
            conda_package(name="revoked", depends=["foo"]),
            conda_package(name="three", index_extra={"schema_version": 3, "flags": ["cuda:12"]}),
        ],
        LINUX: [
            conda_package(name="exporter", version="2.0", build="h1_3", run_exports=["exporter"], subdir=linux),
            tar_bz2_package(
                name="tracked", run_exports={"strong": ["a", "b"]}, index_extra={"track_features": "mkl"}, subdir=linux
            ),
        ],
    }
    uploads = {f"{path}/{filename}": body for path, packages in several.items() for filename, body in packages}
    uploads[f"{NOARCH}/foo-1.0-0.conda.sigs"] = b'[{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}]'
    uploads[f"{NOARCH}/patch_instructions.json"] = json.dumps(PATCHES).encode()
    uploads[f"{LINUX}/patch_instructions.json"] = json.dumps(PATCHES).encode()
    return uploads


def publish(uploads: dict[str, bytes]) -> World:
    world = World(policy=POLICY)
    for number, (key, body) in enumerate(sorted(uploads.items())):
        world.storage.upload(key, body, last_modified_ms=1_750_000_000_000 + number * 60_000)
    for report in world.index(*uploads):
        assert not report.failures
        assert {outcome.status for outcome in report.outcomes} == {"indexed"}
    return world


def describe(world: World, uploads: dict[str, bytes]) -> dict[str, bytes]:
    """Return what was published, in a readable and stable form."""
    names: dict[str, str] = {}
    for path in subdirs(world.storage):
        index = decode_index(world.storage.body(f"{path}/{SHARD_INDEX}"))
        names |= {
            f"{path}/shards/{sha256}.msgpack.zst": f"{path}/shards/{name}" for name, sha256 in index.shards.items()
        }
    described = {}
    for key, body in world.storage.snapshot().items():
        if key in uploads:
            continue
        plain = decompress(body, what=key) if key.endswith(".zst") else body
        if key.endswith(".json.zst"):
            assert plain == world.storage.body(key.removesuffix(".zst"))
            continue
        if key.endswith(".msgpack.zst"):
            document = show_hashes(decode_msgpack(plain, what=key))
            if key.endswith(SHARD_INDEX):
                document["shards"] = {name: names[path_of(key, sha256)] for name, sha256 in document["shards"].items()}
            named = names.get(key, key.removesuffix(".msgpack.zst")) + ".msgpack.json"
            described[named] = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
        else:
            described[key] = plain
    return described


def path_of(index_key: str, sha256: str) -> str:
    return f"{index_key.removesuffix(SHARD_INDEX)}shards/{sha256.removeprefix('hex:')}.msgpack.zst"


def show_hashes(value: Any) -> Any:  # noqa: ANN401 - msgpack
    if isinstance(value, bytes):
        return f"hex:{value.hex()}"
    if isinstance(value, dict):
        return {key: show_hashes(inner) for key, inner in value.items()}
    return [show_hashes(inner) for inner in value] if isinstance(value, list) else value


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    for key in read_folder(folder).keys() - files.keys():
        (folder / key).unlink()
    for key, body in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(body)


def test_published__equals_the_golden_files() -> None:
    if WRITE and not UPLOADS.exists():
        write_folder(UPLOADS, make_uploads())
    uploads = read_folder(UPLOADS)
    described = describe(publish(uploads), uploads)
    if WRITE:
        write_folder(PUBLISHED, described)
    golden = read_folder(PUBLISHED)
    assert sorted(described) == sorted(golden)
    for key, body in described.items():
        assert body.decode() == golden[key].decode(), key
