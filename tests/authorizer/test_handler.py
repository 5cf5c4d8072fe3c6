import json
from pathlib import Path
from typing import Any

import pytest

from lambdas.access.document import encode_access
from lambdas.authorizer import handler as handler_module
from lambdas.authorizer.handler import build_handler, handle_viewer_request
from lambdas.authorizer.log import report
from lambdas.authorizer.rules import FetchedDocument, RulesCache
from lambdas.authorizer.settings import AuthorizerSettings, parse_settings
from lambdas.channel.errors import InvalidDocumentError
from tests.access_documents import NOW, make_document, make_event, make_request, make_secret, make_token

SECRET = make_secret(1)


class FakeSource:
    def fetch(self, etag: str | None) -> FetchedDocument | None:
        if etag is not None:
            return None
        return FetchedDocument(body=encode_access(make_document(make_token(SECRET, "team"))), etag='"1"')


def make_rules() -> RulesCache:
    return RulesCache(FakeSource(), public_globs=(), refresh_seconds=30, stale_seconds=900, report=report)


def ask(uri: str) -> dict[str, Any]:
    return build_handler(make_rules(), lambda: NOW + 0.5)(make_event(make_request(uri)), None)


def test_build_handler__answers_events() -> None:
    assert ask(f"/t/{SECRET}/team/noarch/x")["uri"] == "/team/noarch/x"
    assert ask("/team/noarch/x")["status"] == "401"


@pytest.mark.parametrize(
    "event",
    [{}, {"Records": []}, {"Records": [{"cf": {}}]}, {"Records": [{"cf": {"request": {"method": "GET"}}}]}],
)
def test_build_handler__attack_unexpected_error_denies_access(event: dict[str, Any]) -> None:
    answered = build_handler(make_rules(), lambda: NOW)(event, None)
    assert answered["status"] == "503"


def test_build_handler__attack_token_leaves_in_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    broken = make_request(f"/t/{SECRET}/team/x", authorization=f"Bearer {SECRET}")
    broken["headers"]["authorization"] = [{"key": SECRET}]
    answered = build_handler(make_rules(), lambda: NOW)(make_event(broken), None)
    assert answered["status"] == "503"
    for uri in (f"/t/{SECRET}/team/x", f"/t/{SECRET}/other/x", f"/t/{SECRET}/../x"):
        ask(uri)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"level": "ERROR", "code": "authorizer-failed", "message": "KeyError"}
    assert SECRET not in captured.out + captured.err


def test_handle_viewer_request__reads_its_settings_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "bucket": "bucket",
                "region": "us-east-1",
                "origin_domain": "bucket.s3.us-east-1.amazonaws.com",
                "public_channels": [],
                "endpoint_url": "http://127.0.0.1:1",
            }
        )
    )
    monkeypatch.setattr(handler_module, "_SETTINGS_FILE", str(settings))
    monkeypatch.setattr(handler_module, "_handler", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    assert handle_viewer_request(make_event(make_request("/team/x")), None)["status"] == "503"
    settings.unlink()
    assert handle_viewer_request(make_event(make_request("/team/../x")), None)["status"] == "400"


def test_parse_settings__defaults() -> None:
    settings = parse_settings(b'{"bucket": "b", "region": "r", "origin_domain": "d"}')
    assert settings == AuthorizerSettings(bucket="b", region="r", origin_domain="d")
    assert (settings.refresh_seconds, settings.stale_seconds) == (30, 900)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"bucket": "b"}',
        b"null",
        b'{"bucket": "b", "region": "r", "origin_domain": "d", "stale_second": 9}',
    ],
)
def test_parse_settings__malformed(body: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_settings(body)
