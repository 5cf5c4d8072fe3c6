"""What the report says of measurements, and of ones that were not made."""

from pathlib import Path
from typing import Any

from scripts.benchmarks.__main__ import describe_run
from scripts.benchmarks.report import format_report
from scripts.benchmarks.soak import draw_soak

RUN = {"wall_s": 2.0, "cpu_s": 1.0, "peak_bytes": 1024**2, "requests": {"GetObject": 900, "PutObject": 100}}
SOAK: dict[str, Any] = {
    "channels": 10,
    "per_minute": 1_500,
    "artifacts": 200,
    "uploading_s": 8.0,
    "lost": 1,
    "dead_letters": 0,
    "latencies_s": [(number / 25, number / 100) for number in range(1, 200)],
    "samples": [{"at_s": 1.0, "oldest_s": 1.5, "messages": 30.0, "largest_function_bytes": 128.0 * 1024**2}],
}


def test_format_report__nothing_measured() -> None:
    assert format_report(describe_run(5)).strip() == ""


def test_format_report__first_index() -> None:
    slow = [RUN | {"wall_s": seconds} for seconds in (3.0, 4.0, 5.0)]
    one = {"artifacts": 500, "names": 100, "runs": [RUN] * 3, "rattler_runs": slow, "wrong_records": 0}

    report = format_report(describe_run(5) | {"first_index": [one]})

    (row,) = [line.split("  ") for line in report.splitlines() if line.strip().startswith("500")]
    cells = [cell.strip() for cell in row if cell.strip()]
    assert cells[2:5] == ["2.00 [2.00, 2.00]", "2.00 [2.00, 2.00]", "2.00"]
    assert cells[-1] == "2.0x"


def test_format_report__soak() -> None:
    report = format_report(describe_run(5) | {"soak": [SOAK]})

    (row,) = [line.split() for line in report.splitlines() if line.split()[:1] == ["10"]]
    assert row == ["10", "200", "1,500", "8", "1", "0", "1.00", "1.98", "1.99", "1.5", "30", "128"]


def test_format_report__clients() -> None:
    one = {
        "clients": 24,
        "packages": 3_000,
        "installed": 3_000,
        "indexes": ["sharded"],
        "wall_s": 60.0,
        "solve_s": [1.0, 2.0, 9.0],
        "install_s": [3.0, 4.0, 5.0],
        "shard_s": {"300": [0.01], "3000": [0.011]},
    }

    report = format_report(describe_run(5) | {"clients": one})

    assert "10.0 ms among 300 names, 11.0 ms among 3000 (+10 %)" in report


def test_draw_soak__writes_a_picture(tmp_path: Path) -> None:
    draw_soak([SOAK], tmp_path / "soak.png")

    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
