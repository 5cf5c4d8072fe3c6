"""``fairway publish``: checks, upload, wait."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from lambdas.channel.errors import UsageError
from lambdas.channel.layout import parse_artifact_key
from scripts.fairway import upload
from scripts.fairway.progress import Progress, format_bytes, format_progress
from scripts.fairway.publish import format_install, parse_arguments
from scripts.fairway.session import Session
from tests.builders import conda_package, tar_bz2_package
from tests.fairway.buckets import DAY_MS, Bucket
from tests.fairway.conftest import Run


def test_publish__dry_run_shows_the_record(run_fairway: Run, tmp_path: Path) -> None:
    filename, body = conda_package(depends=["bar"])
    (tmp_path / filename).write_bytes(body)
    result = run_fairway("publish", "--dry-run", "--json", str(tmp_path / filename), "team")
    assert result.code == 0
    assert result.document["key"] == f"team/noarch/{filename}"
    assert result.document["record"]["depends"] == ["bar"]
    assert '"depends": [\n    "bar"\n  ]' in run_fairway("publish", "--dry-run", str(tmp_path / filename), "team").out


def test_publish__invalid_file_stops_everything(run_fairway: Run, tmp_path: Path) -> None:
    filename, body = conda_package()
    (tmp_path / filename).write_bytes(body)
    (tmp_path / "broken-1.0-0.conda").write_bytes(body[:100])
    result = run_fairway("publish", str(tmp_path / filename), str(tmp_path / "broken-1.0-0.conda"), "team")
    assert result.code == 1
    assert "broken-1.0-0.conda" in result.out


def test_publish__json_of_rejected_files_has_the_hint(run_fairway: Run, tmp_path: Path) -> None:
    files = {"broken-1.0-0.conda": b"no archive", "Upper-1.0-0.conda": conda_package()[1], "notes.txt": b""}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    result = run_fairway("publish", "--json", *(str(tmp_path / name) for name in files), "team")
    assert result.code == 1
    rejected = {Path(one["file"]).name: one for one in result.document["rejected"]}
    assert rejected.keys() == files.keys()
    assert all(one["hint"] for one in rejected.values())
    assert rejected["broken-1.0-0.conda"]["code"] == "archive-wrong-format"
    assert {rejected[name]["code"] for name in ("Upper-1.0-0.conda", "notes.txt")} == {"invalid-name"}


def test_publish__conversion_failure_is_not_a_usage_error(run_fairway: Run, tmp_path: Path) -> None:
    (tmp_path / "broken-1.0-0.tar.bz2").write_bytes(b"no archive")
    result = run_fairway("publish", "--as-conda", str(tmp_path / "broken-1.0-0.tar.bz2"), "team")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith("hint: ")


def test_publish__wait(bucket: Bucket, run_fairway: Run, tmp_path: Path) -> None:
    filename, body = conda_package(depends=["bar"])
    (tmp_path / filename).write_bytes(body)
    for _ in range(2):  # the second time, it is already uploaded
        result = run_fairway("publish", "--wait", "--json", str(tmp_path / filename), "team")
        assert (result.code, result.document["state"]) == (0, "indexed"), result.out
        assert result.document["record"]["depends"] == ["bar"]


def test_publish__wait_for_the_first_bytes_after_other_bytes_were_rejected(
    bucket: Bucket, run_fairway: Run, tmp_path: Path
) -> None:
    filename, body = conda_package()
    (tmp_path / filename).write_bytes(body)
    (key,) = bucket.publish("team", (filename, body))
    bucket.storage.clock_ms += 5000
    bucket.publish("team", conda_package(depends=["other"]))
    assert run_fairway("status", "--json", key).document["state"] == "rejected"
    result = run_fairway("publish", "--wait", "--json", str(tmp_path / filename), "team")
    assert result.code == 0
    assert result.document["state"] == "indexed"
    assert result.document["record"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert result.document["rejection"] is None


def test_publish__rejected_bytes_do_not_show_the_record_of_other_bytes(
    bucket: Bucket, run_fairway: Run, tmp_path: Path
) -> None:
    bucket.publish("team", conda_package(depends=["published"]))
    bucket.storage.clock_ms += 5000
    filename, body = conda_package(depends=["other"])
    (tmp_path / filename).write_bytes(body)
    arguments = ["publish", "--wait", "--replace", str(tmp_path / filename), "team"]
    result = run_fairway(*arguments, "--json")
    assert (result.code, result.document["state"], result.document["record"]) == (1, "rejected", None)
    bucket.storage.clock_ms += 30 * DAY_MS
    shown = run_fairway(*arguments)
    assert shown.code == 1
    assert "filename-taken" in shown.out
    assert '"depends"' not in shown.out


def test_publish__as_conda(run_fairway: Run, tmp_path: Path) -> None:
    filename, body = tar_bz2_package()
    (tmp_path / filename).write_bytes(body)
    result = run_fairway("publish", "--dry-run", "--json", "--as-conda", str(tmp_path / filename), "team")
    assert result.document["key"] == "team/noarch/foo-1.0-0.conda"


def test_publish__invalid_channel_name(run_fairway: Run, tmp_path: Path) -> None:
    filename, body = conda_package()
    (tmp_path / filename).write_bytes(body)
    assert run_fairway("publish", "--dry-run", str(tmp_path / filename), "Team").code == 2
    (tmp_path / filename).write_bytes(body[:100])
    result = run_fairway("publish", str(tmp_path / filename), "Team")  # checked before the packages
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: invalid channel name 'Team'\nhint: ")


@pytest.mark.parametrize("option", ["-c", "--channel"])
def test_publish__channel_as_option(bucket: Bucket, run_fairway: Run, tmp_path: Path, option: str) -> None:
    filename, body = conda_package()
    (tmp_path / filename).write_bytes(body)
    result = run_fairway("publish", option, "team", "--json", str(tmp_path / filename))
    assert (result.code, result.document["key"]) == (0, f"team/noarch/{filename}")


@pytest.mark.parametrize("arguments", [("-c", "foo-1.0-0.conda", "a-1-0.conda"), ("a-1-0.conda", "foo-1.0-0.conda")])
def test_publish__filename_in_the_place_of_the_channel(run_fairway: Run, arguments: tuple[str, ...]) -> None:
    result = run_fairway("publish", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: no channel given: 'foo-1.0-0.conda' is a file\n"
        "hint: name the channel: fairway publish -c CHANNEL FILE...\n"
    )


def test_parse_arguments__wrong(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_bytes(b"")
    for channel, files, message in (
        (None, [file], "is a file"),
        (str(file), [file], "is a file"),
        (None, [Path("team")], "no file given"),
        ("team", [tmp_path / "missing.conda"], "there is no file"),
        ("team", [tmp_path], "there is no file"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_arguments(channel, files)


@pytest.mark.parametrize("options", [("--timeout", "5"), ("--dry-run", "--wait"), ("--dry-run", "--replace")])
def test_publish__option_that_would_be_ignored(run_fairway: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run_fairway("publish", "-c", "team", *options, "foo-1.0-0.conda").code == 2


def test_publish__wait_ends_with_the_install_line(
    bucket: Bucket, run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [conda_package(name="hello", version="1.0"), conda_package(name="world", version="2.0")]
    for filename, body in files:
        (tmp_path / filename).write_bytes(body)
    monkeypatch.setenv("FAIRWAY_URL", "https://conda.example.com/")
    result = run_fairway("publish", "-c", "team", "--wait", *(str(tmp_path / filename) for filename, _ in files))
    assert result.code == 0
    expected = "install: conda install -c https://conda.example.com/team hello=1.0=0 world=2.0=0"
    assert result.out.splitlines()[-1] == expected


def test_publish__in_parts_above_the_limit_of_one_put(
    bucket: Bucket, run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filename, body = conda_package()
    file = tmp_path / filename
    file.write_bytes(body)
    monkeypatch.setattr(upload, "MAX_PUT_BYTES", 100)
    monkeypatch.setattr(upload, "PART_BYTES", 100)
    bucket.storage.min_part_bytes = 100
    arguments = ["publish", "-c", "team", str(file)]
    assert run_fairway(*arguments).code == 0
    stored = bucket.storage.get(f"team/noarch/{filename}")
    assert stored is not None
    assert stored.body == body
    bucket.index(f"team/noarch/{filename}")
    assert "already uploaded" in run_fairway(*arguments).err
    file.write_bytes(conda_package(depends=["other"])[1])
    taken = run_fairway(*arguments)
    assert (taken.code, taken.err.splitlines()[0]) == (
        1, f"error: team/noarch/{filename} is already published with other bytes")  # fmt: skip
    assert run_fairway(*arguments, "--replace").code == 0
    replaced = bucket.storage.get(f"team/noarch/{filename}")
    assert replaced is not None
    assert replaced.body == file.read_bytes()


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (0, 0.0, "a.conda  0 B of 10.0 MiB  0 B/s"),
        (2 * 1024**2, 4.0, "a.conda  2.0 MiB of 10.0 MiB  512.0 KiB/s  16 s left"),
        (1024**2, 1000.0, "a.conda  1.0 MiB of 10.0 MiB  1.0 KiB/s  2 h 30 min left"),
        (10 * 1024**2, 80.0, "a.conda  10.0 MiB of 10.0 MiB  128.0 KiB/s  done in 1 min 20 s"),
    ],
)
def test_format_progress__bytes_rate_and_time_left(done: int, seconds: float, line: str) -> None:
    assert format_progress("a.conda", done, 10 * 1024**2, seconds) == line


def test_format_bytes__units() -> None:
    assert [format_bytes(size) for size in (0, 1023, 1024, 1024**2 - 1, 5 * 1024**3)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "5.0 GiB"]  # fmt: skip


def test_publish__progress_on_a_terminal_only(
    bucket: Bucket, run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filename, body = conda_package()
    (tmp_path / filename).write_bytes(body)
    arguments = ["publish", "-c", "team", str(tmp_path / filename)]
    assert run_fairway(*arguments).err == ""
    monkeypatch.setattr("scripts.fairway.progress._is_terminal", lambda: True)
    shown = run_fairway(*arguments).err
    assert shown.startswith("\r")
    assert f"team/noarch/{filename}" in shown
    assert shown.splitlines()[-1] == f"team/noarch/{filename}: already uploaded"
    assert run_fairway(*arguments, "--json").err == ""


@pytest.mark.parametrize(
    ("files", "spec"),
    [
        (["linux-64/foo-1.0-h1_0.conda", "osx-64/foo-1.0-h2_0.conda"], "foo=1.0"),  # builds for several platforms
        (["noarch/foo-1.0-0.conda", "noarch/foo-1.1-0.conda"], "foo"),
        (["noarch/foo-1.0-0.conda", "noarch/foo-1.0-0.tar.bz2"], "foo=1.0=0"),
    ],
)
def test_format_install__artifacts_of_one_name_can_be_installed_by_one_spec(files: list[str], spec: str) -> None:
    keys = [parse_artifact_key(f"team/{file}") for file in files]
    assert (
        format_install("https://conda.example.com", keys) == f"conda install -c https://conda.example.com/team {spec}"
    )


class _Endpoint(BaseHTTPRequestHandler):
    """Accepts every upload."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_publish__progress_does_not_count_what_is_read_to_sign_it(
    run_fairway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filename, body = conda_package(payload=[("data", hashlib.shake_256(b"").digest(300_000))])
    (tmp_path / filename).write_bytes(body)
    shown: list[int] = []
    monkeypatch.setattr(Progress, "advance_to", lambda _, done: shown.append(done))
    with HTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client: Any = boto3.client(
            "s3", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{server.server_port}",
            aws_access_key_id="x", aws_secret_access_key="x",
        )  # fmt: skip
        monkeypatch.setattr(Session, "client", lambda *_: client)
        result = run_fairway("publish", "-c", "team", "--bucket", "bucket", str(tmp_path / filename))
        client.close()
        server.shutdown()
    assert result.code == 0, result.err
    assert shown == sorted(shown)
    assert shown[-1] == len(body)
    assert shown.count(len(body)) <= 2  # the last bytes, and the end of the file
