from pathlib import Path

import pytest

from lambdas.channel.errors import UsageError
from scripts.emulated.isolation import make_environment, require_loopback, require_loopback_environment


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:4566", "http://127.8.9.1:1", "http://[::1]:4566", "http://localhost:80"]
)
def test_require_loopback__this_machine(endpoint: str) -> None:
    assert require_loopback(endpoint) == endpoint
    assert require_loopback(endpoint + "/") == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://s3.amazonaws.com",
        "http://s3.us-east-1.amazonaws.com:80",
        "http://127.0.0.1",  # no port
        "https://127.0.0.1:4566",
        "http://127.0.0.1.evil.example:4566",
        "http://localhost.evil.example:4566",
        "http://127.0.0.1:4566@evil.example:80",
        "http://user@127.0.0.1:4566",
        "http://evil.example:80#@127.0.0.1:4566",
        "http://evil.example:80?@127.0.0.1:4566",
        "http://evil.example:80/127.0.0.1:4566",
        "http://127.0.0.1:4566/path",
        "http://127.0.0.1:4566?query",
        "http://0.0.0.0:4566",
        "http://10.0.0.1:4566",
        "http://169.254.169.254:80",
        "http://[::ffff:10.0.0.1]:4566",
        "http://127.0.0.1:port",
        "http://[::1:4566",
        "127.0.0.1:4566",
    ],
)
def test_require_loopback__anything_else(endpoint: str) -> None:
    with pytest.raises(UsageError, match="not a loopback endpoint"):
        require_loopback(endpoint)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_CLOUDFORMATION"])
def test_require_loopback_environment__real_endpoint(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        require_loopback_environment({name: "https://s3.amazonaws.com"})


def test_require_loopback_environment__none_or_loopback() -> None:
    require_loopback_environment({"AWS_PROFILE": "production"})
    require_loopback_environment({"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:4566"})


def test_make_environment__without_settings_of_a_real_account() -> None:
    parent = {
        "AWS_PROFILE": "production",
        "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real-secret",
        "AWS_SESSION_TOKEN": "real-session",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/real/identity",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/real",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://real/",
        "AWS_ENDPOINT_URL_S3": "https://real.example",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "CDK_DEFAULT_ACCOUNT": "123456789012",
        "BOTO_CONFIG": "/real/boto",
        "FAIRWAY_BUCKET": "real-bucket",
        "HTTPS_PROXY": "http://real-proxy:1",
        "http_proxy": "http://real-proxy:1",
        "HOME": "/home/somebody",
    }
    made = make_environment(
        parent, endpoint="http://127.0.0.1:4566", root=Path("/checkout"), temporary=Path("/checkout/.local/tmp")
    )
    assert not [value for value in made.values() if "real" in value.lower() or "123456789012" in value]
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"} & made.keys()
    assert made["HOME"] == "/home/somebody"
    assert made["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert made["AWS_CONFIG_FILE"] == made["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"
    assert made["AWS_EC2_METADATA_DISABLED"] == "true"


def test_make_environment__rejects_a_real_endpoint() -> None:
    with pytest.raises(UsageError):
        make_environment({}, endpoint="https://s3.amazonaws.com", root=Path("/"), temporary=Path("/tmp"))
