import dataclasses
import json
import re
from typing import Any

import pytest

from infra.config import Configuration, Publisher, Workload
from infra.parse_config import parse_configuration
from lambdas.channel.errors import UsageError
from tests.infra.synthesis import ROOT

PUBLISHER = {"name": "ci", "channels": ["team"], "principals": ["arn:aws:iam::123456789012:root"]}


def parse(settings: dict[str, Any] | None = None, **above: object) -> Configuration:
    return parse_configuration({"environments": {"production": {"account": "123456789012"} | (settings or {})}} | above)


def parse_publisher(**settings: object) -> Configuration:
    return parse({"publishers": [PUBLISHER | settings]})


def test_parse_configuration__fills_in_defaults() -> None:
    assert parse() == Configuration(environment="production", name="conda", account="123456789012", region="us-east-1")


def test_parse_configuration__production_in_cdk_json_has_the_defaults() -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    configuration = parse_configuration(context | {"account": "123456789012"})
    assert configuration == Configuration(environment="production", account="123456789012")


@pytest.mark.parametrize("described", [Configuration, Publisher])
def test_configuration__defaults_match_the_documentation(described: type) -> None:
    text = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
    deployment, _, publisher = text.partition("\n### Publishers\n")
    page = publisher if described is Publisher else deployment
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", page, re.MULTILINE)
    documented = {}
    for names, values in rows:
        defaults = values.split(", ")
        for position, name in enumerate(names.split(", ")):
            documented[name.strip("`")] = defaults[position % len(defaults)].strip("`")
    fields = {field.name: field.default for field in dataclasses.fields(described)}
    checked = {
        name: format_default(default)
        for name, default in fields.items()
        if default is not dataclasses.MISSING and name not in ELSEWHERE
    }
    assert len(checked) > 5
    assert checked.items() <= documented.items()


# The page describes the domain in words and workloads by their source; the others are no settings.
ELSEWHERE = {"certificate_arn", "domain", "endpoint_url", "is_account_known", "workloads"}


def format_default(default: object) -> str:
    if default in (None, ()):
        return "none"
    return json.dumps(list(default) if isinstance(default, tuple) else default).strip('"')


def test_parse_configuration__is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().name = "other"  # type: ignore[misc]  # what is proven


def test_parse_configuration__overrides_settings() -> None:
    configuration = parse({"name": "below", "region": "us-east-1"}, name="above", region="eu-west-1")
    assert (configuration.name, configuration.region) == ("above", "eu-west-1")


def test_parse_configuration__chooses_the_environment() -> None:
    environments = {"production": {"name": "big"}, "staging": {"name": "small"}}
    configuration = parse_configuration({"environments": environments, "environment": "staging"})
    assert (configuration.environment, configuration.name) == ("staging", "small")


def test_parse_configuration__derives_names() -> None:
    configuration = parse({"name": "team", "region": "eu-central-1"})
    assert configuration.stack_name == "fairway-team"
    assert configuration.global_name == "fairway-team-eu-central-1"
    assert configuration.bucket_name == "fairway-team-123456789012-eu-central-1"
    assert configuration.bucket_domain == f"{configuration.bucket_name}.s3.eu-central-1.amazonaws.com"


def test_parse_configuration__longest_names_make_a_legal_bucket() -> None:
    configuration = parse({"name": "a" * 20, "region": "ap-southeast-1"})
    assert len(configuration.bucket_name) <= 63
    assert len(configuration.global_name) <= 60  # of an origin access control 64, of a delivery source 60


@pytest.mark.parametrize(
    ("settings", "above", "account", "known"),
    [
        ({"account": "111111111111"}, {"default_account": "222222222222"}, "111111111111", True),
        ({"account": None}, {"default_account": "222222222222"}, "222222222222", True),
        ({"account": None}, {"default_account": None}, "000000000000", False),
        ({"account": None}, {"default_account": "2" * 12, "endpoint_url": "http://localhost:1"}, "000000000000", True),
    ],
)
def test_parse_configuration__finds_the_account(
    settings: dict[str, Any], above: dict[str, Any], account: str, *, known: bool
) -> None:
    configuration = parse(settings, **above)
    assert (configuration.account, configuration.is_account_known) == (account, known)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4566", "http://localhost:4566/", "https://[::1]:4566"])
def test_parse_configuration__endpoint_of_an_emulator(url: str) -> None:
    configuration = parse(endpoint_url=url)
    assert configuration.is_emulated
    assert configuration.endpoint_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://s3.amazonaws.com",
        "http://10.0.0.1:4566",
        "http://127.0.0.1.example.com",
        "http://localhost@example.com",
        "ftp://localhost",
        "localhost:4566",
    ],
)
def test_parse_configuration__endpoint_on_another_machine(url: str) -> None:
    with pytest.raises(UsageError, match="endpoint_url"):
        parse(endpoint_url=url)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Team"}, r"production\.name is invalid: 'Team'"),
        ({"name": "a" * 21}, r"production\.name"),
        ({"name": "-team"}, r"production\.name"),
        ({"name": 7}, r"production\.name must be a string, not 7"),
        ({"account": "123"}, r"production\.account"),
        ({"account": 123456789012}, r"production\.account must be a string"),
        ({"region": "mars"}, r"production\.region"),
        ({"region": "cn-north-1"}, "Lambda@Edge"),
        ({"region": "us-gov-west-1"}, "Lambda@Edge"),
        ({"public_channels": "team"}, r"public_channels must be a list, not 'team'"),
        ({"public_channels": ["Team"]}, r"public_channels\[0\]"),
        ({"public_channels": ["ok", ".fairway"]}, r"public_channels\[1\]"),
        ({"public_channels": ["a/b"]}, r"public_channels\[0\]"),
        ({"mutable_channels": ["a,b"]}, r"mutable_channels\[0\]"),
        ({"domain": "conda.example.com"}, "must be given together"),
        ({"certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/x"}, "must be given together"),
        (
            {"domain": "conda.example.com", "certificate_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/x"},
            "not a certificate of us-east-1",
        ),
        ({"domain": "https://conda.example.com"}, r"production\.domain"),
        ({"access_log": "yes"}, "access_log must be true or false, not 'yes'"),
        ({"alarm_email": "nobody"}, "alarm_email"),
        ({"docs_url": "docs"}, "not the URL of a folder"),
        ({"docs_url": "http://git.example.com/docs"}, "not the URL of a folder"),
        ({"subdirs": ["linux-64"]}, "subdirs must be an object"),
        ({"subdirs": {"team": "linux-64"}}, r"subdirs\.team must be a list"),
        ({"subdirs": {"team": ["linux"]}}, r"subdirs\.team\[0\] is invalid: 'linux'"),
        ({"subdirs": {"Team": ["linux-64"]}}, r"subdirs\.Team is invalid"),
        ({"subdirs": {"t": ["linux-64"]}}, r"subdirs\.t"),
        ({"log_days": 31}, "no retention of 31 days"),
        ({"log_days": True}, "no retention of True days"),
        ({"optional_outputs": ["gz"]}, "unknown output 'gz'"),
        ({"max_subdirs": 0}, "max_subdirs must be an integer from 1 to 1000, not 0"),
        ({"max_repodata_mib": 15}, "max_repodata_mib must be an integer from 16 to 1048576, not 15"),
        ({"shard_grace_days": 0}, "from 1 to 3650, not 0"),
        ({"old_version_days": True}, "old_version_days"),
        ({"indexer_max_concurrency": 1}, "from 2 to 1000, not 1"),
        (
            {"require_if_none_match": True, "mutable_channels": ["nightly-*"]},
            "require_if_none_match and mutable_channels exclude",
        ),
        ({"batch_artifacts": 100, "batch_window_seconds": 0}, "need a batch window"),
        ({"existing_oidc_providers": ["gitlab.com"]}, "not an issuer's URL"),
        ({"existing_oidc_providers": ["http://gitlab.com"]}, "not an issuer's URL"),
    ],
)
def test_parse_configuration__names_the_invalid_setting(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(settings)


def test_parse_configuration__suggests_a_similar_setting() -> None:
    with pytest.raises(UsageError, match="unknown setting 'public_channel'") as caught:
        parse({"public_channel": ["team"]})
    assert caught.value.hint == "did you mean 'public_channels'?"


@pytest.mark.parametrize("environments", [{}, {"staging": {}}])
def test_parse_configuration__lists_the_environments(environments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="unknown environment 'production'") as caught:
        parse_configuration({"environments": environments})
    assert caught.value.hint is not None
    assert ("staging" in caught.value.hint) == bool(environments)


@pytest.mark.parametrize("environments", [[], {"production": []}, "production"])
def test_parse_configuration__environments_are_objects(environments: object) -> None:
    with pytest.raises(UsageError, match=r"environments|unknown environment"):
        parse_configuration({"environments": environments})


# Publishers


def test_parse_configuration__publisher_has_few_permissions_by_default() -> None:
    (publisher,) = parse_publisher().publishers
    assert publisher.may_read
    assert not publisher.may_delete
    assert not publisher.may_attest
    assert not publisher.may_patch


def test_parse_configuration__publisher_of_github() -> None:
    github = [{"repository": "example/tool", "branches": ["main"], "tags": ["v*"], "environments": ["release"]}]
    (publisher,) = parse_publisher(github=github).publishers
    assert publisher.workloads == (
        Workload(
            issuer="https://token.actions.githubusercontent.com",
            audience="sts.amazonaws.com",
            subjects=(
                "repo:example/tool:ref:refs/heads/main",
                "repo:example/tool:ref:refs/tags/v*",
                "repo:example/tool:environment:release",
            ),
        ),
    )


@pytest.mark.parametrize("ids", [(123456, 456789), ("123456", "456789")])
def test_parse_configuration__publisher_of_github_with_ids(ids: tuple[object, object]) -> None:
    """The subjects of an older repository and of a newer one; no wildcard stands for an id."""
    github = {"repository": "example/tool", "branches": ["main"], "environments": ["release"]}
    (publisher,) = parse_publisher(github=[github | {"owner_id": ids[0], "repository_id": ids[1]}]).publishers
    assert publisher.workloads[0].subjects == (
        "repo:example/tool:ref:refs/heads/main",
        "repo:example/tool:environment:release",
        "repo:example@123456/tool@456789:ref:refs/heads/main",
        "repo:example@123456/tool@456789:environment:release",
    )


def test_parse_configuration__publisher_of_github_with_one_id_says_how_to_look_both_up() -> None:
    github = {"repository": "example/tool", "branches": ["main"], "repository_id": 456789}
    with pytest.raises(UsageError, match="must be given together") as caught:
        parse_publisher(github=[github])
    assert caught.value.hint == "look them up with: gh api repos/example/tool --jq '.owner.id, .id'"


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "", "0", "01", "1*", "*", "1/x", "1\n", "\u0661"])
def test_parse_configuration__publisher_of_github_with_invalid_id(value: object) -> None:
    github = {"repository": "example/tool", "branches": ["main"], "owner_id": 1, "repository_id": value}
    with pytest.raises(UsageError, match=r"github\[0\]\.repository_id must be a positive integer"):
        parse_publisher(github=[github])


def test_parse_configuration__publisher_of_another_gitlab() -> None:
    gitlab = [{"issuer": "https://gitlab.example.com", "project": "a/b/c", "tags": ["v*"]}]
    (publisher,) = parse_publisher(gitlab=gitlab).publishers
    assert publisher.workloads == (
        Workload(
            issuer="https://gitlab.example.com",
            audience="https://gitlab.example.com",
            subjects=("project_path:a/b/c:ref_type:tag:ref:v*",),
        ),
    )


def test_parse_configuration__publisher_of_any_issuer() -> None:
    oidc = [{"issuer": "https://ci.example.com/oidc", "audience": "fairway", "subjects": ["pipeline:7"]}]
    (publisher,) = parse_publisher(oidc=oidc).publishers
    (workload,) = publisher.workloads
    assert workload.provider == "ci.example.com/oidc"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"principals": []}, "no principal may assume this role"),
        ({"principals": ["*"]}, r"principals\[0\]"),
        ({"principals": ["arn:aws:iam::123456789012:role/*"]}, r"principals\[0\]"),
        ({"channels": []}, "must not be empty"),
        ({"channels": [".fairway"]}, r"channels\[0\]"),
        ({"channels": ["team/noarch"]}, r"channels\[0\]"),
        ({"channels": ["${aws:username}"]}, r"channels\[0\]"),
        ({"channels": ["*-dev"]}, r"channels\[0\] is invalid"),
        ({"channels": ["team", "te*m"]}, r"channels\[1\] is invalid"),
        ({"channels": ["team?"]}, r"channels\[0\] is invalid"),
        ({"channels": ["**"]}, r"channels\[0\] is invalid"),
        ({"channels": ["?"]}, r"channels\[0\] is invalid"),
        ({"channels": [""]}, r"channels\[0\] must be a string"),
        ({"channels": ["team*\n"]}, r"channels\[0\] is invalid"),
        ({"subdirs": ["a/b"]}, r"subdirs\[0\]"),
        ({"subdirs": ["linux-*"]}, r"subdirs\[0\] is invalid"),
        ({"subdirs": ["noarc?"]}, r"subdirs\[0\] is invalid"),
        ({"subdirs": ["shards"]}, r"subdirs\[0\] is invalid"),
        ({"artifacts": ["*-1.0-0"]}, r"artifacts\[0\] is invalid"),
        ({"artifacts": ["tool-?"]}, r"artifacts\[0\] is invalid"),
        ({"artifacts": ["to*ol"]}, r"artifacts\[0\] is invalid"),
        ({"artifacts": ["tool**"]}, r"artifacts\[0\] is invalid"),
        ({"artifacts": ["../x"]}, r"artifacts\[0\]"),
        ({"name": "CI"}, r"publishers\[0\]\.name"),
        ({"may_delete": 1}, "may_delete must be true or false"),
        ({"mayDelete": True}, "unknown setting 'mayDelete'"),
        ({"github": [{"repository": "example/tool"}]}, "even that of a pull request"),
        ({"github": [{"repository": "example/*", "branches": ["main"]}]}, r"github\[0\]\.repository"),
        ({"github": [{"repository": "example", "branches": ["main"]}]}, r"github\[0\]\.repository"),
        ({"github": [{"branches": ["main"]}]}, "repository is missing"),
        ({"gitlab": [{"project": "group/tool"}]}, "any branch could publish"),
        ({"gitlab": [{"project": "group/*", "branches": ["main"]}]}, r"gitlab\[0\]\.project"),
        ({"oidc": [{"issuer": "https://x.example", "audience": "a", "subjects": []}]}, "any workload of that issuer"),
        (
            {"oidc": [{"issuer": "https://x.example", "audience": "a", "subjects": ["**"]}]},
            "any workload of that issuer",
        ),
        (
            {"oidc": [{"issuer": "https://x.example", "audience": "a", "subjects": ["repo:acme/app:*", "repo:*"]}]},
            "any workload of that issuer",
        ),
        ({"oidc": [{"issuer": "https://x.example/", "audience": "a", "subjects": ["x"]}]}, "not an issuer's URL"),
    ],
)
def test_parse_configuration__publisher_too_permissive(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_publisher(**settings)


def test_parse_configuration__publisher_of_prefixes() -> None:
    globs = {
        "channels": ["team", "dev-*", "*"],
        "subdirs": ["noarch", "linux-64", "*"],
        "artifacts": ["a-1-0", "b*", "*"],
    }
    (publisher,) = parse_publisher(**globs).publishers
    assert [list(each) for each in (publisher.channels, publisher.subdirs, publisher.artifacts)] == list(globs.values())


def test_parse_configuration__operators() -> None:
    arns = ["arn:aws:iam::123456789012:role/path/operator", "arn:aws:iam::123456789012:user/ada"]
    assert parse({"operators": arns}).operators == tuple(arns)


@pytest.mark.parametrize(
    "arn",
    [
        "*",
        "arn:aws:iam::123456789012:role/*",
        "arn:aws:sts::123456789012:assumed-role/operator/ada",  # aws:PrincipalArn is the role's
        "arn:aws:iam::123456789012:group/operators",
        "123456789012",
    ],
)
def test_parse_configuration__operators_that_would_match_no_principal_or_all(arn: str) -> None:
    with pytest.raises(UsageError, match=r"operators\[0\] is invalid"):
        parse({"operators": [arn]})


def test_parse_configuration__publisher_of_the_channel_of_the_doctor() -> None:
    with pytest.raises(UsageError, match=r"channels\[1\].*'fairway-doctor' is reserved"):
        parse_publisher(channels=["team", "fairway-doctor"])


def test_parse_configuration__publishers_of_one_name() -> None:
    with pytest.raises(UsageError, match="same name"):
        parse({"publishers": [PUBLISHER, PUBLISHER]})
