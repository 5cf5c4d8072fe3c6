"""The settings of the deployment, as the commands read them."""

import pytest

from lambdas.channel.errors import InvalidDocumentError
from lambdas.indexer.model import Outputs
from lambdas.indexer.settings import fetch_settings, parse_settings, publish_settings
from tests.memory import MemoryStorage


def test_fetch_settings__are_those_of_the_deployment() -> None:
    storage = MemoryStorage()
    environment = {
        "FAIRWAY_BUCKET": "bucket",
        "FAIRWAY_MUTABLE_CHANNELS": "dev-*, scratch",
        "FAIRWAY_OPTIONAL_OUTPUTS": "bz2",
        "FAIRWAY_CHANNEL_URL": "https://conda.example.com/",
        "FAIRWAY_SHARD_GRACE_DAYS": "3",
        "FAIRWAY_SUBDIRS": '{"team": ["linux-64"]}',
    }
    settings = parse_settings(environment)
    assert settings.policy.outputs == Outputs(bz2=True, url="https://conda.example.com")
    publish_settings(storage, settings)
    publish_settings(storage, settings)
    assert storage.requests["put"] == 1
    assert fetch_settings(storage, bucket="bucket") == settings


@pytest.mark.parametrize("body", [None, b"", b"{}", b"[]", b'{"policy": 1}'])
def test_fetch_settings__missing_or_malformed(body: bytes | None) -> None:
    """Defaults might publish what the deployment would not."""
    storage = MemoryStorage()
    if body is not None:
        storage.upload(".fairway/policy.json", body)
    with pytest.raises(InvalidDocumentError, match=r"policy\.json") as caught:
        fetch_settings(storage, bucket="bucket")
    assert caught.value.hint
