import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.stub import Stubber

from infra import preflight
from infra.preflight import (
    BOOTSTRAP_PARAMETER,
    AwsAccount,
    check_account,
    main,
    parse_arguments,
    read_context,
    translate_error,
)
from lambdas.channel.errors import UsageError

ACCOUNT = "123456789012"


class FakeAccount:
    """An account that is bootstrapped in some regions."""

    def __init__(self, *bootstrapped: str, providers: Iterable[str] = (), own: Iterable[str] = ()) -> None:
        self.bootstrapped = bootstrapped
        self.providers, self.own = frozenset(providers), frozenset(own)
        self.asked: list[str] = []

    def fetch_id(self) -> str:
        self.asked.append("account")
        return ACCOUNT

    def is_bootstrapped(self, region: str) -> bool:
        self.asked.append(region)
        return region in self.bootstrapped

    def list_oidc_providers(self) -> frozenset[str]:
        return self.providers

    def list_own_oidc_providers(self, stack: str, region: str) -> frozenset[str]:
        assert (stack, region) == ("fairway-conda", "us-east-1")
        return self.own


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "secret"}}, "GetCallerIdentity")


def context(**settings: object) -> dict[str, object]:
    return {"environments": {"production": settings}}


def test_check_account__bootstrapped() -> None:
    account = FakeAccount("us-east-1", "eu-central-1")
    check_account("deploy", context(region="eu-central-1"), account)
    assert account.asked == ["account", "eu-central-1", "us-east-1"]


@pytest.mark.parametrize("missing", ["eu-central-1", "us-east-1"])
def test_check_account__region_is_not_bootstrapped(missing: str) -> None:
    account = FakeAccount(*{"eu-central-1", "us-east-1"} - {missing})
    with pytest.raises(UsageError, match=f"region {missing} of account {ACCOUNT} is not bootstrapped") as caught:
        check_account("deploy", context(region="eu-central-1"), account)
    assert caught.value.hint == "run 'scripts/deploy bootstrap' once"


@pytest.mark.parametrize("verb", ["bootstrap", "destroy", "diff"])
def test_check_account__other_verbs_need_no_bootstrapped_region(verb: str) -> None:
    check_account(verb, context(), FakeAccount())


def test_check_account__credentials_of_another_account() -> None:
    with pytest.raises(UsageError, match=f"for account {ACCOUNT}, but environment 'production'"):
        check_account("deploy", context(account="222222222222"), FakeAccount("us-east-1"))


PROVIDER = "token.actions.githubusercontent.com"
PUBLISHERS = [{"name": "ci", "channels": ["team"], "github": [{"repository": "a/b", "branches": ["main"]}]}]


def test_check_account__identity_provider_of_another_stack() -> None:
    account = FakeAccount("us-east-1", providers=["gitlab.com", PROVIDER], own=["gitlab.com"])
    with pytest.raises(UsageError, match=f"has an identity provider for https://{PROVIDER} already") as caught:
        check_account("deploy", context(publishers=PUBLISHERS), account)
    assert caught.value.hint == (
        f'add "https://{PROVIDER}" to "existing_oidc_providers" of environment \'production\' in cdk.json'
    )


@pytest.mark.parametrize(
    ("providers", "own", "settings"),
    [
        ([], [], {}),
        (["gitlab.com"], [], {}),
        ([PROVIDER], [PROVIDER], {}),
        ([PROVIDER], [], {"existing_oidc_providers": [f"https://{PROVIDER}"]}),
    ],
    ids=["none", "others", "own", "named"],
)
def test_check_account__identity_provider_can_be_made_or_used(
    providers: list[str], own: list[str], settings: dict[str, object]
) -> None:
    account = FakeAccount("us-east-1", providers=providers, own=own)
    check_account("deploy", context(publishers=PUBLISHERS, **settings), account)


def test_check_account__emulator_is_not_asked() -> None:
    account = FakeAccount()
    check_account("deploy", context() | {"endpoint_url": "http://127.0.0.1:4566"}, account)
    assert not account.asked


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (NoCredentialsError(), "no AWS credentials found", "AWS_PROFILE"),
        (PartialCredentialsError(provider="env", cred_var="x"), "no AWS credentials found", "AWS_PROFILE"),
        (ProfileNotFound(profile="tema"), "unknown AWS profile 'tema'", "profiles are ops, team"),
        (client_error("ExpiredToken"), "the AWS session has expired", "aws sso login"),
        (client_error("ExpiredTokenException"), "the AWS session has expired", "aws sso login"),
        (UnauthorizedSSOTokenError(), "the AWS session has expired", "aws sso login"),
        (TokenRetrievalError(provider="sso", error_msg="x"), "the AWS session has expired", "aws sso login"),
        (client_error("InvalidClientTokenId"), "AWS rejected the credentials: InvalidClientTokenId", "access key"),
        (client_error("AccessDenied"), "AWS answered AccessDenied", "permissions"),
        (EndpointConnectionError(endpoint_url="x"), "no answer from AWS: EndpointConnectionError", "network"),
    ],
)
def test_translate_error__names_cause_and_remedy(error: Any, message: str, hint: str) -> None:  # noqa: ANN401 - of botocore
    translated = translate_error(error, ["ops", "team"])
    assert str(translated) == message
    assert translated.hint is not None
    assert hint in translated.hint


def test_translate_error__no_profile_at_all() -> None:
    assert "aws configure" in str(translate_error(ProfileNotFound(profile="tema"), []).hint)


@pytest.mark.parametrize(
    ("arguments", "profile", "overrides"),
    [
        ([], None, {}),
        (["--profile", "team", "-c", "region=eu-central-1"], "team", {"region": "eu-central-1"}),
        (["--profile=team", "--context", "name=a", "-c", "x=1=2"], "team", {"name": "a", "x": "1=2"}),
        (
            ["--require-approval", "never", "--verbose", "-v", "-c", "environment=staging"],
            None,
            {"environment": "staging"},
        ),
    ],
)
def test_parse_arguments__of_the_cdk(arguments: list[str], profile: str | None, overrides: dict[str, str]) -> None:
    assert parse_arguments(arguments) == (profile, overrides)


def test_read_context__overrides_settings_and_drops_feature_flags() -> None:
    found = read_context({"region": "eu-central-1", "other": "x"})
    assert found["region"] == "eu-central-1"
    assert found["environment"] == "production"
    assert set(found) <= {"account", "endpoint_url", "environment", "environments", "name", "region"}


# The script's check, over stubs of botocore


Stubs = dict[str, Stubber]
SERVICES = ("cloudformation", "iam", "ssm", "sts")


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubs]:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    found = {name: Stubber(boto3.client(name, **keys)) for name in SERVICES}  # type: ignore[call-overload]

    class StubbedSession:
        def __init__(self, *, profile_name: str | None = None) -> None:
            if profile_name == "tema":
                raise ProfileNotFound(profile=profile_name)

        def client(self, name: str, *, region_name: str) -> Any:  # noqa: ANN401 - one of boto3's clients
            return found[name].client

    monkeypatch.setattr(boto3, "Session", StubbedSession)
    for stub in found.values():
        stub.activate()
    yield found
    for stub in found.values():
        stub.assert_no_pending_responses()


def test_main__ready(stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    stubs["sts"].add_response("get_caller_identity", {"Account": ACCOUNT})
    stubs["ssm"].add_response("get_parameter", {"Parameter": {"Value": "27"}}, {"Name": BOOTSTRAP_PARAMETER})
    assert main(["deploy"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ExpiredToken", "error: the AWS session has expired\n"),
        ("InvalidClientTokenId", "error: AWS rejected the credentials: InvalidClientTokenId\n"),
    ],
)
def test_main__unusable_credentials(stubs: Stubs, capsys: pytest.CaptureFixture[str], code: str, error: str) -> None:
    stubs["sts"].add_client_error("get_caller_identity", code)
    assert main(["deploy"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(error + "hint: ")
    assert printed.count("\n") == 2


def test_main__not_bootstrapped(stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    stubs["sts"].add_response("get_caller_identity", {"Account": ACCOUNT})
    stubs["ssm"].add_client_error("get_parameter", "ParameterNotFound")
    assert main(["deploy"]) == 2
    assert capsys.readouterr().err == (
        f"error: region us-east-1 of account {ACCOUNT} is not bootstrapped for the CDK\n"
        "hint: run 'scripts/deploy bootstrap' once\n"
    )


def test_main__unknown_profile(stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "--profile", "tema"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: unknown AWS profile 'tema'\nhint: ")
    assert printed.count("\n") == 2


def test_main__no_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert main(["deploy"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: no AWS credentials found\nhint: ")
    assert printed.count("\n") == 2


@pytest.mark.parametrize(
    "text", ["[profile team\n", "[profile team]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = gone\n"]
)
def test_main__invalid_configuration_of_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "config").write_text(text)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert main(["deploy", "--profile", "team"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: invalid AWS configuration: ")
    assert "\nhint: correct ~/.aws/config" in printed
    assert printed.count("\n") == 2


def test_main__invalid_setting(stubs: Stubs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "-c", "environment=nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown environment 'nowhere'\nhint: ")


def test_is_bootstrapped__unknown_without_permission(stubs: Stubs) -> None:
    stubs["ssm"].add_client_error("get_parameter", "AccessDeniedException")
    assert AwsAccount(boto3.Session()).is_bootstrapped("us-east-1")


def test_bootstrap_parameter__is_that_of_the_cdks_default_qualifier() -> None:
    stored = json.loads(preflight.CONFIGURATION.read_text())["context"]
    assert "@aws-cdk/core:bootstrapQualifier" not in stored


def test_list_oidc_providers__issuers_without_scheme(stubs: Stubs) -> None:
    arns = [f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}" for name in (PROVIDER, "ci.example.com/oidc")]
    stubs["iam"].add_response(
        "list_open_id_connect_providers", {"OpenIDConnectProviderList": [{"Arn": arn} for arn in arns]}
    )
    assert AwsAccount(boto3.Session()).list_oidc_providers() == {PROVIDER, "ci.example.com/oidc"}


def test_list_oidc_providers__unknown_without_permission(stubs: Stubs) -> None:
    stubs["iam"].add_client_error("list_open_id_connect_providers", "AccessDenied")
    assert not AwsAccount(boto3.Session()).list_oidc_providers()


def test_list_own_oidc_providers__of_the_stack(stubs: Stubs) -> None:
    summary = {"LastUpdatedTimestamp": datetime.now(UTC), "ResourceStatus": "CREATE_COMPLETE", "LogicalResourceId": "x"}
    resources = {
        "AWS::IAM::OIDCProvider": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{PROVIDER}",
        "AWS::S3::Bucket": "fairway-conda",
    }
    summaries = [
        {**summary, "ResourceType": kind, "PhysicalResourceId": physical} for kind, physical in resources.items()
    ]
    stubs["cloudformation"].add_response(
        "list_stack_resources", {"StackResourceSummaries": summaries}, {"StackName": "fairway-conda"}
    )
    assert AwsAccount(boto3.Session()).list_own_oidc_providers("fairway-conda", "us-east-1") == {PROVIDER}


def test_list_own_oidc_providers__no_stack_yet(stubs: Stubs) -> None:
    stubs["cloudformation"].add_client_error("list_stack_resources", "ValidationError")
    assert not AwsAccount(boto3.Session()).list_own_oidc_providers("fairway-conda", "us-east-1")
