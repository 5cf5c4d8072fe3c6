"""The bucket, its policy, and the functions' permissions on it."""

import itertools
import json
from typing import Any

import pytest

from lambdas.channel import layout
from lambdas.channel.layout import SHARD_INDEX, platforms
from lambdas.channel.names import parse_channel
from lambdas.indexer.outputs.registry import channel_filenames, removable_keys, subdir_filenames
from lambdas.indexer.tree.subdir import open_subdir
from lambdas.indexer.upkeep.collect_garbage import collect_garbage
from lambdas.indexer.upkeep.reconcile import DAY_MS, reconcile, reject_invalid_keys
from tests.indexer.world import NOARCH, World, package
from tests.infra.iam import Request, is_denied
from tests.infra.synthesis import (
    AUTHORIZER,
    BUCKET,
    INDEXER,
    KEY_REFRESHER,
    Synthesis,
    allows,
    as_list,
    bucket_statements,
    find_values,
)

pytestmark = pytest.mark.xdist_group("synthesis")


def test_bucket__is_private_encrypted_versioned_and_owned(plain: Synthesis) -> None:
    bucket = plain.only("AWS::S3::Bucket")["Properties"]
    assert bucket["BucketName"] == "fairway-conda-123456789012-us-east-1"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    # With KMS, the ETag would not be the MD5.
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_bucket__is_retained_on_aws_except_by_a_failed_creation(plain: Synthesis, emulated: Synthesis) -> None:
    assert plain.only("AWS::S3::Bucket")["DeletionPolicy"] == "RetainExceptOnCreate"
    assert plain.only("AWS::S3::Bucket")["UpdateReplacePolicy"] == "Retain"
    assert emulated.only("AWS::S3::Bucket")["DeletionPolicy"] == "Delete"


def test_bucket__lifecycle(full: Synthesis) -> None:
    rules = full.only("AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    by_id = {rule["Id"]: rule for rule in rules}
    assert by_id["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert by_id["abandoned-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    # Nothing that readers can fetch expires.
    expiring = {rule["Id"]: (rule["Prefix"], rule["ExpirationInDays"]) for rule in rules if "ExpirationInDays" in rule}
    assert expiring == {"rejected": (".fairway/rejected/", 90), "replaced": (".fairway/replaced/", 90)}


@pytest.mark.parametrize(
    "condition", [{"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": 1.2}}]
)
def test_bucket_policy__denies_plain_http_and_old_tls(plain: Synthesis, condition: dict[str, Any]) -> None:
    (denial,) = [each for each in bucket_statements(plain) if each.get("Condition") == condition]
    assert denial["Effect"] == "Deny"
    assert denial["Action"] == "s3:*"
    assert denial["Principal"] == {"AWS": "*"}


def test_bucket_policy__allows_plain_http_on_the_emulator(emulated: Synthesis) -> None:
    assert not list(find_values(bucket_statements(emulated), "aws:SecureTransport"))


def test_bucket_policy__allows_this_distribution_alone_to_read_and_list(plain: Synthesis) -> None:
    grants = [each for each in bucket_statements(plain) if each["Effect"] == "Allow"]
    distribution = plain.only("AWS::CloudFront::Distribution")["Id"]
    assert {action for grant in grants for action in as_list(grant["Action"])} == {"s3:GetObject", "s3:ListBucket"}
    for grant in grants:
        assert grant["Principal"] == {"Service": "cloudfront.amazonaws.com"}
        (source,) = find_values(grant["Condition"]["StringEquals"], "AWS:SourceArn")
        assert {"Ref": distribution} in source["Fn::Join"][1]


def test_bucket_policy__never_serves_private_keys(full: Synthesis) -> None:
    (denial,) = [each for each in bucket_statements(full) if each.get("Sid") == "DenyServingPrivateKeys"]
    assert denial["Effect"] == "Deny"
    assert denial["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    assert denial["Action"] == "s3:GetObject"
    assert denial["Resource"] == f"{BUCKET}/.fairway/*"
    assert "Condition" not in denial


def test_bucket_policy__denies_overwriting_if_configured(full: Synthesis, plain: Synthesis) -> None:
    (denial,) = [each for each in bucket_statements(full) if "s3:if-none-match" in json.dumps(each)]
    assert denial["Effect"] == "Deny"
    assert denial["Principal"] == {"AWS": "*"}
    assert denial["Action"] == "s3:PutObject"
    assert set(denial["Resource"]) == {f"{BUCKET}/*.conda", f"{BUCKET}/*.tar.bz2"}
    assert denial["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert denial["Condition"]["Bool"] == {"s3:ObjectCreationOperation": "true"}
    indexer = full.role_of(INDEXER)["Id"]
    assert denial["Condition"]["ArnNotEquals"] == {"aws:PrincipalArn": {"Fn::GetAtt": [indexer, "Arn"]}}
    assert "s3:if-none-match" not in json.dumps(bucket_statements(plain))


CLASS, SSE = "s3:x-amz-storage-class", "s3:x-amz-server-side-encryption"
READABLE: dict[str, dict[str, str]] = {
    "aws s3 cp": {},
    "a part": {"s3:ObjectCreationOperation": "false"},
    "--if-none-match": {"s3:if-none-match": "*"},
    "STANDARD": {CLASS: "STANDARD"},
    "INTELLIGENT_TIERING": {CLASS: "INTELLIGENT_TIERING"},
    "AES256": {SSE: "AES256"},
    "both": {CLASS: "STANDARD", SSE: "AES256"},
}
UNREADABLE: dict[str, dict[str, str]] = {
    **{
        name: {CLASS: name}
        for name in (
            "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "STANDARD_IA", "ONEZONE_IA", "REDUCED_REDUNDANCY", "OUTPOSTS",
            "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS", "standard", "",
        )
    },
    "aws:kms": {SSE: "aws:kms"},
    "aws:kms with a key": {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "arn:aws:kms:us-east-1:123456789012:key/1"},
    "aws:kms:dsse": {SSE: "aws:kms:dsse"},
    "aws:fsx": {SSE: "aws:fsx"},
    "SSE-C": {f"{SSE}-customer-algorithm": "AES256"},
    "a part with SSE-C": {f"{SSE}-customer-algorithm": "AES256", "s3:ObjectCreationOperation": "false"},
    "a class after encryption": {SSE: "AES256", CLASS: "GLACIER"},
    "encryption after a class": {SSE: "aws:kms", CLASS: "STANDARD"},
    "all but one": {SSE: "AES256", CLASS: "STANDARD", f"{SSE}-customer-algorithm": "AES256"},
}  # fmt: skip
# Of artifacts, their companions, the index, private documents, and of nothing that is known here.
UPLOADED = (
    "team/noarch/tool-1-0.conda",
    "team/noarch/tool-1-0.tar.bz2",
    "team/noarch/tool-1-0.conda.sigs",
    "team/noarch/repodata.json",
    "team/notices.json",
    ".fairway/access.json",
    ".fairway/cards/team/noarch/00ff.json.zst",
    ".fairway/to-come/x",
    "x",
)


@pytest.mark.parametrize("key", UPLOADED)
@pytest.mark.parametrize("context", UNREADABLE.values(), ids=UNREADABLE)
def test_bucket_policy__attack_upload_that_readers_could_not_get(
    plain: Synthesis, context: dict[str, str], key: str
) -> None:
    # CopyObject, CreateMultipartUpload and POST are authorised as s3:PutObject, too.
    assert is_denied(
        bucket_statements(plain), Request(action="s3:PutObject", resource=_arn(plain, key), context=context)
    )


@pytest.mark.parametrize("key", UPLOADED)
@pytest.mark.parametrize("context", READABLE.values(), ids=READABLE)
def test_bucket_policy__lets_plain_uploads_pass(plain: Synthesis, context: dict[str, str], key: str) -> None:
    assert not is_denied(
        bucket_statements(plain), Request(action="s3:PutObject", resource=_arn(plain, key), context=context)
    )


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_bucket_policy__is_the_same_in_every_deployment(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    sids = {each.get("Sid") for each in bucket_statements(synthesis)}
    assert sids >= {"DenyArchivedUploads", "DenyKmsUploads", "DenyCustomerKeyUploads"}
    policy = synthesis.only("AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"]
    assert len(json.dumps(policy, separators=(",", ":"))) < 20 * 1024  # S3's limit


@pytest.mark.parametrize("context", UNREADABLE.values(), ids=UNREADABLE)
def test_bucket_policy__reading_is_as_before(plain: Synthesis, context: dict[str, str]) -> None:
    for action in ("s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
        assert not is_denied(
            bucket_statements(plain),
            Request(action=action, resource=_arn(plain, "team/noarch/a-1-0.conda"), context=context),
        )


OPERATORS = ("arn:aws:iam::123456789012:role/operator", "arn:aws:iam::123456789012:user/admins/ada")
OTHERS = (
    "arn:aws:iam::123456789012:root",
    "arn:aws:iam::123456789012:role/operators",
    "arn:aws:iam::210987654321:role/operator",
    "arn:aws:iam::123456789012:user/ada",
)


@pytest.mark.parametrize("action", ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"])
def test_bucket_policy__attack_access_document_is_deleted_or_replaced(full: Synthesis, action: str) -> None:
    statements = bucket_statements(full)
    functions = {name: f"<{full.role_of(name)['Id']}>" for name in (INDEXER, AUTHORIZER, KEY_REFRESHER)}
    publishers = [f"<{full.publisher(name)['Id']}>" for name in ("release", "all")]
    writers = {functions[KEY_REFRESHER]} if action == "s3:PutObject" else set()
    for principal in {*OTHERS, *functions.values(), *publishers} - writers:
        assert is_denied(
            statements, Request(action=action, resource=_arn(full, ".fairway/access.json"), principal=principal)
        )
    for principal in {*OPERATORS, *writers}:
        request = Request(action=action, resource=_arn(full, ".fairway/access.json"), principal=principal)
        assert not is_denied(statements, request)


@pytest.mark.parametrize("key", [".fairway/audit/2026-01.jsonl", ".fairway/access.json.bak", "team/notices.json"])
def test_bucket_policy__protects_the_access_document_alone(full: Synthesis, key: str) -> None:
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"):
        assert not is_denied(bucket_statements(full), Request(action=action, resource=_arn(full, key)))


def test_bucket_policy__without_operators_iam_alone_decides(plain: Synthesis) -> None:
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"):
        assert not is_denied(
            bucket_statements(plain),
            Request(action=action, resource=_arn(plain, ".fairway/access.json"), principal=OTHERS[0]),
        )


def _arn(synthesis: Synthesis, key: str) -> str:
    return f"arn:aws:s3:::{synthesis.only('AWS::S3::Bucket')['Properties']['BucketName']}/{key}"


def _list_notifications(synthesis: Synthesis) -> list[tuple[str, str]]:
    """Return the pairs of an event and a suffix that the bucket notifies about."""
    properties = synthesis.only("AWS::S3::Bucket")["Properties"]
    configurations = properties["NotificationConfiguration"]["QueueConfigurations"]
    found = []
    for each in configurations:
        (rule,) = each["Filter"]["S3Key"]["Rules"]
        assert rule["Name"] == "suffix"
        found.append((each["Event"], rule["Value"]))
    return found


UPLOADS = (".conda", ".tar.bz2", ".sigs", "patch_instructions.json")


def test_notifications__name_every_suffix_and_event_once(plain: Synthesis) -> None:
    found = _list_notifications(plain)
    index_files = ["repodata_shards.msgpack.zst", *subdir_filenames(), *channel_filenames()]
    changes = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
    assert set(found) == {
        *((event, suffix) for event in (*changes, "s3:LifecycleExpiration:*") for suffix in UPLOADS),
        *((event, f"/{filename}") for event in changes for filename in index_files),
    }
    assert len(set(found)) == len(found)
    assert len(found) <= 100, "S3's limit of a bucket"


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_notifications__suffixes_do_not_overlap(which: str, request: pytest.FixtureRequest) -> None:
    """S3 rejects two configurations of a kind of event if some key could match both."""
    synthesis: Synthesis = request.getfixturevalue(which)
    found = _list_notifications(synthesis)
    for event in {event for event, _ in found}:
        suffixes = [suffix for other, suffix in found if other == event]
        overlapping = [
            (one, other) for one, other in itertools.permutations(suffixes, 2) if one.lower().endswith(other.lower())
        ]
        assert overlapping == []


def test_notifications__depend_on_the_queues_policy(plain: Synthesis) -> None:
    bucket = plain.only("AWS::S3::Bucket")
    policies = {each["Id"] for each in plain.resources("AWS::SQS::QueuePolicy")}
    assert policies & set(bucket["DependsOn"])


@pytest.mark.parametrize(
    "key",
    [
        "team/noarch/repodata.json",
        "team/noarch/repodata.json.zst",
        "team/noarch/repodata.json.bz2",
        "team/noarch/repodata_from_packages.json",
        "team/noarch/current_repodata.json",
        "team/noarch/repodata_shards.msgpack.zst",
        "team/noarch/shards/00ff.msgpack.zst",
        "team/noarch/run_exports.json.zst",
        "team/noarch/index.html",
        "team/noarch/tool-1-0.conda.sigs",
        "team/noarch/tool-1-0.tar.bz2.sigs",
        "team/noarch/tool-1-0.conda.sigs.00ff",
        "team/channeldata.json",
        "team/rss.xml",
        "team/index.html",
        ".fairway/cards/team/noarch/00ff.json.zst",
        ".fairway/channeldata/team/noarch/part.json.zst",
        ".fairway/garbage/team/noarch/garbage.json",
        ".fairway/patches/team/noarch/00ff.json",
        ".fairway/policy.json",
        ".fairway/rejected/team/noarch/tool-1-0.conda/1/reason.json",
        ".fairway/signals/team/noarch/signals.json",
        ".fairway/stale/00ff",
    ],
)
def test_indexer__may_write_its_own_keys(full: Synthesis, key: str) -> None:
    assert allows(full.statements(full.role_of(INDEXER)), "s3:PutObject", f"{BUCKET}/{key}")


def test_indexer__may_write_under_every_prefix_of_its_own(full: Synthesis) -> None:
    """A prefix that is added to the layout is added to the role, and cleaned with its channel."""
    prefixes = {value for name, value in vars(layout).items() if name.endswith("_PREFIX")}
    of_deployments = {".fairway/", ".fairway/audit/", ".fairway/stale/"}
    of_directories = {".fairway/recorded/"}
    assert prefixes - set(layout.CHANNEL_PREFIXES) == of_deployments | of_directories
    for prefix in layout.CHANNEL_PREFIXES:
        assert allows(full.statements(full.role_of(INDEXER)), "s3:PutObject", f"{BUCKET}/{prefix}team/x")


@pytest.mark.parametrize(
    "key",
    [
        ".fairway/access.json",
        ".fairway/audit/2026-01.json",
        ".fairway/other.json",
        "team/notices.json",
        "team/noarch/tool-1-0.conda",
        "team/noarch/tool-1-0.tar.bz2",
        "team/noarch/other.sigs",
        "team/noarch/patch_instructions.json",
        "team/noarch/other.txt",
    ],
)
def test_indexer__may_write_nothing_else(full: Synthesis, key: str) -> None:
    assert not allows(full.statements(full.role_of(INDEXER)), "s3:PutObject", f"{BUCKET}/{key}")


@pytest.mark.parametrize("key", [".fairway/access.json", ".fairway/audit/2026-01.jsonl"])
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject"])
def test_indexer__has_no_access_to_the_access_document(full: Synthesis, action: str, key: str) -> None:
    assert not allows(full.statements(full.role_of(INDEXER)), action, f"{BUCKET}/{key}")


@pytest.mark.parametrize(
    ("key", "may"),
    [
        ("team/noarch/tool-1-0.conda", True),
        ("team/noarch/tool-1-0.conda.sigs", True),
        ("team/noarch/tool-1-0.conda.sigs.00ff", True),
        ("team/noarch/patch_instructions.json", True),
        ("tool-1-0.conda", True),
        ("a/b/c/tool-1-0.tar.bz2", True),
        ("a/b/c/Tool-1-0.TAR.BZ2", True),
        ("team/noarch/repodata_from_packages.json.zst", True),
        ("team/noarch/shards/00ff.msgpack.zst", True),
        (".fairway/cards/team/noarch/00ff.json.zst", True),
        (".fairway/rejected/team/noarch/tool-1-0.conda/1/reason.json", True),
        (".fairway/stale/00ff", True),
        ("team/noarch/current_repodata.json", True),
        ("team/noarch/repodata.json.bz2", True),
        ("team/noarch/foo-1.0-0.Conda", True),
        ("team/noarch/foo-1.0-0.Conda.Sigs", True),
        ("team/noarch", True),
        ("team/linux-aarch64", True),
        ("team/release-notes", False),
        ("team/linux-64/README", False),
        ("team/noarch/repodata.json", False),
        ("team/noarch/repodata_shards.msgpack.zst", False),
        ("team/notices.json", False),
        (".fairway/access.json", False),
    ],
)
def test_indexer__may_delete_uploads_and_unreferenced_blobs(full: Synthesis, key: str, *, may: bool) -> None:
    statements = full.statements(full.role_of(INDEXER))
    assert allows(statements, "s3:DeleteObject", f"{BUCKET}/{key}") == may
    assert allows(statements, "s3:DeleteObjectVersion", f"{BUCKET}/{key}") == may


@pytest.mark.parametrize("subdir", ["noarch", "linux-64", "linux-loongarch64"])
def test_indexer__may_delete_no_index_file_that_is_always_wanted(full: Synthesis, subdir: str) -> None:
    statements = full.statements(full.role_of(INDEXER))
    removable = {pattern.rpartition("/")[2] for pattern in removable_keys()}
    kept = [f"team/{subdir}/{name}" for name in {SHARD_INDEX, *subdir_filenames()} - removable]
    kept += [f"team/{name}" for name in set(channel_filenames()) - removable]
    assert [key for key in kept if allows(statements, "s3:DeleteObject", f"{BUCKET}/{key}")] == []


@pytest.mark.parametrize("key", ["team/noarch/repodata_shards.msgpack.zst", "team/rss.xml", "team/noarch"])
def test_indexer__may_copy_files_with_their_tags(full: Synthesis, key: str) -> None:
    statements = full.statements(full.role_of(INDEXER))
    for action in ("s3:GetObjectTagging", "s3:GetObjectVersionTagging"):
        assert allows(statements, action, f"{BUCKET}/{key}")
    for copy in (f".fairway/rejected/{key}/1/object", f".fairway/replaced/{key}/1"):
        assert allows(statements, "s3:PutObjectTagging", f"{BUCKET}/{copy}")
    assert not allows(statements, "s3:PutObjectTagging", f"{BUCKET}/{key}")


def test_indexer__may_write_and_delete_what_its_code_does(full: Synthesis) -> None:
    """Every request of runs that reject uploads of each kind, heal, replace foreign files and collect garbage."""
    statements = full.statements(full.role_of(INDEXER))
    world = run_everything()
    seen = {(kind, key) for kind, key in world.storage.log if kind in {"put", "copy", "splice", "delete"}}
    assert {key.split("/")[1] for kind, key in seen if kind == "delete" and key.startswith(".fairway/")} == {
        "cards",
        "drafts",
        "stale",
    }
    for kind, key in sorted(seen):
        actions = ("s3:DeleteObject", "s3:DeleteObjectVersion") if kind == "delete" else ("s3:PutObject",)
        for action in actions:
            assert allows(statements, action, f"{BUCKET}/{key}"), (kind, key)


REJECTED = (
    "team/noarch/bad-1.0-0.conda",
    "team/noarch/bad-1.0-0.tar.bz2",
    "team/noarch/bad-1.0-0.Conda",
    "team/noarch/BAD-1.0-0.TAR.BZ2",
    "team/noarch/bad-1.0-0.conda.SIGS",
    "team/noarch/foo-1.0-0.conda.sigs",
    f"team/noarch/foo-1.0-0.conda.sigs.{'0' * 64}",
    "team/noarch/patch_instructions.json",
    "team/noarch/deeper/x-1-0.conda",
    "team/noarch/shards/x-1-0.conda",
    "team/x-1-0.conda",
    "x-1-0.conda",
    "TEAM/noarch/x-1-0.conda",
    "patch_instructions.json",
    *(f"team/{name}" for name in sorted(platforms() - {"noarch"})),
    "other/noarch",
)


def run_everything() -> World:
    world = World()
    world.publish(NOARCH, package(), package(name="old"))
    for key in REJECTED:
        world.storage.upload(key, b"bad")
    world.storage.upload("team/noarch/current_repodata.json", b"foreign")
    world.storage.upload(f"team/noarch/{SHARD_INDEX}", b"foreign")
    world.storage.remove("team/noarch/old-1.0-0.conda")
    indexer = world.indexer()
    world.index(*REJECTED[:8], "patch_instructions.json", "team/noarch/*", "team/noarch/")
    subdir = open_subdir(world.storage, NOARCH)
    for _ in reconcile(subdir, indexer):
        pass
    for channel in (parse_channel("team"), parse_channel("other"), None):
        for _ in reject_invalid_keys(world.storage, indexer, channel):
            pass
    indexer.invalidate_rejected(all_runs=True)
    assert [key for key in REJECTED if key in world.storage.list_keys() and "/foo-1.0-0.conda.sigs" not in key] == []
    for days in (0, 20):
        collect_garbage(subdir, now_ms=world.storage.clock_ms + days * DAY_MS, grace_ms=14 * DAY_MS)
    return world


def test_indexer__may_delete_repodata_where_its_size_is_limited(other_region: Synthesis) -> None:
    statements = other_region.statements(other_region.role_of(INDEXER))
    bucket = BUCKET.replace("us-east-1", "eu-central-1")
    assert allows(statements, "s3:DeleteObject", f"{bucket}/team/noarch/repodata.json")
    assert not allows(statements, "s3:DeleteObject", f"{bucket}/team/noarch/repodata.json.zst")


def test_indexer__has_no_other_permissions_on_the_bucket(full: Synthesis) -> None:
    granted = {
        action
        for statement in full.statements(full.role_of(INDEXER))
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        if action.startswith("s3:")
    }
    assert granted == {
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:GetObject",
        "s3:GetObjectAttributes",
        "s3:GetObjectTagging",
        "s3:GetObjectVersion",
        "s3:GetObjectVersionAttributes",
        "s3:GetObjectVersionTagging",
        "s3:ListBucket",
        "s3:ListBucketVersions",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
        "s3:PutObjectTagging",
    }


def test_authorizer__may_read_one_object_and_log(full: Synthesis) -> None:
    statements = full.statements(full.role_of(AUTHORIZER))
    assert [(each["Action"], each["Resource"]) for each in statements if each["Action"] == "s3:GetObject"] == [
        ("s3:GetObject", f"{BUCKET}/.fairway/access.json")
    ]
    (logging,) = [each for each in statements if each["Action"] != "s3:GetObject"]
    assert set(logging["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert logging["Resource"] == "arn:aws:logs:*:123456789012:log-group:/fairway/team/us-east-1/authorizer:*"


def test_key_refresher__may_read_and_replace_one_object(full: Synthesis) -> None:
    statements = full.statements(full.role_of(KEY_REFRESHER))
    (grant,) = [each for each in statements if "s3:PutObject" in as_list(each["Action"])]
    assert set(grant["Action"]) == {"s3:GetObject", "s3:PutObject"}
    assert grant["Resource"] == f"{BUCKET}/.fairway/access.json"
    rest = {action for each in statements if each is not grant for action in as_list(each["Action"])}
    assert rest == {"logs:CreateLogStream", "logs:PutLogEvents"}
