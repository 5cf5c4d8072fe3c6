"""The steps of ``fairway doctor`` over a deployment in memory: what passes, what fails, and what is left."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from lambdas.access.document import Action
from lambdas.channel.errors import AccessDeniedError
from scripts.fairway.doctor.account import Stack
from scripts.fairway.doctor.cleaning import TOKEN_NAME
from scripts.fairway.doctor.reader import Answer
from scripts.fairway.doctor.report import State
from scripts.fairway.doctor.steps import STEPS
from tests.fairway.doctor.deployment import OUTPUTS, Deployment


def test_doctor__healthy_deployment(deployment: Deployment) -> None:
    results = deployment.examine()
    assert {name: result.detail for name, result in results.items() if result.state is not State.PASSED} == {}
    assert deployment.leftovers() == []
    assert deployment.access.tokens == ()
    assert deployment.access.channels == {}
    subjects = {change.action: change.subject for change in deployment.access.history}
    assert subjects == {
        Action.CHANNEL_PRIVATE: "fairway-doctor",
        Action.TOKEN_CREATED: TOKEN_NAME,
        Action.TOKEN_REVOKED: TOKEN_NAME,
    }
    assert results["clean"].detail.endswith("and the token")
    assert results["install"].usage.viewer_requests == 6


def test_doctor__twice(deployment: Deployment) -> None:
    deployment.examine()
    again = deployment.examine()
    assert all(result.state is State.PASSED for result in again.values())
    assert again["earlier-run"].detail == "nothing is left"
    assert deployment.leftovers() == []


def test_doctor__every_channel_is_public(deployment: Deployment) -> None:
    """The doctor's is private while it runs."""
    deployment.public_channels = ("*",)
    assert all(result.state is State.PASSED for result in deployment.examine().values())


def test_doctor__touches_no_other_channel(deployment: Deployment) -> None:
    deployment.bucket.upload("fairway-doctor2/noarch/a.txt", b"")
    deployment.bucket.upload(".fairway/rejected/fairway-doctor2/noarch/a-1-0.conda/1/object", b"")
    before = [version.info for version in deployment.bucket.list_versions("fairway-doctor2")]
    deployment.examine()
    assert [version.info for version in deployment.bucket.list_versions("fairway-doctor2")] == before
    assert ".fairway/rejected/fairway-doctor2/noarch/a-1-0.conda/1/object" in deployment.bucket.list_keys()


def answer_with(suffix: str, change: Callable[[Answer], Answer]) -> Callable[[Deployment], None]:
    """Return what has the edge answer differently for paths with that end."""

    def sabotage(deployment: Deployment) -> None:
        deployment.answer = lambda path, answer: change(answer) if path.endswith(suffix) else answer

    return sabotage


def set_header(name: str, value: str) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, headers={**answer.headers, name: value})


def set_account(**changes: object) -> Callable[[Deployment], None]:
    def sabotage(deployment: Deployment) -> None:
        for name, value in changes.items():
            setattr(deployment.account, name, value)

    return sabotage


def stop_indexer(deployment: Deployment) -> None:
    deployment.is_indexing = False


def stop_refreshing_access(deployment: Deployment) -> None:
    deployment.knows_access = False


def forget_after_revocation(deployment: Deployment) -> None:
    """Have the edge keep its rules once the token was revoked."""

    def check() -> None:
        deployment.knows_access = not any(token.revoked for token in deployment.access.tokens)

    deployment.on_sleep = check


EMPTY = replace(Stack(name="fairway-conda", status="CREATE_COMPLETE"), outputs={})
ROLLED_BACK = Stack(name="fairway-conda", status="UPDATE_ROLLBACK_COMPLETE", outputs=OUTPUTS)
OLDER = Stack(name="fairway-conda", status="UPDATE_COMPLETE", outputs={**OUTPUTS, "FairwayVersion": "1.0.0"})


@pytest.mark.parametrize(
    ("sabotage", "step", "message"),
    [
        (set_account(stack=ROLLED_BACK), "stack", "is UPDATE_ROLLBACK_COMPLETE"),
        (set_account(stack=EMPTY), "stack", "has no output 'BucketName'"),
        (set_account(distribution_status="InProgress"), "stack", "still deploying the distribution: InProgress"),
        (set_account(stack=OLDER), "versions", "version 1.0.0 is deployed, but this command is 1.2.3"),
        (set_account(max_concurrency=10), "quotas", "10 functions may run at once in eu-central-1, but"),
        (set_account(accepts=True), "upload-policy", "accepts uploads with storage class GLACIER, KMS, SSE-C"),
        (stop_refreshing_access, "token", "still not: the token is accepted"),
        (
            answer_with("canary-0.0-0.conda", set_header("cache-control", "public, max-age=10")),
            "token",
            "cache-control 'public, max-age=10', not 'no-store'",
        ),
        (
            answer_with("canary-0.0-0.conda", lambda answer: replace(answer, headers={"cache-control": "no-store"})),
            "unauthenticated",
            "without www-authenticate",
        ),
        (
            answer_with(
                "canary-0.0-0.conda", lambda answer: replace(answer, status=404) if answer.status == 401 else answer
            ),
            "unauthenticated",
            "still not: a request without a token is rejected",
        ),
        (stop_indexer, "publish", "still not: fairway-doctor/noarch/canary-1.0+doctor-0.conda is indexed"),
        (
            answer_with("%2Bdoctor-0.conda", lambda answer: replace(answer, body=answer.body + b"x")),
            "install",
            "%2Bdoctor-0.conda has SHA-256",
        ),
        (
            answer_with("+doctor-0.conda", lambda answer: replace(answer, status=404)),
            "install",
            "+doctor-0.conda was answered with 404, not 200",
        ),
        (
            answer_with("/repodata.json", lambda answer: replace(answer, body=b'{"packages.conda": {}}')),
            "install",
            "repodata.json has no record of canary-1.0+doctor-0.conda",
        ),
        (
            answer_with("noarch/repodata.json", set_header("cache-control", "public, max-age=86400")),
            "headers",
            "cache-control 'public, max-age=86400', not 'public, max-age=30'",
        ),
        (
            answer_with("repodata.json.zst", set_header("content-encoding", "zstd")),
            "headers",
            "content-encoding 'zstd', not None",
        ),
        (
            answer_with("linux-64/repodata.json", lambda answer: replace(answer, body=answer.body + b"\n")),
            "splice",
            "differs from its compressed form",
        ),
        (
            answer_with("linux-64/repodata.json.zst", lambda answer: replace(answer, body=2 * answer.body)),
            "splice",
            "has bytes after its frame",
        ),
        (forget_after_revocation, "revoke", "still not: the revoked token is rejected"),
    ],
)
def test_doctor__failure(
    deployment: Deployment, sabotage: Callable[[Deployment], None], step: str, message: str
) -> None:
    sabotage(deployment)
    results = deployment.examine()
    assert results[step].state is State.FAILED
    assert message in results[step].detail
    assert results["clean"].state is State.PASSED
    assert deployment.leftovers() == []
    assert deployment.access.tokens == ()


def test_doctor__steps_that_need_a_failed_one_are_not_run(deployment: Deployment) -> None:
    stop_indexer(deployment)
    results = deployment.examine()
    assert results["install"].state is State.NOT_RUN
    assert results["install"].detail == "needs 'publish', which did not pass"
    assert results["unauthenticated"].state is State.PASSED


def test_doctor__no_time_left(deployment: Deployment) -> None:
    results = deployment.examine(hurry=True)
    assert {results[name].detail for name in ("stack", "token", "publish")} == {"no time was left to begin"}
    assert results["clean"].state is State.PASSED
    assert deployment.leftovers() == []


def test_doctor__emulator_enforces_less(deployment: Deployment) -> None:
    set_account(accepts=True, is_emulated=True, max_concurrency=1000)(deployment)
    results = deployment.examine()
    assert results["quotas"].state is State.NOT_ENFORCED
    assert results["upload-policy"].state is State.NOT_ENFORCED
    assert results["upload-policy"].detail.startswith("not enforced by this emulator: uploads with storage class")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "no policy allows it"}}, "DescribeStacks"),
            "access denied: s3:DescribeStacks: no policy allows it",
        ),
        (EndpointConnectionError(endpoint_url="https://x"), "https://x cannot be reached"),
        (AccessDeniedError("S3 answered 403"), "S3 answered 403"),
        (KeyError("Stacks"), "unexpected KeyError: 'Stacks'"),
    ],
)
def test_doctor__errors_of_aws(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail() -> Stack:
        raise error

    monkeypatch.setattr(deployment.account, "fetch_stack", fail)
    results = deployment.examine("stack", "versions", "quotas")
    assert (results["stack"].state, results["stack"].detail) == (State.FAILED, message)
    assert results["versions"].state is State.NOT_RUN


def test_steps__each_has_its_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operating.md").read_text(encoding="utf-8")
    section = text.partition("## The doctor\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \|", section, flags=re.MULTILINE)
    assert rows == [name for name, *_ in STEPS]
