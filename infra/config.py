"""What a person may decide about a deployment: parse the context of ``cdk.json``, check it, freeze it.

Owns every rule about configuration, and the names that follow from it. Declares no resource and
reads no file: the CDK hands the context over. Each error names the setting by its path and says
what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from lambdas.channel.errors import UsageError

EDGE_REGION = "us-east-1"  # CloudFront takes its functions, certificates and log deliveries from here alone
UNKNOWN_ACCOUNT = "000000000000"  # synthesis without credentials: fit for reading and checking, not for deploying
EMULATOR_ACCOUNT = "000000000000"

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITHUB_AUDIENCE = "sts.amazonaws.com"

OptionalOutput = Literal["current_repodata", "bz2"]
OPTIONAL_OUTPUTS: tuple[OptionalOutput, ...] = ("current_repodata", "bz2")

# What CloudWatch Logs takes; any other number fails in the middle of a deployment.
LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]\Z")
_ACCOUNT = re.compile(r"[0-9]{12}\Z")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]\Z")
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
_CHANNEL_GLOB = re.compile(r"[a-z0-9_*?][a-z0-9_.*?-]*\Z")
_SUBDIR_GLOB = re.compile(r"[a-z0-9*?-]+\Z")
_ARTIFACT_GLOB = re.compile(r"[A-Za-z0-9_.+!*?-]+\Z")
_PUBLISHER = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_PRINCIPAL = re.compile(r"arn:aws:(?:iam|sts)::[0-9]{12}:(?:root|(?:user|role|assumed-role)/[\w+=,.@/-]+)\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+\Z")
_PROJECT = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+\Z")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A CI job that proves by an identity token who it is."""

    issuer: str  # https://…, as in the token's ``iss``
    audience: str
    subjects: tuple[str, ...]  # patterns of ``sub``; ``*`` and ``?`` match

    @property
    def provider(self) -> str:
        """The issuer as IAM names it: without the scheme."""
        return self.issuer.removeprefix("https://")


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """Who may upload what: one role."""

    name: str
    channels: tuple[str, ...]  # globs
    subdirs: tuple[str, ...] = ("*",)  # globs
    artifacts: tuple[str, ...] = ("*",)  # globs of filenames without their extension
    principals: tuple[str, ...] = ()  # ARNs
    workloads: tuple[Workload, ...] = ()
    may_read: bool = True  # the channels' objects and what became of uploads, straight from the bucket
    may_delete: bool = False
    may_attest: bool = False  # upload ARTIFACT.sigs
    may_patch: bool = False  # upload patch_instructions.json


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Everything about one deployment that is not the same for all."""

    environment: str
    account: str
    name: str = "conda"
    region: str = EDGE_REGION
    endpoint_url: str | None = None  # an emulator's; None is AWS
    public_channels: tuple[str, ...] = ()  # globs
    mutable_channels: tuple[str, ...] = ()  # globs
    domain: str | None = None
    certificate_arn: str | None = None
    access_log: bool = False
    alarm_email: str | None = None
    publishers: tuple[Publisher, ...] = ()
    existing_oidc_providers: tuple[str, ...] = ()  # issuers that the account knows already
    require_if_none_match: bool = False
    optional_outputs: tuple[OptionalOutput, ...] = ()
    shard_grace_days: int = 14
    old_version_days: int = 30
    rejected_days: int = 90
    log_days: int = 90
    indexer_memory_mib: int = 1769  # one full core, AWS says
    indexer_timeout_seconds: int = 300
    indexer_max_concurrency: int = 10
    batch_artifacts: int = 1000
    batch_window_seconds: int = 1
    is_account_known: bool = field(default=True, compare=False)

    @property
    def is_emulated(self) -> bool:
        """Whether this goes to an emulator on this machine."""
        return self.endpoint_url is not None

    @property
    def stack_name(self) -> str:
        """The stack; unique in an account and region."""
        return f"fairway-{self.name}"

    @property
    def global_name(self) -> str:
        """What is named for an account, or in the edge's region: another region may have the same name."""
        return f"{self.stack_name}-{self.region}"

    @property
    def service(self) -> str:
        """What the indexer's metrics are told apart by, in a region with several deployments."""
        return f"{self.stack_name}-indexer"

    @property
    def bucket_name(self) -> str:
        """The bucket; known before it exists, because the authorizer's zip carries it."""
        return f"fairway-{self.name}-{self.account}-{self.region}"

    @property
    def authorizer_log_name(self) -> str:
        """The log group of the authorizer, the same in every region it runs in; it carries the bucket's."""
        return f"/fairway/{self.name}/{self.region}/authorizer"

    @property
    def bucket_domain(self) -> str:
        """The host by which CloudFront reaches the bucket."""
        return f"{self.bucket_name}.s3.{self.region}.amazonaws.com"


def parse_configuration(context: Mapping[str, object]) -> Configuration:
    """Pick and check one environment's settings.

    ``context`` holds ``environment`` (which one), ``environments`` (``{name: settings}``), what
    stands above a setting for one run (``account``, ``region``, ``name``, ``endpoint_url``), and
    what the CDK knows of the caller (``default_account``).

    Raises:
        UsageError: a setting is unknown, of the wrong type, or impossible.
    """
    environments = _take_mapping(context.get("environments", {}), "environments")
    environment = _take_text(context.get("environment", "production"), "environment")
    if environment not in environments:
        raise UsageError(
            f"no such environment {environment!r}",
            hint=f"cdk.json has {', '.join(sorted(environments)) or 'none'}: choose with -c environment=NAME",
        )
    settings = dict(_take_mapping(environments[environment], f"environments.{environment}"))
    for name in ("account", "endpoint_url", "name", "region"):
        if context.get(name) is not None:
            settings[name] = context[name]
    return _parse_settings(environment, settings, default_account=context.get("default_account"))


def _parse_settings(environment: str, settings: Mapping[str, object], *, default_account: object) -> Configuration:
    take = _Settings(settings, f"environments.{environment}")
    endpoint_url = take.optional("endpoint_url", _take_loopback)
    account = take.optional("account", _take_account)
    if account is None and endpoint_url is not None:
        account = EMULATOR_ACCOUNT
    if account is None and default_account:
        account = _take_account(default_account, "account")
    given = {
        "name": take.optional("name", _matching(_NAME, "2 to 20 of a-z, 0-9 and '-', starting with a letter")),
        "region": take.optional("region", _take_region),
        "public_channels": take.optional("public_channels", _tuple_of(_take_channel_glob)),
        "mutable_channels": take.optional("mutable_channels", _tuple_of(_take_channel_glob)),
        "domain": take.optional("domain", _matching(_DOMAIN, "a host name such as conda.example.com")),
        "certificate_arn": take.optional("certificate_arn", _take_certificate),
        "access_log": take.optional("access_log", _take_flag),
        "alarm_email": take.optional("alarm_email", _matching(_EMAIL, "an e-mail address")),
        "publishers": take.optional("publishers", _tuple_of(_take_publisher)),
        "existing_oidc_providers": take.optional("existing_oidc_providers", _tuple_of(_take_issuer)),
        "require_if_none_match": take.optional("require_if_none_match", _take_flag),
        "optional_outputs": take.optional("optional_outputs", _tuple_of(_take_output)),
        "shard_grace_days": take.optional("shard_grace_days", _between(1, 3650)),
        "old_version_days": take.optional("old_version_days", _between(1, 3650)),
        "rejected_days": take.optional("rejected_days", _between(1, 3650)),
        "log_days": take.optional("log_days", _take_log_days),
        "indexer_memory_mib": take.optional("indexer_memory_mib", _between(512, 10240)),
        "indexer_timeout_seconds": take.optional("indexer_timeout_seconds", _between(10, 900)),
        "indexer_max_concurrency": take.optional("indexer_max_concurrency", _between(2, 1000)),
        "batch_artifacts": take.optional("batch_artifacts", _between(1, 10000)),
        "batch_window_seconds": take.optional("batch_window_seconds", _between(0, 300)),
    }
    configuration = Configuration(
        environment=environment,
        account=account or UNKNOWN_ACCOUNT,
        is_account_known=account is not None,
        endpoint_url=endpoint_url,
        **_without_absent(given),
    )
    take.finish()
    _check_together(configuration, take.path)
    return configuration


def _check_together(configuration: Configuration, path: str) -> None:
    """Check what no setting shows alone."""
    if (configuration.domain is None) != (configuration.certificate_arn is None):
        raise UsageError(
            f"{path}: domain and certificate_arn belong together",
            hint=f"request a certificate for the domain in {EDGE_REGION} and give both",
        )
    if configuration.require_if_none_match and configuration.mutable_channels:
        raise UsageError(
            f"{path}: require_if_none_match refuses what mutable_channels allow: that artifacts are replaced",
            hint="drop one of the two, or deploy mutable channels under another name",
        )
    names = [publisher.name for publisher in configuration.publishers]
    if len(set(names)) != len(names):
        raise UsageError(f"{path}.publishers: two publishers have the same name", hint="each becomes a role")
    if configuration.batch_artifacts > 10 and not configuration.batch_window_seconds:  # noqa: PLR2004 - AWS's number
        raise UsageError(
            f"{path}.batch_artifacts: more than 10 need a window", hint="set batch_window_seconds to 1 or more"
        )


def _without_absent(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings that were given: the others have the defaults of their dataclass."""
    return {name: value for name, value in settings.items() if value is not None}


class _Settings:
    """The settings of one JSON object; knows which were asked for, so that a misspelt one is found."""

    def __init__(self, values: Mapping[str, object], path: str) -> None:
        self._values = values
        self._known: list[str] = []
        self.path = path

    def __call__(self, key: str, parse: Callable[[object, str], _T], *, default: _T | None = None) -> _T:
        """Parse one setting.

        Raises:
            UsageError: it is absent and there is no default, or it does not parse.
        """
        value = self.optional(key, parse)
        if value is not None:
            return value
        if default is None:
            raise UsageError(f"{self.path}.{key} is missing")
        return default

    def optional(self, key: str, parse: Callable[[object, str], _T]) -> _T | None:
        """Parse one setting; null and absent are the same."""
        self._known.append(key)
        value = self._values.get(key)
        return None if value is None else parse(value, f"{self.path}.{key}")

    def many(self, key: str, parse: Callable[[object, str], _T]) -> tuple[_T, ...]:
        """Parse a list; absent and empty are the same."""
        return self.optional(key, _tuple_of(parse)) or ()

    def finish(self) -> None:
        """Find settings that nobody asked for.

        Raises:
            UsageError: there is one.
        """
        for key in sorted(set(self._values) - set(self._known)):
            near = difflib.get_close_matches(key, self._known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(self._known))}"
            raise UsageError(f"{self.path}: unknown setting {key!r}", hint=hint)


def _take_mapping(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{path} must be an object, not {value!r}")
    return cast("Mapping[str, object]", value)


def _take_text(value: object, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path} must be a text, not {value!r}")
    return value


def _take_flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{path} must be true or false, not {value!r}")
    return value


def _between(least: int, most: int) -> Callable[[object, str], int]:
    def take(value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"{path} must be a whole number from {least} to {most}, not {value!r}")
        return value

    return take


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object, str], str]:
    def take(value: object, path: str) -> str:
        text = _take_text(value, path)
        if not pattern.match(text):
            raise UsageError(f"{path} is not well formed: {text!r}", hint=f"wanted: {wanted}")
        return text

    return take


def _tuple_of(parse: Callable[[object, str], _T]) -> Callable[[object, str], tuple[_T, ...]]:
    def take(value: object, path: str) -> tuple[_T, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UsageError(f"{path} must be a list, not {value!r}", hint="write [ … ] around it")
        return tuple(parse(item, f"{path}[{position}]") for position, item in enumerate(value))

    return take


_take_account = _matching(_ACCOUNT, "the account's twelve digits, as a text")
_take_channel_glob = _matching(_CHANNEL_GLOB, "a channel's name, in which * and ? may stand: team, team-*, *")
_take_subdir_glob = _matching(_SUBDIR_GLOB, "a subdir, in which * and ? may stand: noarch, linux-*, *")
_take_artifact_glob = _matching(_ARTIFACT_GLOB, "an artifact's name, in which * and ? may stand: mypackage-*")
_take_principal = _matching(_PRINCIPAL, "an ARN such as arn:aws:iam::123456789012:role/deployer")


def _take_region(value: object, path: str) -> str:
    region = _matching(_REGION, "a region such as eu-central-1")(value, path)
    if region.startswith(("cn-", "us-gov-", "us-iso")):
        raise UsageError(f"{path}: {region!r} has no Lambda@Edge", hint="choose a region of the partition 'aws'")
    return region


def _take_loopback(value: object, path: str) -> str:
    """Check an emulator's address: never another machine's, so that no test reaches a real account."""
    url = _take_text(value, path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(f"{path} is not on this machine: {url!r}", hint="an emulator's: http://127.0.0.1:PORT")
    return url.rstrip("/")


def _take_certificate(value: object, path: str) -> str:
    arn = _take_text(value, path)
    if not arn.startswith(f"arn:aws:acm:{EDGE_REGION}:"):
        raise UsageError(
            f"{path} is not a certificate of {EDGE_REGION}: {arn!r}",
            hint=f"CloudFront takes certificates from {EDGE_REGION} alone, wherever the bucket is",
        )
    return arn


def _take_issuer(value: object, path: str) -> str:
    issuer = _take_text(value, path)
    parts = urlsplit(issuer)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or issuer.endswith("/"):
        raise UsageError(f"{path} is not an issuer: {issuer!r}", hint="as in the token's iss: https://gitlab.com")
    return issuer


def _take_log_days(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in LOG_DAYS:
        raise UsageError(
            f"{path}: CloudWatch Logs keeps nothing for {value!r} days", hint=f"one of {', '.join(map(str, LOG_DAYS))}"
        )
    return value


def _take_output(value: object, path: str) -> OptionalOutput:
    for output in OPTIONAL_OUTPUTS:
        if value == output:
            return output
    raise UsageError(f"{path}: unknown output {value!r}", hint=f"there are {', '.join(OPTIONAL_OUTPUTS)}")


def _take_publisher(value: object, path: str) -> Publisher:
    take = _Settings(_take_mapping(value, path), path)
    given = {
        "subdirs": take.optional("subdirs", _tuple_of(_take_subdir_glob)),
        "artifacts": take.optional("artifacts", _tuple_of(_take_artifact_glob)),
        "may_read": take.optional("may_read", _take_flag),
        "may_delete": take.optional("may_delete", _take_flag),
        "may_attest": take.optional("may_attest", _take_flag),
        "may_patch": take.optional("may_patch", _take_flag),
    }
    publisher = Publisher(
        name=take("name", _matching(_PUBLISHER, "at most 32 of a-z, 0-9 and '-', starting with a letter")),
        channels=take.many("channels", _take_channel_glob),
        principals=take.many("principals", _take_principal),
        workloads=(
            *take.many("github", _take_github),
            *take.many("gitlab", _take_gitlab),
            *take.many("oidc", _take_workload),
        ),
        **_without_absent(given),
    )
    take.finish()
    if not (publisher.channels and publisher.subdirs and publisher.artifacts):
        raise UsageError(f"{path}: channels, subdirs and artifacts need an entry each", hint="'*' is all")
    if not (publisher.principals or publisher.workloads):
        raise UsageError(f"{path}: nobody could take this role", hint="add principals, github, gitlab or oidc")
    return publisher


def _take_github(value: object, path: str) -> Workload:
    take = _Settings(_take_mapping(value, path), path)
    repository = take("repository", _matching(_REPOSITORY, "OWNER/REPOSITORY, without wildcards"))
    claims = [
        *(f"ref:refs/heads/{branch}" for branch in take.many("branches", _take_text)),
        *(f"ref:refs/tags/{tag}" for tag in take.many("tags", _take_text)),
        *(f"environment:{name}" for name in take.many("environments", _take_text)),
    ]
    take.finish()
    if not claims:
        raise UsageError(
            f"{path}: any branch, by anybody with a pull request, could publish",
            hint='say which: "branches": ["main"], "tags": ["v*"] or "environments": ["release"]',
        )
    return Workload(
        issuer=GITHUB_ISSUER, audience=GITHUB_AUDIENCE, subjects=tuple(f"repo:{repository}:{claim}" for claim in claims)
    )


def _take_gitlab(value: object, path: str) -> Workload:
    take = _Settings(_take_mapping(value, path), path)
    issuer = take("issuer", _take_issuer, default="https://gitlab.com")
    audience = take("audience", _take_text, default=issuer)
    project = take("project", _matching(_PROJECT, "GROUP/PROJECT, without wildcards"))
    claims = [
        *(f"ref_type:branch:ref:{branch}" for branch in take.many("branches", _take_text)),
        *(f"ref_type:tag:ref:{tag}" for tag in take.many("tags", _take_text)),
    ]
    take.finish()
    if not claims:
        raise UsageError(f"{path}: any branch could publish", hint='say which: "branches": ["main"] or "tags": ["v*"]')
    return Workload(
        issuer=issuer, audience=audience, subjects=tuple(f"project_path:{project}:{claim}" for claim in claims)
    )


def _take_workload(value: object, path: str) -> Workload:
    take = _Settings(_take_mapping(value, path), path)
    workload = Workload(
        issuer=take("issuer", _take_issuer),
        audience=take("audience", _take_text),
        subjects=take.many("subjects", _take_text),
    )
    take.finish()
    if not workload.subjects or any(not subject.strip("*?") for subject in workload.subjects):
        raise UsageError(f"{path}.subjects: everybody at that issuer could publish", hint="name the workload's sub")
    return workload
