"""Publishers' policies for generated settings: no publisher reads, lists or writes outside its channels."""

import random
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import Publisher
from infra.parse_config import parse_configuration
from infra.permissions import grant_publisher
from lambdas.channel.layout import (
    ACCESS_KEY,
    AUDIT_PREFIX,
    CARDS_PREFIX,
    CHANNEL_STATE_PREFIX,
    GARBAGE_PREFIX,
    PATCHES_PREFIX,
    POLICY_KEY,
    REJECTED_PREFIX,
    REPLACED_PREFIX,
    TABLES_PREFIX,
    rejection_folder,
)
from lambdas.channel.names import DOCTOR_CHANNEL
from tests.infra.iam import Request, as_policy, is_allowed

BUCKET = "fairway-team-123456789012-us-east-1"
ARN = f"arn:aws:s3:::{BUCKET}"
CONFIGURATIONS = 1000
WRITES = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload")
_PRIVATE_PREFIXES = (
    AUDIT_PREFIX,
    CHANNEL_STATE_PREFIX,
    GARBAGE_PREFIX,
    PATCHES_PREFIX,
    REPLACED_PREFIX,
    TABLES_PREFIX,
)
READS = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes")

# Few letters, so that channels' names begin alike; and names that could be taken for something else.
CHANNEL_NAMES = st.one_of(
    st.text("ab-_.", min_size=0, max_size=4).map("a".__add__),
    st.sampled_from(["shards", "noarch2", "t2", "_", "0", "cards", "rejected", "access.json", "a.conda", "f" * 64]),
)
PUBLISHERS = st.fixed_dictionaries(
    {
        "name": st.just("one"),
        "principals": st.just(["arn:aws:iam::123456789012:root"]),
        "channels": st.lists(
            st.one_of(CHANNEL_NAMES, CHANNEL_NAMES.map(lambda name: f"{name}*"), st.just("*")),
            min_size=1,
            max_size=3,  # more may not fit into a role, which another test is about
            unique=True,
        ),
        "subdirs": st.lists(st.sampled_from(["noarch", "linux-64", "*"]), min_size=1, max_size=2, unique=True),
        "artifacts": st.lists(
            st.sampled_from(["*", "tool-*", "tool-1.0-0", "a*", "-*"]), min_size=1, max_size=2, unique=True
        ),
        "may_read": st.booleans(),
        "may_delete": st.booleans(),
        "may_attest": st.booleans(),
        "may_patch": st.booleans(),
    }
)
TAILS = (
    "noarch/tool-1.0-0.conda", "linux-64/tool-1.0-0.tar.bz2", "noarch/tool-1.0-0.conda.sigs", "osx-64/x-1-0.conda",
    "noarch/patch_instructions.json", "noarch/repodata.json", "noarch/repodata_shards.msgpack.zst", "index.html",
    "notices.json", "tool-1.0-0.conda", "noarch/a/b/tool-1.0-0.conda", "noarch/shards/0.msgpack.zst",
    "noarch/index.html", "noarch/tool-1.0-0.conda.sigs.00",
)  # fmt: skip


def parse_publisher(given_settings: dict[str, Any]) -> Publisher:
    context = {"environments": {"production": {"account": "123456789012", "publishers": [given_settings]}}}
    (publisher,) = parse_configuration(context).publishers
    return publisher


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys in channels, and what no publisher may touch."""

    channels: list[str]

    def of_channels(self) -> list[tuple[str, str]]:
        """Return ``(channel, key)``."""
        return [(channel, f"{channel}/{tail}") for channel in self.channels for tail in TAILS]

    def private_of_channels(self) -> list[tuple[str, str]]:
        """Return ``(channel, key)`` of what a publisher may read about its channels."""
        return [
            (channel, f"{prefix}{channel}/noarch/tool-1.0-0.conda/0/reason.json")
            for channel in self.channels
            for prefix in (CARDS_PREFIX, REJECTED_PREFIX)
        ]

    def private(self) -> list[str]:
        """Return keys that are no publisher's."""
        per_channel = [
            f"{prefix}{channel}/noarch/tool-1.0-0.conda" for channel in self.channels for prefix in _PRIVATE_PREFIXES
        ]
        return [
            ACCESS_KEY, POLICY_KEY, f"{AUDIT_PREFIX}2026-01.jsonl", ".fairway/x", ".fairway/x/y/z-1-0.conda",
            *per_channel,
        ]  # fmt: skip


def owns(publisher: Publisher, channel: str) -> bool:
    return any(fnmatchcase(channel, pattern) for pattern in publisher.channels)


def find_channels(publisher: Publisher, chance: random.Random) -> list[str]:
    """Return names near those of the publisher: theirs, shorter and longer ones, and others."""
    near = [pattern.rstrip("*") for pattern in publisher.channels]
    names = {*near, *(f"{name}a" for name in near), *(name[:-1] for name in near), "b", "other", "team", "0", "_x"}
    return chance.sample(sorted(names - {""}), min(6, len(names - {""})))


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a publisher may do, by its policy."""

    publisher: Publisher
    policy: list[dict[str, Any]]

    def may(self, action: str, key: str) -> bool:
        context = {"s3:if-none-match": "*"}  # some grants ask for it, no denial does
        return is_allowed(self.policy, Request(action=action, resource=f"{ARN}/{key}", context=context))

    def may_list(self, prefix: str | None) -> bool:
        context = {} if prefix is None else {"s3:prefix": prefix}
        return is_allowed(self.policy, Request(action="s3:ListBucket", resource=ARN, context=context))

    def may_read(self, channel: str) -> bool:
        """Tell whether its settings let it read this channel."""
        return owns(self.publisher, channel) and self.publisher.may_read

    def check_channels(self, keys: Keys, chance: random.Random) -> None:
        for channel, key in keys.of_channels():
            for action in WRITES:
                assert owns(self.publisher, channel) or not self.may(action, key), (action, key)
            for action in READS:
                assert self.may(action, key) == self.may_read(channel), (action, key)
            prefix = key[: chance.randrange(len(channel) + 1, len(key) + 1)]
            assert self.may_list(prefix) == self.may_read(channel), prefix

    def check_private_keys(self, keys: Keys) -> None:
        for channel, key in keys.private_of_channels():
            for action in READS:
                assert self.may(action, key) == self.may_read(channel), (action, key)
            assert self.may_list(key) == self.may_read(channel), key
            assert not any(self.may(action, key) for action in WRITES), key
        long = rejection_folder(f"other/noarch/{'x' * 900}.conda") + "0/reason.json"
        for key in (*keys.private(), *(() if "*" in self.publisher.channels else (long,))):
            assert not any(self.may(action, key) for action in (*READS, *WRITES)), key
            assert not self.may_list(key), key
            assert not self.may_list(key.rpartition("/")[0] + "/"), key

    def check_the_rest(self) -> None:
        """Check prefixes that hold more than one channel, or everything, and other actions."""
        wide = (None, "", ".", ".fairway", ".fairway/", CARDS_PREFIX, REJECTED_PREFIX, "a", *self.publisher.channels)
        for prefix in wide:
            assert not self.may_list(prefix), prefix
        for action in ("s3:ListBucketVersions", "s3:PutBucketPolicy", "s3:PutObjectAcl", "s3:PutObjectTagging"):
            assert not is_allowed(self.policy, Request(action=action, resource=ARN))
            assert not self.may(action, f"{self.publisher.channels[0].rstrip('*')}a/noarch/tool-1.0-0.conda")


@given(given_settings=PUBLISHERS, seed=st.integers(0, 2**32))
@settings(max_examples=CONFIGURATIONS, deadline=None)
def test_grant_publisher__attack_reads_lists_or_writes_outside_its_channels(
    given_settings: dict[str, Any], seed: int
) -> None:
    publisher = parse_publisher(given_settings)
    access = Access(publisher=publisher, policy=as_policy(grant_publisher(BUCKET, publisher)))
    chance = random.Random(seed)  # noqa: S311 - chooses examples
    keys = Keys(channels=find_channels(publisher, chance))
    access.check_channels(keys, chance)
    access.check_private_keys(keys)
    access.check_the_rest()


def test_grant_publisher__writes_what_its_settings_grant() -> None:
    given_settings = {"name": "one", "principals": ["arn:aws:iam::123456789012:root"], "channels": ["team", "dev-*"]}
    policy = as_policy(grant_publisher(BUCKET, parse_publisher(given_settings)))
    for key, expected in {
        "team/noarch/tool-1.0-0.conda": True,
        "dev-x/linux-64/tool-1.0-0.tar.bz2": True,
        "dev-/noarch/tool-1.0-0.conda": True,
        "dev/noarch/tool-1.0-0.conda": False,
        "team/noarch/tool-1.0-0.conda.sigs": False,
        "team/noarch/repodata.json": False,
    }.items():
        assert is_allowed(policy, Request(action="s3:PutObject", resource=f"{ARN}/{key}")) == expected, key


@pytest.mark.parametrize("channels", [["a*"], ["f" * 64], ["0*", "1*"]])
def test_rejection_folder__attack_hash_that_begins_like_a_channel(channels: list[str]) -> None:
    """A key too long for the layout is rejected below its hash, which is no channel's name."""
    publisher = parse_publisher({"name": "one", "principals": ["arn:aws:iam::123456789012:root"], "channels": channels})
    policy = as_policy(grant_publisher(BUCKET, publisher))
    for number in range(50):
        key = rejection_folder(f"other/noarch/{number}{'x' * 900}.conda") + "0/object"
        assert not is_allowed(policy, Request(action="s3:GetObject", resource=f"{ARN}/{key}"))


@pytest.mark.parametrize("channels", [["*"], ["f*"], ["fairway-*"], ["fairway-doctor*"], ["team", "fairway-doctor-*"]])
def test_grant_publisher__attack_writes_to_the_channel_of_the_doctor(channels: list[str]) -> None:
    publisher = parse_publisher(
        {
            "name": "one",
            "principals": ["arn:aws:iam::123456789012:root"],
            "channels": channels,
            **dict.fromkeys(("may_delete", "may_attest", "may_patch"), True),
        }
    )
    policy = as_policy(grant_publisher(BUCKET, publisher))
    own = channels[0].rstrip("*") or "team"
    own_key = f"{ARN}/{own if own == 'team' else own + 'x'}/noarch/tool-1.0-0.conda"
    assert is_allowed(policy, Request(action="s3:PutObject", resource=own_key))
    for tail in TAILS:
        for action in WRITES:
            request = Request(
                action=action, resource=f"{ARN}/{DOCTOR_CHANNEL}/{tail}", context={"s3:if-none-match": "*"}
            )
            assert not is_allowed(policy, request), (tail, action)
