"""Every command of README and docs runs on the emulator exactly as printed, or is listed here with a reason.

The commands of a page run in one shell, from top to bottom. What a reader would replace is replaced, and
what a page takes for granted is there: packages, a rejected upload, dead letters. Pages that change the same
things run one after the other, and the two lanes of pages at the same time.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from scripts.emulated.commands import run_tool
from tests.builders import conda_package, tar_bz2_package
from tests.end_to_end.conftest import Channel
from tests.end_to_end.documented_commands import PAGES, ROOT, Command, list_commands
from tests.end_to_end.warm import warm_tools
from tests.test_pages import load_job

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

NOT_RUN = {  # {beginning of commands: why they do not run here}
    "cdk deploy": "the local stack was deployed by it",
    ". .venv/bin/activate": "the tools are in the test's PATH",
    "scripts/deploy": "deploys to AWS; the local stack runs the same commands of the CDK",
    "./scripts/local demo": "starts a stack of its own; tests/emulated/test_stack.py",
    "./scripts/local up": "starts a stack of its own; test_command.py",
    "./scripts/local status": "test_command.py",
    "./scripts/local down": "test_command.py",
    'eval "$(./scripts/local env)"': "needs a stack of its own; test_command.py",
    'eval "$(_FAIRWAY_COMPLETE=zsh': "is for zsh",
    "_FAIRWAY_COMPLETE=fish": "is for fish",
    "./scripts/check": "runs for minutes, in CI",
    "./scripts/test": "would run this test",
    "./scripts/bench": "runs for many minutes",
    "uv tool install": "installs from the registry; tests/test_setup.py",
    "git ": "needs the operator's copy of the repository",
    "$EDITOR": "is interactive",
    "export AWS_PROFILE": "the emulator has no profiles",
    "conda ": "not on PyPI; test_clients.py runs the client that is",
    "mamba ": "not on PyPI; test_clients.py runs the client that is",
    "pixi ": "not on PyPI; test_clients.py runs the client that is",
    "rattler ": "not on PyPI; test_clients.py runs the client that is",
    "rattler-build ": "the program is not on PyPI; the library builds the packages of the demo",
    "aws logs tail": "version 2 of the AWS CLI only, which is not on PyPI",
    "for subdir in noarch linux-64": "downloads from anaconda.org",
    "curl -sSfL -H": "downloads from a quetz server",
    "diff <(list": "compares with the server that the channel moves from",
    "fairway doctor": "takes minutes; test_doctor.py",
    "gh api": "asks GitHub; the program is not on PyPI",
    "curl -s https://api.github.com": "asks GitHub",
    "fairway issuer add": "fetches the keys of issuers; tests/fairway/test_access_commands.py",
}

RUN = ("fairway doctor --before-deploy", "fairway doctor --clean")  # they take seconds

# They use the channel 'team' and change no access rules; the other pages use 'tools' and do.
LANE = ("deploying.md", "installing.md", "local.md", "moving.md")

HELLO = "tools/noarch/hello-1.0-0.conda"
BEFORE = {  # {beginning of a command: what its page takes for granted}
    "fairway verify tools": f"publish {HELLO} hello-1.0-0.conda",
    "fairway verify team": "fairway status --wait team/linux-64/old-channel-1.0-0.conda",
    "fairway yank": f"publish {HELLO} hello-1.0-0.conda",
    "fairway rejected list tools/": f"reject {HELLO}",
    "fairway rejected release": f"aws s3 rm --quiet s3://$FAIRWAY_BUCKET/{HELLO}",
    "fairway dead-letters": f"dead_letter {HELLO}",
    "aws s3api put-object": f"aws s3 rm --quiet s3://$FAIRWAY_BUCKET/{HELLO}",
    "fairway status": f"publish {HELLO} hello-1.0-0.conda",
    "fairway show": f"publish {HELLO} hello-1.0-0.conda",
    "fairway copy staging": f"publish {HELLO.replace('tools', 'staging')} hello-1.0-0.conda",
    "fairway move staging": f"publish {HELLO.replace('tools', 'staging')} hello-1.0-0.conda",
}

PRELUDE = """
versions() { aws s3api list-object-versions --bucket $FAIRWAY_BUCKET --prefix "$1" --output text --query "$2"; }
deletion() { aws s3 rm --quiet "s3://$FAIRWAY_BUCKET/$1" && versions "$1" 'DeleteMarkers[?IsLatest].VersionId'; }
publish() { aws s3 cp --quiet "$2" "s3://$FAIRWAY_BUCKET/$1" && fairway status --wait "$1" >/dev/null; }
reject() { aws s3 cp --quiet other.conda "s3://$FAIRWAY_BUCKET/$1"
  until fairway rejected show "$1"; do sleep 1; done; }
dead_letter() { aws sqs send-message --endpoint-url $AWS_ENDPOINT_URL --queue-url "$DEAD_LETTERS" \\
  --message-body '{"Event": "fairway:Requeued", "Keys": ["'"$1"'"], "Mode": "together"}'; }
"""

VERSION = "Versions[?IsLatest].VersionId"


def list_replacements(channel: Channel, page: str) -> dict[str, str]:
    """Return what a reader replaces: ``{printed: here}``."""
    url = channel.stack.edge_url
    deleted = HELLO if page == "disaster.md" else ".fairway/access.json"
    return {
        "fairway-conda-123456789012-us-east-1": channel.bucket,
        "fairway-conda-123456789012-eu-central-1": channel.bucket,
        "stack-name fairway-conda": "stack-name fairway-local",
        "use conda --region eu-central-1": "use local --region us-east-1",
        "use conda --region us-east-1": "use local --region us-east-1",
        "machine conda.example.com": f"machine {url.partition('://')[2].partition(':')[0]}",
        "curl --netrc https://conda.example.com": f"curl --netrc {url}",
        "https://conda.example.com/team": f"{url}/team",
        "FAIRWAY_URL=https://conda.example.com": f"FAIRWAY_URL={url}",
        "token create ada": f"token create {page.partition('.')[0].lower()}",  # a name is taken once
        "fw-…": str(channel.everything.token),
        "OLD-BUCKET": "old-bucket",
        "MARKER": f'"$(deletion {deleted})"',
        "=GOOD": f"=$(versions .fairway/access.json '{VERSION}')",
        "--function-name FUNCTION": f"--function-name {channel.stack.outputs.indexer_function}",
        "--log-group-name GROUP": '--log-group-name "$(aws logs describe-log-groups --output text'
        " --query 'logGroups[0].logGroupName')\"",
        " --cli-binary-format raw-in-base64-out": "",  # of version 2 of the AWS CLI
        "fairway remove tools hello=1.0": "fairway remove tools hello=1.0 --yes",  # it asks
        "fairway dead-letters drop": "fairway dead-letters drop --yes",
    }


def find_reason(command: Command) -> str | None:
    """Return the beginning under which a command is listed as not run."""
    if command.text.startswith(RUN):
        return None
    return next((start for start in NOT_RUN if command.text.startswith(start)), None)


def test_not_run__lists_only_commands_of_the_documentation() -> None:
    used = {find_reason(command) for command in list_commands()}
    assert set(NOT_RUN) - used == set()


@pytest.fixture(scope="module")
def workplace(channel: Channel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name, and the channels that they read."""
    folder = tmp_path_factory.mktemp("workplace")
    files = {"other.conda": b"no archive", "patch_instructions.json": b'{"patch_instructions_version": 1}'}
    _, files["hello-1.0-0.conda"] = conda_package(name="hello")
    for subdir in ("noarch", "linux-64"):
        for top in ("output", "old-channel"):
            name, files[f"{top}/{subdir}/{top}-1.0-0.conda"] = conda_package(name=top, subdir=subdir)
            assert name == f"{top}-1.0-0.conda"
    name, content = tar_bz2_package(name="aged")
    files[f"old/{name}"] = content
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    channel.s3.create_bucket(Bucket="old-bucket")
    channel.s3.put_object(
        Bucket="old-bucket",
        Key="old-channel/linux-64/old-channel-1.0-0.conda",
        Body=files["old-channel/linux-64/old-channel-1.0-0.conda"],
    )
    channel.publish("team/noarch/hello-1.0-0.conda", files["hello-1.0-0.conda"])
    channel.publish("tools/linux-64/output-1.0-0.conda", files["output/linux-64/output-1.0-0.conda"])
    run_tool("fairway", "channel", "set-public", "--yes", "tools", environment=channel.stack.environment)
    return folder


@pytest.fixture(scope="module")
def failures(channel: Channel, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Each page's command that failed, with what it printed, or None."""
    outputs = channel.stack.outputs
    environment = channel.stack.environment | {
        "RECONCILER": outputs.reconciler_function,
        "DEAD_LETTERS": outputs.dead_letter_queue_url,
    }
    pages = [page.name for page in PAGES]
    lanes = [[page for page in pages if page not in LANE], list(LANE)]
    with warm_tools(tmp_path_factory.mktemp("tools"), channel.stack.environment) as tools:
        environment["PATH"] = f"{tools}:{ROOT / '.venv/bin'}:{environment['PATH']}"
        with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
            run_lane = partial(run_pages, channel, workplace, environment)
            return {page: failure for lane in pool.map(run_lane, lanes) for page, failure in lane.items()}


def run_pages(channel: Channel, folder: Path, environment: dict[str, str], pages: list[str]) -> dict[str, str | None]:
    return {page: run_page(channel, page, folder, environment) for page in pages}


def run_page(channel: Channel, page: str, folder: Path, environment: dict[str, str]) -> str | None:
    """Run the commands of a page; return the one that failed, with what it printed."""
    commands = [command for command in list_commands() if command.page == page and find_reason(command) is None]
    script = [PRELUDE]
    for number, command in enumerate(commands):
        text = command.text
        for printed, here in list_replacements(channel, page).items():
            text = text.replace(printed, here)
        before = next((shell for start, shell in BEFORE.items() if command.text.startswith(start)), ":")
        script += [f"echo '### {number}' >&2", before, f"{text}\n[ $? = 0 ] || exit 1"]
    home = folder / "homes" / page
    home.mkdir(parents=True)
    (home / ".curlrc").write_text("fail\nsilent\noutput = /dev/null\n")  # a denied request fails
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=environment | {"HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if not done.returncode:
        return None
    failed = commands[int(done.stderr.rpartition("### ")[2].partition("\n")[0])]
    return f"{failed}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_page__commands_run(failures: dict[str, str | None], page: str) -> None:
    assert failures[page] is None, failures[page]


def test_publishing__gitlab_check_finds_the_packages(channel: Channel, workplace: Path, tmp_path: Path) -> None:
    """The check with curl alone, which ends the job."""
    file = "noarch/output-1.0-0.conda"
    channel.publish(f"tools/{file}", (workplace / "output" / file).read_bytes())
    check = load_job("publishing.md", "GitLab CI")["publish"]["script"][-1]
    variables = {"FAIRWAY_URL": channel.stack.edge_url, "FAIRWAY_TOKEN": str(channel.everything.token)}
    environment = channel.stack.environment | variables | {"HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-ec", check], cwd=workplace, env=environment, check=False, timeout=300)
    assert done.returncode == 0
