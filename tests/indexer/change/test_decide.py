"""What an inspection leads to, as a table."""

from dataclasses import replace
from typing import Any

import pytest

from lambdas.channel.errors import RejectedError
from lambdas.channel.layout import parse_artifact_key
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.read import read_artifact
from lambdas.indexer.change.decide import Change, Index, Keep, Observed, Reject, Remove, decide, is_described
from lambdas.indexer.tree.cards import Card
from lambdas.storage.protocol import ObjectInfo
from tests.builders import MemorySource, conda_package

KEY = parse_artifact_key("team/noarch/foo-1.0-0.conda")
NOW_MS = 1_790_000_000_000
INFO = ObjectInfo(key=str(KEY), size=1, etag="first", last_modified_ms=NOW_MS, version="1")
AGAIN = replace(INFO, version="2")
OTHER = replace(INFO, etag="other", version="2")
BROKEN = RejectedError(RejectionCode.ARCHIVE_BROKEN, "damaged")


def read(**package: Any) -> ArtifactInfo:  # noqa: ANN401 - as the builder
    return read_artifact(MemorySource(content=conda_package(**package)[1]), KEY.distribution)


FIRST, EVIL, MISNAMED = read(), read(depends=["evil"]), read(index_extra={"name": "bar"})


def make_card(artifact: ArtifactInfo = FIRST, info: ObjectInfo = INFO) -> Card:
    change = decide(KEY, None, Observed(info=info, artifact=artifact), mutable=False, now_ms=NOW_MS)
    assert isinstance(change, Index)
    return change.card


CARD = make_card()
RESTORED = replace(CARD, etag="", version=None)
"""Made of readers' records, after the cards were lost."""


@pytest.mark.parametrize(
    ("card", "observed", "mutable", "expected"),
    [
        (None, None, False, Keep()),
        (CARD, None, False, Remove()),
        (RESTORED, None, False, Remove()),
        (CARD, Observed(info=INFO), False, Keep(info=INFO, card=CARD)),
        (None, Observed(info=INFO, artifact=FIRST), False, Index(info=INFO, card=CARD)),
        (None, Observed(info=INFO, artifact=BROKEN), False, Reject(info=INFO, error=BROKEN)),
        (CARD, Observed(info=OTHER, artifact=BROKEN), True, Reject(info=OTHER, error=BROKEN)),
        (CARD, Observed(info=AGAIN, artifact=FIRST), False, Index(info=AGAIN, card=replace(CARD, version="2"))),
        (CARD, Observed(info=AGAIN), False, Index(info=AGAIN, card=replace(CARD, version="2"))),
        (replace(CARD, version=None), Observed(info=INFO), False, Index(info=INFO, card=CARD)),
        (
            CARD,
            Observed(info=OTHER, artifact=FIRST),
            False,
            Index(info=OTHER, card=replace(CARD, etag="other", version="2")),
        ),
        (CARD, Observed(info=OTHER, artifact=EVIL), True, Index(info=OTHER, card=make_card(EVIL, OTHER))),
        (RESTORED, Observed(info=INFO, artifact=FIRST), False, Index(info=INFO, card=CARD)),
    ],
)
def test_decide__table(card: Card | None, observed: Observed | None, mutable: bool, expected: Change) -> None:
    assert decide(KEY, card, observed, mutable=mutable, now_ms=NOW_MS) == expected


@pytest.mark.parametrize("card", [CARD, RESTORED])
@pytest.mark.parametrize("info", [AGAIN, OTHER])
def test_decide__other_bytes(card: Card, info: ObjectInfo) -> None:
    change = decide(KEY, card, Observed(info=info, artifact=EVIL), mutable=False, now_ms=NOW_MS)
    assert isinstance(change, Reject)
    assert (change.info, change.error.code) == (info, RejectionCode.FILENAME_TAKEN)


def test_decide__record_that_contradicts_its_key() -> None:
    change = decide(KEY, None, Observed(info=INFO, artifact=MISNAMED), mutable=True, now_ms=NOW_MS)
    assert isinstance(change, Reject)
    assert change.error.code == RejectionCode.NAME_MISMATCH


def test_decide__keeps_when_it_was_indexed() -> None:
    later = replace(OTHER, last_modified_ms=NOW_MS + 5000)
    change = decide(KEY, RESTORED, Observed(info=later, artifact=FIRST), mutable=False, now_ms=NOW_MS + 5000)
    assert isinstance(change, Index)
    assert change.card.record["indexed_timestamp"] == CARD.record["indexed_timestamp"]


def test_decide__neither_read_nor_described() -> None:
    with pytest.raises(ValueError, match="no card describes it"):
        decide(KEY, None, Observed(info=INFO), mutable=False, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("card", "info", "expected"),
    [
        (None, INFO, False),
        (RESTORED, INFO, False),
        (CARD, INFO, True),
        (CARD, AGAIN, False),
        (CARD, OTHER, False),
        (CARD, replace(AGAIN, sha256=CARD.sha256), True),
        (CARD, replace(INFO, sha256="0" * 64), False),
        (CARD, replace(INFO, version=None, size=CARD.record["size"]), True),
        (CARD, replace(INFO, version=None, size=CARD.record["size"] + 1), False),
        (CARD, replace(OTHER, version=None, size=CARD.record["size"]), False),
    ],
)
def test_is_described__table(card: Card | None, info: ObjectInfo, expected: bool) -> None:
    assert is_described(card, info) == expected
