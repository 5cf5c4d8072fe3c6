"""The table of artifact kinds: a new kind is one reader and one row."""

import json
from pathlib import Path

import pytest

from lambdas.access.decisions import Decision, compile_rules, decide
from lambdas.channel import artifact_kinds
from lambdas.channel.artifact_kinds import (
    ARTIFACT_KINDS,
    ArtifactKind,
    Distribution,
    as_conda,
    as_tar_bz2,
    guess_package,
    kind_of,
    name_of,
    parse_filename,
    split_conda_stem,
)
from lambdas.channel.layout import IndexFiles
from lambdas.indexer.artifacts.archives.artifact_source import ArtifactLimits, ArtifactSource, Contents, Hashes
from lambdas.indexer.artifacts.budgets import Reading
from lambdas.indexer.artifacts.read import READERS
from lambdas.indexer.tree.shards import decode_shard, iter_records
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.reconcile import reconcile
from tests.access_documents import NOW, make_document, make_secret, make_token
from tests.builders import index_json
from tests.indexer.outputs.test_registry import verify
from tests.indexer.world import NOARCH, World, package, shards_of
from tests.infra.synthesis import BUCKET, INDEXER, allows, synthesise

TOY = ArtifactKind(
    extension=".toy", section=None, v3_section="toy", split_stem=split_conda_stem, form="NAME-VERSION-BUILD"
)
KEY = f"{NOARCH}/foo-1.0-0.toy"
BODY = json.dumps(index_json(name="foo", version="1.0", build="0", subdir="noarch")).encode()


def fetch_toy(source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits, reading: Reading) -> Contents:
    """A toy is the content of its info/index.json."""
    hashes = Hashes()
    content = b"".join(hashes.read(source, reading.meter))
    return hashes.finish({"info/index.json": content})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_kinds, "ARTIFACT_KINDS", (*ARTIFACT_KINDS, TOY))
    monkeypatch.setitem(READERS, TOY.extension, fetch_toy)


@pytest.fixture
def world() -> World:
    world = World()
    world.storage.upload(KEY, BODY)
    world.upload(NOARCH, package("bar"))
    (report,) = world.index(KEY, f"{NOARCH}/bar-1.0-0.conda")
    assert not report.failures
    assert {outcome.status for outcome in report.outcomes} == {"indexed"}
    return world


def test_new_kind__is_named() -> None:
    assert kind_of("foo-1.0-0.toy") is TOY
    assert name_of("foo-bar-1.0-0.toy") == "foo-bar"
    assert parse_filename("foo-1.0-0.toy").filename == "foo-1.0-0.toy"
    assert guess_package("noarch/foo-1.0-0.toy.sigs") == "foo"


def test_new_kind__is_indexed_under_v3(world: World) -> None:
    document = world.index_json(NOARCH)
    assert list(document["v3"]) == ["toy"]
    assert list(document["v3"]["toy"]) == ["foo-1.0-0"]
    assert list(document["packages.conda"]) == ["bar-1.0-0.conda"]
    assert document["info"]["repodata_revisions"]["v3"]["n_packages"] == 1
    listed = {filename for shard in shards_of(world.storage, NOARCH) for filename, _ in iter_records(shard)}
    assert listed == {"foo-1.0-0.toy", "bar-1.0-0.conda"}
    assert verify(world) == []


def test_new_kind__is_updated_and_removed(world: World) -> None:
    world.publish(NOARCH, package("foo", "2.0"))
    assert list(world.index_json(NOARCH)["v3"]["toy"]) == ["foo-1.0-0"]
    world.storage.remove(KEY)
    world.index(KEY)
    assert "v3" not in world.index_json(NOARCH)
    assert world.listed(NOARCH) == {"bar-1.0-0.conda", "foo-2.0-0.conda"}


def test_new_kind__is_found_by_listing_and_rejected(world: World) -> None:
    world.storage.upload(f"{NOARCH}/lost-1.0-0.toy", BODY.replace(b'"foo"', b'"lost"'))
    world.storage.upload(f"{NOARCH}/other-1.0-0.toy", BODY)
    reports = list(reconcile(open_subdir(world.storage, NOARCH), world.indexer()))
    statuses = {outcome.key: outcome.status for report in reports for outcome in report.outcomes}
    assert statuses[f"{NOARCH}/lost-1.0-0.toy"] == "indexed"
    assert statuses[f"{NOARCH}/other-1.0-0.toy"] == "rejected"


@pytest.mark.parametrize(("packages", "expected"), [(["foo"], Decision.ALLOWED), (["bar"], Decision.FORBIDDEN)])
def test_new_kind__token_limited_to_packages(packages: list[str], expected: Decision) -> None:
    secret = make_secret(1)
    rules = compile_rules(
        make_document(make_token(secret, "team", packages=packages)), public_globs=(), index_files=IndexFiles()
    )
    for name in ("foo-1.0-0.toy", "foo-1.0-0.toy.sigs", "foo-1.0-0.TOY"):
        assert decide(rules, channel="team", path=f"noarch/{name}", credentials=[secret], now=NOW) is expected


def test_new_kind__notified_permitted_and_cached(tmp_path: Path) -> None:
    publishers = [{"name": "ci", "channels": ["team"], "principals": ["arn:aws:iam::123456789012:role/deployer"]}]
    settings = {"name": "team", "account": "123456789012", "region": "us-east-1", "publishers": publishers}
    stacks = synthesise(tmp_path, settings=settings)
    assert allows(stacks.statements(stacks.publisher("ci")), "s3:PutObject", f"{BUCKET}/team/noarch/foo-1.0-0.toy")
    assert allows(stacks.statements(stacks.role_of(INDEXER)), "s3:DeleteObjectVersion", f"{BUCKET}/{KEY}")
    notifications = stacks.only("AWS::S3::Bucket")["Properties"]["NotificationConfiguration"]
    suffixes = {
        rule["Value"] for queue in notifications["QueueConfigurations"] for rule in queue["Filter"]["S3Key"]["Rules"]
    }
    assert ".toy" in suffixes
    distribution = stacks.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    assert "*.toy" in {behaviour["PathPattern"] for behaviour in distribution["CacheBehaviors"]}


def test_as_conda__and_back() -> None:
    assert as_conda("foo-1-0.tar.bz2") == "foo-1-0.conda"
    assert as_tar_bz2("foo-1-0.conda") == "foo-1-0.tar.bz2"
    assert as_conda("foo-1-0.toy") is None
    assert as_tar_bz2("foo-1-0.toy") is None


def test_decode_shard__keeps_the_kind(world: World) -> None:
    index = open_subdir(world.storage, NOARCH).fetch_commit().index
    (foo,) = [sha256 for name, sha256 in index.shards.items() if name == "foo"]
    shard = decode_shard(world.storage.body(f"{NOARCH}/shards/{foo}.msgpack.zst"))
    assert {section: list(records) for section, records in shard.v3.items()} == {"toy": ["foo-1.0-0"]}
