import subprocess
from dataclasses import replace

from scripts.emulated.instructions import format_environment, format_instructions
from scripts.emulated.registry import Registration

RUNNING = Registration(
    pid=1,
    phase="running",
    state="/state",
    endpoint="http://127.0.0.1:4566",
    edge_url="http://127.0.0.1:8080",
    bucket="bucket",
    distribution_id="E1",
    token="fw-token",
    tools="/checkout/.venv/bin",
)


def test_format_instructions__has_a_command_for_each_client() -> None:
    lines = format_instructions(RUNNING).splitlines()
    for start, part in {
        "unset": "AWS_PROFILE",
        "export AWS_ENDPOINT_URL=": "http://127.0.0.1:4566",
        "aws s3 cp": "s3://bucket/demo/noarch/",
        "(umask 077 && echo": "'machine 127.0.0.1 login token password fw-token' >>~/.netrc",
        "conda install": "-c http://127.0.0.1:8080/demo ",
        "mamba install": "-c http://127.0.0.1:8080/demo ",
        "pixi": "--channel http://127.0.0.1:8080/demo ",
        "curl -u": "token:fw-token http://127.0.0.1:8080/demo/noarch/repodata.json",
        "fairway status": "demo/noarch/",
    }.items():
        assert any(line.startswith(start) and part in line for line in lines), start


def test_format_environment__sets_the_variables_in_a_shell() -> None:
    running = replace(RUNNING, tools="/check out/.venv/bin", bucket="it's")
    show = 'printf "%s\\n" "$FAIRWAY_BUCKET" "$FAIRWAY_URL" "$PATH" "${AWS_PROFILE-none}"'
    script = f"{format_environment(running)}\n{show}"
    environment = {"PATH": "/usr/bin:/bin", "AWS_PROFILE": "of-a-real-account"}
    shell = subprocess.run(
        ["/bin/sh", "-eu", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert shell.stdout.splitlines() == ["it's", "http://127.0.0.1:8080", "/check out/.venv/bin:/usr/bin:/bin", "none"]
