"""The registry of outputs: adding or retiring an output is one row (invariant 16)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambdas.channel.artifact_kinds import name_of
from lambdas.channel.layout import SHARD_INDEX, parse_key
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.model import Outputs, Policy
from lambdas.indexer.outputs import registry
from lambdas.indexer.outputs.registry import (
    CHANNEL_OUTPUTS,
    FLAT_ENCODINGS,
    JSON,
    SUBDIR_OUTPUTS,
    ChannelOutput,
    SubdirOutput,
    never,
)
from lambdas.indexer.spliced.segments import Entries, Summary
from lambdas.indexer.tree.encoding import decompress, encode_json
from lambdas.indexer.tree.shards import Shard, iter_records
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.findings import Depth, Finding, Problem
from lambdas.indexer.upkeep.listing import list_subdirs
from lambdas.indexer.upkeep.reconcile import reconcile
from lambdas.indexer.upkeep.verify import ChannelView, verify_channel, verify_subdir
from tests.indexer.world import NOARCH, SMALL, URL, World, package
from tests.infra.synthesis import BUCKET, INDEXER, allows, read_settings, synthesise

NAMES = ("licenses.json", "licenses.json.zst", "licenses.json.bz2")


class LicensesForm:
    """``{"licenses": {filename: license}, "version": 1}``."""

    sections = ("licenses",)
    segment_bytes = 64 * 1024
    is_compressed = True

    def name_of(self, section: str, key: str) -> str:
        assert section == "licenses"
        return name_of(key)

    def time_of(self, value: Any) -> int:  # noqa: ANN401 - JSON
        return 0

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:
        return b'{"licenses":{', b'},"version":' + encode_json(header["version"]) + b"}"

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        entries: Mapping[str, Any] = document[section]
        return entries

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        return {"version": skeleton["version"]}

    def empty_header(self, subdir: SubdirName) -> dict[str, Any]:
        return {"version": 1}

    def entries_of(self, shard: Shard) -> Entries:
        return {"licenses": {filename: record.get("license", "") for filename, record in iter_records(shard)}}

    def apply_to_header(
        self, header: Mapping[str, Any], shards: Mapping[PackageName, Shard | None]
    ) -> Mapping[str, Any]:
        return header


LICENSES = SubdirOutput(name="licenses.json", content_type=JSON, encodings=FLAT_ENCODINGS, form=LicensesForm())
COUNT = SubdirOutput(name="count.txt", content_type="text/plain", render=lambda contents: str(contents.total).encode())
MOTTO = ChannelOutput(name="motto.txt", content_type="text/plain", render=lambda contents: contents.channel.encode())


def register(monkeypatch: pytest.MonkeyPatch, *outputs: SubdirOutput, channel: Sequence[ChannelOutput] = ()) -> None:
    monkeypatch.setattr(registry, "SUBDIR_OUTPUTS", (*SUBDIR_OUTPUTS, *outputs))
    monkeypatch.setattr(registry, "CHANNEL_OUTPUTS", (*CHANNEL_OUTPUTS, *channel))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, LICENSES, COUNT, channel=[MOTTO])


def verify(world: World) -> list[Finding]:
    depth = Depth(now_ms=world.storage.clock_ms, grace_ms=10**12)
    view = ChannelView(outputs=world.policy.outputs, limits=world.limits)
    found = [
        finding
        for subdir in list_subdirs(world.storage, NOARCH.channel)
        for finding in verify_subdir(open_subdir(world.storage, subdir), depth, view)
    ]
    found += verify_channel(world.storage, NOARCH.channel, view)
    return [finding for finding in found if not finding.is_harmless]


def fill(world: World, count: int = 3) -> None:
    world.publish(NOARCH, *(package(f"pkg{number:03}", index_extra={"license": "MIT"}) for number in range(count)))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("world", [World(), World(limits=SMALL)], ids=["whole", "spliced"])
def test_new_output__is_written_and_kept_up_to_date(world: World) -> None:
    fill(world, 40)
    world.publish(NOARCH, package("late", index_extra={"license": "BSD"}))
    plain = world.storage.body(f"{NOARCH}/licenses.json")
    licenses = json.loads(plain)["licenses"]
    assert len(licenses) == 41
    assert licenses["late-1.0-0.conda"] == "BSD"
    assert decompress(world.storage.body(f"{NOARCH}/licenses.json.zst"), what="") == plain
    assert f"{NOARCH}/licenses.json.bz2" not in world.storage.list_keys()
    assert world.storage.body(f"{NOARCH}/count.txt") == b"41"
    assert world.storage.body("team/motto.txt") == b"team"
    assert verify(world) == []


@pytest.mark.usefixtures("registered")
def test_new_output__is_served_with_its_headers() -> None:
    world = World()
    fill(world)
    types = {
        "licenses.json": "application/json",
        "licenses.json.zst": "application/zstd",
        "count.txt": "text/plain",
    }
    for name, content_type in types.items():
        headers = world.storage.headers(f"{NOARCH}/{name}")
        assert (headers.content_type, headers.cache_control) == (content_type, "public, max-age=30")
    assert world.storage.headers("team/motto.txt").content_type == "text/plain"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("key", [f"{NOARCH}/licenses.json", f"{NOARCH}/count.txt", "team/motto.txt"])
def test_new_output__is_verified(key: str) -> None:
    world = World()
    fill(world)
    versions = world.storage.versions[key]
    versions[-1] = replace(versions[-1], body=b'{"licenses":{},"version":1}')
    wrong = [(one.key, one.problem) for one in verify(world)]
    assert (key, Problem.OUTPUT_WRONG) in wrong
    world.storage.remove(key)
    assert [(one.key, one.problem) for one in verify(world)] == [(key, Problem.OUTPUT_MISSING)]


@pytest.mark.usefixtures("registered")
def test_new_output__is_permitted_and_known_at_the_edge(tmp_path: Path) -> None:
    stacks = synthesise(tmp_path, settings={"name": "team", "account": "123456789012", "region": "us-east-1"})
    statements = stacks.statements(stacks.role_of(INDEXER))
    for key in (*(f"team/noarch/{name}" for name in NAMES), "team/noarch/count.txt", "team/motto.txt"):
        assert allows(statements, "s3:PutObject", f"{BUCKET}/{key}")
    assert not allows(statements, "s3:DeleteObject", f"{BUCKET}/team/noarch/count.txt")
    settings = read_settings(stacks)
    assert {*NAMES, "count.txt"} <= set(settings["subdir_files"])
    assert "motto.txt" in settings["channel_files"]


def test_retired_output__is_removed_and_its_permission_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World()
    register(monkeypatch, LICENSES, COUNT, channel=[MOTTO])
    fill(world)
    retired = [replace(output, is_wanted=never) for output in (LICENSES, COUNT)]
    register(monkeypatch, *retired, channel=[replace(MOTTO, is_wanted=lambda _: False)])
    written = {f"{NOARCH}/licenses.json", f"{NOARCH}/licenses.json.zst", f"{NOARCH}/count.txt", "team/motto.txt"}
    assert {(one.key, one.problem) for one in verify(world)} == {(key, Problem.OUTPUT_UNWANTED) for key in written}
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    assert not written & set(world.storage.list_keys())
    assert verify(world) == []
    stacks = synthesise(tmp_path, settings={"name": "team", "account": "123456789012", "region": "us-east-1"})
    statements = stacks.statements(stacks.role_of(INDEXER))
    for key in written:
        assert allows(statements, "s3:DeleteObject", f"{BUCKET}/{key}")


@pytest.mark.parametrize("how", ["reconcile", "rebuild"])
def test_optional_outputs__switched_off_are_removed(how: str) -> None:
    world = World(policy=Policy(outputs=Outputs(current_repodata=True, bz2=True, url=URL)))
    fill(world)
    keys = {f"{NOARCH}/{name}" for name in ("current_repodata.json", "current_repodata.json.zst", "repodata.json.bz2")}
    assert keys <= set(world.storage.list_keys())
    world.policy = Policy(outputs=Outputs(url=URL))
    assert {one.key for one in verify(world)} >= keys
    if how == "reconcile":
        list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    else:
        from lambdas.indexer.upkeep.rebuild import rebuild

        rebuild(open_subdir(world.storage, NOARCH), world.indexer())
    assert verify(world) == []
    left = set(world.storage.list_keys())
    assert not keys & left
    assert not any(key.endswith(".bz2") for key in left)


def test_removal__leaves_everything_else_alone() -> None:
    world = World()
    names = [package(f"pkg{number:03}")[0].replace(".conda", ".tar.bz2") for number in range(3)]
    others = ["README.md", "repodata.json.gz", "keys.json", "channel.json", "current_repodata.json.bak"]
    fill(world)
    for name in others:
        world.storage.upload(f"{NOARCH}/{name}", b"anything")
    world.storage.upload("team/notices.json", b"{}")
    for name in names:
        world.storage.upload(f"other/{name}", b"anything")
    world.storage.upload(f"{NOARCH}/repodata.json.bz2", b"of another tool")
    list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    left = set(world.storage.list_keys())
    assert f"{NOARCH}/repodata.json.bz2" not in left
    assert {f"{NOARCH}/{name}" for name in others} | {"team/notices.json"} <= left
    assert {f"other/{name}" for name in names} <= left


def test_registry__names_no_artifact_and_no_tree() -> None:
    for name in registry.subdir_filenames():
        assert parse_key(f"team/noarch/{name}") is None
        assert name != SHARD_INDEX
    assert len(set(registry.subdir_filenames())) == len(registry.subdir_filenames())


def test_registry__documents_of_entries_can_be_spliced() -> None:
    """A large document is written compressed first, then plain."""
    for output in SUBDIR_OUTPUTS:
        assert (output.form is None) != (output.render is None)
        if output.form is not None:
            assert output.encodings == FLAT_ENCODINGS
