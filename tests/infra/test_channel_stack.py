"""What the synthesised stacks promise, whatever their resources are called."""

import json
import re
import zipfile
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_s3 as s3

from infra.app import build
from infra.monitoring import ACCESS_LOG_FIELDS
from lambdas.channel.errors import UsageError
from lambdas.key_refresher.refresh import ISSUERS_UNAVAILABLE
from tests.infra.conftest import ABROAD, EVERYTHING
from tests.infra.synthesis import ROOT, Synthesis, allows, as_list, find_values, synthesise

pytestmark = pytest.mark.xdist_group("synthesis")

BUCKET = "arn:aws:s3:::fairway-team-123456789012-us-east-1"
INDEXER = "lambdas.indexer.handler.handle_queue"
RECONCILER = "lambdas.indexer.handler.handle_schedule"
AUTHORIZER = "lambdas.authorizer.handler.handle_viewer_request"
ORIGIN_RESPONSE = "lambdas.authorizer.origin_response.handle_origin_response"
KEY_REFRESHER = "lambdas.key_refresher.handler.handle_event"


def bucket_statements(synthesis: Synthesis) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = synthesis.only("AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"][
        "Statement"
    ]
    return statements


def behaviours(synthesis: Synthesis) -> dict[str, dict[str, Any]]:
    config = synthesis.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    return {"*": config["DefaultCacheBehavior"], **{each["PathPattern"]: each for each in config["CacheBehaviors"]}}


def referred(synthesis: Synthesis, reference: dict[str, str], resource_type: str) -> dict[str, Any]:
    (found,) = [each for each in synthesis.resources(resource_type) if each["Id"] == reference["Ref"]]
    properties: dict[str, Any] = found["Properties"]
    return properties


# The bucket


def test_bucket__is_private_encrypted_versioned_and_owned(plain: Synthesis) -> None:
    bucket = plain.only("AWS::S3::Bucket")["Properties"]
    assert bucket["BucketName"] == "fairway-conda-123456789012-us-east-1"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    # KMS would take the md5 out of the ETag.
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_bucket__outlives_the_stack_on_aws_alone(plain: Synthesis, emulated: Synthesis) -> None:
    assert plain.only("AWS::S3::Bucket")["DeletionPolicy"] == "Retain"
    assert plain.only("AWS::S3::Bucket")["UpdateReplacePolicy"] == "Retain"
    assert emulated.only("AWS::S3::Bucket")["DeletionPolicy"] == "Delete"


def test_bucket__forgets_old_versions_leftovers_and_rejections(full: Synthesis) -> None:
    rules = full.only("AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    by_id = {rule["Id"]: rule for rule in rules}
    assert by_id["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert by_id["abandoned-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert by_id["rejected"]["ExpirationInDays"] == 90
    assert by_id["rejected"]["Prefix"] == ".fairway/rejected/"
    # Nothing that is served ever expires.
    assert [rule["Id"] for rule in rules if "ExpirationInDays" in rule] == ["rejected"]


@pytest.mark.parametrize(
    "condition", [{"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": 1.2}}]
)
def test_bucket_policy__refuses_plain_http_and_old_tls(plain: Synthesis, condition: dict[str, Any]) -> None:
    (denial,) = [each for each in bucket_statements(plain) if each.get("Condition") == condition]
    assert denial["Effect"] == "Deny"
    assert denial["Action"] == "s3:*"
    assert denial["Principal"] == {"AWS": "*"}


def test_bucket_policy__takes_plain_http_from_the_emulator_alone(emulated: Synthesis) -> None:
    assert not list(find_values(bucket_statements(emulated), "aws:SecureTransport"))


def test_bucket_policy__lets_this_distribution_alone_read_and_list(plain: Synthesis) -> None:
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


def test_bucket_policy__forbids_overwriting_where_configured(full: Synthesis, plain: Synthesis) -> None:
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


def test_notifications__name_every_suffix_and_event_once(plain: Synthesis) -> None:
    configurations = plain.only("AWS::S3::Bucket")["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    found = {(each["Event"], each["Filter"]["S3Key"]["Rules"][0]["Value"]) for each in configurations}
    assert found == {
        (event, suffix)
        for event in ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")
        for suffix in (".conda", ".tar.bz2", ".sigs", "patch_instructions.json")
    }
    assert len(found) == len(configurations)


def test_notifications__wait_for_the_queues_policy(plain: Synthesis) -> None:
    bucket = plain.only("AWS::S3::Bucket")
    policies = {each["Id"] for each in plain.resources("AWS::SQS::QueuePolicy")}
    assert policies & set(bucket["DependsOn"])


# The functions


def test_functions__run_the_same_python_on_arm_but_for_the_edge(plain: Synthesis) -> None:
    for handler in (INDEXER, RECONCILER, AUTHORIZER, ORIGIN_RESPONSE, KEY_REFRESHER):
        properties = plain.function(handler)["Properties"]
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["x86_64" if handler in (AUTHORIZER, ORIGIN_RESPONSE) else "arm64"]


def test_functions__log_to_groups_that_forget(full: Synthesis, abroad: Synthesis) -> None:
    for synthesis in (full, abroad):
        groups = synthesis.resources("AWS::Logs::LogGroup")
        assert {group["Properties"]["RetentionInDays"] for group in groups} == {90}
        for handler in (INDEXER, RECONCILER, AUTHORIZER, ORIGIN_RESPONSE, KEY_REFRESHER):
            function = synthesis.function(handler)
            group = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
            assert group in {each["Id"] for each in groups if each["Stack"] == function["Stack"]}


def test_indexer__is_told_which_channels_are_mutable(abroad: Synthesis) -> None:
    assert abroad.function(INDEXER)["Properties"]["Environment"]["Variables"]["FAIRWAY_MUTABLE_CHANNELS"] == "nightly-*"


def test_indexer__is_told_all_that_it_needs(full: Synthesis) -> None:
    variables = full.function(INDEXER)["Properties"]["Environment"]["Variables"]
    assert variables["FAIRWAY_BUCKET"] == "fairway-team-123456789012-us-east-1"
    assert variables["FAIRWAY_CHANNEL_URL"] == "https://conda.example.com"
    assert variables["FAIRWAY_MUTABLE_CHANNELS"] == ""
    assert variables["FAIRWAY_OPTIONAL_OUTPUTS"] == ""
    assert variables["FAIRWAY_SHARD_GRACE_DAYS"] == "14"
    assert variables["FAIRWAY_DISTRIBUTION_ID"] == {"Ref": full.only("AWS::CloudFront::Distribution")["Id"]}
    assert variables["FAIRWAY_EVENT_BUS"] == {"Ref": full.only("AWS::Events::EventBus")["Id"]}
    (queue,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]]
    assert variables["FAIRWAY_QUEUE_URL"] == {"Ref": queue}
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Fairway"
    assert variables["POWERTOOLS_SERVICE_NAME"] == "fairway-team-indexer"
    assert "AWS_ENDPOINT_URL" not in variables
    assert variables == full.function(RECONCILER)["Properties"]["Environment"]["Variables"]


def test_queue__retries_five_times_then_keeps_for_a_fortnight(plain: Synthesis) -> None:
    queues = {each["Id"]: each["Properties"] for each in plain.resources("AWS::SQS::Queue")}
    (queue,) = [each for each in queues.values() if "RedrivePolicy" in each]
    (dead_letters,) = [each for each in queues.values() if "RedrivePolicy" not in each]
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 5
    assert dead_letters["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_queue__hands_a_message_out_again_soon_but_never_while_its_function_may_run(plain: Synthesis) -> None:
    (queue,) = [
        each["Properties"] for each in plain.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]
    ]
    window = plain.only("AWS::Lambda::EventSourceMapping")["Properties"]["MaximumBatchingWindowInSeconds"]
    held = plain.function(INDEXER)["Properties"]["Timeout"] + window
    assert held < queue["VisibilityTimeout"] <= held + 60


def test_queue__takes_messages_from_this_bucket_alone_and_over_tls(full: Synthesis) -> None:
    policies = [each["Properties"] for each in full.resources("AWS::SQS::QueuePolicy")]
    statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
    (grant,) = [each for each in statements if each["Effect"] == "Allow"]
    assert grant["Principal"] == {"Service": "s3.amazonaws.com"}
    assert grant["Action"] == "sqs:SendMessage"
    assert grant["Condition"] == {
        "ArnEquals": {"aws:SourceArn": BUCKET},
        "StringEquals": {"aws:SourceAccount": "123456789012"},
    }
    denials = [each for each in statements if each["Effect"] == "Deny"]
    assert [each["Condition"] for each in denials] == [{"Bool": {"aws:SecureTransport": "false"}}] * len(policies)
    assert len(policies) == len(full.resources("AWS::SQS::Queue")) == 2


def test_queue__takes_reminders_from_the_indexer(full: Synthesis) -> None:
    (queue,) = [each["Id"] for each in full.resources("AWS::SQS::Queue") if "RedrivePolicy" in each["Properties"]]
    statements = full.statements(full.role_of(INDEXER))
    (grant,) = [each for each in statements if "sqs:SendMessage" in as_list(each["Action"])]
    assert (grant["Effect"], grant["Resource"]) == ("Allow", {"Fn::GetAtt": [queue, "Arn"]})


def test_indexer__may_remind_itself_without_end(plain: Synthesis) -> None:
    """Lambda would take reminders of several subdirs in turn for a loop, and drop messages after 16."""
    assert plain.function(INDEXER)["Properties"]["RecursiveLoop"] == "Allow"


def test_event_source__reports_partial_failures_within_bounds(plain: Synthesis) -> None:
    mapping = plain.only("AWS::Lambda::EventSourceMapping")["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == 1000
    assert mapping["MaximumBatchingWindowInSeconds"] == 1
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 10}


def test_reconciler__runs_daily_over_all_channels(plain: Synthesis) -> None:
    (rule,) = [
        each["Properties"]
        for each in plain.resources("AWS::Events::Rule")
        if each["Properties"]["ScheduleExpression"] == "rate(1 day)"
    ]
    (target,) = rule["Targets"]
    assert target["Input"] == "{}"
    assert target["Arn"] == {"Fn::GetAtt": [plain.function(RECONCILER)["Id"], "Arn"]}
    assert plain.function(RECONCILER)["Properties"]["Timeout"] == 900


# Who may do what


@pytest.mark.parametrize("which", ["plain", "full", "abroad", "emulated"])
def test_policies__grant_no_wildcard_actions(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    documents = [
        document
        for template in synthesis.templates.values()
        for resource in template["Resources"].values()
        for key in ("PolicyDocument", "AssumeRolePolicyDocument")
        for document in find_values(resource["Properties"], key)
    ]
    grants = [
        statement for document in documents for statement in document["Statement"] if statement["Effect"] == "Allow"
    ]
    assert len(grants) > 10
    assert not [action for grant in grants for action in as_list(grant["Action"]) if "*" in action]
    assert not [grant for grant in grants if grant.get("Resource") == "*"]


@pytest.mark.parametrize("which", ["plain", "full"])
def test_roles__carry_no_managed_policies(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    assert not list(find_values(list(synthesis.templates.values()), "ManagedPolicyArns"))


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
    ],
)
def test_indexer__may_write_what_it_makes(full: Synthesis, key: str) -> None:
    assert allows(full.statements(full.role_of(INDEXER)), "s3:PutObject", f"{BUCKET}/{key}")


@pytest.mark.parametrize(
    "key",
    [
        ".fairway/access.json",
        ".fairway/audit/2026-01.json",
        ".fairway/other.json",
        "team/notices.json",
        "team/noarch/tool-1-0.conda",
        "team/noarch/tool-1-0.tar.bz2",
        "team/noarch/tool-1-0.conda.sigs",
        "team/noarch/patch_instructions.json",
        "team/noarch/other.txt",
    ],
)
def test_indexer__may_write_nothing_else(full: Synthesis, key: str) -> None:
    assert not allows(full.statements(full.role_of(INDEXER)), "s3:PutObject", f"{BUCKET}/{key}")


@pytest.mark.parametrize("key", [".fairway/access.json", ".fairway/audit/2026-01.jsonl"])
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject"])
def test_indexer__may_not_touch_access_rules(full: Synthesis, action: str, key: str) -> None:
    assert not allows(full.statements(full.role_of(INDEXER)), action, f"{BUCKET}/{key}")


@pytest.mark.parametrize(
    ("key", "may"),
    [
        ("team/noarch/tool-1-0.conda", True),
        ("team/noarch/tool-1-0.conda.sigs", True),
        ("team/noarch/patch_instructions.json", True),
        ("tool-1-0.conda", True),
        ("a/b/c/tool-1-0.tar.bz2", True),
        ("a/b/c/Tool-1-0.TAR.BZ2", True),
        ("team/noarch/repodata_from_packages.json.zst", True),
        ("team/noarch/shards/00ff.msgpack.zst", True),
        (".fairway/cards/team/noarch/00ff.json.zst", True),
        (".fairway/rejected/team/noarch/tool-1-0.conda/1/reason.json", True),
        ("team/noarch/repodata.json", False),
        ("team/noarch/repodata_shards.msgpack.zst", False),
        ("team/notices.json", False),
        (".fairway/access.json", False),
    ],
)
def test_indexer__may_delete_what_it_sets_aside_or_sweeps(full: Synthesis, key: str, *, may: bool) -> None:
    statements = full.statements(full.role_of(INDEXER))
    assert allows(statements, "s3:DeleteObject", f"{BUCKET}/{key}") == may
    assert allows(statements, "s3:DeleteObjectVersion", f"{BUCKET}/{key}") == may


def test_indexer__has_no_say_over_the_bucket(full: Synthesis) -> None:
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


def test_authorizer__reads_one_object_and_logs(full: Synthesis) -> None:
    statements = full.statements(full.role_of(AUTHORIZER))
    assert [(each["Action"], each["Resource"]) for each in statements if each["Action"] == "s3:GetObject"] == [
        ("s3:GetObject", f"{BUCKET}/.fairway/access.json")
    ]
    (logging,) = [each for each in statements if each["Action"] != "s3:GetObject"]
    assert set(logging["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert logging["Resource"] == "arn:aws:logs:*:123456789012:log-group:/fairway/team/us-east-1/authorizer:*"


def test_keykeeper__writes_an_access_document_before_the_deployment_ends(plain: Synthesis) -> None:
    first_run = plain.only("Custom::FairwayAccessDocument")
    role = plain.role_of(KEY_REFRESHER)
    grants = {
        policy["Id"]
        for policy in plain.resources("AWS::IAM::Policy")
        if {"Ref": role["Id"]} in policy["Properties"]["Roles"]
    }
    assert grants
    assert grants <= set(first_run["DependsOn"])
    assert plain.only("AWS::S3::Bucket")["Id"] in first_run["DependsOn"]


def test_keykeeper__reads_and_replaces_one_object(full: Synthesis) -> None:
    statements = full.statements(full.role_of(KEY_REFRESHER))
    (grant,) = [each for each in statements if "s3:PutObject" in as_list(each["Action"])]
    assert set(grant["Action"]) == {"s3:GetObject", "s3:PutObject"}
    assert grant["Resource"] == f"{BUCKET}/.fairway/access.json"
    rest = {action for each in statements if each is not grant for action in as_list(each["Action"])}
    assert rest == {"logs:CreateLogStream", "logs:PutLogEvents"}


# Publishers


@pytest.mark.parametrize(
    ("name", "key", "may"),
    [
        ("release", "team/noarch/tool-1-0.conda", True),
        ("release", "team/linux-64/tool-1-0.tar.bz2", True),
        ("release", "team/noarch/repodata.json", False),
        ("release", "team/noarch/repodata_shards.msgpack.zst", False),
        ("release", "team/noarch/shards/00ff.msgpack.zst", False),
        ("release", "team/noarch/tool-1-0.conda.sigs", False),
        ("release", "team/noarch/patch_instructions.json", False),
        ("release", "team/noarch/index.html", False),
        ("release", "team/tool-1-0.conda", False),
        ("release", "other/noarch/tool-1-0.conda", False),
        ("release", "team-dev/noarch/tool-1-0.conda", False),
        ("release", ".fairway/access.json", False),
        ("ci", "team-dev/noarch/tool-1-0.conda", True),
        ("ci", "team-dev/linux-64/tool-1-0.conda.sigs", True),
        ("ci", "team-dev/noarch/patch_instructions.json", True),
        ("ci", "team-dev/osx-64/tool-1-0.conda", False),
        ("ci", "team-dev/noarch/other-1-0.conda", False),
        ("ci", "team/noarch/tool-1-0.conda", False),
        # The star of "*-dev" reaches across slashes; the denial stands before it.
        ("ci", ".fairway/cards/team-dev/noarch/tool-1-0.conda", False),
        ("ci", ".fairway/rejected/x-dev/noarch/tool-1-0.conda", False),
    ],
)
def test_publisher__may_upload_artifacts_to_its_channels_alone(
    full: Synthesis, name: str, key: str, *, may: bool
) -> None:
    assert allows(full.statements(full.publisher(name)), "s3:PutObject", f"{BUCKET}/{key}") == may


def test_publisher__deletes_only_where_granted(full: Synthesis) -> None:
    key = f"{BUCKET}/team-dev/noarch/tool-1-0.conda"
    assert allows(full.statements(full.publisher("ci")), "s3:DeleteObject", key)
    assert not allows(full.statements(full.publisher("ci")), "s3:DeleteObjectVersion", key)
    assert not allows(
        full.statements(full.publisher("release")), "s3:DeleteObject", f"{BUCKET}/team/noarch/tool-1-0.conda"
    )


@pytest.mark.parametrize(
    ("name", "key", "may"),
    [
        ("release", "team/noarch/repodata.json", True),
        ("release", ".fairway/rejected/team/noarch/tool-1-0.conda/1/reason.json", True),
        ("release", ".fairway/cards/team/noarch/00ff.json.zst", True),
        ("release", "other/noarch/repodata.json", False),
        ("release", ".fairway/access.json", False),
        ("release", ".fairway/cards/other/noarch/00ff.json.zst", False),
        ("release", ".fairway/rejected/other/noarch/tool-1-0.conda/1/reason.json", False),
        ("release", ".fairway/patches/team/noarch/00ff.json", False),
        ("ci", "team-dev/noarch/repodata.json", False),
        ("ci", ".fairway/cards/team-dev/noarch/00ff.json.zst", False),
        # A glob that begins with a star reaches below .fairway/ in what is granted, and not in what is left.
        ("all", "team/noarch/repodata.json", True),
        ("all", "0_team/noarch/repodata.json", True),
        ("all", "_team/noarch/repodata.json", True),
        ("all", ".fairway/cards/team/noarch/00ff.json.zst", True),
        ("all", ".fairway/rejected/team/noarch/tool-1-0.conda/1/reason.json", True),
        ("some", "play/noarch/repodata.json", True),
        ("some", ".fairway/cards/play/noarch/00ff.json.zst", True),
        ("some", ".fairway/cards/team/noarch/00ff.json.zst", False),
        ("some", ".fairway/rejected/team/noarch/tool-1-0.conda/1/object", False),
    ],
)
def test_publisher__reads_its_channels_where_granted(full: Synthesis, name: str, key: str, *, may: bool) -> None:
    assert allows(full.statements(full.publisher(name)), "s3:GetObject", f"{BUCKET}/{key}") == may


@pytest.mark.parametrize("name", ["release", "ci", "all", "some"])
def test_publisher__attack_reads_what_is_private(full: Synthesis, name: str) -> None:
    statements = full.statements(full.publisher(name))
    written = [
        resource.removeprefix(f"{BUCKET}/")
        for grant in full.statements(full.role_of(INDEXER))
        if grant["Effect"] == "Allow" and "s3:PutObject" in as_list(grant["Action"])
        for resource in as_list(grant["Resource"])
    ]
    patterns = [pattern for pattern in written if pattern.startswith(".fairway/")]
    assert len(patterns) > 5
    theirs = (".fairway/cards/*", ".fairway/rejected/*")
    keys = [pattern.replace("*", "y/y/y-1-0.conda") for pattern in patterns if pattern not in theirs]
    for key in [*keys, ".fairway/access.json", ".fairway/audit/2026-01.jsonl", ".fairway/y/to-come.json"]:
        for action in ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes", "s3:PutObject"):
            assert not allows(statements, action, f"{BUCKET}/{key}"), (action, key)


def test_publisher__lists_its_channels_alone(full: Synthesis) -> None:
    (listing,) = [
        each
        for each in full.statements(full.publisher("release"))
        if each["Effect"] == "Allow" and "s3:ListBucket" in as_list(each["Action"])
    ]
    assert listing["Condition"] == {
        "StringLike": {"s3:prefix": ["team/*", ".fairway/cards/team/*", ".fairway/rejected/team/*"]}
    }
    assert "s3:ListBucket" not in json.dumps(full.statements(full.publisher("ci")))


@pytest.mark.parametrize(
    ("name", "prefix", "may"),
    [
        ("release", "team/noarch/", True),
        ("release", ".fairway/rejected/team/noarch/", True),
        ("release", "", False),
        ("release", "other/", False),
        ("all", "team/noarch/", True),
        ("all", ".fairway/rejected/team/noarch/", True),
        ("all", ".fairway/cards/team/noarch/", True),
        ("all", "", False),
        ("all", ".fairway/", False),
        ("all", ".fairway/audit/", False),
        ("all", ".fairway/access.json", False),
        ("some", ".fairway/rejected/play/noarch/", True),
        ("some", ".fairway/rejected/team/noarch/", False),
        ("some", ".fairway/audit/", False),
    ],
)
def test_publisher__attack_lists_what_is_private(full: Synthesis, name: str, prefix: str, *, may: bool) -> None:
    statements = [each for each in full.statements(full.publisher(name)) if "s3:ListBucket" in as_list(each["Action"])]
    effects = {each["Effect"] for each in statements if holds(each["Condition"], prefix)}
    assert (effects == {"Allow"}) == may


def holds(condition: dict[str, Any], prefix: str) -> bool:
    assert set(condition) <= {"StringLike", "StringNotLike"}
    return all(
        any(fnmatchcase(prefix, pattern) for pattern in as_list(values["s3:prefix"])) == (operator == "StringLike")
        for operator, values in condition.items()
    )


def test_publisher__of_more_patterns_than_a_role_holds_is_refused_before_deploying(tmp_path: Path) -> None:
    many = {"channels": [f"channel-{number}" for number in range(60)]}
    publisher = EVERYTHING["publishers"][0] | many
    with pytest.raises(UsageError, match="publisher 'release' has more patterns than a role can hold"):
        synthesise(tmp_path, settings=EVERYTHING | {"publishers": [publisher]})


@pytest.mark.parametrize(("names", "glob"), [(40, "team"), (20, "*y")])
def test_publisher__of_many_patterns_fits_into_policies(tmp_path: Path, names: int, glob: str) -> None:
    channels = [glob, *(f"channel-{number}" for number in range(names))]
    publisher = EVERYTHING["publishers"][0] | {"channels": channels}
    synthesis = synthesise(tmp_path, settings=EVERYTHING | {"publishers": [publisher]})
    for kind, most in (("AWS::IAM::Policy", 10240), ("AWS::IAM::ManagedPolicy", 6144)):
        for policy in synthesis.resources(kind):
            assert len(json.dumps(policy["Properties"]["PolicyDocument"], separators=(",", ":"))) <= most


def test_publisher__of_principals_is_taken_by_them_alone(full: Synthesis) -> None:
    (trust,) = full.publisher("release")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/deployer"}
    assert trust["Action"] == "sts:AssumeRole"


def test_publisher__of_workloads_is_bound_to_repository_and_branch(full: Synthesis) -> None:
    trusts = full.publisher("ci")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert {trust["Action"] for trust in trusts} == {"sts:AssumeRoleWithWebIdentity"}
    assert [trust["Condition"] for trust in trusts] == [
        {
            "StringEquals": {"token.actions.githubusercontent.com:aud": "sts.amazonaws.com"},
            "StringLike": {
                "token.actions.githubusercontent.com:sub": [
                    "repo:example/tool:ref:refs/heads/main",
                    "repo:example/tool:ref:refs/tags/v*",
                ]
            },
        },
        {
            "StringEquals": {"gitlab.com:aud": "https://gitlab.com"},
            "StringLike": {"gitlab.com:sub": ["project_path:group/tool:ref_type:branch:ref:main"]},
        },
    ]
    assert {each["Properties"]["Url"] for each in full.resources("AWS::IAM::OIDCProvider")} == {
        "https://token.actions.githubusercontent.com",
        "https://gitlab.com",
    }


def test_publisher__uses_a_provider_that_the_account_has(tmp_path: Path) -> None:
    settings = EVERYTHING | {
        "existing_oidc_providers": ["https://token.actions.githubusercontent.com", "https://gitlab.com"]
    }
    synthesis = synthesise(tmp_path, settings=settings)
    assert not synthesis.resources("AWS::IAM::OIDCProvider")
    trusts = synthesis.publisher("ci")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trusts[0]["Principal"] == {
        "Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    }


# CloudFront


@pytest.mark.parametrize("which", ["plain", "full", "abroad", "emulated"])
def test_behaviours__all_ask_the_authorizer_first(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    found = behaviours(synthesis)
    assert set(found) == {"*", "*.conda", "*.tar.bz2", "*/shards/*"}
    versions = set()
    for behaviour in found.values():
        versions.add(json.dumps(functions_of(behaviour)["viewer-request"]))
        assert "FunctionAssociations" not in behaviour
    assert len(versions) == 1


@pytest.mark.parametrize("which", ["plain", "full", "abroad", "emulated"])
def test_behaviours__of_artifacts_and_shards_mark_what_may_be_kept(which: str, request: pytest.FixtureRequest) -> None:
    found = behaviours(request.getfixturevalue(which))
    marks = {pattern: functions_of(behaviour).get("origin-response") for pattern, behaviour in found.items()}
    assert marks.pop("*") is None
    assert None not in marks.values()
    assert len({json.dumps(version) for version in marks.values()}) == 1
    assert marks["*.conda"] != functions_of(found["*.conda"])["viewer-request"]
    for behaviour in found.values():
        assert set(functions_of(behaviour)) <= {"viewer-request", "origin-response"}


def functions_of(behaviour: dict[str, Any]) -> dict[str, Any]:
    associations = behaviour["LambdaFunctionAssociations"]
    assert not any(each.get("IncludeBody") for each in associations)
    found = {each["EventType"]: each["LambdaFunctionARN"] for each in associations}
    assert len(found) == len(associations)
    return found


def test_behaviours__take_get_and_head_over_https_alone(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        assert set(behaviour["AllowedMethods"]) == {"GET", "HEAD"}
        # A redirect would come after the credential has crossed the wire.
        assert behaviour["ViewerProtocolPolicy"] == "https-only"


def test_behaviours__key_their_cache_by_path_alone(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        policy = referred(full, behaviour["CachePolicyId"], "AWS::CloudFront::CachePolicy")["CachePolicyConfig"]
        parameters = policy["ParametersInCacheKeyAndForwardedToOrigin"]
        assert parameters["CookiesConfig"] == {"CookieBehavior": "none"}
        assert parameters["HeadersConfig"] == {"HeaderBehavior": "none"}
        assert parameters["QueryStringsConfig"] == {"QueryStringBehavior": "none"}
        assert "OriginRequestPolicyId" not in behaviour
        assert "ForwardedValues" not in behaviour


@pytest.mark.parametrize(
    ("pattern", "default_seconds"),
    [("*", 30), ("*.conda", 31536000), ("*.tar.bz2", 31536000), ("*/shards/*", 31536000)],
)
def test_behaviours__keep_index_files_short_and_the_rest_long(
    full: Synthesis, pattern: str, default_seconds: int
) -> None:
    policy = referred(full, behaviours(full)[pattern]["CachePolicyId"], "AWS::CloudFront::CachePolicy")
    assert policy["CachePolicyConfig"]["DefaultTTL"] == default_seconds
    assert policy["CachePolicyConfig"]["MinTTL"] == 0  # what S3 says of an object goes first


@pytest.mark.parametrize(
    ("pattern", "compress"), [("*", True), ("*.conda", False), ("*.tar.bz2", False), ("*/shards/*", False)]
)
def test_behaviours__compress_text_alone(full: Synthesis, pattern: str, *, compress: bool) -> None:
    behaviour = behaviours(full)[pattern]
    policy = referred(full, behaviour["CachePolicyId"], "AWS::CloudFront::CachePolicy")["CachePolicyConfig"]
    parameters = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert behaviour["Compress"] is compress
    assert parameters["EnableAcceptEncodingGzip"] is compress
    assert parameters["EnableAcceptEncodingBrotli"] is compress


def test_headers__are_safe_and_never_claim_an_encoding(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        config = referred(full, behaviour["ResponseHeadersPolicyId"], "AWS::CloudFront::ResponseHeadersPolicy")[
            "ResponseHeadersPolicyConfig"
        ]
        security = config["SecurityHeadersConfig"]
        assert security["StrictTransportSecurity"]["AccessControlMaxAgeSec"] == 31536000
        assert security["ContentTypeOptions"] == {"Override": True}
        assert security["ReferrerPolicy"]["ReferrerPolicy"] == "no-referrer"
        assert security["ContentSecurityPolicy"]["ContentSecurityPolicy"].startswith("default-src 'none';")
        assert "script-src" not in security["ContentSecurityPolicy"]["ContentSecurityPolicy"]
        assert "ncoding" not in json.dumps(config)


def test_headers__of_no_policy_say_how_long_an_answer_may_be_kept(full: Synthesis) -> None:
    # A policy can't tell a file from an error: a 404 would be kept as long.
    for policy in full.resources("AWS::CloudFront::ResponseHeadersPolicy"):
        assert "ache-" not in json.dumps(policy["Properties"])
        assert "CustomHeadersConfig" not in policy["Properties"]["ResponseHeadersPolicyConfig"]


def test_distribution__signs_every_request_to_the_bucket(full: Synthesis) -> None:
    control = full.only("AWS::CloudFront::OriginAccessControl")
    assert control["Properties"]["OriginAccessControlConfig"]["SigningBehavior"] == "always"
    assert control["Properties"]["OriginAccessControlConfig"]["SigningProtocol"] == "sigv4"
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    (origin,) = config["Origins"]
    assert origin["OriginAccessControlId"] == {"Fn::GetAtt": [control["Id"], "Id"]}
    assert config["DefaultRootObject"] == "index.html"


def test_distribution__forgets_errors_at_once(full: Synthesis) -> None:
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    ttls = {each["ErrorCode"]: each["ErrorCachingMinTTL"] for each in config["CustomErrorResponses"]}
    # All that CloudFront knows; one that is left out is kept for ten seconds.
    assert set(ttls) == {400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504}
    assert max(ttls.values()) <= 5
    assert not list(find_values(config["CustomErrorResponses"], "ResponseCode"))  # a 404 stays a 404


def test_distribution__speaks_new_protocols(full: Synthesis) -> None:
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    assert config["HttpVersion"] == "http2and3"
    assert config["Aliases"] == ["conda.example.com"]
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert config["ViewerCertificate"]["SslSupportMethod"] == "sni-only"


# The functions at the edge


def test_authorizer__carries_its_settings(full: Synthesis) -> None:
    assert read_settings(full) == {
        "bucket": "fairway-team-123456789012-us-east-1",
        "endpoint_url": None,
        "origin_domain": "fairway-team-123456789012-us-east-1.s3.us-east-1.amazonaws.com",
        "public_channels": ["open", "free-*"],
        "refresh_seconds": 30,
        "region": "us-east-1",
        "stale_seconds": 900,
    }


def test_authorizer__of_the_emulator_reads_from_it(emulated: Synthesis) -> None:
    assert read_settings(emulated)["endpoint_url"] == "http://127.0.0.1:4566"


@pytest.mark.parametrize("handler", [AUTHORIZER, ORIGIN_RESPONSE])
def test_edge_functions__stay_within_the_limits_of_viewer_requests(plain: Synthesis, handler: str) -> None:
    properties = plain.function(handler)["Properties"]
    assert properties["MemorySize"] == 128
    assert properties["Timeout"] == 5
    assert not {"Environment", "Layers", "VpcConfig", "DeadLetterConfig", "TracingConfig"} & set(properties)


@pytest.mark.parametrize("handler", [AUTHORIZER, ORIGIN_RESPONSE])
def test_edge_functions__may_be_run_at_the_edge(full: Synthesis, handler: str) -> None:
    trust = full.role_of(handler)["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    services = {service for each in trust for service in as_list(each["Principal"]["Service"])}
    assert services == {"lambda.amazonaws.com", "edgelambda.amazonaws.com"}


def test_edge_functions__come_in_one_small_zip(full: Synthesis) -> None:
    code = full.function(AUTHORIZER)["Properties"]["Code"]
    assert full.function(ORIGIN_RESPONSE)["Properties"]["Code"] == code
    path = full.folder / f"asset.{code['S3Key']}"
    assert path.stat().st_size <= 64 * 1024
    with zipfile.ZipFile(path) as archive:
        assert {"lambdas/authorizer/handler.py", "lambdas/authorizer/origin_response.py"} <= set(archive.namelist())


@pytest.mark.parametrize("which", ["plain", "full", "abroad", "emulated"])
def test_origin_response__may_log_and_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    role = synthesis.role_of(ORIGIN_RESPONSE)
    assert role["Id"] != synthesis.role_of(AUTHORIZER)["Id"]
    (statement,) = synthesis.statements(role)
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert re.fullmatch(
        r"arn:aws:logs:\*:\d{12}:log-group:/fairway/[a-z]+/[a-z0-9-]+/authorizer:\*", statement["Resource"]
    )
    for resource in (f"{BUCKET}/.fairway/access.json", f"{BUCKET}/team/noarch/tool-1-0.conda"):
        assert not allows([statement], "s3:GetObject", resource)


def read_settings(synthesis: Synthesis) -> dict[str, Any]:
    code = synthesis.function(AUTHORIZER)["Properties"]["Code"]["S3Key"]
    with zipfile.ZipFile(synthesis.folder / f"asset.{code}") as archive:
        settings: dict[str, Any] = json.loads(archive.read("settings.json"))
        return settings


# Another region


def test_abroad__the_functions_are_where_cloudfront_takes_them_from(abroad: Synthesis) -> None:
    manifest = json.loads((abroad.folder / "manifest.json").read_text())
    regions = {
        artifact["properties"].get("stackName", name): artifact["environment"].rsplit("/", 1)[1]
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert regions == {
        "fairway-team": "eu-central-1",
        "fairway-team-eu-central-1-authorizer": "us-east-1",
        "fairway-team-eu-central-1-edge": "us-east-1",
    }
    for handler in (AUTHORIZER, ORIGIN_RESPONSE):
        assert abroad.function(handler)["Stack"] == "fairway-team-eu-central-1-authorizer"
    versions = abroad.resources("AWS::Lambda::Version")
    assert [each["Stack"] for each in versions] == ["fairway-team-eu-central-1-authorizer"] * 2
    for handler in (INDEXER, RECONCILER, KEY_REFRESHER):
        assert abroad.function(handler)["Stack"] == "fairway-team"


def test_abroad__the_bucket_and_its_readers_agree_on_the_region(abroad: Synthesis) -> None:
    bucket = "fairway-team-123456789012-eu-central-1"
    assert abroad.only("AWS::S3::Bucket")["Properties"]["BucketName"] == bucket
    settings = read_settings(abroad)
    assert settings["bucket"] == bucket
    assert settings["region"] == "eu-central-1"
    assert settings["origin_domain"] == f"{bucket}.s3.eu-central-1.amazonaws.com"


def test_abroad__the_edges_numbers_and_logs_are_in_its_region(abroad: Synthesis) -> None:
    edge = "fairway-team-eu-central-1-edge"
    assert {each["Stack"] for each in abroad.resources("AWS::Logs::Delivery")} == {edge}
    alarms = abroad.resources("AWS::CloudWatch::Alarm")
    assert {each["Stack"] for each in alarms if each["Properties"]["Namespace"] == "AWS/CloudFront"} == {edge}
    # The authorizer logs in whichever region it runs; both that have a group watch it.
    watched = [
        each["Stack"]
        for each in abroad.resources("AWS::Logs::MetricFilter")
        if "Authorizer" in each["Properties"]["MetricTransformations"][0]["MetricName"]
    ]
    assert sorted(watched) == ["fairway-team", edge]


# Beside others


@pytest.fixture(scope="session")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> list[Synthesis]:
    """Deployments of one account: of one name in two regions, and of another name in each of these."""
    settings = [
        EVERYTHING | ABROAD | {"name": name, "region": region}
        for region in ("eu-central-1", "us-east-1", "us-west-2")
        for name in ("team", "lab")
    ]
    return [synthesise(tmp_path_factory.mktemp("neighbour"), settings=each) for each in settings]


# Where a resource of a type has its physical name, and the types that are one to an account wherever they are.
NAMES = ("Name", *(f"{kind}Name" for kind in ("Alarm", "Bucket", "Dashboard", "Function", "LogGroup", "Queue", "Role")))
GLOBAL = ("AWS::CloudFront::", "AWS::IAM::", "AWS::CloudWatch::Dashboard", "AWS::Logs::Delivery", "AWS::S3::Bucket")
NAMED_BY_OTHERS = (
    "AWS::IAM::Policy",  # its name is unique in its role
    "AWS::IAM::OIDCProvider",  # one for each issuer in an account: existing_oidc_providers
    "AWS::Logs::MetricFilter",  # its name is unique in its log group, which it names
    "Custom::",  # reads what another resource of the same deployment is called
)


def find_physical_names(synthesis: Synthesis) -> set[tuple[str, str, str]]:
    """Return where (a region, or everywhere), of which type and how each named thing is called; stacks too."""
    manifest = json.loads((synthesis.folder / "manifest.json").read_text())
    names = set()
    for stack_id, artifact in manifest["artifacts"].items():
        if artifact["type"] != "aws:cloudformation:stack":
            continue
        stack, region = artifact["properties"].get("stackName", stack_id), artifact["environment"].rsplit("/", 1)[1]
        names.add((region, "AWS::CloudFormation::Stack", stack))
        for resource in synthesis.templates[stack]["Resources"].values():
            kind, properties = resource["Type"], resource.get("Properties", {})
            if kind.startswith(NAMED_BY_OTHERS):
                continue
            where = "everywhere" if kind.startswith(GLOBAL) else region
            configs = [properties, *(value for key, value in properties.items() if key.endswith("Config"))]
            names |= {
                (where, kind, config[key])
                for config in configs
                if isinstance(config, dict)
                for key in NAMES
                if isinstance(config.get(key), str)
            }
    return names


def test_neighbours__share_no_name(neighbours: list[Synthesis]) -> None:
    found = [find_physical_names(each) for each in neighbours]
    kinds = {kind for names in found for _, kind, _ in names}
    assert kinds >= {
        "AWS::CloudFormation::Stack",
        "AWS::CloudFront::CachePolicy",
        "AWS::CloudFront::OriginAccessControl",
        "AWS::CloudFront::ResponseHeadersPolicy",
        "AWS::CloudWatch::Dashboard",
        "AWS::Logs::DeliverySource",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SSM::Parameter",
    }
    shared = [name for name, times in Counter(name for names in found for name in names).items() if times > 1]
    assert not shared


def test_neighbours__are_alarmed_by_their_own_metrics_alone(neighbours: list[Synthesis]) -> None:
    metrics = Counter(
        json.dumps([stack_region(each, alarm["Stack"]), properties.get("Dimensions"), properties["MetricName"]])
        for each in neighbours
        for alarm in each.resources("AWS::CloudWatch::Alarm")
        # What refers to a resource of the same stack is the deployment's own.
        if '"Ref"' not in json.dumps((properties := alarm["Properties"]).get("Dimensions", []))
        and "Fn::" not in json.dumps(properties.get("Dimensions", []))
    )
    assert len(metrics) > 2 * len(neighbours)
    assert set(metrics.values()) == {1}
    for each in neighbours:
        variables = each.function(INDEXER)["Properties"]["Environment"]["Variables"]
        (refused,) = [
            alarm["Properties"]
            for alarm in each.resources("AWS::CloudWatch::Alarm")
            if alarm["Properties"]["MetricName"] == "RejectedUploads"
        ]
        assert refused["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
        assert refused["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


def stack_region(synthesis: Synthesis, stack: str) -> str:
    manifest = json.loads((synthesis.folder / "manifest.json").read_text())
    (environment,) = [
        artifact["environment"]
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack" and artifact["properties"].get("stackName", name) == stack
    ]
    return str(environment.rsplit("/", 1)[1])


# Watching


def test_alarms__name_what_needs_a_person(plain: Synthesis) -> None:
    metrics = {each["Properties"]["MetricName"] for each in plain.resources("AWS::CloudWatch::Alarm")}
    assert metrics == {
        "5xxErrorRate",
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        "AuthorizerFailures-fairway-conda-us-east-1",
        "Errors",
        "IssuersUnavailable-fairway-conda-us-east-1",
        "RejectedUploads",
    }
    assert len(plain.resources("AWS::CloudWatch::Alarm")) <= 10  # free, AWS says
    assert len(plain.resources("AWS::CloudWatch::Dashboard")) == 1


def test_alarms__tell_of_an_unfit_access_document_within_the_hour(plain: Synthesis, abroad: Synthesis) -> None:
    for synthesis in (plain, abroad):
        key_refresher = synthesis.function(KEY_REFRESHER)
        (alarm,) = [
            each
            for each in synthesis.resources("AWS::CloudWatch::Alarm", stack=key_refresher["Stack"])
            if each["Properties"].get("Dimensions") == [{"Name": "FunctionName", "Value": {"Ref": key_refresher["Id"]}}]
        ]
        found = alarm["Properties"]
        assert (found["MetricName"], found["Statistic"], found["Period"]) == ("Errors", "Sum", 3600)
        assert (found["Threshold"], found["EvaluationPeriods"]) == (0, 1)
        assert found["ComparisonOperator"] == "GreaterThanThreshold"
        rules = [each["Properties"] for each in synthesis.resources("AWS::Events::Rule")]
        (hourly,) = [each for each in rules if each["ScheduleExpression"] == "rate(1 hour)"]
        assert hourly["Targets"][0]["Arn"] == {"Fn::GetAtt": [key_refresher["Id"], "Arn"]}


def test_alarms__issuers_that_do_not_answer_are_counted_by_what_the_keykeeper_logs(plain: Synthesis) -> None:
    group = plain.function(KEY_REFRESHER)["Properties"]["LoggingConfig"]["LogGroup"]
    (counted,) = [
        each["Properties"]
        for each in plain.resources("AWS::Logs::MetricFilter")
        if each["Properties"]["LogGroupName"] == group
    ]
    assert counted["FilterPattern"] == f'{{ $.code = "{ISSUERS_UNAVAILABLE}" }}'
    (alarm,) = [
        each["Properties"]
        for each in plain.resources("AWS::CloudWatch::Alarm")
        if each["Properties"]["MetricName"] == counted["MetricTransformations"][0]["MetricName"]
    ]
    assert alarm["Threshold"] == 3


def test_alarms__mail_where_configured(full: Synthesis, plain: Synthesis) -> None:
    topic = full.only("AWS::SNS::Topic")["Id"]
    assert full.only("AWS::SNS::Subscription")["Properties"]["Endpoint"] == "oncall@example.com"
    for alarm in full.resources("AWS::CloudWatch::Alarm"):
        assert alarm["Properties"]["AlarmActions"] == [{"Ref": topic}]
    statements = full.only("AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert {"Service": "cloudwatch.amazonaws.com"} in [each["Principal"] for each in statements]
    assert not plain.resources("AWS::SNS::Topic")


def test_access_log__has_no_field_that_could_hold_a_token(full: Synthesis) -> None:
    fields = full.only("AWS::Logs::Delivery")["Properties"]["RecordFields"]
    assert fields == list(ACCESS_LOG_FIELDS)
    for leak in ("cs-uri-stem", "cs-uri-query", "cs(Referer)", "cs(Cookie)", "cs-headers"):
        assert leak not in fields


def test_access_log__is_off_unless_asked_for(plain: Synthesis) -> None:
    assert not plain.resources("AWS::Logs::DeliverySource")
    assert "Logging" not in plain.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]


# Outputs


def test_outputs__are_all_there(plain: Synthesis) -> None:
    (outputs,) = [template["Outputs"] for template in plain.templates.values() if "Outputs" in template]
    assert set(outputs) >= {
        "AuthorizerVersionArn",
        "BucketName",
        "ChannelUrl",
        "CreateTokenCommand",
        "DeadLetterQueueUrl",
        "DistributionId",
        "EventBusName",
        "IndexerFunctionName",
        "InstallCommand",
        "PublishCommand",
        "QueueUrl",
    }
    bucket = "fairway-conda-123456789012-us-east-1"
    assert outputs["PublishCommand"]["Value"] == f"aws s3 cp PACKAGE.conda s3://{bucket}/CHANNEL/noarch/"


def test_outputs__suggest_what_the_bucket_will_take(full: Synthesis) -> None:
    (outputs,) = [template["Outputs"] for template in full.templates.values() if "Outputs" in template]
    # With both versions of the AWS CLI: "aws s3 cp --no-overwrite" is the second's alone.
    assert outputs["PublishCommand"]["Value"] == (
        "aws s3api put-object --if-none-match '*' --bucket fairway-team-123456789012-us-east-1 "
        "--key CHANNEL/noarch/PACKAGE.conda --body PACKAGE.conda"
    )


def test_templates__hold_no_secrets(full: Synthesis) -> None:
    types = {resource["Type"] for template in full.templates.values() for resource in template["Resources"].values()}
    assert not types & {"AWS::IAM::AccessKey", "AWS::IAM::User", "AWS::SecretsManager::Secret"}


# Checkers


def test_build__fails_at_a_finding_that_nobody_acknowledged(tmp_path: Path) -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"account": "123456789012"}
    app = cdk.App(context=context, outdir=str(tmp_path))
    s3.Bucket(build(app), "PlainBucket")
    with pytest.raises(RuntimeError, match="AwsSolutions-S1"):
        app.synth()
