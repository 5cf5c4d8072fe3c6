"""channeldata.json: per subdir, then merged, in any order of arrival."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.channel.errors import InvalidDocumentError
from lambdas.channel.names import NOARCH, PackageName, SubdirName
from lambdas.indexer.outputs.channeldata import (
    apply_to_part,
    format_channeldata,
    make_entry,
    make_part,
    merge_parts,
)
from lambdas.indexer.tree.cards import Card
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.patches import parse_patches
from lambdas.indexer.tree.shards import make_shard

FOO = PackageName("foo")
LINUX = SubdirName("linux-64")
T1, T2, T3 = 1_700_000_000_000, 1_700_000_100_000, 1_700_000_200_000


def card(version: str = "1", *, indexed_ms: int = T1, facts: dict[str, Any] | None = None, **more: Any) -> Card:  # noqa: ANN401 - JSON
    record = {
        "name": "foo",
        "version": version,
        "build": "0",
        "md5": "0a" * 16,
        "sha256": "0b" * 32,
        "size": 1,
        "indexed_timestamp": indexed_ms,
        **more,
    }
    return Card(record=record, run_exports={"weak": [version]} if version != "1" else {}, facts=facts or {}, etag="e")


def entry(subdir: SubdirName = NOARCH, patches: bytes = b"{}", **cards: Card) -> dict[str, Any]:
    named = {f"foo-{one.record['version']}-{build}.conda": one for build, one in cards.items()}
    made = make_entry(subdir, make_shard(named, parse_patches(patches)), named)
    assert made is not None
    return made


def merge(**parts: dict[str, Any]) -> dict[str, Any]:
    return merge_parts(
        apply_to_part(make_part(SubdirName(subdir.replace("_", "-"))), {FOO: one}) for subdir, one in parts.items()
    )


# One subdir


def test_make_entry__facts_of_the_newest_version() -> None:
    made = entry(
        a=card("1.9", facts={"summary": "old", "home": "only here"}),
        b=card("1.10", facts={"summary": "new", "dev_url": ""}),
    )
    assert (made["summary"], made["home"], made["version"]) == ("new", "only here", "1.10")
    assert "dev_url" not in made


def test_make_entry__flags_of_any_version() -> None:
    made = entry(
        a=card("1", facts={"binary_prefix": True, "post_link": False}), b=card("2", facts={"text_prefix": True})
    )
    assert (made["binary_prefix"], made["text_prefix"], made["post_link"]) == (True, True, False)


def test_make_entry__newest_build_represents_its_version() -> None:
    made = entry(
        a=card("1", timestamp=T2, facts={"summary": "late"}), b=card("1", timestamp=T1, facts={"summary": "early"})
    )
    assert made["summary"] == "late"


def test_make_entry__timestamp_in_seconds() -> None:
    assert entry(a=card("1", timestamp=T2), b=card("2", timestamp=T1))["timestamp"] == T2 // 1000
    assert entry(a=card("1", timestamp=1_700_000_000))["timestamp"] == 1_700_000_000
    assert entry(a=card("1"))["timestamp"] == 0
    assert entry(a=card("1", timestamp=None))["timestamp"] == 0


def test_make_entry__run_exports_by_version() -> None:
    assert entry(a=card("1"), b=card("2"), c=card("3"))["run_exports"] == {"2": {"weak": ["2"]}, "3": {"weak": ["3"]}}


def test_make_entry__newest_by_arrival() -> None:
    assert entry(a=card("2", indexed_ms=T1), b=card("1", indexed_ms=T3))["newest"] == {
        "filename": "foo-1-b.conda",
        "version": "1",
        "indexed_timestamp": T3,
    }


def test_make_entry__yanked_artifacts_do_not_count() -> None:
    made = entry(
        patches=b'{"remove": ["foo-2-b.conda"]}',
        a=card("1", facts={"summary": "old"}),
        b=card("2", facts={"home": "h"}),
    )
    assert made["version"] == "1"
    assert "home" not in made


def test_make_entry__everything_yanked() -> None:
    cards = {"foo-1-a.conda": card("1")}
    assert make_entry(NOARCH, make_shard(cards, parse_patches(b'{"remove": ["foo-1-a.conda"]}')), cards) is None


def test_make_entry__patched_record_counts() -> None:
    made = entry(patches=b'{"packages.conda": {"foo-1-a.conda": {"license": "MIT"}}}', a=card("1", license="GPL"))
    assert made["license"] == "MIT"


def test_make_entry__lost_facts() -> None:
    cards = {"foo-1-a.conda": card("1", license="MIT")}
    made = make_entry(NOARCH, make_shard(cards), {})
    assert made is not None
    assert (made["version"], made["license"]) == ("1", "MIT")


# Over subdirs


def test_merge_parts__subdirs_and_newest() -> None:
    merged = merge(
        noarch=entry(NOARCH, a=card("1", indexed_ms=T1, facts={"summary": "one"})),
        linux_64=entry(LINUX, a=card("2", indexed_ms=T2, facts={"summary": "two", "binary_prefix": True})),
    )
    assert merged["subdirs"] == ["linux-64", "noarch"]
    foo = merged["packages"]["foo"]
    assert foo["subdirs"] == ["linux-64", "noarch"]
    assert (foo["version"], foo["summary"], foo["binary_prefix"]) == ("2", "two", True)
    assert foo["newest"]["subdir"] == "linux-64"


def test_merge_parts__empty_subdirs_are_listed() -> None:
    assert merge_parts([make_part(NOARCH), make_part(LINUX)]) == {
        "channeldata_version": 1,
        "subdirs": ["linux-64", "noarch"],
        "packages": {},
    }


def test_format_channeldata__no_private_fields() -> None:
    published = format_channeldata(merge(noarch=entry(a=card("1"))))
    assert "newest" not in published["packages"]["foo"]
    assert published["channeldata_version"] == 1


@pytest.mark.parametrize(
    "parts", [[{}], [None], [{"subdir": "noarch"}], [{"subdir": "noarch", "packages": []}],
              [{"subdir": "noarch", "packages": {"a": {}}}], [{"subdir": "noarch", "packages": {"a": 1}}]]
)  # fmt: skip
def test_merge_parts__broken(parts: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(InvalidDocumentError):
        merge_parts(parts)


def test_apply_to_part__broken() -> None:
    with pytest.raises(InvalidDocumentError):
        apply_to_part({"subdir": "noarch"}, {})


facts = st.dictionaries(
    st.sampled_from(["summary", "home", "license", "binary_prefix", "keywords"]), st.sampled_from(["", "x", "y"])
)
cards = st.builds(
    card,
    st.sampled_from(["0", "1", "1.0", "2a", "2"]),
    indexed_ms=st.sampled_from([T1, T2]),
    timestamp=st.sampled_from([None, T1, T2, T1 // 1000]),
    facts=facts,
)
card_sets = st.dictionaries(st.sampled_from("abc"), cards, max_size=3)


@given(card_sets, st.randoms(use_true_random=False))
def test_make_entry__order_does_not_matter(found: dict[str, Card], random: Any) -> None:  # noqa: ANN401 - a Random
    named = {f"foo-{one.record['version']}-{build}.conda": one for build, one in found.items()}
    items = list(named.items())
    random.shuffle(items)
    one = make_entry(NOARCH, make_shard(named), named)
    other = make_entry(NOARCH, make_shard(dict(items)), dict(items))
    assert encode_json(one) == encode_json(other)


@given(st.dictionaries(st.sampled_from(["noarch", "linux-64", "osx-64"]), card_sets), st.randoms(use_true_random=False))
def test_merge_parts__order_does_not_matter(found: dict[str, dict[str, Card]], random: Any) -> None:  # noqa: ANN401 - a Random
    parts = []
    for subdir, several in found.items():
        named = {f"foo-{one.record['version']}-{build}.conda": one for build, one in several.items()}
        made = make_entry(SubdirName(subdir), make_shard(named), named)
        parts.append(apply_to_part(make_part(SubdirName(subdir)), {FOO: made}))
    before = encode_json(parts)
    merged = encode_json(merge_parts(parts))
    assert encode_json(parts) == before
    random.shuffle(parts)
    assert encode_json(merge_parts(parts)) == merged
