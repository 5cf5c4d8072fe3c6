"""The settings that the deployment passes to the function."""

import pytest

from lambdas.channel.names import parse_channel
from lambdas.indexer.settings import parse_settings

LEAST = {"FAIRWAY_BUCKET": "fairway-test"}


def test_parse_settings__minimal() -> None:
    settings = parse_settings(LEAST)
    assert settings.bucket == "fairway-test"
    assert settings.policy.mutable_channels == ()
    assert (settings.policy.outputs.current_repodata, settings.policy.outputs.bz2) == (False, False)
    assert settings.policy.outputs.url == ""
    assert (settings.event_bus, settings.distribution_id) == (None, None)
    assert settings.shard_grace_days == 14
    assert (settings.queue_url, settings.deferral_seconds) == (None, 60)
    assert (settings.role_id, settings.dead_letters_url, settings.max_receives) == (None, None, 0)


def test_parse_settings__everything() -> None:
    settings = parse_settings(
        LEAST
        | {
            "FAIRWAY_MUTABLE_CHANNELS": "dev, staging-* ,",
            "FAIRWAY_PUBLIC_CHANNELS": "open-*,tools",
            "FAIRWAY_EVENT_BUS": "bus",
            "FAIRWAY_DISTRIBUTION_ID": "E1",
            "FAIRWAY_CHANNEL_URL": "https://conda.example.org/",
            "FAIRWAY_OPTIONAL_OUTPUTS": "current_repodata,bz2",
            "FAIRWAY_MAX_SUBDIRS": "10",
            "FAIRWAY_MAX_REPODATA_MIB": "512",
            "FAIRWAY_SHARD_GRACE_DAYS": "30",
            "FAIRWAY_SUBDIRS": '{"team": ["linux-64"]}',
            "FAIRWAY_QUEUE_URL": "https://sqs.example.org/queue",
            "FAIRWAY_DEFERRAL_SECONDS": "5",
            "FAIRWAY_ROLE_ID": "AROAINDEXER",
            "FAIRWAY_DEAD_LETTERS_URL": "https://sqs.example.org/dead",
            "FAIRWAY_MAX_RECEIVES": "264",
        }
    )
    assert settings.policy.mutable_channels == ("dev", "staging-*")
    assert settings.public_channels == ("open-*", "tools")
    assert settings.policy.subdirs == {"team": ["linux-64"]}
    assert (settings.policy.outputs.current_repodata, settings.policy.outputs.bz2) == (True, True)
    assert settings.policy.outputs.url == "https://conda.example.org"
    assert (settings.event_bus, settings.distribution_id) == ("bus", "E1")
    assert settings.shard_grace_days == 30
    assert settings.policy.max_subdirs == 10
    assert settings.policy.outputs.max_repodata_bytes == 512 * 1024**2
    assert (settings.queue_url, settings.deferral_seconds) == ("https://sqs.example.org/queue", 5)
    assert settings.role_id == "AROAINDEXER"
    assert (settings.dead_letters_url, settings.max_receives) == ("https://sqs.example.org/dead", 264)


def test_parse_settings__empty_is_unset() -> None:
    empty = dict.fromkeys(
        [
            "FAIRWAY_MUTABLE_CHANNELS",
            "FAIRWAY_PUBLIC_CHANNELS",
            "FAIRWAY_EVENT_BUS",
            "FAIRWAY_DISTRIBUTION_ID",
            "FAIRWAY_CHANNEL_URL",
            "FAIRWAY_OPTIONAL_OUTPUTS",
            "FAIRWAY_QUEUE_URL",
            "FAIRWAY_SUBDIRS",
            "FAIRWAY_MAX_REPODATA_MIB",
        ],
        "",
    )
    assert parse_settings(LEAST | empty) == parse_settings(LEAST)


def test_parse_settings__no_bucket() -> None:
    with pytest.raises(KeyError, match="FAIRWAY_BUCKET"):
        parse_settings({})


def test_parse_settings__days_are_not_a_number() -> None:
    with pytest.raises(ValueError, match="fortnight"):
        parse_settings(LEAST | {"FAIRWAY_SHARD_GRACE_DAYS": "fortnight"})


@pytest.mark.parametrize(
    ("globs", "channel", "mutable"),
    [
        ("", "team", False),
        ("team", "team", True),
        ("team", "team2", False),
        ("team*", "team2", True),
        ("*", "team", True),
        ("dev-*,team", "dev-x", True),
        ("dev-*,team", "x-dev-x", False),
    ],
)
def test_policy_is_mutable__globs(globs: str, channel: str, *, mutable: bool) -> None:
    policy = parse_settings(LEAST | {"FAIRWAY_MUTABLE_CHANNELS": globs}).policy
    assert policy.is_mutable(parse_channel(channel)) is mutable
