"""``fairway publish``: checks, upload, wait."""

import hashlib
from pathlib import Path

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
