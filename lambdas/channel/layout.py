"""The layout of the bucket: every key is built and parsed here. Pure; standard library only.

Knows where things are, not what is in them. Readers' keys are ``CHANNEL/SUBDIR/FILENAME`` and
``CHANNEL/FILENAME``; everything private is under ``.fairway/``, which is no legal channel name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from lambdas.channel.artifact_kinds import Distribution, extensions, kind_of, parse_filename
from lambdas.channel.errors import InvalidNameError
from lambdas.channel.names import (
    NOARCH,
    Channel,
    SubdirId,
    is_subdir_name,
    parse_channel,
    parse_subdir,
    parse_subdir_id,
)

PRIVATE_PREFIX: Final = ".fairway/"
ACCESS_KEY: Final = ".fairway/access.json"
AUDIT_PREFIX: Final = ".fairway/audit/"
POLICY_KEY: Final = ".fairway/policy.json"
REJECTED_PREFIX: Final = ".fairway/rejected/"
CARDS_PREFIX: Final = ".fairway/cards/"
PATCHES_PREFIX: Final = ".fairway/patches/"
TABLES_PREFIX: Final = ".fairway/tables/"
GARBAGE_PREFIX: Final = ".fairway/garbage/"
CHANNEL_STATE_PREFIX: Final = ".fairway/channeldata/"
DRAFTS_PREFIX: Final = ".fairway/drafts/"
REPLACED_PREFIX: Final = ".fairway/replaced/"
SIGNALS_PREFIX: Final = ".fairway/signals/"
RECORDED_PREFIX: Final = ".fairway/recorded/"  # of directories alone
STALE_PREFIX: Final = ".fairway/stale/"
CHANNEL_PREFIXES: Final = (
    CARDS_PREFIX,
    CHANNEL_STATE_PREFIX,
    DRAFTS_PREFIX,
    GARBAGE_PREFIX,
    PATCHES_PREFIX,
    REJECTED_PREFIX,
    REPLACED_PREFIX,
    SIGNALS_PREFIX,
    TABLES_PREFIX,
)
"""What is private to a channel: each of these has a folder for each channel."""
WHOLE_SUBDIR: Final = "*"
"""In place of a filename in the indexer's own messages: everything in the subdir."""

ATTESTATIONS_SUFFIX: Final = ".sigs"
PATCH_INSTRUCTIONS: Final = "patch_instructions.json"
NOTICES: Final = "notices.json"
SHARD_INDEX: Final = "repodata_shards.msgpack.zst"
SHARDS_FOLDER: Final = "shards/"

_SHARD_SUFFIX: Final = ".msgpack.zst"
_CARDS_SUFFIX: Final = ".json.zst"
_ARCHITECTURES: Final = {
    "emscripten": ("wasm32",),
    "freebsd": ("64", "arm64"),
    "linux": (
        *("32", "64", "aarch64", "armv6l", "armv7l", "loongarch64", "ppc64", "ppc64le", "riscv32", "riscv64", "s390x"),
    ),
    "osx": ("64", "arm64"),
    "wasi": ("wasm32",),
    "win": ("32", "64", "arm64"),
    "zos": ("z",),
}
_REJECTION: Final = "reason.json"
_REJECTED_BYTES: Final = "object"
_ID_CHARS: Final = 16
_MAX_REJECTED_KEY_BYTES: Final = 900  # the whole key under .fairway/rejected/ may have 1,024


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactKey:
    """The key of an artifact."""

    subdir: SubdirId
    distribution: Distribution

    @property
    def filename(self) -> str:
        """The last part of the key."""
        return self.distribution.filename

    def __str__(self) -> str:
        """Format as the S3 key."""
        return f"{self.subdir}/{self.filename}"

    @property
    def attestations(self) -> str:
        """The key of the artifact's attestations."""
        return f"{self}{ATTESTATIONS_SUFFIX}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestationsKey:
    """The key of an artifact's attestations."""

    artifact: ArtifactKey


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchesKey:
    """The key of a subdir's patch instructions."""

    subdir: SubdirId


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderKey:
    """``CHANNEL/SUBDIR/``: no object; the indexer's own messages name a subdir by it."""

    subdir: SubdirId


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeSubdirKey:
    """``CHANNEL/SUBDIR/*``: no object; the indexer's own messages ask for a subdir's listing by it."""

    subdir: SubdirId


ParsedKey = ArtifactKey | AttestationsKey | PatchesKey | FolderKey | WholeSubdirKey


def parse_key(key: str) -> ParsedKey | None:
    """Parse a key that concerns an index; None for any other.

    Raises:
        InvalidNameError: it is named like an artifact, its attestations or patch instructions, and no
            such file can be indexed there.
    """
    if key.startswith(PRIVATE_PREFIX):
        return None
    folder, _, filename = key.rpartition("/")
    if not filename:
        return FolderKey(subdir=parse_subdir_id(folder))
    if filename == WHOLE_SUBDIR:
        return WholeSubdirKey(subdir=parse_subdir_id(folder))
    if filename == PATCH_INSTRUCTIONS:
        return PatchesKey(subdir=parse_subdir_id(folder))
    if is_subdir_key(key):
        raise InvalidNameError(
            f"key is the name of a subdir, not of a file in it: {key!r}",
            hint=f"end the target of 'aws s3 cp' with a slash: s3://BUCKET/{key}/",
        )
    if not is_artifact_like(filename):
        return None
    artifact = parse_artifact_key(key.removesuffix(ATTESTATIONS_SUFFIX))
    return artifact if str(artifact) == key else AttestationsKey(artifact=artifact)


def parse_artifact_key(key: str) -> ArtifactKey:
    """Parse an artifact's key: ``CHANNEL/SUBDIR/FILENAME``.

    Raises:
        InvalidNameError: wrong depth, or a part that breaks its grammar.
    """
    parts = key.split("/")
    if len(parts) != 3:  # noqa: PLR2004 - channel, subdir, filename
        raise InvalidNameError(
            f"key is not CHANNEL/SUBDIR/FILENAME: {key!r}",
            hint="upload to s3://BUCKET/CHANNEL/SUBDIR/, for instance .../team/noarch/",
        )
    channel, subdir, filename = parts
    return ArtifactKey(
        subdir=SubdirId(channel=parse_channel(channel), name=parse_subdir(subdir)),
        distribution=parse_filename(filename),
    )


def is_artifact_like(filename: str) -> bool:
    """Tell whether a file is named like an artifact or its attestations, in upper or lower case."""
    return kind_of(filename.lower().removesuffix(ATTESTATIONS_SUFFIX)) is not None


def platforms() -> frozenset[str]:
    """Return the subdirs of the platforms that exist, and ``noarch``."""
    names = {f"{system}-{one}" for system, architectures in _ARCHITECTURES.items() for one in architectures}
    return frozenset({NOARCH, *names})


def is_subdir_key(key: str) -> bool:
    """Tell whether an object has the name of a subdir: ``aws s3 cp`` to a folder without its final slash.

    Only of platforms that exist: any other file of a channel, such as ``release-notes``, may be there.
    """
    channel, _, name = key.partition("/")
    return bool(channel) and name in platforms()


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFiles:
    """The names of the files that readers find beside artifacts and shards."""

    channel: frozenset[str] = frozenset()
    """Outputs of a channel, and its notices."""
    subdir: frozenset[str] = frozenset()
    """Outputs of a subdir, and its shard index."""


def is_index_path(path: str, files: IndexFiles) -> bool:
    """Tell whether a path below a channel is of its index: an output, the tree, or a folder with a page.

    A folder may lack its final slash. What is neither this nor an artifact's is *unknown*.
    """
    *folders, filename = path.split("/")
    if not folders:
        return filename in {"", *files.channel} or is_subdir_name(filename)
    if not is_subdir_name(folders[0]):
        return False
    if len(folders) == 1:
        return filename in {"", SHARD_INDEX, *files.subdir}
    return folders[1:] == [SHARDS_FOLDER.rstrip("/")] and filename.endswith(_SHARD_SUFFIX)


def immutable_suffixes() -> tuple[str, ...]:
    """Return how the filenames of artifacts and shards end; the shard index, which is no shard, ends so, too."""
    return (*extensions(), _SHARD_SUFFIX)


def is_immutable_filename(filename: str) -> bool:
    """Tell whether a file is named like an artifact or a shard.

    The edge caches by this alone, the last part of a URL, which is the same whether a token is in front or not.
    """
    return filename != SHARD_INDEX and filename.endswith(immutable_suffixes())


def is_shard_path(path: str) -> bool:
    """Tell whether this is ``/CHANNEL/SUBDIR/shards/NAME``, with a shard's suffix."""
    return path.split("/")[3:-1] == [SHARDS_FOLDER.rstrip("/")] and path.endswith(_SHARD_SUFFIX)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubdirLayout:
    """Where the things of one subdir are."""

    subdir: SubdirId
    is_draft: bool = False
    """Its commits are drafts, which readers don't see: only the pointer differs."""

    @property
    def prefix(self) -> str:
        """The prefix of everything that readers find here."""
        return f"{self.subdir}/"

    @property
    def shard_index(self) -> str:
        """The pointer: the one key whose replacement is a commit."""
        return f"{DRAFTS_PREFIX if self.is_draft else ''}{self.subdir}/{SHARD_INDEX}"

    @property
    def whole(self) -> str:
        """The key by which a message asks for everything in the subdir."""
        return f"{self.subdir}/{WHOLE_SUBDIR}"

    @property
    def check_keys(self) -> tuple[str, str]:
        """The keys by which a message asks for a check of the whole subdir, and for all of its outputs."""
        return self.whole, self.prefix

    @property
    def shards_prefix(self) -> str:
        """The prefix of all shards."""
        return f"{self.subdir}/{SHARDS_FOLDER}"

    @property
    def cards_prefix(self) -> str:
        """The prefix of all cards."""
        return f"{CARDS_PREFIX}{self.subdir}/"

    @property
    def patch_instructions(self) -> str:
        """Where operators upload patch instructions."""
        return f"{self.subdir}/{PATCH_INSTRUCTIONS}"

    @property
    def tables(self) -> str:
        """The tables of large documents."""
        return f"{TABLES_PREFIX}{self.subdir}/tables.json.zst"

    @property
    def garbage(self) -> str:
        """The list of unreferenced shards and when each was first seen so."""
        return f"{GARBAGE_PREFIX}{self.subdir}/garbage.json"

    @property
    def recorded(self) -> str:
        """What cards say of the objects that they were made from; in a directory alone."""
        return f"{RECORDED_PREFIX}{self.subdir}/recorded.json.zst"

    @property
    def signals(self) -> str:
        """When other principals wrote index files here, and when they were checked."""
        return f"{SIGNALS_PREFIX}{self.subdir}/signals.json"

    def shard(self, sha256: str) -> str:
        """Return the key of a shard."""
        return f"{self.shards_prefix}{sha256}{_SHARD_SUFFIX}"

    def cards(self, sha256: str) -> str:
        """Return the key of the cards behind a shard."""
        return f"{self.cards_prefix}{sha256}{_CARDS_SUFFIX}"

    def patches_in_force(self, sha256: str) -> str:
        """Return the key of the copy of patch instructions that a commit names."""
        return f"{PATCHES_PREFIX}{self.subdir}/{sha256}.json"

    def file(self, filename: str) -> str:
        """Return the key of an output or an artifact."""
        return f"{self.subdir}/{filename}"

    def attestations(self, filename: str) -> str:
        """Return the key of an artifact's attestations."""
        return f"{self.subdir}/{filename}{ATTESTATIONS_SUFFIX}"

    def attestations_copy(self, filename: str, sha256: str) -> str:
        """Return the key of the immutable copy of an artifact's attestations."""
        return f"{self.attestations(filename)}.{sha256}"

    def shard_of(self, key: str) -> str | None:
        """Return the hash in a shard's or cards' key; None for any other key."""
        for prefix, suffix in ((self.shards_prefix, _SHARD_SUFFIX), (self.cards_prefix, _CARDS_SUFFIX)):
            if key.startswith(prefix) and key.endswith(suffix):
                return key.removeprefix(prefix).removesuffix(suffix)
        return None


def parse_attestations_copy(filename: str) -> tuple[str, str] | None:
    """Return the artifact and the hash in the filename of an immutable copy; None for any other filename."""
    artifact, separator, sha256 = filename.rpartition(f"{ATTESTATIONS_SUFFIX}.")
    return (artifact, sha256) if separator else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelLayout:
    """Where the things of a channel as a whole are."""

    channel: Channel

    @property
    def prefix(self) -> str:
        """The prefix of everything that readers find here."""
        return f"{self.channel}/"

    @property
    def state(self) -> str:
        """Which commits the channel's outputs show."""
        return f"{CHANNEL_STATE_PREFIX}{self.channel}/state.json.zst"

    def leaf(self, first: str) -> str:
        """Return the key of what each subdir says of some names, the first of which was this one."""
        return f"{CHANNEL_STATE_PREFIX}{self.channel}/leaves/{first}.json.zst"

    def file(self, filename: str) -> str:
        """Return the key of an output."""
        return f"{self.channel}/{filename}"


def replaced_key(key: str, etag: str) -> str:
    """Return where a file of another tool is kept that Fairway replaced or removed."""
    return f"{REPLACED_PREFIX}{key}/{hashlib.sha256(etag.encode()).hexdigest()[:_ID_CHARS]}"


def stale_key(key: str) -> str:
    """Return the key of the note that caches may keep what was under a key."""
    return f"{STALE_PREFIX}{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


def rejection_folder(key: str) -> str:
    """Return the prefix of all rejections of a key: below the key or, if that is too long, below its hash.

    A dot is in front of the hash, as no channel begins: publishers may read what begins with their channel.
    """
    # Keys of a directory need not be UTF-8: a lone surrogate stands for a byte that is not.
    encoded = key.encode(errors="surrogatepass")
    place = f".{hashlib.sha256(encoded).hexdigest()}" if len(encoded) > _MAX_REJECTED_KEY_BYTES else key
    return f"{REJECTED_PREFIX}{place}/"


def rejection_key(key: str, rejection_id: str) -> str:
    """Return the key of the document that says why an upload was rejected."""
    return f"{rejection_folder(key)}{rejection_id}/{_REJECTION}"


def rejected_object_key(key: str, rejection_id: str) -> str:
    """Return the key of the bytes of a rejected upload."""
    return f"{rejection_folder(key)}{rejection_id}/{_REJECTED_BYTES}"


def is_rejection_key(key: str) -> bool:
    """Tell whether this is the key of a rejection's document."""
    return key.startswith(REJECTED_PREFIX) and key.endswith(f"/{_REJECTION}")
