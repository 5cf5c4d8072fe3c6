"""Keeps everything local away from real accounts: what an endpoint may be, what children may see.

Pure. Every client and every child process of the local stack gets its endpoint checked and its
environment made here, so that no profile, credential or proxy of the user can leak into it.
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
SECRET_KEY = "test"  # noqa: S105 - the emulator's, public by design

_SCRUBBED_PREFIXES = ("AWS_", "CDK_", "FAIRWAY_", "BOTO", "CONDA_", "RATTLER_", "MINISTACK_", "LOCALSTACK_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy"})


def require_loopback(endpoint: str) -> str:
    """Return the endpoint if it can only mean this machine.

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
            hint="the local commands only ever talk to the emulator on this machine, like http://127.0.0.1:4566",
        )
    return endpoint.rstrip("/")


def require_loopback_environment(environment: Mapping[str, str]) -> None:
    """Refuse to begin where somebody asks for another endpoint, rather than ignore the wish.

    Raises:
        UsageError: a variable names an endpoint that isn't loopback.
    """
    for name, value in environment.items():
        if name.startswith("AWS_ENDPOINT_URL") and value:
            try:
                require_loopback(value)
            except UsageError as error:
                raise UsageError(f"{name} is {error}", hint=f"{error.hint}; unset {name} first") from error


def make_environment(parent: Mapping[str, str], *, endpoint: str, root: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a child: the parent's, without anything that could name a real account.

    Args:
        parent: the environment to start from; untouched.
        endpoint: where the emulator answers.
        root: the checkout; its tools come first on the PATH, its ``.local`` takes caches.
        temporary: where the child may put temporary files.

    Raises:
        UsageError: the endpoint isn't loopback.
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
