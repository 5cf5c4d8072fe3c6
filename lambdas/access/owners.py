"""Does a rule bind an owner? A rule that does not lets in everybody who has an account at the issuer. Pure.

Anybody can make a repository at GitHub or GitLab, name its branches and environments, choose an audience,
and run a job that asks for an identity token. So of all claims only those count that say whose repository
the job is in, and only where the pattern spells out the owner: ``acme/*`` does, ``acme*/*`` also matches
``acme-evil/x``.

Source: GitHub, "OpenID Connect reference"; GitLab, "OpenID Connect (OIDC) Authentication using ID tokens";
OpenID Connect Core, ID token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_WILDCARD = re.compile(r"[*?]")
# Up to the first of these, which no owner's name contains. GitHub puts the owner's id behind "@".
_OWNER = re.compile(r"[^*?/@:]+[/@]")
_KUBERNETES = re.compile(r"system:serviceaccount:[^*?:]+:")


def _is_exact(pattern: str) -> bool:
    return bool(pattern) and not _WILDCARD.search(pattern)


def _begins_with_owner(pattern: str) -> bool:
    return _OWNER.match(pattern) is not None


def _is_group(pattern: str) -> bool:
    return _is_exact(pattern) or _begins_with_owner(pattern)


_OWNER_CLAIMS: Final[Mapping[str, Callable[[str], bool]]] = {
    "enterprise": _is_exact,
    "enterprise_id": _is_exact,
    "namespace_id": _is_exact,
    "namespace_path": _is_group,
    "project_id": _is_exact,
    "project_path": _begins_with_owner,
    "repository": _begins_with_owner,
    "repository_id": _is_exact,
    "repository_owner": _is_exact,
    "repository_owner_id": _is_exact,
    "root_namespace_id": _is_exact,
    "root_namespace_path": _is_exact,
}
"""What a pattern must be like, by claim; in claims of GitHub and GitLab."""

# Of any issuer: these are the same for everybody, or chosen by the job. A reusable workflow
# (job_workflow_ref) may be called, and a pipeline be started (actor, user_login), in another's repository.
_UNBOUND_CLAIMS: Final = frozenset(
    {
        "actor", "actor_id", "amr", "aud", "auth_time", "azp", "base_ref", "check_run_id", "ci_config_ref_uri",
        "ci_config_sha", "deployment_tier", "environment", "environment_action", "environment_node_id",
        "environment_protected", "event_name", "exp", "head_ref", "iat", "iss", "issuer_scope", "job_id",
        "job_project_id", "job_project_path", "job_workflow_ref", "job_workflow_sha", "jti", "nbf", "nonce",
        "pipeline_id", "pipeline_source", "project_visibility", "ref", "ref_path", "ref_protected", "ref_type",
        "repository_visibility", "run_attempt", "run_id", "run_number", "runner_environment", "runner_id", "sha",
        "typ", "user_access_level", "user_email", "user_id", "user_identities", "user_login", "workflow",
        "workflow_ref", "workflow_sha",
    }
)  # fmt: skip

_SUBJECT_KEYS: Final = {"repo": _begins_with_owner, **_OWNER_CLAIMS}
"""The keys in the subjects of GitHub and GitLab, ``KEY:VALUE[:KEY:VALUE …]``."""


def binds_owner(claims: Mapping[str, str]) -> bool:
    """Tell whether a claim of a rule binds an owner; claims are ``{name: glob}``."""
    return any(_claim_binds(name, pattern) for name, pattern in claims.items())


def subject_binds_owner(pattern: str) -> bool:
    """Tell whether a pattern of ``sub`` binds an owner."""
    key, separator, rest = pattern.partition(":")
    if not _is_exact(key):
        return False  # it may match the key of any other claim
    if separator and key in _SUBJECT_KEYS:
        # The value ends at the next key; a wildcard in an earlier value could also match what follows it.
        value = rest if _SUBJECT_KEYS[key] is _begins_with_owner else rest.partition(":")[0]
        return _SUBJECT_KEYS[key](value)
    if key in _UNBOUND_CLAIMS or key in _SUBJECT_KEYS:
        return any(f"{known}:" in pattern and _names_owner(pattern, known) for known in _SUBJECT_KEYS)
    if key == "system":
        return _KUBERNETES.match(pattern) is not None
    # Of another issuer, in a form that is unknown here: organization:acme:*, but not organization:*.
    return not rest or _is_bound_elsewhere(rest)


def _names_owner(pattern: str, key: str) -> bool:
    """Tell whether a later part of a subject binds an owner, with no wildcard in front of it."""
    front, _, value = pattern.partition(f":{key}:")
    check = _SUBJECT_KEYS[key]
    value = value if check is _begins_with_owner else value.partition(":")[0]
    return _is_exact(front) and check(value)


def _claim_binds(name: str, pattern: str) -> bool:
    if name == "sub":
        return subject_binds_owner(pattern)
    if name in _OWNER_CLAIMS:
        return _OWNER_CLAIMS[name](pattern)
    return name not in _UNBOUND_CLAIMS and _is_bound_elsewhere(pattern)


def _is_bound_elsewhere(pattern: str) -> bool:
    """Tell whether a claim that is unknown here is bound: it begins with something else than a wildcard."""
    return _is_exact(pattern[:1])
