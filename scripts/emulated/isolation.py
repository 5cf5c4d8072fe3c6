"""Isolates the local stack from real accounts: checks endpoints, makes environments of processes. Pure.

Every client and every child process of the local stack uses an endpoint and an environment from here,
so that it cannot use a profile, a credential or a proxy of the user.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from lambdas.channel.errors import UsageError

ACCOUNT = "000000000000"
REGION = "us-east-1"
ACCESS_KEY = "test"  # the emulator's root user; no account on AWS has such a key
SECRET_KEY = "test"  # noqa: S105 - the emulator's, not a secret

_SCRUBBED_PREFIXES = ("AWS_", "CDK_", "FAIRWAY_", "BOTO", "CONDA_", "RATTLER_", "MINISTACK_", "LOCALSTACK_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy"})


def require_loopback(endpoint: str) -> str:
    """Return the endpoint if it is on this machine.

    Raises:
        UsageError: anything but ``http://`` with a loopback address, or ``localhost``, and a port.
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
        is_local = (
            parts.scheme == "http"
            and parts.port is not None
            and parts.username is None
            and parts.path in {"", "/"}
            and not parts.query
            and not parts.fragment
            and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
        )
    except ValueError:
        is_local = False
    if not is_local:
        raise UsageError(
            f"not a loopback endpoint: {endpoint!r}",
            hint="the local commands use only an emulator on this machine, such as http://127.0.0.1:4566",
        )
    return endpoint.rstrip("/")


def require_loopback_environment(environment: Mapping[str, str]) -> None:
    """Check that the environment names no other endpoint: ignoring it would surprise the user.

    Raises:
        UsageError: a variable names an endpoint that is not on loopback.
    """
    for name, value in environment.items():
        if name.startswith("AWS_ENDPOINT_URL") and value:
            try:
                require_loopback(value)
            except UsageError as error:
                raise UsageError(f"{name} is {error}", hint=f"{error.hint}; unset {name} first") from error


def make_environment(parent: Mapping[str, str], *, endpoint: str, root: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a child process: the parent's, without settings of real accounts.

    Args:
        parent: the environment to start from; it is not changed.
        endpoint: the URL of the emulator.
        root: the checkout; its tools come first on the PATH, caches are in its ``.local``.
        temporary: the folder for temporary files.

    Raises:
        UsageError: the endpoint is not on loopback.
    """
    caches = root / ".local" / "caches"
    kept = {
        name: value
        for name, value in parent.items()
        if not name.startswith(_SCRUBBED_PREFIXES) and name.lower() not in _PROXIES
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": require_loopback(endpoint),
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "CDK_HOME": str(caches / "cdk"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(caches / "jsii"),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "NO_PROXY": "127.0.0.1,::1",
        "no_proxy": "127.0.0.1,::1",
        "PATH": f"{root / '.venv' / 'bin'}:{parent.get('PATH', '/usr/bin:/bin')}",
        "PYTHONUNBUFFERED": "1",
        "RATTLER_CACHE_DIR": str(caches / "rattler"),
        "TMPDIR": str(temporary),
    }
