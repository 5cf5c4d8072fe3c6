"""No token reaches the origin, a log, or the bucket, in whatever form it was sent (invariant 9)."""

import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from scripts.emulated.viewer import Viewer, make_basic
from tests.access_documents import make_event, make_request
from tests.end_to_end.conftest import CHANNEL, Channel

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

PATHS = (f"/{CHANNEL}/noarch/repodata.json", f"/{CHANNEL}", "/another/noarch/x", "/.fairway/access.json", "/%2e%2e/x")


def send_everywhere(channel: Channel) -> str:
    """Ask with one token in every form: allowed, denied and malformed. Return the token."""
    token = channel.reader.token
    assert token is not None
    plain = Viewer(url=channel.stack.edge_url)
    forms: list[Mapping[str, str]] = [
        make_basic(token),
        make_basic("", user=token),
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Digest {token}"},
        {"Cookie": token, "Referer": f"{channel.stack.edge_url}/t/{token}/{CHANNEL}/"},
    ]
    answers = [plain.ask(f"/t/{token}{path}") for path in PATHS]
    answers += [plain.ask(path, headers=form) for path in PATHS for form in forms]
    assert {answer.status for answer in answers} >= {302, 400, 401, 403}
    for answer in answers:
        assert token not in f"{answer.headers} {answer.body!r}"
    for raw in (
        f"GET /t/{token}/t\u00e9am/noarch/repodata.json HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET /t/{token}/te am/noarch/repodata.json HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET /{CHANNEL}/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token * 1000}\r\n\r\n",
    ):
        said = send_raw(channel.stack.edge_url, raw.encode())
        assert said.split()[1] in {b"400", b"413"}
        assert token.encode() not in said
    return token


def send_raw(url: str, request: bytes) -> bytes:
    """Send a request that no client sends; return the whole response."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_edge__attack_token_leaves_in_a_log(channel: Channel) -> None:
    token = send_everywhere(channel)
    logs = channel.stack.session().client("logs", endpoint_url=channel.stack.endpoint)
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    events = [event["message"] for group in groups for event in logs.filter_log_events(logGroupName=group)["events"]]
    logs.close()
    assert events
    assert not [message for message in events if token in message]
    files = list(channel.stack.state.rglob("*.log"))
    assert files
    assert not [path for path in files if token.encode() in path.read_bytes()]


def test_edge__attack_token_reaches_the_origin(channel: Channel, functions: "LambdaClient") -> None:
    """Invokes the deployed version: only what it returns is sent to the origin."""
    token = channel.reader.token
    assert token is not None
    path = f"/{CHANNEL}/noarch/repodata.json"
    names = [function["FunctionName"] for function in functions.list_functions()["Functions"]]
    (authorizer,) = [name for name in names if "Authorizer" in name]
    for request in (
        make_request(f"/t/{token}{path}", query=f"token={token}"),
        make_request(path, authorization=f"Bearer {token}"),
        make_request(path, authorization=make_basic(token)["Authorization"]),
    ):
        request["headers"]["referer"] = [{"key": "Referer", "value": f"https://x/t/{token}/"}]
        request["headers"]["cookie"] = [{"key": "Cookie", "value": token}]
        answer = functions.invoke(
            FunctionName=authorizer, Qualifier="1", Payload=json.dumps(make_event(request)).encode()
        )
        forwarded = answer["Payload"].read().decode()
        assert json.loads(forwarded)["uri"] == path
        assert token not in forwarded
        assert make_basic(token)["Authorization"] not in forwarded


def test_bucket__attack_token_is_kept(channel: Channel) -> None:
    tokens = [viewer.token for viewer in (channel.everything, channel.reader, channel.outsider)]
    keys = [entry["Key"] for entry in channel.s3.list_objects_v2(Bucket=channel.bucket)["Contents"]]
    assert ".fairway/access.json" in keys
    for key in keys:
        body = channel.s3.get_object(Bucket=channel.bucket, Key=key)["Body"].read()
        assert not [token for token in tokens if token is None or token.encode() in body]
