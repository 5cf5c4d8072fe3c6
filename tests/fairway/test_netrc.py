"""The netrc line of a token, and the file that it is written to."""

import stat
from pathlib import Path

import pytest

from lambdas.access.document import AccessDocument, encode_access
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import ACCESS_KEY
from lambdas.storage.protocol import ContentHeaders
from scripts.fairway.netrc import format_entry, replace_entry
from tests.fairway.buckets import Bucket
from tests.fairway.conftest import Run

LINE = "machine conda.example.com login token password fw-new"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"{LINE}\n"),
        ("machine other login a password b", f"machine other login a password b\n{LINE}\n"),
        (
            "machine conda.example.com login x password old\nmachine other login a password b\n",
            f"{LINE}\nmachine other login a password b\n",
        ),
        ("machine conda.example.com\n  login x\n  password old\n# end\n", f"{LINE}\n# end\n"),
        (
            "machine conda.example.com.evil password y\n",
            f"machine conda.example.com.evil password y\n{LINE}\n",
        ),
        (
            "machine sub.conda.example.com password y\n",
            f"machine sub.conda.example.com password y\n{LINE}\n",
        ),
        ("default login anonymous password x\n", f"{LINE}\ndefault login anonymous password x\n"),
        (
            "machine conda.example.com password 1\nmachine a password c\nmachine conda.example.com password 2\n",
            f"{LINE}\nmachine a password c\n",
        ),
    ],
)
def test_replace_entry__of_one_host(text: str, expected: str) -> None:
    assert replace_entry(text, LINE) == expected
    assert replace_entry(expected, LINE) == expected


@pytest.mark.parametrize("url", ["https://conda.example.com", "https://conda.example.com:8443/"])
def test_format_entry__host_without_port(url: str) -> None:
    assert format_entry(url, "fw-new") == LINE


def test_format_entry__no_url() -> None:
    with pytest.raises(UsageError, match="no host in the URL"):
        format_entry("conda.example.com", "fw-new")


@pytest.fixture
def netrc(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    headers = ContentHeaders(content_type="application/json", cache_control="no-store")
    bucket.storage.put(ACCESS_KEY, encode_access(AccessDocument()), headers=headers)
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("FAIRWAY_URL", "https://conda.example.com")
    return path


def test_token_create__prints_the_line_and_the_url(netrc: Path, run_fairway: Run) -> None:
    result = run_fairway("token", "create", "ada", "--channel", "team")
    secret = result.out.strip()
    lines = result.err.splitlines()
    assert f"machine conda.example.com login token password {secret}" in lines
    assert f"conda install -c https://conda.example.com/t/{secret}/team PACKAGE" in lines
    assert not netrc.exists()
    document = run_fairway("token", "create", "bob", "--channel", "*", "--json").document
    assert document["netrc"] == f"machine conda.example.com login token password {document['token']}"
    assert document["channel_url"] == f"https://conda.example.com/t/{document['token']}/CHANNEL"


def test_token_create__netrc_replaces_the_earlier_line(netrc: Path, run_fairway: Run) -> None:
    netrc.write_text("machine other login a password b\n")
    netrc.chmod(0o644)
    for name in ("ada", "bob"):
        secret = run_fairway("token", "create", name, "--channel", "team", "--netrc").out.strip()
    line = f"machine conda.example.com login token password {secret}"
    assert netrc.read_text() == f"machine other login a password b\n{line}\n"
    assert stat.S_IMODE(netrc.stat().st_mode) == 0o600
    assert [path.name for path in netrc.parent.iterdir() if path.name.startswith("tmp")] == []


def test_token_create__netrc_without_a_url_creates_no_token(
    netrc: Path, bucket: Bucket, run_fairway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRWAY_URL")
    before = bucket.storage.get(ACCESS_KEY)
    result = run_fairway("token", "create", "ada", "--channel", "team", "--netrc")
    assert (result.code, result.out) == (2, "")
    assert bucket.storage.get(ACCESS_KEY) == before
    assert run_fairway("token", "create", "ada", "--channel", "team").code == 0
