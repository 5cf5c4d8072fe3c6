"""Parses and checks the context of ``cdk.json``: every rule about settings.

Reads no file: the CDK passes the context. Each error names the setting by its path and says what to
write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from infra.config import EDGE_REGION, Configuration, Publisher, Workload
from lambdas.access.owners import subject_binds_owner
from lambdas.channel.errors import InvalidNameError, UsageError
from lambdas.channel.names import DOCTOR_CHANNEL, is_subdir_name, parse_channel
from lambdas.indexer.settings import OPTIONAL_OUTPUTS

CONTEXT_KEYS = ("account", "endpoint_url", "environment", "environments", "name", "region")

UNKNOWN_ACCOUNT = "000000000000"  # for synthesis without credentials, which can be checked but not deployed
EMULATOR_ACCOUNT = "000000000000"

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITHUB_AUDIENCE = "sts.amazonaws.com"

# The retentions that CloudWatch Logs accepts; any other number would fail in the middle of a deployment.
LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]\Z")
_ACCOUNT = re.compile(r"[0-9]{12}\Z")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]\Z")
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
_CHANNEL_GLOB = re.compile(r"[a-z0-9_*?][a-z0-9_.*?-]*\Z")
# A publisher's become patterns of keys, where "*" also matches "/": it may only end them.
_PUBLISHER_CHANNEL = re.compile(r"(?:[a-z0-9_][a-z0-9_.-]*\*?|\*)\Z")
_PUBLISHER_ARTIFACT = re.compile(r"[A-Za-z0-9_.+!-]*\*?(?<=.)\Z")
_PUBLISHER = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_PRINCIPAL = re.compile(r"arn:aws:(?:iam|sts)::[0-9]{12}:(?:root|(?:user|role|assumed-role)/[\w+=,.@/-]+)\Z")
_OPERATOR = re.compile(r"arn:aws:iam::[0-9]{12}:(?:root|(?:user|role)/[\w+=,.@/-]+)\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")
_ID = re.compile(r"[1-9][0-9]{0,18}\Z", re.ASCII)
_PROJECT = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+\Z")

_T = TypeVar("_T")


def parse_configuration(context: Mapping[str, object]) -> Configuration:
    """Parse and check the settings of one environment.

    ``context`` holds ``environment`` (its name), ``environments`` (``{name: settings}``), values that
    override settings for one run (``account``, ``region``, ``name``, ``endpoint_url``), and the account
    of the caller's credentials (``default_account``).

    Raises:
        UsageError: a setting is unknown, of the wrong type, or invalid.
    """
    environments = _parse_mapping(context.get("environments", {}), "environments")
    environment = _parse_text(context.get("environment", "production"), "environment")
    if environment not in environments:
        raise UsageError(
            f"unknown environment {environment!r}",
            hint=f"cdk.json has {', '.join(sorted(environments)) or 'none'}; choose one with -c environment=NAME",
        )
    settings = dict(_parse_mapping(environments[environment], f"environments.{environment}"))
    for name in ("account", "endpoint_url", "name", "region"):
        if context.get(name) is not None:
            settings[name] = context[name]
    return _parse_environment(environment, settings, default_account=context.get("default_account"))


def _parse_environment(environment: str, settings: Mapping[str, object], *, default_account: object) -> Configuration:
    given = _Settings(settings, f"environments.{environment}")
    endpoint_url = given.optional("endpoint_url", _parse_loopback)
    account = given.optional("account", _parse_account)
    if account is None and endpoint_url is not None:
        account = EMULATOR_ACCOUNT
    if account is None and default_account:
        account = _parse_account(default_account, "account")
    chosen = {
        "name": given.optional("name", _matching(_NAME, "2 to 20 of a-z, 0-9 and '-', starting with a letter")),
        "region": given.optional("region", _parse_region),
        "public_channels": given.optional("public_channels", _tuple_of(_parse_channel_glob)),
        "mutable_channels": given.optional("mutable_channels", _tuple_of(_parse_channel_glob)),
        "subdirs": given.optional("subdirs", _parse_subdirs),
        "domain": given.optional("domain", _matching(_DOMAIN, "a host name such as conda.example.com")),
        "certificate_arn": given.optional("certificate_arn", _parse_certificate),
        "managed_cache_policies": given.optional("managed_cache_policies", _parse_flag),
        "access_log": given.optional("access_log", _parse_flag),
        "alarm_email": given.optional("alarm_email", _matching(_EMAIL, "an e-mail address")),
        "docs_url": given.optional("docs_url", _parse_docs_url),
        "publishers": given.optional("publishers", _tuple_of(_parse_publisher)),
        "operators": given.optional("operators", _tuple_of(_parse_operator)),
        "existing_oidc_providers": given.optional("existing_oidc_providers", _tuple_of(_parse_issuer)),
        "require_if_none_match": given.optional("require_if_none_match", _parse_flag),
        "optional_outputs": given.optional("optional_outputs", _tuple_of(_parse_output)),
        "max_subdirs": given.optional("max_subdirs", _between(1, 1000)),
        "max_repodata_mib": given.optional("max_repodata_mib", _between(16, 1024 * 1024)),
        "shard_grace_days": given.optional("shard_grace_days", _between(1, 3650)),
        "old_version_days": given.optional("old_version_days", _between(1, 3650)),
        "rejected_days": given.optional("rejected_days", _between(1, 3650)),
        "log_days": given.optional("log_days", _parse_log_days),
        "indexer_memory_mib": given.optional("indexer_memory_mib", _between(512, 10240)),
        "indexer_timeout_seconds": given.optional("indexer_timeout_seconds", _between(10, 900)),
        "indexer_max_concurrency": given.optional("indexer_max_concurrency", _between(2, 1000)),
        "batch_artifacts": given.optional("batch_artifacts", _between(1, 10000)),
        "batch_window_seconds": given.optional("batch_window_seconds", _between(0, 300)),
    }
    configuration = Configuration(
        environment=environment,
        account=account or UNKNOWN_ACCOUNT,
        is_account_known=account is not None,
        endpoint_url=endpoint_url,
        **_without_absent(chosen),
    )
    given.finish()
    _check_together(configuration, given.path)
    return configuration


def _check_together(configuration: Configuration, path: str) -> None:
    """Check settings that depend on each other."""
    if (configuration.domain is None) != (configuration.certificate_arn is None):
        raise UsageError(
            f"{path}: domain and certificate_arn must be given together",
            hint=f"request a certificate for the domain in {EDGE_REGION}, and set both",
        )
    if configuration.require_if_none_match and configuration.mutable_channels:
        raise UsageError(
            f"{path}: require_if_none_match and mutable_channels exclude each other",
            hint="remove one of the two, or deploy mutable channels as another deployment with another name",
        )
    names = [publisher.name for publisher in configuration.publishers]
    if len(set(names)) != len(names):
        raise UsageError(
            f"{path}.publishers: two publishers have the same name",
            hint="each publisher is a role: give them different names",
        )
    if configuration.batch_artifacts > 10 and not configuration.batch_window_seconds:  # noqa: PLR2004 - AWS's limit
        raise UsageError(
            f"{path}.batch_artifacts: more than 10 need a batch window", hint="set batch_window_seconds to 1 or more"
        )


def _without_absent(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings that are not None; for the others, the dataclass has defaults."""
    return {name: value for name, value in settings.items() if value is not None}


class _Settings:
    """The settings of one JSON object; records which are read, so that ``finish`` reports unknown ones."""

    def __init__(self, values: Mapping[str, object], path: str) -> None:
        self._values = values
        self._known: list[str] = []
        self.path = path

    def __call__(self, key: str, parse: Callable[[object, str], _T], *, default: _T | None = None) -> _T:
        """Parse one setting.

        Raises:
            UsageError: it is missing without a default, or invalid.
        """
        value = self.optional(key, parse)
        if value is not None:
            return value
        if default is None:
            raise UsageError(f"{self.path}.{key} is missing")
        return default

    def optional(self, key: str, parse: Callable[[object, str], _T]) -> _T | None:
        """Parse one setting; None if it is null or missing."""
        self._known.append(key)
        value = self._values.get(key)
        return None if value is None else parse(value, f"{self.path}.{key}")

    def many(self, key: str, parse: Callable[[object, str], _T]) -> tuple[_T, ...]:
        """Parse a list; empty if it is null or missing."""
        return self.optional(key, _tuple_of(parse)) or ()

    def finish(self) -> None:
        """Check that all settings were read.

        Raises:
            UsageError: one was not, so it is unknown.
        """
        for key in sorted(set(self._values) - set(self._known)):
            near = difflib.get_close_matches(key, self._known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known settings: {', '.join(sorted(self._known))}"
            raise UsageError(f"{self.path}: unknown setting {key!r}", hint=hint)


def _parse_mapping(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{path} must be an object, not {value!r}")
    return cast("Mapping[str, object]", value)


def _parse_text(value: object, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path} must be a string, not {value!r}")
    return value


def _parse_flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{path} must be true or false, not {value!r}")
    return value


def _between(least: int, most: int) -> Callable[[object, str], int]:
    def parse_value(value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"{path} must be an integer from {least} to {most}, not {value!r}")
        return value

    return parse_value


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object, str], str]:
    def parse_value(value: object, path: str) -> str:
        text = _parse_text(value, path)
        if not pattern.match(text):
            raise UsageError(f"{path} is invalid: {text!r}", hint=f"expected {wanted}")
        return text

    return parse_value


def _tuple_of(parse: Callable[[object, str], _T]) -> Callable[[object, str], tuple[_T, ...]]:
    def parse_value(value: object, path: str) -> tuple[_T, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UsageError(f"{path} must be a list, not {value!r}", hint="write it in brackets: [ … ]")
        return tuple(parse(item, f"{path}[{position}]") for position, item in enumerate(value))

    return parse_value


_parse_account = _matching(_ACCOUNT, "the account's twelve digits, as a string")
_parse_channel_glob = _matching(_CHANNEL_GLOB, "the name of a channel, with * and ? as wildcards: team, team-*, *")
_parse_publisher_pattern = _matching(
    _PUBLISHER_CHANNEL, "the name of a channel, or its beginning and a final '*': team, team-*, *"
)
_parse_publisher_artifact = _matching(
    _PUBLISHER_ARTIFACT,
    "an artifact's filename without extension, or its beginning and a final '*': mypackage-1.0-0, mypackage-*, *",
)
_parse_principal = _matching(_PRINCIPAL, "an ARN such as arn:aws:iam::123456789012:role/deployer")
_parse_operator = _matching(
    _OPERATOR, "the ARN of a user or role (not of a session), such as arn:aws:iam::123456789012:role/operator"
)


def _parse_publisher_channel(value: object, path: str) -> str:
    channel = _parse_publisher_pattern(value, path)
    if channel == DOCTOR_CHANNEL:
        raise UsageError(
            f"{path}: the channel {channel!r} is reserved for 'fairway doctor'", hint="choose another name"
        )
    return channel


def _parse_publisher_subdir(value: object, path: str) -> str:
    subdir = _parse_text(value, path)
    if subdir != "*" and not is_subdir_name(subdir):
        raise UsageError(
            f"{path} is invalid: {subdir!r}", hint="expected the name of a subdir, or '*' for all: noarch, linux-64, *"
        )
    return subdir


def _parse_region(value: object, path: str) -> str:
    region = _matching(_REGION, "a region such as eu-central-1")(value, path)
    if region.startswith(("cn-", "us-gov-", "us-iso")):
        raise UsageError(f"{path}: {region!r} has no Lambda@Edge", hint="choose a region of the AWS partition 'aws'")
    return region


def _parse_loopback(value: object, path: str) -> str:
    """Check an emulator's URL: on this machine only, so that no test reaches a real account."""
    url = _parse_text(value, path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(
            f"{path} is not on this machine: {url!r}", hint="give an emulator's URL, such as http://127.0.0.1:4566"
        )
    return url.rstrip("/")


def _parse_subdirs(value: object, path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parse ``{channel or glob of channels: [subdir]}``."""
    return tuple(
        (_parse_declared_channel(channel, f"{path}.{channel}"), _tuple_of(_parse_subdir)(names, f"{path}.{channel}"))
        for channel, names in _parse_mapping(value, path).items()
    )


def _parse_declared_channel(value: object, path: str) -> str:
    channel = _parse_channel_glob(value, path)
    if not set("*?") & set(channel):
        try:
            parse_channel(channel)
        except InvalidNameError as error:
            raise UsageError(f"{path}: {error}", hint=error.hint) from error
    return channel


def _parse_subdir(value: object, path: str) -> str:
    subdir = _parse_text(value, path)
    if not is_subdir_name(subdir):
        raise UsageError(f"{path} is invalid: {subdir!r}", hint="expected the name of a subdir: noarch, linux-64")
    return subdir


def _parse_docs_url(value: object, path: str) -> str:
    url = _parse_text(value, path)
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            f"{path} is not the URL of a folder: {url!r}",
            hint="give the one of your copy's docs, such as https://github.com/example/fairway/blob/main/docs",
        )
    return url.rstrip("/")


def _parse_certificate(value: object, path: str) -> str:
    arn = _parse_text(value, path)
    if not arn.startswith(f"arn:aws:acm:{EDGE_REGION}:"):
        raise UsageError(
            f"{path} is not a certificate of {EDGE_REGION}: {arn!r}",
            hint=f"CloudFront accepts certificates of {EDGE_REGION} only, whatever the bucket's region",
        )
    return arn


def _parse_issuer(value: object, path: str) -> str:
    issuer = _parse_text(value, path)
    parts = urlsplit(issuer)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or issuer.endswith("/"):
        raise UsageError(
            f"{path} is not an issuer's URL: {issuer!r}",
            hint="write it as in the token's 'iss', such as https://gitlab.com",
        )
    return issuer


def _parse_log_days(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in LOG_DAYS:
        raise UsageError(
            f"{path}: CloudWatch Logs has no retention of {value!r} days",
            hint=f"choose one of {', '.join(map(str, LOG_DAYS))}",
        )
    return value


def _parse_output(value: object, path: str) -> str:
    if value not in OPTIONAL_OUTPUTS:
        raise UsageError(f"{path}: unknown output {value!r}", hint=f"known outputs: {', '.join(OPTIONAL_OUTPUTS)}")
    return str(value)


def _parse_publisher(value: object, path: str) -> Publisher:
    given = _Settings(_parse_mapping(value, path), path)
    chosen = {
        "subdirs": given.optional("subdirs", _tuple_of(_parse_publisher_subdir)),
        "artifacts": given.optional("artifacts", _tuple_of(_parse_publisher_artifact)),
        "may_read": given.optional("may_read", _parse_flag),
        "may_delete": given.optional("may_delete", _parse_flag),
        "may_attest": given.optional("may_attest", _parse_flag),
        "may_patch": given.optional("may_patch", _parse_flag),
    }
    publisher = Publisher(
        name=given("name", _matching(_PUBLISHER, "at most 32 of a-z, 0-9 and '-', starting with a letter")),
        channels=given.many("channels", _parse_publisher_channel),
        principals=given.many("principals", _parse_principal),
        workloads=(
            *given.many("github", _parse_github),
            *given.many("gitlab", _parse_gitlab),
            *given.many("oidc", _parse_workload),
        ),
        **_without_absent(chosen),
    )
    given.finish()
    if not (publisher.channels and publisher.subdirs and publisher.artifacts):
        raise UsageError(f"{path}: channels, subdirs and artifacts must not be empty", hint="'*' matches all")
    if not (publisher.principals or publisher.workloads):
        raise UsageError(f"{path}: no principal may assume this role", hint="add principals, github, gitlab or oidc")
    return publisher


def _parse_id(value: object, path: str) -> int:
    """Check an id of GitHub: a number, also as a string of digits."""
    if isinstance(value, str) and _ID.match(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{path} must be a positive integer, not {value!r}", hint="write GitHub's numeric id")
    return value


def _parse_github(value: object, path: str) -> Workload:
    """Parse a repository's jobs: their subjects with names alone and, if the ids are given, also those with ids.

    A repository that was created, renamed or transferred since 2026-07-15 has the ids in its subject, and so has
    an older one that has opted in. A subject without ids can only be that of an older repository.

    Source: GitHub, "OpenID Connect reference", immutable subject claims.
    """
    given = _Settings(_parse_mapping(value, path), path)
    repository = given("repository", _matching(_REPOSITORY, "OWNER/REPOSITORY, without wildcards"))
    owner_id, repository_id = given.optional("owner_id", _parse_id), given.optional("repository_id", _parse_id)
    if (owner_id is None) != (repository_id is None):
        raise UsageError(
            f"{path}: owner_id and repository_id must be given together",
            hint=f"look them up with: gh api repos/{repository} --jq '.owner.id, .id'",
        )
    claims = [
        *(f"ref:refs/heads/{branch}" for branch in given.many("branches", _parse_text)),
        *(f"ref:refs/tags/{tag}" for tag in given.many("tags", _parse_text)),
        *(f"environment:{name}" for name in given.many("environments", _parse_text)),
    ]
    given.finish()
    if not claims:
        raise UsageError(
            f"{path}: any branch could publish, even that of a pull request",
            hint='restrict it: "branches": ["main"], "tags": ["v*"] or "environments": ["release"]',
        )
    names = [repository]
    if owner_id is not None:
        owner, _, name = repository.partition("/")
        names.append(f"{owner}@{owner_id}/{name}@{repository_id}")
    return Workload(
        issuer=GITHUB_ISSUER,
        audience=GITHUB_AUDIENCE,
        subjects=tuple(f"repo:{name}:{claim}" for name in names for claim in claims),
    )


def _parse_gitlab(value: object, path: str) -> Workload:
    given = _Settings(_parse_mapping(value, path), path)
    issuer = given("issuer", _parse_issuer, default="https://gitlab.com")
    audience = given("audience", _parse_text, default=issuer)
    project = given("project", _matching(_PROJECT, "GROUP/PROJECT, without wildcards"))
    claims = [
        *(f"ref_type:branch:ref:{branch}" for branch in given.many("branches", _parse_text)),
        *(f"ref_type:tag:ref:{tag}" for tag in given.many("tags", _parse_text)),
    ]
    given.finish()
    if not claims:
        raise UsageError(
            f"{path}: any branch could publish", hint='restrict it: "branches": ["main"] or "tags": ["v*"]'
        )
    return Workload(
        issuer=issuer, audience=audience, subjects=tuple(f"project_path:{project}:{claim}" for claim in claims)
    )


def _parse_workload(value: object, path: str) -> Workload:
    given = _Settings(_parse_mapping(value, path), path)
    workload = Workload(
        issuer=given("issuer", _parse_issuer),
        audience=given("audience", _parse_text),
        subjects=given.many("subjects", _parse_text),
    )
    given.finish()
    if not workload.subjects or not all(map(subject_binds_owner, workload.subjects)):
        raise UsageError(
            f"{path}.subjects: any workload of that issuer could publish",
            hint="give the workload's 'sub', or its beginning up to the owner's name and what ends that: repo:OWNER/*",
        )
    return workload
