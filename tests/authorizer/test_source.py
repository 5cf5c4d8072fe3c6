import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lambdas.access.document import MAX_DOCUMENT_BYTES
from lambdas.authorizer import source as source_module
from lambdas.authorizer.rules import FetchedDocument, RulesCache
from lambdas.authorizer.settings import AuthorizerSettings
from lambdas.authorizer.source import S3Source
from lambdas.channel.errors import UnavailableError
from tests.access_documents import NOW

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
            with closing(make_source(server.server_address[1])) as source:
                yield source, requests
        finally:
            server.shutdown()
            thread.join()


def port_of(source: S3Source) -> int:
    return int(source._host.rpartition(":")[2])


def make_source(port: int, *, scheme: str = "http") -> S3Source:
    return S3Source(
        AuthorizerSettings(
            bucket="bucket",
            region="eu-central-1",
            origin_domain="bucket.s3.eu-central-1.amazonaws.com",
            endpoint_url=f"{scheme}://127.0.0.1:{port}",
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


# One deadline for everything


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the deadline short, and require that no request takes much longer."""
    monkeypatch.setattr(source_module, "DEADLINE_SECONDS", 2.0)
    monkeypatch.setattr(source_module, "KEPT_SECONDS", 0.8)
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 8  # even on a loaded machine; the hanging sockets take 10 s


@contextmanager
def hanging(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a thread that may hang; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def drip(connection: socket.socket, text: bytes) -> None:
    """Send a byte every tenth of a second: each read succeeds in time, and the whole does not."""
    connection.recv(65536)
    for byte in text:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def hang(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(10)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    "serve",
    [
        hang,
        lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50),
        lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b" " * 100),
        lambda connection: drip(connection, b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    ],
    ids=["silence", "headers that drip", "a body that drips", "continue for ever"],
)
def test_fetch__attack_answer_that_takes_for_ever(serve: Callable[[socket.socket], None]) -> None:
    with hanging(serve) as port, pytest.raises(UnavailableError, match="within"):
        make_source(port).fetch(None)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("serve", [hang, lambda connection: drip(connection, b"\x16\x03\x03\x00\x7a" + b"\x02" * 100)])
def test_fetch__attack_tls_handshake_that_takes_for_ever(serve: Callable[[socket.socket], None]) -> None:
    with hanging(serve) as port, pytest.raises(UnavailableError):
        make_source(port, scheme="https").fetch(None)


@pytest.mark.usefixtures("brief")
def test_fetch__attack_name_resolution_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def never(*_: object, **__: object) -> list[object]:
        done.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(UnavailableError, match="within"):
        make_source(9).fetch(None)
    done.set()


def test_fetch__name_without_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(UnavailableError):
        make_source(9).fetch(None)

    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(UnavailableError, match="gaierror"):
        make_source(9).fetch(None)


class Connecting:
    """Records which addresses are tried, in place of ``socket.socket.connect``: a listed one hangs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int, *, hangs: int) -> None:
        self.tried: list[str] = []
        connect = socket.socket.connect

        def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
            hosts = [f"192.0.2.{number}" for number in range(hangs)] + ["127.0.0.1"]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

        def connect_or_hang(sock: socket.socket, address: tuple[str, int]) -> None:
            self.tried.append(address[0])
            if address[0] != "127.0.0.1":
                time.sleep(sock.gettimeout() or 10)
                raise TimeoutError
            connect(sock, address)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(socket.socket, "connect", connect_or_hang)


@pytest.mark.usefixtures("brief")
def test_fetch__an_address_that_hangs_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply(200, b"{}")) as (source, requests):
        connecting = Connecting(monkeypatch, port_of(source), hangs=1)
        assert source.fetch(None) == FetchedDocument(body=b"{}", etag=None)
    assert connecting.tried == ["192.0.2.0", "127.0.0.1"]
    assert len(requests) == 1


@pytest.mark.usefixtures("brief")
def test_fetch__tries_two_addresses_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting = Connecting(monkeypatch, 9, hangs=7)
    with pytest.raises(UnavailableError):
        make_source(9).fetch(None)
    assert connecting.tried == ["192.0.2.0", "192.0.2.1"]


def test_fetch__the_deadline_is_well_within_the_function_s_time() -> None:
    assert source_module.DEADLINE_SECONDS <= 2.5
    assert source_module.KEPT_SECONDS < source_module.DEADLINE_SECONDS / 2


def test_fetch__answer_that_ends_with_its_connection() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        for part in (b"HTTP/1.0 200 OK\r\nETag: x\r\n\r\n", b"{", b"}"):
            connection.sendall(part)
            time.sleep(0.05)

    with hanging(serve) as port:
        assert make_source(port).fetch(None) == FetchedDocument(body=b"{}", etag="x")


# One connection


@contextmanager
def keeping(*answers: bytes, closes: bool = False) -> Iterator[tuple[S3Source, list[int]]]:
    """Serve HTTP/1.1 answers on as few connections as are asked for; yield how many requests each had."""
    rest = list(answers)
    counts: list[int] = []

    def serve(connection: socket.socket) -> None:
        counts.append(0)
        number = len(counts) - 1
        while rest and connection.recv(65536):
            counts[number] += 1
            connection.sendall(rest.pop(0))
            if closes:
                return

    with hanging(serve) as port, closing(make_source(port)) as source:
        yield source, counts


OK_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "e1"\r\n\r\n{}'
SAME_ANSWER = b"HTTP/1.1 304 Not Modified\r\n\r\n"


def test_fetch__keeps_the_connection() -> None:
    with keeping(OK_ANSWER, SAME_ANSWER, SAME_ANSWER, OK_ANSWER) as (source, counts):
        assert source.fetch(None) is not None
        assert source.fetch('"e1"') is None
        assert source.fetch('"e1"') is None
        assert source.fetch('"e0"') is not None
    assert counts == [4]


def test_fetch__connects_again_where_s3_has_closed_the_connection() -> None:
    with keeping(OK_ANSWER, SAME_ANSWER, closes=True) as (source, counts):
        assert source.fetch(None) is not None
        assert source.fetch('"e1"') is None
    assert counts == [1, 1]


@pytest.mark.usefixtures("brief")
def test_fetch__connects_again_where_the_kept_connection_is_silent() -> None:
    seen: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        seen.append(connection)
        connection.recv(65536)
        connection.sendall(OK_ANSWER)
        connection.recv(65536)
        time.sleep(10)

    with hanging(serve) as port, closing(make_source(port)) as source:
        assert source.fetch(None) is not None
        assert source.fetch('"e1"') is not None
    assert len(seen) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nslow",
    ],
)
def test_fetch__keeps_no_connection_that_is_closed_or_not_read_to_its_end(answer: bytes) -> None:
    with keeping(answer, OK_ANSWER) as (source, counts):
        with suppress(UnavailableError):
            source.fetch(None)
        assert source.fetch(None) is not None
    assert len(counts) == 2


def test_fetch__attack_answer_left_on_a_kept_connection_is_no_other_request_s() -> None:
    late = b"HTTP/1.1 404 Not Found\r\nContent-Length: 37\r\n\r\n" + MISSING
    with keeping(OK_ANSWER + late, OK_ANSWER) as (source, _):
        assert source.fetch(None) == FetchedDocument(body=b"{}", etag='"e1"')
        # What came unasked was received with the first answer's bytes, and went with its reader.
        assert source.fetch(None) == FetchedDocument(body=b"{}", etag='"e1"')


CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""For 127.0.0.1, with its key; signed by itself, and trusted by nothing but a test."""


@pytest.mark.parametrize("is_trusted", [True, False])
def test_fetch__over_tls(monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(CERTIFICATE)
    handshakes: list[ssl.SSLSocket] = []

    def serve(plain: socket.socket) -> None:
        with server_side.wrap_socket(plain, server_side=True) as connection:
            handshakes.append(connection)
            for answer in (OK_ANSWER, SAME_ANSWER):
                connection.recv(65536)
                connection.sendall(answer)

    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with hanging(serve) as port, closing(make_source(port, scheme="https")) as source:
        if is_trusted:
            assert source.fetch(None) == FetchedDocument(body=b"{}", etag='"e1"')
            assert source.fetch('"e1"') is None
            assert len(handshakes) == 1
        else:
            with pytest.raises(UnavailableError, match="SSL"):
                source.fetch(None)


def test_fetch__loads_the_tls_context_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ssl.SSLContext] = []
    load = ssl.create_default_context

    def count() -> ssl.SSLContext:
        loaded.append(load())
        return loaded[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    with hanging(lambda connection: connection.close()) as port:
        source = make_source(port, scheme="https")
        for _ in range(3):
            with pytest.raises(UnavailableError):
                source.fetch(None)
    assert len(loaded) == 1
    assert loaded[0].verify_mode is ssl.CERT_REQUIRED
    assert loaded[0].check_hostname


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


@pytest.mark.usefixtures("brief")
def test_current__keeps_its_rules_in_a_black_hole() -> None:
    """S3 answers once, and never again: the environment's rules outlive the refresh, which ends in time."""
    reports: list[str] = []
    body = b'{"version": 1}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    silent = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        if not silent.is_set():
            silent.set()
            connection.sendall(answer)
        connection.recv(65536)  # until the client gives up

    with hanging(serve) as port, closing(make_source(port)) as source:
        cache = RulesCache(
            source,
            public_globs=(),
            refresh_seconds=30,
            stale_seconds=900,
            report=lambda code, _: reports.append(code),
        )
        rules = cache.current(NOW)
        assert rules is not None
        assert cache.current(NOW + 31) is rules
        assert reports == ["access-document-unavailable"]
        assert cache.current(NOW + 899) is rules
        assert cache.current(NOW + 900) is None
