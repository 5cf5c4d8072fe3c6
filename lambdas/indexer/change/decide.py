"""Decides what an inspection leads to: index, remove, reject or keep. Pure.

The decision depends on what the index knows (the card), what is in the bucket (the observation) and
the channel's policy, never on the event that led here.
"""

from dataclasses import dataclass, replace

from lambdas.channel.errors import RejectedError
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.info import ArtifactInfo
from lambdas.indexer.artifacts.record import make_record
from lambdas.indexer.tree.cards import Card
from lambdas.storage.protocol import ObjectInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """An object under an artifact's key."""

    info: ObjectInfo
    artifact: ArtifactInfo | RejectedError | None = None
    """What was read; None if the card describes these bytes, so that nothing was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """The artifact's card is new or changed."""

    info: ObjectInfo
    card: Card


@dataclass(frozen=True, kw_only=True, slots=True)
class Remove:
    """The artifact is gone, and so is its card."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """The object may not be indexed: it goes to the quarantine."""

    info: ObjectInfo
    error: RejectedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """The index says what is in the bucket already; ``info`` is None if there is no artifact."""

    info: ObjectInfo | None = None
    card: Card | None = None


Change = Index | Remove | Reject | Keep


def is_described(card: Card | None, info: ObjectInfo) -> bool:
    """Tell whether the card describes these bytes, so that they needn't be read.

    Where the storage keeps versions, an ETag alone says nothing: it is an MD5, and two files may share one.
    """
    if card is None or not card.etag:
        return False
    if info.sha256 is not None:
        return info.sha256 == card.sha256
    if info.version is not None:
        return info.version == card.version
    return card.etag == info.etag and card.record["size"] == info.size


def decide(key: ArtifactKey, card: Card | None, observed: Observed | None, *, mutable: bool, now_ms: int) -> Change:
    """Decide about one artifact.

    Args:
        key: the artifact's key.
        card: what the index knows of it. A card without an ETag was restored from readers' records: it
            tells when the artifact was indexed, and nothing else.
        observed: the object under the key; None if there is none.
        mutable: other bytes may replace the artifact's.
        now_ms: the current time, which bounds the artifact's timestamp.
    """
    if observed is None:
        return Keep() if card is None else Remove()
    info, artifact = observed.info, observed.artifact
    if isinstance(artifact, RejectedError):
        return Reject(info=info, error=artifact)
    is_same = artifact is None or (card is not None and artifact.sha256 == card.sha256)
    if card is not None and card.etag and is_same:
        is_known = (info.etag, info.version) == (card.etag, card.version)
        return _index(info, card, card if is_known else replace(card, etag=info.etag, version=info.version))
    if artifact is None:
        raise ValueError(f"{str(key)!r} was not read, and no card describes it")
    try:
        record = make_record(artifact, key, last_modified_ms=info.last_modified_ms, now_ms=now_ms)
    except RejectedError as error:
        return Reject(info=info, error=error)
    if card is not None and is_same:
        record["indexed_timestamp"] = card.record["indexed_timestamp"]  # CEP 47: when it became available
    elif card is not None and not mutable:
        return Reject(info=info, error=filename_taken(key, card.sha256))
    made = Card(
        record=record,
        run_exports=artifact.run_exports,
        facts={**artifact.about, **artifact.channeldata},
        etag=info.etag,
        version=info.version,
    )
    return _index(info, card, made)


def filename_taken(key: ArtifactKey, sha256: str) -> RejectedError:
    """Return why other bytes than the first ones are rejected."""
    return RejectedError(
        RejectionCode.FILENAME_TAKEN,
        f"{key.filename!r} is published already with other bytes (sha256 {sha256})",
        hint="raise the build number: an artifact's bytes never change under its name",
    )


def _index(info: ObjectInfo, old: Card | None, new: Card) -> Index | Keep:
    return Keep(info=info, card=new) if new == old else Index(info=info, card=new)
