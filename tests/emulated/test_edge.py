"""The edge, with fakes of the Lambda API, of S3 and of the emulated distribution."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from lambdas.channel.errors import UsageError
from scripts.emulated.cloudfront import parse_behaviours
from scripts.emulated.edge import Distribution, Edge, make_server, serve
from scripts.emulated.viewer import Answer, Viewer

CONTENT = bytes(range(256)) * 4096
CONFIG: dict[str, Any] = {
    "CacheBehaviors": {
        "Items": [
            {
                "PathPattern": "*.conda",
                "LambdaFunctionAssociations": {
                    "Items": [{"LambdaFunctionARN": "arn:artifacts:7", "EventType": "viewer-request"}]
                },
            },
            {
                "PathPattern": "/marked/*",
                "LambdaFunctionAssociations": {
                    "Items": [{"LambdaFunctionARN": "arn:marking:5", "EventType": "origin-response"}]
                },
            },
        ]
    },
    "DefaultCacheBehavior": {
        "LambdaFunctionAssociations": {"Items": [{"LambdaFunctionARN": "arn:default:3", "EventType": "viewer-request"}]}
    },
}


def pass_on(request: dict[str, Any]) -> object:
    return request


@dataclass(kw_only=True)
class FakeFunctions:
    """A fake of the Lambda API with one function, in Python."""

    function: Callable[[dict[str, Any]], object] = pass_on
    invoked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
        event = json.loads(Payload)
        self.invoked.append((FunctionName, event))
        try:
            record = event["Records"][0]["cf"]
            result = self.function(record["response"] if "response" in record else record["request"])
        except ZeroDivisionError:
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(b'{"errorMessage": "<boom>"}')}
        return {"Payload": io.BytesIO(json.dumps(result).encode())}


class FakeStorage:
    """A fake of S3: every key under there/ exists."""

    def head_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803 - boto3's names
        assert Bucket == "bucket"
        if not Key.startswith("there/"):
            raise ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "HeadObject")  # type: ignore[typeddict-item]  # only what the edge reads


@dataclass(kw_only=True)
class FakeEmulator:
    """A fake of the emulated distribution.

    It returns the request it received; for "denied", it answers 403, for "late", once; for "large", with a
    large body.
    """

    arrived: list[web.BaseRequest] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.arrived.append(request)
        headers = {"Cache-Control": "max-age=30", "X-Cache": "Miss from cloudfront", "Keep-Alive": "timeout=5"}
        late = "late" in request.raw_path and len(self.arrived) == 1
        if "denied" in request.raw_path or late:
            return web.Response(status=403, text="AccessDenied", headers=headers)
        if "large" not in request.raw_path:
            return web.Response(text=f"{request.method} {request.raw_path}", headers=headers)
        response = web.StreamResponse(headers=headers | {"Content-Length": str(len(CONTENT))})
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(CONTENT)
        return response


@dataclass(kw_only=True)
class World:
    """The edge and what the fakes received."""

    functions: FakeFunctions
    emulator: FakeEmulator
    viewer: Viewer
    edge: Edge

    async def send(self, raw: bytes) -> bytes:
        """Send raw bytes; return everything until the edge closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.viewer.url).port)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        return answer

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await asyncio.to_thread(self.viewer.ask, path, method, named)


def play(
    scene: Callable[[World], Awaitable[None]],
    function: Callable[[dict[str, Any]], object] = pass_on,
    *,
    lists_bucket: bool = True,
    root_object: str = "",
) -> None:
    """Run a test against an edge with fakes."""

    async def run() -> None:
        functions, emulator = FakeFunctions(function=function), FakeEmulator()
        upstream = web.ServerRunner(web.Server(emulator.answer))
        await upstream.setup()
        await web.TCPSite(upstream, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            edge = Edge(
                endpoint=f"http://127.0.0.1:{upstream.addresses[0][1]}",
                distribution=Distribution(
                    id="E1",
                    domain="d1.cloudfront.net",
                    origin="bucket.s3.us-east-1.amazonaws.com",
                    behaviours=parse_behaviours(CONFIG),
                    root_object=root_object,
                    bucket="bucket",
                    lists_bucket=lists_bucket,
                ),
                functions=cast("Any", functions),
                storage=cast("Any", FakeStorage()),
                session=session,
            )
            runner = web.ServerRunner(make_server(edge))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            viewer = Viewer(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
            try:
                await scene(World(functions=functions, emulator=emulator, viewer=viewer, edge=edge))
            finally:
                await runner.cleanup()
                edge.threads.shutdown()
                await upstream.cleanup()

    asyncio.run(run())


def test_serve__function_of_the_behaviour_runs_and_its_request_is_forwarded() -> None:
    def rewrite(request: dict[str, Any]) -> object:
        del request["headers"]["authorization"]
        return request | {"uri": "/a%2Bb/%21c~", "querystring": ""}

    async def scene(world: World) -> None:
        answer = await world.ask("/t/x/a+b.conda?list-type=2", Authorization="Basic eDp5", Range="bytes=1-")
        assert answer.body == b"GET //a%2Bb/%21c~"
        ((arn, event),) = world.functions.invoked
        assert arn == "arn:artifacts:7"
        sent = event["Records"][0]["cf"]["request"]
        assert (sent["uri"], sent["querystring"], sent["clientIp"]) == ("/t/x/a+b.conda", "list-type=2", "127.0.0.1")
        (arrived,) = world.emulator.arrived
        assert arrived.headers["Host"] == "d1.cloudfront.net"
        assert arrived.headers["X-Forwarded-Proto"] == "https"
        assert arrived.headers["Range"] == "bytes=1-"
        assert "Authorization" not in arrived.headers

    play(scene, rewrite)


@pytest.mark.parametrize(
    ("uri", "arrives"),
    [
        ("/a%2Bb", "//a%2Bb"),
        ("/a+b", "//a%20b"),  # S3 takes it for a space
        ("/a/%2e%2e/b", "//a/%2e%2e/b"),
        ("/a/../b", "//a/../b"),
        ("/%C3%A9%00%2F", "//%C3%A9%00%2F"),
        ("/a;b=c,d@e:f", "//a;b=c,d@e:f"),
        ("/_ministack/reset", "//_ministack/reset"),
    ],
)
def test_serve__uri_is_forwarded_as_the_function_returned_it(uri: str, arrives: str) -> None:
    async def scene(world: World) -> None:
        assert (await world.ask("/x")).body == f"GET {arrives}".encode()

    play(scene, lambda request: request | {"uri": uri})


def test_serve__head_and_large_content() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask("/large")).body == CONTENT
        head = await world.ask("/large", "HEAD")
        assert head.body == b""
        assert head.headers["content-length"] == str(len(CONTENT))

    play(scene)


def test_serve__headers_of_the_origin_except_hop_by_hop() -> None:
    async def scene(world: World) -> None:
        answer = await world.ask("/x", Connection="close", Keep_Alive="timeout=1", X_Two="2")
        assert answer.headers["cache-control"] == "max-age=30"
        assert "keep-alive" not in answer.headers
        (arrived,) = world.emulator.arrived
        assert arrived.headers["X-Two"] == "2"
        assert "Keep-Alive" not in arrived.headers

    play(scene)


@pytest.mark.parametrize(
    ("function", "status", "cause"),
    [
        (lambda _: 1 / 0, 503, "LambdaExecutionError"),
        (lambda _: None, 502, "LambdaValidationError"),
        (lambda _: {"status": "200", "body": "x" * 40961}, 502, "LambdaValidationError"),
        (lambda _: {"status": "401", "statusDescription": "Unauthorized"}, 401, "LambdaGeneratedResponse"),
    ],
)
def test_serve__function_responds_or_fails(
    function: Callable[[dict[str, Any]], object], status: int, cause: str
) -> None:
    async def scene(world: World) -> None:
        for method in ("GET", "HEAD"):
            answer = await world.ask("/x", method)
            assert answer.status == status
            assert answer.headers["x-cache"] == f"{cause} from cloudfront"
            assert b"<boom>" not in answer.body
        assert not world.emulator.arrived

    play(scene, function)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_serve__method_that_the_distribution_does_not_allow(method: str) -> None:
    async def scene(world: World) -> None:
        assert (await world.ask("/x", method)).status == 403
        assert not world.functions.invoked
        assert not world.emulator.arrived

    play(scene)


@pytest.mark.parametrize(("path", "status"), [("/" + "a" * 8192, 414), ("http://evil.example/x", 400), ("*", 400)])
def test_serve__urls_that_cloudfront_rejects(path: str, status: int) -> None:
    async def scene(world: World) -> None:
        assert (await world.ask(path)).status == status
        assert not world.functions.invoked

    play(scene)


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        b"GET /t/TOKEN/t\xc3\xa9am/noarch/repodata.json HTTP/1.1",
        b"GET /t/TOKEN/a b HTTP/1.1",
        b"GET /t/TOKEN/x HTTP/3.9",
        b"GET http://u:TOKEN@[/x HTTP/1.1",
        b"G(T /t/TOKEN/x HTTP/1.1",
        b"TOKEN",
        b"GET /x HTTP/1.1\r\nAuthorization Bearer TOKEN",
        b"GET /x HTTP/1.1\r\nAuthorization: Bearer \x01TOKEN",
        b"GET /x HTTP/1.1\r\nTransfer-Encoding: TOKEN",
    ],
)
def test_serve__token_in_what_cannot_be_parsed(
    request_line_and_headers: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(world: World) -> None:
        answer = await world.send(request_line_and_headers + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.split()[1] == b"400"
        assert b"Bad request." in answer
        assert b"TOKEN" not in answer
        assert b"/x" not in answer
        assert not world.functions.invoked

    play(scene)
    assert "TOKEN" not in caplog.text + "".join(capfd.readouterr())


def test_serve__largest_request_that_cloudfront_accepts() -> None:
    async def scene(world: World) -> None:
        token = "a" * (16 * 1024)
        assert (await world.ask("/x", Authorization=f"Bearer {token}")).status == 200
        ((_, event),) = world.functions.invoked
        sent = event["Records"][0]["cf"]["request"]["headers"]["authorization"]
        assert sent == [{"key": "Authorization", "value": f"Bearer {token}"}]
        start = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        many = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 90) for number in range(300))
        assert (await world.send(start + many + b"\r\n")).split()[1] == b"200"

    def drop(request: dict[str, Any]) -> object:
        kept = {name: values for name, values in request["headers"].items() if len(values[0]["value"]) < 80}
        return request | {"headers": kept}

    play(scene, drop)


@pytest.mark.parametrize(
    "headers",
    [
        b"Authorization: Bearer " + b"TOKEN" * 7000,
        b"\r\n".join(b"X-%d: TOKEN%s" % (number, b"a" * 90) for number in range(400)),
    ],
)
def test_serve__token_in_what_is_too_large(
    headers: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(world: World) -> None:
        answer = await world.send(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n\r\n")
        assert answer.split()[1] == b"413"
        assert b"TOKEN" not in answer
        assert not world.functions.invoked

    play(scene)
    assert "TOKEN" not in caplog.text + "".join(capfd.readouterr())


def test_serve__token_in_an_error_of_the_edge(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: dict[str, Any]) -> object:
        raise ValueError(f"what of {request['uri']}?")

    async def scene(world: World) -> None:
        answer = await world.ask("/t/TOKEN/x")
        assert (answer.status, b"TOKEN" in answer.body) == (500, False)

    play(scene, fail)
    assert "ValueError" in caplog.text
    assert "in fail" in caplog.text
    assert "TOKEN" not in caplog.text


def test_serve__object_written_between_two_requests_is_served() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask("/there/late")).status == 200

    play(scene)


def test_serve__missing_is_404_if_the_distribution_may_list() -> None:
    async def scene(world: World) -> None:
        for method in ("GET", "HEAD"):
            missing = await world.ask("/denied/x", method)
            assert missing.status == 404
            assert missing.headers["cache-control"] == "max-age=30"  # the distribution's headers
        assert (await world.ask("/there/denied/x")).status == 403

    async def scene_without(world: World) -> None:
        assert (await world.ask("/denied/x")).status == 403

    play(scene)
    play(scene_without, lists_bucket=False)


def test_serve__root_let_through_by_the_function() -> None:
    async def alarmed(world: World) -> None:
        answer = await world.ask("/")
        assert answer.status == 500
        assert b"would list the bucket" in answer.body
        assert not world.emulator.arrived

    async def replaced(world: World) -> None:
        assert (await world.ask("/")).body == b"GET //index.html"

    play(alarmed)
    play(replaced, root_object="index.html")


def test_serve__key_that_starts_with_a_slash_is_missing() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask("//there/x")).status == 404
        assert not world.emulator.arrived

    play(scene)


def mark(response: dict[str, Any]) -> object:
    """An origin-response function that sets one header, and copies the status to another."""
    marks = {"cache-control": [{"value": "no-store"}], "x-status": [{"value": response["status"]}]}
    return response | {"headers": response["headers"] | marks}


def test_serve__origin_response_function_changes_headers_and_the_body_is_streamed() -> None:
    async def scene(world: World) -> None:
        for method, body in (("GET", CONTENT), ("HEAD", b"")):
            answer = await world.ask("/marked/large+", method, Range="bytes=0-")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-status"] == "200"
            assert answer.headers["x-cache"] == "Miss from cloudfront"
            assert answer.headers["content-length"] == str(len(CONTENT))
        (arn, event), _ = world.functions.invoked
        assert arn == "arn:marking:5"
        record = event["Records"][0]["cf"]
        assert record["config"]["eventType"] == "origin-response"
        assert record["request"]["uri"] == "/marked/large+"
        assert record["request"]["headers"]["host"] == [{"key": "Host", "value": "bucket.s3.us-east-1.amazonaws.com"}]
        assert record["response"]["headers"]["cache-control"] == [{"key": "Cache-Control", "value": "max-age=30"}]
        assert "body" not in record["response"]

    play(scene, mark)


def test_serve__origin_response_function_sees_errors_too() -> None:
    async def scene(world: World) -> None:
        for method in ("GET", "HEAD"):
            missing = await world.ask("/marked/denied", method)
            assert (missing.status, missing.headers["x-status"]) == (404, "404")
            assert missing.headers["cache-control"] == "no-store"
            assert missing.body.endswith(b"</Error>" if method == "GET" else b"")

    async def scene_without(world: World) -> None:
        denied = await world.ask("/marked/denied")
        assert (denied.status, denied.headers["x-status"]) == (403, "403")
        assert (denied.headers["cache-control"], denied.body) == ("no-store", b"AccessDenied")

    play(scene, mark)
    play(scene_without, mark, lists_bucket=False)


@pytest.mark.parametrize(
    ("function", "status", "cause"),
    [
        (lambda _: 1 / 0, 503, "LambdaExecutionError"),
        (lambda _: None, 502, "LambdaValidationError"),
        (lambda response: response | {"status": "418"}, 502, "LambdaValidationError"),
    ],
)
def test_serve__origin_response_function_fails(
    function: Callable[[dict[str, Any]], object], status: int, cause: str
) -> None:
    async def scene(world: World) -> None:
        for path in ("/marked/large", "/marked/denied"):
            answer = await world.ask(path)
            assert (answer.status, answer.headers["x-cache"]) == (status, f"{cause} from cloudfront")

    play(scene, function)


def test_serve__emulator_not_running() -> None:
    async def scene(world: World) -> None:
        world.edge.endpoint = "http://127.0.0.1:1"
        assert (await world.ask("/x")).status == 502

    play(scene)


def test_serve__rejects_an_endpoint_not_on_loopback() -> None:
    with pytest.raises(UsageError):
        asyncio.run(serve(endpoint="https://cloudfront.amazonaws.com", distribution_id="E1", port=0))
