"""Each failure of AWS is one line and a hint."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import boto3
import pytest
from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError
from botocore.stub import Stubber

from lambdas.channel.errors import AccessDeniedError, ConflictError, PermanentError, UnavailableError, UsageError
from lambdas.storage.s3 import S3Storage
from scripts.fairway import session as session_module
from scripts.fairway.aws_errors import explain, note_requests
from tests.fairway.conftest import Run


def answer(code: str, operation: str = "GetObject", status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (answer("ExpiredToken"), AccessDeniedError, "the AWS session has expired"),
        (answer("InvalidAccessKeyId", status=403), AccessDeniedError, "AWS does not accept the credentials"),
        (answer("AccessDenied", "ListObjectsV2", 403), AccessDeniedError, "access denied: s3:ListBucket"),
        (answer("403", "HeadObject", 403), AccessDeniedError, "access denied: s3:GetObject"),
        (answer("SlowDown", "PutObject", 503), UnavailableError, "AWS throttles requests: s3:PutObject"),
        (answer("InternalError", "PutObject", 500), UnavailableError, "AWS failed: s3:PutObject: InternalError"),
        (answer("NoSuchBucket", status=404), AccessDeniedError, "the bucket does not exist"),
        (answer("PermanentRedirect", status=301), UsageError, "the bucket is in another region"),
        (answer("400", "HeadObject"), AccessDeniedError, "AWS rejected s3:GetObject without a reason"),
        (answer("BadDigest", "PutObject"), PermanentError, "AWS rejected s3:PutObject: BadDigest"),
        (aws.ProfileNotFound(profile="prdo"), UsageError, "there is no AWS profile 'prdo'"),
        (
            aws.PartialCredentialsError(provider="env", cred_var="KEY"),
            AccessDeniedError,
            "incomplete AWS credentials: KEY",
        ),
        (aws.NoCredentialsError(), AccessDeniedError, "no AWS credentials found"),
        (aws.UnauthorizedSSOTokenError(), AccessDeniedError, "the AWS sign-in has expired"),
        (
            aws.TokenRetrievalError(provider="sso", error_msg="expired"),
            AccessDeniedError,
            "the AWS sign-in has expired",
        ),
        (
            aws.EndpointConnectionError(endpoint_url="http://x", error=""),
            UnavailableError,
            "http://x cannot be reached",
        ),
        (aws.ConnectTimeoutError(endpoint_url="http://x"), UnavailableError, "http://x did not answer"),
        (aws.ParamValidationError(report="Invalid bucket name"), UsageError, "a name is invalid"),
        (BotoCoreError(), UnavailableError, "a request to AWS failed: BotoCoreError"),
    ],
)
def test_explain__one_line_and_a_hint(error: Exception, kind: type[Exception], message: str) -> None:
    explained = explain(error)
    assert type(explained) is kind
    assert str(explained).startswith(message)
    assert "\n" not in str(explained)
    assert explained.hint


def test_explain__error_of_the_storage_by_its_cause() -> None:
    denied = AccessDeniedError("S3 answered 403")
    denied.__cause__ = answer("AccessDenied", status=403)
    assert str(explain(denied)) == "access denied: s3:GetObject"


def test_explain__error_that_says_enough() -> None:
    taken = PermanentError("other bytes are published")
    taken.__cause__ = answer("AccessDenied", status=403)
    assert explain(taken) is None
    assert explain(ConflictError("lost")) is None
    assert explain(ValueError("x")) is None


def test_explain__failure_of_the_storage_by_its_cause() -> None:
    unreachable = UnavailableError("no answer from S3")
    unreachable.__cause__ = aws.EndpointConnectionError(endpoint_url="http://x/bucket?list-type=2", error="")
    assert str(explain(unreachable)) == "http://x cannot be reached"


def test_explain__answer_that_the_storage_cannot_interpret_gets_a_hint() -> None:
    missing = ConflictError("S3 answered 404 for 'tools/'")
    missing.__cause__ = answer("404", "ListObjectsV2", 404)
    explained = explain(missing)
    assert type(explained) is ConflictError
    assert str(explained) == str(missing)
    assert explained.hint


def test_note_requests__denied_action_and_resource() -> None:
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
    note_requests(session.events)
    client = session.client("s3")
    with Stubber(client) as stub:
        stub.add_client_error("head_object", "403", http_status_code=403)
        with pytest.raises(AccessDeniedError) as caught:
            S3Storage("bucket", client).head(".fairway/access.json")
    assert str(explain(caught.value)) == "access denied: s3:GetObject on s3://bucket/.fairway/access.json"


def test_main__endpoint_unreachable(run_fairway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_ATTEMPTS", 1)
    _set_credentials(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    result = run_fairway("channel", "list", "--bucket", "bucket")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[0] == "error: http://127.0.0.1:1 cannot be reached"
    assert result.err.splitlines()[1].startswith("hint: check the network")


@pytest.mark.parametrize(
    ("variables", "bucket", "message"),
    [
        ({"AWS_PROFILE": "prdo"}, "bucket", "there is no AWS profile 'prdo'"),
        ({"AWS_ENDPOINT_URL": "localhost"}, "bucket", "invalid AWS endpoint or region"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, "bucket", "invalid AWS endpoint or region"),
        ({"AWS_ENDPOINT_URL": "ftp://127.0.0.1"}, "bucket", "invalid AWS endpoint"),
        ({}, "s3://bucket", "a name is invalid"),
        ({}, "no bucket", "a name is invalid"),
    ],
)
def test_main__wrong_setting(
    run_fairway: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], bucket: str, message: str
) -> None:
    _set_credentials(monkeypatch, **variables)
    result = run_fairway("channel", "list", "--bucket", bucket)
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize(
    "command", [("list", "team"), ("status", "a/noarch/a-1-0.conda"), ("token", "list"), ("whoami",)]
)
def test_main__endpoint_of_another_server(
    run_fairway: Run, monkeypatch: pytest.MonkeyPatch, status: int, command: tuple[str, ...]
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>" if self.command != "HEAD" else b"")

        do_HEAD = do_POST = do_GET  # noqa: N815 - of http.server

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        _set_credentials(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}")
        result = run_fairway(*command, "--bucket", "bucket")
        server.shutdown()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: the endpoint does not answer as AWS does\nhint: ")


def test_main__partial_profile(run_fairway: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[half]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "half")
    result = run_fairway("channel", "list", "--bucket", "bucket")
    assert result.code == 1
    assert result.err.startswith("error: incomplete AWS credentials: aws_secret_access_key is missing\nhint: ")


def _set_credentials(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", **variables}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("status", [400, 403])
def test_main__denial_of_an_emulator_has_no_request_id(
    run_fairway: Run, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        _set_credentials(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}")
        result = run_fairway("list", "team", "--bucket", "bucket")
        server.shutdown()
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: access denied: s3:ListBucket on s3://bucket/team/\nhint: ")
