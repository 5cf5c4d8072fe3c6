import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lambdas.access.document import MAX_DOCUMENT_BYTES
from lambdas.authorizer import source as source_module
from lambdas.authorizer.rules import FetchedDocument
from lambdas.authorizer.settings import AuthorizerSettings
from lambdas.authorizer.source import S3Source
from lambdas.channel.errors import UnavailableError

MISSING = b"<Error><Code>NoSuchKey</Code></Error>"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[S3Source, list[BaseHTTPRequestHandler]]]:
    """Run a small HTTP server in S3's place."""
    requests: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self)
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield make_source(server.server_address[1]), requests
        finally:
            server.shutdown()
            thread.join()


def make_source(port: int) -> S3Source:
    return S3Source(
        AuthorizerSettings(
            bucket="bucket",
            region="eu-central-1",
            origin_domain="bucket.s3.eu-central-1.amazonaws.com",
            endpoint_url=f"http://127.0.0.1:{port}",
        )
    )


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_fetch__reads_the_document_with_a_signed_request() -> None:
    with serving(reply(200, b"{}", ETag='"e1"')) as (source, requests):
        assert source.fetch(None) == FetchedDocument(body=b"{}", etag='"e1"')
    (request,) = requests
    assert request.path == "/bucket/.fairway/access.json"
    assert request.headers["Host"].startswith("127.0.0.1:")
    assert request.headers["X-Amz-Security-Token"] == "session"
    assert "Credential=AKIA/" in request.headers["Authorization"]
    assert "/eu-central-1/s3/aws4_request" in request.headers["Authorization"]
    assert request.headers["If-None-Match"] is None
    assert len(request.headers.get_all("Host", [])) == 1


def test_fetch__asks_whether_it_changed() -> None:
    with serving(reply(304)) as (source, requests):
        assert source.fetch('"e1"') is None
    assert requests[0].headers["If-None-Match"] == '"e1"'
    assert "if-none-match" in requests[0].headers["Authorization"]


def test_fetch__missing_key() -> None:
    with serving(reply(404, MISSING)) as (source, _):
        assert source.fetch(None) == FetchedDocument(body=None, etag=None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<Error><Code>NoSuchBucket</Code></Error>"),
        (404, b""),
        (403, b"<Error><Code>AccessDenied</Code></Error>"),
        (403, MISSING),
        (304, b""),
        (301, b""),
        (307, b""),
        (200 + 4, b""),
        (206, b"{}"),
        (400, b""),
        (500, b""),
        (503, b"<Error><Code>SlowDown</Code></Error>"),
    ],
)
def test_fetch__attack_any_other_answer_is_no_empty_document(status: int, body: bytes) -> None:
    with serving(reply(status, body)) as (source, _), pytest.raises(UnavailableError):
        source.fetch(None)


def test_fetch__follows_no_redirect() -> None:
    with serving(reply(307, Location="http://127.0.0.1:1/")) as (source, requests):
        with pytest.raises(UnavailableError):
            source.fetch(None)
        assert len(requests) == 1


def test_fetch__unreachable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnavailableError):
        make_source(port).fetch(None)


def test_fetch__answer_is_not_http() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"hello\r\n\r\n")

    with serving(answer) as (source, _), pytest.raises(UnavailableError):
        source.fetch(None)


def test_fetch__cut_short() -> None:
    with serving(reply(200, b"{}", **{"Content-Length": "100"})) as (source, _), pytest.raises(UnavailableError):
        source.fetch(None)


def test_fetch__silence_ends_in_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "TIMEOUT_SECONDS", 0.05)
    done = threading.Event()

    def answer(_: BaseHTTPRequestHandler) -> None:
        done.wait(10)

    with serving(answer) as (source, _):
        with pytest.raises(UnavailableError):
            source.fetch(None)
        done.set()


def test_fetch__a_body_that_drips_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "DEADLINE_SECONDS", -1.0)
    with serving(reply(200, b"{}")) as (source, _), pytest.raises(UnavailableError, match="took more"):
        source.fetch(None)


def test_fetch__a_body_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_DOCUMENT_BYTES", 10)
    with serving(reply(200, b" " * 11)) as (source, _), pytest.raises(UnavailableError, match="more than"):
        source.fetch(None)
    assert MAX_DOCUMENT_BYTES > 10


def test_fetch__no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with serving(reply(200, b"{}")) as (source, _), pytest.raises(UnavailableError):
        source.fetch(None)


def test_fetch__error_tells_no_secret() -> None:
    with serving(reply(500)) as (source, _), pytest.raises(UnavailableError) as caught:
        source.fetch(None)
    assert "secret" not in str(caught.value)
    assert "session" not in str(caught.value)
