"""``fairway doctor``: options, output and exit codes."""

import json
import sys

import pytest

from lambdas.channel.errors import UsageError
from scripts.fairway.doctor import before_deploy, command
from scripts.fairway.doctor.examination import Examination
from scripts.fairway.doctor.reader import Answer
from scripts.fairway.session import Session
from tests.fairway.conftest import Run
from tests.fairway.doctor.deployment import VERSION, Deployment, FakeAccount


@pytest.fixture
def run_doctor(deployment: Deployment, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    def connect(session: Session, meter: object, *, timeout_seconds: float) -> Examination:
        assert meter is not None
        return Examination(
            bucket=deployment.bucket,
            reader=deployment,
            account=deployment.account,
            caller="ada",
            version=VERSION,
            note=session.note,
            deadline=deployment.seconds + timeout_seconds,
            clock=deployment.clock,
        )

    monkeypatch.setattr(command, "connect", connect)
    return run_fairway


def test_doctor__table_and_progress(run_doctor: Run) -> None:
    result = run_doctor("doctor")
    assert result.code == 0
    assert result.out.splitlines()[0].split() == ["STEP", "RESULT", "SECONDS", "DOLLARS"]
    assert result.out.splitlines()[-1].startswith("healthy; ")
    assert "splice …" in result.err
    assert "  waiting: the token is accepted" in result.err


def test_doctor__json(run_doctor: Run) -> None:
    result = run_doctor("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["healthy"]
    assert [step["name"] for step in result.document["steps"]][-1] == "clean"
    assert "token" not in json.dumps([step["requests"] for step in result.document["steps"]])


def test_doctor__prints_no_secret(run_doctor: Run, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[str | None] = []
    fetch = deployment.fetch

    def record(path: str, *, token: str | None = None) -> Answer:
        secrets.append(token)
        return fetch(path, token=token)

    monkeypatch.setattr(deployment, "fetch", record)
    result = run_doctor("doctor")
    used = {secret for secret in secrets if secret}
    assert used
    assert not any(secret in result.out + result.err for secret in used)


def test_doctor__failure_is_the_exit_code(run_doctor: Run, deployment: Deployment) -> None:
    deployment.account.distribution_status = "InProgress"
    result = run_doctor("doctor", "--json")
    assert result.code == 1
    assert not result.document["healthy"]


def test_doctor__only_cleans(run_doctor: Run, deployment: Deployment) -> None:
    deployment.bucket.upload("fairway-doctor/noarch/a.txt", b"1")
    result = run_doctor("doctor", "--clean", "--json")
    assert result.code == 0
    assert [(step["name"], step["detail"]) for step in result.document["steps"]] == [("clean", "deleted 1 versions")]


def test_doctor__interrupted(run_doctor: Run, deployment: Deployment) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    deployment.on_sleep = interrupt
    result = run_doctor("doctor")
    assert (result.code, result.out) == (130, "")
    assert "interrupted: 'fairway doctor --clean', or the next run, deletes what is left\n" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clean", "--before-deploy"), "--clean and --before-deploy exclude each other"),
        (("-c", "name=x"), "--context is only used with --before-deploy"),
        (("--before-deploy", "-c", "name"), "invalid context 'name'"),
        (("--timeout", "60"), "--timeout"),
    ],
)
def test_doctor__usage_errors(run_doctor: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run_doctor("doctor", *arguments)
    assert result.code == 2
    assert message in result.err


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    """The account of ``--before-deploy``, whose settings are those of cdk.json."""
    account = FakeAccount(concurrency={"us-east-1": 1000, "eu-central-1": 1000})

    class Preflight:
        def __init__(self, _session: object) -> None:
            pass

        def fetch_id(self) -> str:
            return "123456789012"

        def is_bootstrapped(self, region: str) -> bool:
            return region in account.concurrency

    monkeypatch.setattr("infra.preflight.AwsAccount", Preflight)
    monkeypatch.setattr(before_deploy, "AwsAccount", lambda *_: account)
    monkeypatch.setattr(Session, "aws", object())
    return account


def test_before_deploy__enough_of_everything(account: FakeAccount, run_fairway: Run) -> None:
    result = run_fairway("doctor", "--before-deploy", "--json", "-c", "region=eu-central-1")
    assert result.code == 0, result.out
    assert [step["name"] for step in result.document["steps"]] == ["account", "quotas", "policies"]
    assert account.policies
    assert "bootstrapped in eu-central-1, us-east-1" in result.document["steps"][0]["detail"]


def test_before_deploy__new_account(account: FakeAccount, run_fairway: Run) -> None:
    account.concurrency = {"us-east-1": 5}
    result = run_fairway("doctor", "--before-deploy")
    assert result.code == 1
    assert "5 functions may run at once in us-east-1" in result.out


def test_before_deploy__region_is_not_bootstrapped(account: FakeAccount, run_fairway: Run) -> None:
    account.concurrency = {"us-east-1": 1000}
    result = run_fairway("doctor", "--before-deploy", "--json", "-c", "region=eu-central-1")
    assert result.code == 1
    assert result.document["steps"][0]["hint"] == "run 'scripts/deploy bootstrap' once"
    assert {step["state"] for step in result.document["steps"][1:]} == {"not run"}


@pytest.mark.usefixtures("account")
def test_before_deploy__invalid_setting(run_fairway: Run) -> None:
    result = run_fairway("doctor", "--before-deploy", "-c", "region=moon")
    assert result.code == 2
    assert "region" in result.err


def test_before_deploy__no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infra", None)
    with pytest.raises(UsageError, match=r"reads cdk\.json"):
        before_deploy.list_steps_before_deploy(Session(), {})
