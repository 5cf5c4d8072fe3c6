"""The development edge: CloudFront and Lambda@Edge on loopback.

For each request, the edge matches the cache behaviour as CloudFront does, invokes the function
*version* that the deployed distribution names there, and forwards the request that the function
returned to the emulated distribution, which checks origin access and adds response headers. If the
behaviour has an origin-response function, that version may then change headers of the response; the
body is streamed unchanged. Nothing is cached: every viewer request is also an origin request.

The edge corrects differences between the emulator and AWS:

- For a missing key, the emulator answers 403 even if the distribution may list the bucket. S3
  answers 404 then, and so does the edge, after a request to S3. For the root, S3 would list the
  bucket: if a function lets it through, the edge answers 500, so that the mistake is noticed.
- The emulator takes a plus in a path literally; S3 takes it for a space. The edge sends a space.
- The emulator routes some paths before it checks the Host. The edge sends a second leading slash,
  which hides the emulator's other interfaces; the emulated distribution drops leading slashes.

A request that cannot be parsed gets CloudFront's error page. No part of a request is repeated in an
error or in the log, because it may contain a token.

Not supported, and not used by Fairway: viewer-response and origin-request functions, and
origin-response functions that replace a status or a body.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import signal
import traceback
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_plus

import aiohttp
import boto3
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from multidict import CIMultiDict
from yarl import URL

from scripts.emulated.cloudfront import (
    HOP_BY_HOP,
    MAX_REQUEST_BYTES,
    MAX_URL_BYTES,
    Behaviour,
    GeneratedResponse,
    InvalidResultError,
    OriginResponse,
    ViewerRequest,
    find_behaviour,
    format_event,
    format_response_event,
    make_error,
    may_list,
    parse_behaviours,
    parse_response_result,
    parse_result,
)
from scripts.emulated.isolation import ACCESS_KEY, REGION, SECRET_KEY, require_loopback

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client

HOST = "127.0.0.1"
_CONCURRENT_INVOCATIONS = 16  # each takes one process of the emulator
_CONNECTIONS = 64
_CHUNK_BYTES = 64 * 1024
_NO_SUCH_KEY = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>'
# Headers that describe one response only.
_PER_RESPONSE = HOP_BY_HOP | {
    "content-length",
    "content-type",
    "content-encoding",
    "date",
    "server",
}
_BAD_REQUEST = make_error(400, "Bad request.", "Error")
_TOO_LARGE = make_error(413, "The request is too large.", "Error")
_BROKEN = make_error(500, "The development edge failed; see its log.", "Error")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """The parts of the deployed distribution that the edge uses."""

    id: str
    domain: str
    origin: str  # the bucket's domain name
    behaviours: tuple[Behaviour, ...]
    root_object: str
    bucket: str
    lists_bucket: bool


def fetch_distribution(session: boto3.Session, distribution_id: str, *, endpoint: str) -> Distribution:
    """Read the deployed distribution and the policy of the bucket behind it."""
    distribution = session.client("cloudfront", endpoint_url=endpoint).get_distribution(Id=distribution_id)[
        "Distribution"
    ]
    config = distribution["DistributionConfig"]
    origin = config["Origins"]["Items"][0]["DomainName"]
    bucket = origin.partition(".s3.")[0]
    policy = json.loads(session.client("s3", endpoint_url=endpoint).get_bucket_policy(Bucket=bucket)["Policy"])
    return Distribution(
        id=distribution_id,
        domain=distribution["DomainName"],
        origin=origin,
        behaviours=parse_behaviours(config),
        root_object=config.get("DefaultRootObject", ""),
        bucket=bucket,
        lists_bucket=may_list(policy, bucket=bucket, distribution_arn=distribution["ARN"]),
    )


@dataclass(kw_only=True, slots=True)
class Edge:
    """Serves the requests of viewers."""

    endpoint: str
    distribution: Distribution
    functions: LambdaClient
    storage: S3Client
    session: aiohttp.ClientSession
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_CONCURRENT_INVOCATIONS))

    async def serve(self, incoming: web.BaseRequest) -> web.StreamResponse:
        """Respond to one request."""
        uri, _, querystring = incoming.raw_path.partition("?")
        if len(incoming.raw_path) > MAX_URL_BYTES:
            return _format_response(make_error(414, "The URL is too long.", "Error"))
        if _measure(incoming) > MAX_REQUEST_BYTES:
            return _format_response(_TOO_LARGE)
        if not uri.startswith("/"):
            return _format_response(_BAD_REQUEST)
        behaviour = find_behaviour(self.distribution.behaviours, uri)
        if incoming.method not in behaviour.methods or (incoming.method in {"GET", "HEAD"} and incoming.can_read_body):
            return _format_response(make_error(403, "This distribution does not allow such a request.", "Error"))
        request = ViewerRequest(
            method=incoming.method,
            uri=uri,
            querystring=querystring,
            headers=_read_headers(incoming),
            client_ip=incoming.remote or HOST,
        )
        forwarded = await self._run_viewer_request(behaviour, request)
        if isinstance(forwarded, GeneratedResponse):
            return _format_response(forwarded)
        return await self._forward(incoming, forwarded, behaviour)

    async def _run_viewer_request(
        self, behaviour: Behaviour, request: ViewerRequest
    ) -> ViewerRequest | GeneratedResponse:
        """Return the request that the behaviour's function returns, or the response that it generates."""
        arn = behaviour.functions.get("viewer-request")
        if arn is None:
            return request
        event = format_event(
            request,
            distribution_id=self.distribution.id,
            domain=self.distribution.domain,
            request_id=uuid.uuid4().hex,
        )
        return await self._run_function(arn, event, lambda result: parse_result(result, request))

    async def _run_origin_response(
        self, behaviour: Behaviour, request: ViewerRequest, response: OriginResponse
    ) -> OriginResponse | GeneratedResponse:
        """Return the origin's response with the headers that the behaviour's function returns, or an error."""
        arn = behaviour.functions.get("origin-response")
        if arn is None:
            return response
        event = format_response_event(
            response,
            request,
            origin=self.distribution.origin,
            distribution_id=self.distribution.id,
            domain=self.distribution.domain,
            request_id=uuid.uuid4().hex,
        )
        return await self._run_function(arn, event, lambda result: parse_response_result(result, response))

    async def _run_function(
        self, arn: str, event: dict[str, Any], parse: Callable[[object], T]
    ) -> T | GeneratedResponse:
        """Invoke a function as CloudFront does; turn its failures into CloudFront's error pages."""
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self.threads, self._invoke, arn, event)
        except (BotoCoreError, ClientError) as error:
            return make_error(503, f"The function could not run: {error}", "LambdaLimitExceeded")
        if isinstance(answer, GeneratedResponse):
            return answer
        try:
            return parse(answer)
        except InvalidResultError as error:
            return make_error(502, str(error), "LambdaValidationError")

    def _invoke(self, arn: str, event: dict[str, Any]) -> object:
        """Invoke the function version; blocking, so call it in a thread."""
        answer = self.functions.invoke(FunctionName=arn, Payload=json.dumps(event).encode())
        payload = answer["Payload"].read()
        if answer.get("FunctionError"):
            return make_error(503, f"The function failed: {payload.decode(errors='replace')}", "LambdaExecutionError")
        return json.loads(payload)

    async def _forward(
        self, incoming: web.BaseRequest, request: ViewerRequest, behaviour: Behaviour
    ) -> web.StreamResponse:
        """Forward the request to the emulated distribution, and stream its response."""
        if request.uri == "/" and self.distribution.root_object:
            request = replace(request, uri=f"/{self.distribution.root_object}")
        elif request.uri == "/":
            return _format_response(make_error(500, "The function let '/' through: S3 would list the bucket.", "Error"))
        if request.uri.startswith("//"):
            return await self._respond_missing(request, behaviour, {})
        # encoded=True: the path is sent exactly as the function returned it.
        query = f"?{request.querystring}" if request.querystring else ""
        target = URL(f"{self.endpoint}/{request.uri.replace('+', '%20')}{query}", encoded=True)
        headers = CIMultiDict(
            [(name, value) for name, value in request.headers if name.lower() not in HOP_BY_HOP | {"host"}]
        )
        headers.update({"Host": self.distribution.domain, "X-Forwarded-Proto": "https"})
        body = incoming.content if incoming.can_read_body else None
        ask = functools.partial(
            self.session.request, request.method, target, headers=headers, data=body, allow_redirects=False
        )
        try:
            answer = await ask()
            if answer.status == web.HTTPForbidden.status_code:
                answer.release()
                if await self._is_missing(request.uri):
                    return await self._respond_missing(request, behaviour, answer.headers)
                answer = await ask()  # the object may have been written after the first response
        except (aiohttp.ClientError, TimeoutError):
            return _format_response(make_error(502, "The emulator does not answer.", "Error"))
        async with answer:
            response = OriginResponse(
                status=answer.status,
                reason=answer.reason or "",
                headers=tuple(
                    (name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP
                ),
            )
            changed = await self._run_origin_response(behaviour, request, response)
            if isinstance(changed, GeneratedResponse):
                return _format_response(changed)
            outgoing = web.StreamResponse(
                status=changed.status, reason=changed.reason, headers=CIMultiDict(changed.headers)
            )
            await outgoing.prepare(incoming)
            if request.method != "HEAD":
                # A failure from here on closes the connection, so the viewer notices a truncated body.
                async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                    await outgoing.write(chunk)
            await outgoing.write_eof()
            return outgoing

    async def _respond_missing(
        self, request: ViewerRequest, behaviour: Behaviour, policy: Mapping[str, str]
    ) -> web.StreamResponse:
        """Respond as S3 does for a missing key, with the headers that the distribution adds."""
        added = [(name, value) for name, value in policy.items() if name.lower() not in _PER_RESPONSE]
        response = OriginResponse(status=404, reason="Not Found", headers=(*added, ("Content-Type", "application/xml")))
        changed = await self._run_origin_response(behaviour, request, response)
        if isinstance(changed, OriginResponse):
            changed = GeneratedResponse(
                status=changed.status, reason=changed.reason, headers=changed.headers, body=_NO_SUCH_KEY
            )
        return _format_response(changed)

    async def _is_missing(self, uri: str) -> bool:
        """Tell whether S3 would have answered 404: the distribution may list the bucket, and the key is missing."""
        if not self.distribution.lists_bucket:
            return False
        return await asyncio.get_running_loop().run_in_executor(self.threads, self._is_absent, unquote_plus(uri)[1:])

    def _is_absent(self, key: str) -> bool:
        """Tell whether S3 has no such key; blocking, so call it in a thread."""
        try:
            self.storage.head_object(Bucket=self.distribution.bucket, Key=key)
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"] == web.HTTPNotFound.status_code
        return False


class _Connection(web.RequestHandler):
    """aiohttp's request handler, without the parts of requests that it repeats in responses and logs."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats the request
    ) -> web.StreamResponse:
        """Respond to a request that cannot be parsed, or that the edge failed to serve; close the connection."""
        if status == web.HTTPBadRequest.status_code:
            error = _TOO_LARGE if isinstance(exc, LineTooLong) else _BAD_REQUEST
        else:
            self.log_exception("", exc_info=exc)
            error = _BROKEN
        if request.writer.output_size > 0:
            raise ConnectionError("the response has already begun")
        response = _format_response(error)
        response.force_close()
        return response

    def log_exception(self, *_: object, exc_info: BaseException | None = None, **__: object) -> None:
        """Log the type of the error and the traceback, but not the message: it may repeat the request."""
        trace = "".join(traceback.format_tb(exc_info.__traceback__)) if exc_info is not None else ""
        self.logger.error("%s\n%s", type(exc_info).__name__, trace)


class _Server(web.Server):
    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)


def make_server(edge: Edge) -> web.Server:
    """Return the HTTP server of an edge, with CloudFront's limits."""
    return _Server(
        edge.serve,
        access_log=None,
        max_line_size=MAX_REQUEST_BYTES,
        max_field_size=MAX_REQUEST_BYTES,
        max_headers=MAX_REQUEST_BYTES // len("a:\r\n"),
    )


def _measure(incoming: web.BaseRequest) -> int:
    """Return the size of the request line and the headers, in bytes."""
    line = len(f"{incoming.method} {incoming.raw_path} HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in incoming.raw_headers)


def _read_headers(incoming: web.BaseRequest) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in incoming.raw_headers
        if name.decode("latin-1").lower() not in HOP_BY_HOP
    )


def _format_response(response: GeneratedResponse) -> web.Response:
    return web.Response(
        status=response.status, reason=response.reason, headers=CIMultiDict(response.headers), body=response.body
    )


async def serve(*, endpoint: str, distribution_id: str, port: int) -> None:
    """Print the URL, and serve the distribution on loopback until a signal stops it."""
    endpoint = require_loopback(endpoint)
    session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    settings = Config(max_pool_connections=_CONCURRENT_INVOCATIONS, read_timeout=60, retries={"total_max_attempts": 2})
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300),
    ) as viewers:
        edge = Edge(
            endpoint=endpoint,
            distribution=fetch_distribution(session, distribution_id, endpoint=endpoint),
            functions=session.client("lambda", endpoint_url=endpoint, config=settings),
            storage=session.client("s3", endpoint_url=endpoint, config=settings),
            session=viewers,
        )
        runner = web.ServerRunner(make_server(edge))
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        stopped = asyncio.Event()
        for stop in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(stop, stopped.set)
        print(json.dumps({"url": "http://{}:{}".format(*runner.addresses[0][:2])}), flush=True)
        await stopped.wait()
        await runner.cleanup()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m scripts.emulated.edge", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="the emulator's URL, on loopback")
    parser.add_argument("--distribution", required=True, help="id of the deployed distribution")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    arguments = parser.parse_args()
    asyncio.run(serve(endpoint=arguments.endpoint, distribution_id=arguments.distribution, port=arguments.port))


if __name__ == "__main__":
    main()
