"""Which deployment a command manages: ``fairway use``, ``--deployment``, and the variables."""

import json
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from lambdas.channel.errors import AccessDeniedError, InvalidDocumentError, UsageError
from scripts.fairway.deployments import (
    Config,
    Deployment,
    choose,
    config_path,
    fetch_deployment,
    read_config,
    write_config,
)
from scripts.fairway.main import describe_error
from scripts.fairway.session import Session, open_session
from tests.fairway.conftest import Run

PROD = Deployment(name="prod", region="eu-central-1", stack="fairway-prod", bucket="b-prod", url="https://prod")
TEST = Deployment(name="test", region="us-east-1", stack="fairway-test", bucket="b-test", url="https://test")
BOTH = Config(current="prod", deployments={"prod": PROD, "test": TEST})


@dataclass
class FakeCloudFormation:
    """Stacks by region and name, each with its outputs."""

    stacks: dict[tuple[str, str], dict[str, str]]
    region_name: str | None = "us-east-1"
    asked: list[str] = field(default_factory=list)

    def client(self, service: str, *, region_name: str) -> Any:  # noqa: ANN401 - a fake of boto3's client
        assert service == "cloudformation"
        self.asked.append(region_name)
        return _Client(self.stacks, region_name)


@dataclass
class _Client:
    stacks: dict[tuple[str, str], dict[str, str]]
    region: str

    def describe_stacks(self, *, StackName: str) -> Any:  # noqa: ANN401, N803 - boto3's
        if (self.region, StackName) not in self.stacks:
            raise ClientError({"Error": {"Code": "ValidationError"}}, "DescribeStacks")
        return {"Stacks": [self._format(self.stacks[self.region, StackName])]}

    @staticmethod
    def _format(outputs: dict[str, str]) -> Any:  # noqa: ANN401 - boto3's
        return {"Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> FakeCloudFormation:
    outputs = {"BucketName": "b-prod", "ChannelUrl": "https://prod"}
    cloud = FakeCloudFormation({("eu-central-1", "fairway-prod"): outputs, ("us-east-1", "fairway-else"): {}})
    monkeypatch.setattr(Session, "aws", cloud)
    return cloud


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PROD),
        ({"named": TEST}, TEST),
        ({"bucket": "b-test"}, TEST),
        ({"bucket": "b-prod", "named": PROD}, PROD),
    ],
)
def test_choose__known_deployment(given: dict[str, Any], expected: Deployment) -> None:
    choice = choose(**{"bucket": None, "url": None, "named": None, **given}, config=BOTH)
    assert (choice.bucket, choice.url, choice.deployment) == (expected.bucket, expected.url, expected)


def test_choose__unknown_bucket_takes_no_url_of_another_deployment() -> None:
    choice = choose(bucket="other", url=None, named=None, config=BOTH)
    assert (choice.bucket, choice.url, choice.deployment) == ("other", None, None)


def test_choose__given_url_wins() -> None:
    assert choose(bucket=None, url="http://127.0.0.1:8080", named=PROD, config=BOTH).url == "http://127.0.0.1:8080"


def test_choose__contradiction() -> None:
    with pytest.raises(UsageError, match="'b-test' is not that of the deployment 'prod'"):
        choose(bucket="b-test", url=None, named=PROD, config=BOTH)


def test_read_config__what_was_written() -> None:
    assert read_config() == Config()
    assert write_config(BOTH) == config_path()
    assert read_config() == BOTH


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"current": "a", "deployments": {"a": {"bucket": "b"}}}'])
def test_read_config__malformed(body: str) -> None:
    config_path().parent.mkdir()
    config_path().write_text(body)
    with pytest.raises(InvalidDocumentError, match="invalid configuration file"):
        read_config()


def test_config_path__without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(config_path()) == "/home/ada/.config/fairway/config.json"


@pytest.mark.parametrize("name", ["prod", "fairway-prod"])
def test_fetch_deployment__name_or_stack(cloud: FakeCloudFormation, name: str) -> None:
    client = cloud.client("cloudformation", region_name="eu-central-1")
    assert fetch_deployment(client, name, region="eu-central-1") == PROD


def test_fetch_outputs__denied_says_what_to_set() -> None:
    client = boto3.client("cloudformation", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_stacks", "AccessDenied", http_status_code=403)
        with pytest.raises(AccessDeniedError) as caught:
            fetch_deployment(client, "prod", region="us-east-1")
    failure = describe_error(caught.value)
    assert failure.message == "access denied: cloudformation:DescribeStacks on 'fairway-prod'"
    assert "FAIRWAY_BUCKET" in (failure.hint or "")


def test_use__remembers_the_outputs(run_fairway: Run, cloud: FakeCloudFormation) -> None:
    result = run_fairway("use", "prod", "--region", "eu-central-1")
    assert result.code == 0, result.err
    assert "b-prod" in result.out
    assert json.loads(config_path().read_text()) == {
        "current": "prod",
        "deployments": {
            "prod": {"region": "eu-central-1", "stack": "fairway-prod", "bucket": "b-prod", "url": "https://prod"}
        },
    }
    assert open_session(deployment=None, bucket=None, url=None, as_json=False).region == "eu-central-1"
    assert run_fairway("use", "prod", "--json").document["bucket"] == "b-prod"  # the region is known by now
    assert cloud.asked == ["eu-central-1", "eu-central-1"]
    listed = run_fairway("use").out.splitlines()
    assert listed[1].split() == ["*", "prod", "eu-central-1", "b-prod", "https://prod"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("use", "prod"), "there is no stack 'fairway-prod' in us-east-1"),
        (("use", "else"), "the stack 'fairway-else' has no outputs of Fairway"),
        (("use", "--region", "eu-central-1"), "no deployment given"),
        (("channel", "list", "--deployment", "nix"), "there is no stack 'fairway-nix' in us-east-1"),
    ],
)
def test_use__no_such_deployment(
    run_fairway: Run, cloud: FakeCloudFormation, arguments: tuple[str, ...], message: str
) -> None:
    result = run_fairway(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}\nhint: ")
    assert not config_path().exists()


def test_use__without_a_region(run_fairway: Run, cloud: FakeCloudFormation) -> None:
    cloud.region_name = None
    result = run_fairway("use", "prod")
    assert (result.code, result.err.splitlines()[0]) == (2, "error: no region given")


def test_session__deployment_option_overrides_the_variables(run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(BOTH)
    used: list[str | None] = []

    def connect(session: Session) -> None:
        used.append(session.bucket)
        raise UsageError("that is enough")

    monkeypatch.setattr(Session, "aws", property(connect))
    monkeypatch.setenv("FAIRWAY_BUCKET", "b-prod")
    for arguments in (["--deployment", "test"], [], ["--bucket", "b-test"]):
        run_fairway("channel", "list", *arguments)
    monkeypatch.setenv("FAIRWAY_DEPLOYMENT", "test")
    assert "not that of the deployment 'test'" in run_fairway("channel", "list").err
    monkeypatch.delenv("FAIRWAY_BUCKET")
    run_fairway("channel", "list")
    assert used == ["b-test", "b-prod", "b-test", "b-test"]


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "us-west-2"}, "eu-central-1"),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        ({}, "us-east-1"),
    ],
)
def test_session__region(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_CONFIG_FILE": "/nonexistent"}
    for name, value in (credentials | variables).items():
        monkeypatch.setenv(name, value)
    session = open_session(deployment=None, bucket="b", url=None, as_json=False)
    assert session.region == region
    assert session.client("s3").meta.region_name == region
