"""Which rules bind an owner."""

import pytest

from lambdas.access.owners import binds_owner, subject_binds_owner

OPEN_CLAIMS: list[dict[str, str]] = [
    {"aud": "https://conda.example.com"},
    {"iss": "https://token.actions.githubusercontent.com"},
    {"repository": "*/*"},
    {"repository": "*"},
    {"repository": "*/app"},
    {"repository": "acme*/app"},
    {"repository": "acme*"},
    {"repository": "acme?/app"},
    {"repository": "?*/app"},
    {"repository": "acme"},
    {"repository": ""},
    {"ref": "refs/heads/main"},
    {"ref": "refs/heads/main", "ref_protected": "true", "event_name": "push"},
    {"environment": "release"},
    {"actor": "ada"},
    {"user_login": "ada"},
    {"workflow": "release"},
    {"job_workflow_ref": "acme/workflows/.github/workflows/release.yml@refs/heads/main"},
    {"repository_owner": "acme*"},
    {"repository_owner": "*"},
    {"repository_owner_id": "1?"},
    {"repository_visibility": "private"},
    {"project_path": "*/app"},
    {"project_path": "acme*/app"},
    {"namespace_path": "acme*"},
    {"namespace_path": "*"},
    {"sub": "*"},
    {"sub": "repo:*"},
    {"sub": "repo:*/*"},
    {"sub": "repo:*/*:ref:refs/heads/main"},
    {"sub": "repo:acme*"},
    {"sub": "repo:acme*/app:ref:refs/heads/main"},
    {"sub": "repo:acme"},
    {"sub": "*:acme/app:*"},
    {"sub": "rep*"},
    {"sub": "repo?acme/app"},
    {"sub": "project_path:*"},
    {"sub": "project_path:acme*:ref_type:branch:ref:main"},
    {"sub": "repository_owner:*"},
    {"sub": "repository_owner:acme*:ref:refs/heads/main"},
    {"sub": "environment:*:repo:acme/app"},
    {"sub": "ref:refs/heads/main"},
    {"sub": "job_workflow_ref:acme/workflows/x.yml@main"},
    {"sub": "system:serviceaccount:*"},
    {"sub": "system:*"},
    {"sub": "organization:*"},
    {"sub": "organization:?cme:pipeline:app"},
    {"sub": "user:*:app"},
    {"department": "*"},
    {"department": "?x"},
    {"sub": "repo:*", "aud": "fairway", "ref": "refs/heads/main"},
]
BOUND_CLAIMS: list[dict[str, str]] = [
    {"repository": "acme/app"},
    {"repository": "acme/*"},
    {"repository": "acme/a?p"},
    {"sub": "organization:acme:pipeline:*"},
    {"repository": "acme/app", "ref": "refs/heads/*"},
    {"ref": "*", "repository_owner": "acme"},
    {"repository_owner_id": "1234"},
    {"repository_id": "1234"},
    {"enterprise": "acme"},
    {"project_path": "acme/*", "ref_protected": "true"},
    {"project_path": "acme/tools/app"},
    {"namespace_path": "acme"},
    {"namespace_path": "acme/*"},
    {"project_id": "12"},
    {"sub": "repo:acme/app:*"},
    {"sub": "repo:acme/*"},
    {"sub": "repo:acme/app:ref:refs/heads/main"},
    {"sub": "repo:acme@1234/app@5678:ref:refs/heads/main"},
    {"sub": "repo:acme@*/app@*:ref:refs/heads/main"},
    {"sub": "project_path:acme/app:ref_type:branch:ref:main"},
    {"sub": "project_path:acme/*"},
    {"sub": "repository_owner:acme:ref:refs/heads/main"},
    {"sub": "repository_owner_id:1234:*"},
    {"sub": "environment:release:repo:acme/app"},
    {"sub": "system:serviceaccount:builds:*"},
    {"sub": "113774512345678901234"},
    {"sub": "organization:acme:pipeline:*"},
    {"department": "physics"},
    {"email": "ada@example.com"},
]


@pytest.mark.parametrize("claims", OPEN_CLAIMS, ids=str)
def test_binds_owner__attack_rule_that_lets_everybody_in(claims: dict[str, str]) -> None:
    assert not binds_owner(claims)


@pytest.mark.parametrize("claims", BOUND_CLAIMS, ids=str)
def test_binds_owner__rule_of_an_owner(claims: dict[str, str]) -> None:
    assert binds_owner(claims)


def test_subject_binds_owner__is_what_binds_owner_asks_about_subjects() -> None:
    for claims in (*OPEN_CLAIMS, *BOUND_CLAIMS):
        if set(claims) == {"sub"}:
            assert subject_binds_owner(claims["sub"]) == binds_owner(claims)
