import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from lambdas.channel.errors import AccessDeniedError, ConflictError, UnavailableError
from lambdas.key_refresher.deployment import answer_deployment, is_deployment, send_answer

EVENT = {
    "RequestType": "Create",
    "ResponseURL": "https://cloudformation.example.com/answer?signature=1",
    "StackId": "stack",
    "RequestId": "request",
    "LogicalResourceId": "AccessDocument",
}


class Mailbox:
    def __init__(self) -> None:
        self.letters: list[tuple[str, dict[str, Any]]] = []

    def send(self, url: str, body: bytes) -> None:
        self.letters.append((url, json.loads(body)))


def _fail(error: Exception) -> Callable[[], None]:
    def create() -> None:
        raise error

    return create


def test_answer_deployment__creates_and_answers() -> None:
    mailbox, created = Mailbox(), []
    answer_deployment(EVENT, lambda: created.append(1), mailbox.send)
    ((url, answer),) = mailbox.letters
    assert (url, answer["Status"], created) == (EVENT["ResponseURL"], "SUCCESS", [1])
    assert {"StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId"} <= answer.keys()


def test_answer_deployment__document_exists_already() -> None:
    mailbox = Mailbox()
    answer_deployment(EVENT, _fail(ConflictError("it exists")), mailbox.send)
    assert mailbox.letters[0][1]["Status"] == "SUCCESS"


@pytest.mark.parametrize("request_type", ["Update", "Delete"])
def test_answer_deployment__attack_lost_document_is_not_replaced_by_an_empty_one(request_type: str) -> None:
    mailbox = Mailbox()
    answer_deployment({**EVENT, "RequestType": request_type}, _fail(AssertionError()), mailbox.send)
    assert mailbox.letters[0][1]["Status"] == "SUCCESS"


@pytest.mark.parametrize("error", [AccessDeniedError("no"), UnavailableError("no")])
def test_answer_deployment__failure_is_answered(error: Exception) -> None:
    mailbox = Mailbox()
    answer_deployment(EVENT, _fail(error), mailbox.send)
    assert (mailbox.letters[0][1]["Status"], mailbox.letters[0][1]["Reason"]) == ("FAILED", "no")


def test_is_deployment__schedule() -> None:
    assert is_deployment(EVENT)
    assert not is_deployment({"source": "aws.events"})
    assert not is_deployment(None)


def test_send_answer__puts_without_a_content_type() -> None:
    received: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers.get("Content-Type"), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.handle_request)
    thread.start()
    send_answer(f"http://127.0.0.1:{server.server_port}/answer?x=1", b"{}")
    thread.join()
    server.server_close()
    assert received == [("/answer?x=1", "", b"{}")]


def test_send_answer__unreachable() -> None:
    with pytest.raises(UnavailableError):
        send_answer("http://127.0.0.1:1/", b"{}")
