"""The repository's pages: every test they name is there, every link leads somewhere."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _tests() -> set[str]:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    return {name for source in sources for name in re.findall(r"def (test_\w+)", source)}


def test_architecture__each_law_names_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    laws = re.findall(r"^(\d+)\. (.+)$", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in laws] == list(range(1, 14))
    for number, law in laws:
        named = re.findall(r"`(test_\w+)`", law)
        files = re.findall(r"`(tests/[\w/]+\.py)`", law)
        assert named or files, f"law {number} names no test"
        assert set(named) <= _tests(), f"law {number} names tests that are not there"
        assert all((ROOT / file).exists() for file in files), f"law {number} names files that are not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page__links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def _find_job(page: str, heading: str) -> Any:  # noqa: ANN401 - YAML
    """Return the first YAML document under a heading."""
    _, _, section = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n### {heading}\n")
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", section.partition("\n## ")[0].partition("\n### ")[0], re.MULTILINE | re.DOTALL
    )
    assert "arn:" not in block  # roles' names are generated
    return yaml.load(block, Loader=yaml.BaseLoader)  # noqa: S506 - strings alone; "on" stays a word


def test_publishing__github_workflow_can_be_pasted() -> None:
    workflow = _find_job("publishing.md", "GitHub Actions")
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
    assert job["env"] == {"FAIRWAY_BUCKET": "${{ vars.FAIRWAY_BUCKET }}"}
    assert "output/*/*.conda" in job["steps"][-1]["run"]


def test_publishing__gitlab_job_can_be_pasted() -> None:
    job = _find_job("publishing.md", "GitLab CI")["publish"]
    assert job["image"]["entrypoint"] == [""]
    assert job["id_tokens"] == {"AWS_TOKEN": {"aud": "https://gitlab.com"}}
    assert job["variables"]["AWS_ROLE_ARN"] == "$FAIRWAY_PUBLISHER_ROLE"
    token, copy = job["script"]
    assert "$AWS_TOKEN" in token
    assert "$AWS_WEB_IDENTITY_TOKEN_FILE" in token
    assert copy.endswith("--recursive --exclude '*' --include '*.conda' --include '*.tar.bz2'")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page__copies_of_folders_name_artifacts(page: Path) -> None:
    """Build tools leave index files beside artifacts, and a publisher may not write those."""
    text = re.sub(r"\n +--", " --", page.read_text(encoding="utf-8"))
    for command in re.findall(r"aws s3 cp .*--recursive.*", text):
        assert "--exclude '*' --include '*.conda'" in command


def test_publishing__names_the_output_that_has_the_role() -> None:
    text = (ROOT / "docs/publishing.md").read_text(encoding="utf-8")
    assert "`PublisherRoleTools`" in text
    assert "publisher-tools" not in text


def test_tokens__answer_to_other_methods_is_that_of_cloudfront() -> None:
    """CloudFront refuses them before the authorizer could: ``test_serve__method_that_the_distribution_…``."""
    text = (ROOT / "docs/tokens.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| (\d+) \|.*GET and HEAD", text, re.MULTILINE)
    assert row == "403"


def test_repository__names_no_place_of_its_own_making() -> None:
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
