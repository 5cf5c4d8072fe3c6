"""Events about index files: which need a check, when it runs, and what raises an alarm."""

from dataclasses import replace

import pytest

from lambdas.channel.layout import SHARD_INDEX
from lambdas.channel.names import SubdirId, parse_subdir_id
from lambdas.indexer.model import Outputs
from lambdas.indexer.outputs.registry import channel_filenames, subdir_filenames
from lambdas.indexer.queue.messages import Action, ObjectEvent
from lambdas.indexer.queue.signals import (
    ALARM_MS,
    ForeignIndex,
    Signal,
    SubdirSignals,
    add_foreign,
    decode_signals,
    encode_signals,
    find_signals,
    is_foreign,
    parse_index_key,
    plan_check,
)

NOARCH, LINUX = parse_subdir_id("team/noarch"), parse_subdir_id("team/linux-64")
ROLE = "AROAINDEXER"
MALLORY = "AWS:AIDAMALLORY"
NOW = 1_790_000_000_000


def make_signal(
    filename: str = SHARD_INDEX,
    *,
    principal: str | None = MALLORY,
    action: Action | None = "created",
    sequencer: str = "",
    folder: str = "team/noarch",
) -> Signal:
    event = ObjectEvent(key=f"{folder}/{filename}", principal=principal, action=action, sequencer=sequencer)
    return Signal(subdir=NOARCH, event=event)


@pytest.mark.parametrize("filename", [SHARD_INDEX, *subdir_filenames()])
def test_parse_index_key__files_of_a_subdir(filename: str) -> None:
    assert parse_index_key(f"team/linux-64/{filename}") == LINUX


@pytest.mark.parametrize("filename", channel_filenames())
def test_parse_index_key__files_of_a_channel(filename: str) -> None:
    assert parse_index_key(f"team/{filename}") == NOARCH


@pytest.mark.parametrize(
    "key",
    [
        "index.html",
        "repodata.json",
        "team/repodata.json",
        "team/notices.json",
        "team/noarch/notices.json",
        "team/noarch/channeldata.json",
        "team/noarch/patch_instructions.json",
        "team/noarch/a-1-0.conda",
        "team/noarch/my-index.html",
        "team/noarch/deep/index.html",
        "team/noarch/shards/00.msgpack.zst",
        "team/docs/index.html",
        "TEAM/noarch/repodata.json",
        "TEAM/index.html",
        ".fairway/drafts/team/noarch/repodata_shards.msgpack.zst",
        ".fairway/index.html",
        "/noarch/repodata.json",
        "",
    ],
)
def test_parse_index_key__any_other(key: str) -> None:
    assert parse_index_key(key) is None


@pytest.mark.parametrize("principal", [f"AWS:{ROLE}:indexer", f"AWS:{ROLE}"])
def test_find_signals__own_role(principal: str) -> None:
    assert find_signals([make_signal(principal=principal).event], role_id=ROLE) == []


@pytest.mark.parametrize("principal", [None, MALLORY, f"AWS:{ROLE}2:indexer", f"AWS:AROAX:{ROLE}", ROLE])
def test_find_signals__other_principals(principal: str | None) -> None:
    signal = make_signal(principal=principal)
    assert find_signals([signal.event], role_id=ROLE) == [signal]
    assert find_signals([signal.event], role_id=None) == [signal]


UNKNOWN, FOREIGN = None, True


@pytest.mark.parametrize(
    ("filename", "action", "expected"),
    [
        (SHARD_INDEX, "created", UNKNOWN),
        (SHARD_INDEX, "removed", FOREIGN),
        (SHARD_INDEX, None, UNKNOWN),
        ("repodata.json", "created", UNKNOWN),
        ("repodata.json", "removed", FOREIGN),
        ("repodata.json.bz2", "created", FOREIGN),
        ("repodata.json.bz2", "removed", UNKNOWN),
        ("current_repodata.json.zst", "created", FOREIGN),
        ("repodata_from_packages.json", "created", UNKNOWN),
        ("repodata_from_packages.json", "removed", UNKNOWN),
    ],
)
def test_is_foreign__without_a_principal(filename: str, action: Action | None, expected: bool | None) -> None:
    assert is_foreign(make_signal(filename, principal=None, action=action), Outputs()) is expected
    assert is_foreign(make_signal(filename, action=action), Outputs()) is True


def test_is_foreign__optional_output_that_this_deployment_writes() -> None:
    assert is_foreign(make_signal("current_repodata.json", principal=None), Outputs(current_repodata=True)) is None


@pytest.mark.parametrize("filename", channel_filenames())
def test_is_foreign__file_of_a_channel_without_a_principal(filename: str) -> None:
    assert is_foreign(make_signal(filename, principal=None, folder="team"), Outputs()) is None
    assert is_foreign(make_signal(filename, principal=None, folder="team", action="removed"), Outputs()) is True


def test_plan_check__at_most_once_in_a_period_and_the_last_is_not_lost() -> None:
    known, delay = plan_check(SubdirSignals(), now_ms=NOW, period_ms=60_000)
    assert delay == 0
    known, delay = plan_check(known, now_ms=NOW + 10_000, period_ms=60_000)
    assert delay == 50_000
    for now_ms in (NOW + 10_001, NOW + 59_999):
        assert plan_check(known, now_ms=now_ms, period_ms=60_000) == (known, None)
    known, delay = plan_check(known, now_ms=NOW + 60_000, period_ms=60_000)
    assert delay == 60_000, "the queued check may have begun"
    assert plan_check(known, now_ms=NOW + 180_000, period_ms=60_000)[1] == 0


def test_add_foreign__second_within_an_hour() -> None:
    known, repeated = add_foreign(SubdirSignals(), [make_signal(sequencer="1")], now_ms=NOW)
    assert repeated == []
    assert add_foreign(known, [make_signal(sequencer="1")], now_ms=NOW + 1) == (known, []), "delivered again"
    known, repeated = add_foreign(known, [make_signal(principal="AWS:AIDAEVE", sequencer="3")], now_ms=NOW + 2)
    assert repeated == [ForeignIndex(at_ms=NOW + 2, principal="AWS:AIDAEVE", sequencer="3")]
    assert len(known.foreign) == 2


def test_add_foreign__two_in_one_batch() -> None:
    signals = [make_signal(sequencer="1"), make_signal(sequencer="2")]
    assert len(add_foreign(SubdirSignals(), signals, now_ms=NOW)[1]) == 1


def test_add_foreign__after_an_hour() -> None:
    known, _ = add_foreign(SubdirSignals(), [make_signal(sequencer="1")], now_ms=NOW)
    known, repeated = add_foreign(known, [make_signal(sequencer="2")], now_ms=NOW + ALARM_MS)
    assert repeated == []
    assert [one.sequencer for one in known.foreign] == ["2"]


def test_add_foreign__remembers_a_bounded_number() -> None:
    signals = [make_signal(sequencer=str(number)) for number in range(1000)]
    assert len(add_foreign(SubdirSignals(), signals, now_ms=NOW)[0].foreign) < 100


def test_decode_signals__round_trip() -> None:
    known, _ = add_foreign(SubdirSignals(checked_ms=NOW), [make_signal(sequencer="1")], now_ms=NOW)
    assert decode_signals(encode_signals(known)) == known
    assert decode_signals(encode_signals(replace(known, foreign=()))) == replace(known, foreign=())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"checked_ms": null, "foreign": []}', b'{"foreign": [1]}'])
def test_decode_signals__unreadable(body: bytes) -> None:
    assert decode_signals(body) == SubdirSignals()


def test_subdir_of_a_signal__is_a_subdir_id() -> None:
    assert isinstance(parse_index_key("team/rss.xml"), SubdirId)
