"""``fairway whoami``: the identity, the deployment, and what is known about permissions."""

from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from scripts.fairway.session import Session
from scripts.fairway.whoami import parse_role
from tests.builders import conda_package
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run


@dataclass
class FakeAws:
    """STS, S3 and IAM for a caller who may list some prefixes, read some keys, and simulate or not."""

    listable: tuple[str, ...]
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    may_simulate: bool = False
    arn: str = "arn:aws:sts::123456789012:assumed-role/publisher/ci"
    region_name: str = "us-east-1"

    def client(self, _: str, **__: str) -> "FakeAws":
        return self

    def get_caller_identity(self) -> dict[str, str]:
        return {"Account": "123456789012", "Arn": self.arn}

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> None:  # noqa: N803 - boto3's
        self._require(Prefix in self.listable, "ListObjectsV2")

    def head_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803 - boto3's
        self._require(Key in self.readable, "HeadObject")

    def simulate_principal_policy(
        self,
        *,
        PolicySourceArn: str,  # noqa: N803 - boto3's
        ActionNames: list[str],  # noqa: N803 - boto3's
        ResourceArns: list[str],  # noqa: N803 - boto3's
    ) -> Any:  # noqa: ANN401 - boto3's
        self._require(self.may_simulate, "SimulatePrincipalPolicy")
        assert PolicySourceArn == "arn:aws:iam::123456789012:role/publisher"
        key = ResourceArns[0].removeprefix("arn:aws:s3:::bucket/")
        is_allowed = ActionNames == ["s3:PutObject"] and key.startswith(self.writable)
        return {"EvaluationResults": [{"EvalDecision": "allowed" if is_allowed else "implicitDeny"}]}

    def _require(self, is_allowed: bool, operation: str) -> None:
        if not is_allowed:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)


def permissions(document: Any) -> dict[str, tuple[str, str]]:  # noqa: ANN401 - JSON
    return {one["what"]: (one["answer"], one["source"]) for one in document["permissions"]}


def test_whoami__publisher_with_a_narrow_role(
    bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "aws", FakeAws(listable=("tools/",)))
    document = run_fairway("whoami", "--json", "tools", "other").document
    assert document["account"] == "123456789012"
    assert document["role"] == "arn:aws:iam::123456789012:role/publisher"
    assert (document["bucket"], document["url"]) == ("bucket", None)
    unknown = ("unknown", "may not ask IAM's simulator")
    assert permissions(document) == {
        "list the channels": ("no", "tried"),
        "read tools": ("yes", "tried"),
        "publish to tools": unknown,
        "delete from tools": unknown,
        "read other": ("no", "tried"),
        "publish to other": unknown,
        "delete from other": unknown,
        "read tokens and access rules": ("no", "tried"),
        "change tokens and access rules": unknown,
    }
    assert permissions(run_fairway("whoami", "--json").document)["publish"][0] == "unknown"


def test_whoami__role_that_may_simulate(bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.publish("tools", conda_package())
    aws = FakeAws(listable=("", "tools/"), readable=(".fairway/access.json",), writable=("tools/",), may_simulate=True)
    monkeypatch.setattr(Session, "aws", aws)
    found = permissions(run_fairway("whoami", "--json").document)
    assert found["publish to tools"] == ("yes", "simulated")
    assert found["delete from tools"] == ("no", "simulated")
    assert found["change tokens and access rules"] == ("no", "simulated")
    assert found["read tokens and access rules"] == ("yes", "tried")
    assert "publish to tools" in run_fairway("whoami").out


def test_whoami__root_user(bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "aws", FakeAws(listable=("", "tools/"), arn="arn:aws:iam::123456789012:root"))
    found = permissions(run_fairway("whoami", "tools", "--json").document)
    assert found["publish to tools"] == ("yes", "the account's root user")


def test_whoami__without_a_deployment(run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "aws", FakeAws(listable=(), arn="arn:aws:iam::123456789012:user/ada"))
    result = run_fairway("whoami")
    assert result.code == 2
    assert "arn:aws:iam::123456789012:user/ada" in result.out
    assert result.err.startswith("error: no deployment chosen\nhint: ")


@pytest.mark.parametrize(
    ("arn", "role"),
    [
        ("arn:aws:sts::123456789012:assumed-role/admin/ada@example.com", "arn:aws:iam::123456789012:role/admin"),
        ("arn:aws:iam::123456789012:user/ada", None),
        ("arn:aws:iam::123456789012:root", None),
    ],
)
def test_parse_role__of_a_session(arn: str, role: str | None) -> None:
    assert parse_role(arn) == role
