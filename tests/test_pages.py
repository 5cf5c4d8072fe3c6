"""The repository's pages: every test that they name exists, every link resolves, every table is complete."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lambdas.indexer.upkeep.findings import Problem

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _tests() -> set[str]:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    return {name for source in sources for name in re.findall(r"def (test_\w+)", source)}


def test_architecture__each_invariant_names_existing_tests() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    invariants = re.findall(r"^(\d+)\. (.+)$", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in invariants] == [*range(1, 15), 16, 17]
    for number, invariant in invariants:
        named = re.findall(r"`(test_\w+)`", invariant)
        files = re.findall(r"`(tests/[\w/]+\.py)`", invariant)
        assert named or files, f"invariant {number} names no test"
        assert set(named) <= _tests(), f"invariant {number} names tests that do not exist"
        assert all((ROOT / file).exists() for file in files), f"invariant {number} names files that do not exist"


def test_architecture__code_map_is_the_folder_tree() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    mapped = set(re.findall(r"^\| `([\w/]+)/` \|", text, flags=re.MULTILINE))
    folders = {
        str(file.parent.relative_to(ROOT)) for top in ("infra", "lambdas") for file in (ROOT / top).rglob("__init__.py")
    }
    unmapped = {"lambdas", "lambdas/indexer/artifacts/archives"}  # in the rows of their content and their parent
    assert folders - mapped == unmapped
    assert all((ROOT / folder).is_dir() for folder in mapped)


def test_architecture__named_files_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:infra|lambdas|scripts|tests)/[\w/]+(?:\.py)?)`", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page__links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" in target:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _list_anchors(linked), f"{page.name} links to {target}#{anchor}"


def _list_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return set(re.findall(r'<a id="([^"]+)">', text)) | {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


def _list_rows(page: str, heading: str) -> set[str]:
    """Return the first cells of the table under a heading, which are code."""
    _, _, section = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    return set(re.findall(r"^\| (?:<a id=[^>]+></a>)?`([^`]+)` \|", section.partition("\n## ")[0], flags=re.MULTILINE))


def test_operating__describes_every_finding() -> None:
    assert _list_rows("operating.md", "Findings") == {problem.value for problem in Problem}


def test_operating__describes_every_alarm() -> None:
    source = (ROOT / "infra/monitoring.py").read_text(encoding="utf-8")
    alarms = re.findall(r"alarms\.add\(\s*\"(\w+)\"", source)
    assert len(alarms) > 5
    assert _list_rows("operating.md", "Alarms") == set(alarms)


def load_job(page: str, heading: str) -> Any:  # noqa: ANN401 - YAML
    """Return the first YAML document under a heading."""
    _, _, section = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n### {heading}\n")
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", section.partition("\n## ")[0].partition("\n### ")[0], re.MULTILINE | re.DOTALL
    )
    assert "arn:" not in block  # roles' names are generated
    return yaml.load(block, Loader=yaml.BaseLoader)  # noqa: S506 - strings alone; "on" stays a word


def test_publishing__github_workflow_can_be_copied() -> None:
    workflow = load_job("publishing.md", "GitHub Actions")
    assert workflow["on"] == {"push": {"branches": ["main"]}}
    assert workflow["permissions"] == {"id-token": "write", "contents": "read"}
    job = workflow["jobs"]["publish"]
    steps = {step["uses"].partition("@")[0]: step for step in job["steps"] if "uses" in step}
    assert all(re.fullmatch(r"[\w./-]+@v[1-9]\d*", step["uses"]) for step in steps.values())
    assert "actions/checkout" in steps
    assert steps["aws-actions/configure-aws-credentials"]["with"] == {
        "role-to-assume": "${{ vars.FAIRWAY_PUBLISHER_ROLE }}",
        "aws-region": "${{ vars.FAIRWAY_REGION }}",
    }
    assert job["env"] == {name: f"${{{{ vars.{name} }}}}" for name in ("FAIRWAY_BUCKET", "FAIRWAY_SOURCE")}
    assert not job["runs-on"].endswith("latest")
    upload, check = job["steps"][-2:]
    for step in (upload, check):
        assert "output/*/*.conda output/*/*.tar.bz2" in step["run"]
    assert 'uvx --from "$FAIRWAY_SOURCE" fairway status --wait --timeout 300' in check["run"]


def test_publishing__gitlab_job_can_be_copied() -> None:
    job = load_job("publishing.md", "GitLab CI")["publish"]
    assert job["image"]["entrypoint"] == [""]
    assert job["id_tokens"] == {"AWS_TOKEN": {"aud": "https://gitlab.com"}}
    assert job["variables"]["AWS_ROLE_ARN"] == "$FAIRWAY_PUBLISHER_ROLE"
    assert not job["image"]["name"].endswith("latest")
    token, copy, check = job["script"]
    assert "$AWS_TOKEN" in token
    assert "$AWS_WEB_IDENTITY_TOKEN_FILE" in token
    assert copy.endswith("--recursive --exclude '*' --include '*.conda' --include '*.tar.bz2'")
    assert "*.conda output/noarch/*.tar.bz2" in check
    assert "curl -sSf" in check


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page__copies_of_folders_name_artifacts(page: Path) -> None:
    """Build tools leave index files beside artifacts, and a publisher may not write those."""
    text = re.sub(r"\n +--", " --", page.read_text(encoding="utf-8"))
    for command in re.findall(r"aws s3 cp .*--recursive.*", text):
        assert "--exclude '*' --include '*.conda'" in command


def test_publishing__names_the_output_with_the_role() -> None:
    text = (ROOT / "docs/publishing.md").read_text(encoding="utf-8")
    assert "`PublisherRoleTools`" in text
    assert "publisher-tools" not in text


def test_tokens__status_of_other_methods_is_that_of_cloudfront() -> None:
    """CloudFront denies them before it invokes the authorizer."""
    text = (ROOT / "docs/tokens.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| (\d+) \|.*GET and HEAD", text, re.MULTILINE)
    assert row == "403"


def test_repository__names_no_local_path_and_no_registry() -> None:
    """No path of a machine, no address of a package registry: the locks carry hashes alone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    forbidden = re.compile(
        r"/wo" r"rk/|/ro" r"ot/|--index-" r"url|\"resolved\": \"ht" r"tp|registry\.npm" r"js|py" r"pi\.org"
    )
    for name in listed.splitlines():
        file = ROOT / name
        if file.is_file() and (text := _read(file)) is not None:
            assert not forbidden.search(text), f"{name}: {forbidden.search(text)}"


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
