"""Publishers' roles: who may assume them, and what they may do in the bucket."""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from lambdas.channel.errors import UsageError
from tests.infra.conftest import EVERYTHING
from tests.infra.synthesis import BUCKET, INDEXER, Synthesis, allows, as_list, synthesise

pytestmark = pytest.mark.xdist_group("synthesis")


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
        ("ci", "dev-team/noarch/tool-1-0.conda", True),
        ("ci", "dev-team/linux-64/tool-1-0.conda.sigs", True),
        ("ci", "dev-team/linux-64/tool-1-0.conda.sigs.00ff", True),
        ("ci", "dev-team/linux-64/other-1-0.conda.sigs.00ff", False),
        ("release", "team/noarch/tool-1-0.conda.sigs.00ff", False),
        ("ci", "dev-team/noarch/patch_instructions.json", True),
        ("ci", "dev-team/osx-64/tool-1-0.conda", False),
        ("ci", "dev-team/noarch/other-1-0.conda", False),
        ("ci", "team/noarch/tool-1-0.conda", False),
        ("ci", ".fairway/cards/dev-team/noarch/tool-1-0.conda", False),
        ("ci", ".fairway/rejected/dev-x/noarch/tool-1-0.conda", False),
    ],
)
def test_publisher__may_upload_artifacts_to_its_channels_alone(
    full: Synthesis, name: str, key: str, *, may: bool
) -> None:
    assert allows(full.statements(full.publisher(name)), "s3:PutObject", f"{BUCKET}/{key}") == may


def test_publisher__attack_replaces_a_copy_of_attestations(full: Synthesis) -> None:
    """Copies are created, never replaced or deleted: every grant on them asks for If-None-Match."""
    key = f"{BUCKET}/dev-team/noarch/tool-1-0.conda.sigs.00ff"
    grants = [
        each
        for each in full.statements(full.publisher("ci"))
        if each["Effect"] == "Allow" and any(fnmatchcase(key, pattern) for pattern in as_list(each["Resource"]))
    ]
    assert [(each["Action"], each["Condition"]) for each in grants] == [
        ("s3:PutObject", {"Null": {"s3:if-none-match": "false"}})
    ]


def test_publisher__may_delete_if_granted(full: Synthesis) -> None:
    key = f"{BUCKET}/dev-team/noarch/tool-1-0.conda"
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
        ("ci", "dev-team/noarch/repodata.json", False),
        ("ci", ".fairway/cards/dev-team/noarch/00ff.json.zst", False),
        # The glob "*" matches keys below .fairway/; the denial overrides the grant.
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
def test_publisher__may_read_its_channels_if_granted(full: Synthesis, name: str, key: str, *, may: bool) -> None:
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


def test_publisher__too_many_patterns(tmp_path: Path) -> None:
    many = {"channels": [f"channel-{number}" for number in range(60)]}
    publisher = EVERYTHING["publishers"][0] | many
    with pytest.raises(UsageError, match="publisher 'release' has more patterns than a role can hold"):
        synthesise(tmp_path, settings=EVERYTHING | {"publishers": [publisher]})


@pytest.mark.parametrize(("names", "glob"), [(40, "team"), (20, "*")])
def test_publisher__many_patterns_fit_into_policies(tmp_path: Path, names: int, glob: str) -> None:
    channels = [glob, *(f"channel-{number}" for number in range(names))]
    publisher = EVERYTHING["publishers"][0] | {"channels": channels}
    synthesis = synthesise(tmp_path, settings=EVERYTHING | {"publishers": [publisher]})
    for kind, most in (("AWS::IAM::Policy", 10240), ("AWS::IAM::ManagedPolicy", 6144)):
        for policy in synthesis.resources(kind):
            assert len(json.dumps(policy["Properties"]["PolicyDocument"], separators=(",", ":"))) <= most


def test_publisher__of_principals_trusts_them_alone(full: Synthesis) -> None:
    (trust,) = full.publisher("release")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/deployer"}
    assert trust["Action"] == "sts:AssumeRole"


def test_publisher__of_workloads_trusts_their_repository_and_branch(full: Synthesis) -> None:
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
    for provider in full.resources("AWS::IAM::OIDCProvider"):
        assert (provider["DeletionPolicy"], provider["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_publisher__existing_provider(tmp_path: Path) -> None:
    settings = EVERYTHING | {
        "existing_oidc_providers": ["https://token.actions.githubusercontent.com", "https://gitlab.com"]
    }
    synthesis = synthesise(tmp_path, settings=settings)
    assert not synthesis.resources("AWS::IAM::OIDCProvider")
    trusts = synthesis.publisher("ci")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trusts[0]["Principal"] == {
        "Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    }
